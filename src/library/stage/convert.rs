//! `convert`: what adapters change, as a LoRA in peft's format.

use super::super::combine::{Combination, Keep};
use super::super::export::Target;
use super::super::method::import;
use super::super::net::{Role, Site};
use super::super::schema::{
    Bound, Filled, Given, Maybe, Portion, RefKind, Reference, Registry, Schema, Values, kind,
};
use super::job::{Fold, Job, Mix, Routine};
use super::keys;
use super::merge::folded;
use super::network::evaluation;
use super::train::{conflict, exactly_one};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};
use crate::library::error::NOTHING_TO_MERGE;

/// Conversion.
#[derive(Debug)]
pub(super) struct Convert;

const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose adapter to convert",
);
const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "the model that `adapter` or `adapters` are on, instead of `from`",
);
pub(crate) const ADAPTERS: Maybe<[Filled]> = Maybe::new(
    "adapters",
    kind::entries(Registry::Method),
    "several LoRA adapters of the library peft to make one of, each with its weight: `[peft \"A\" { weight = 0.5 }, peft \"B\" { weight = 0.5 }]`",
);
const COMBINE: Maybe<str> = Maybe::filled(
    "combine",
    kind::choice(Combination::NAMES),
    "svd",
    "how `adapters` become one, as peft's `add_weighted_adapter` has it; `…_svd` acts on the updates and takes the nearest pair, \
     the others act on A and B",
);
const DENSITY: Maybe<f64> = Maybe::new(
    "density",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    "part of the numbers that `ties`, `dare` and `magnitude_prune` keep of each adapter",
);
const MAJORITY: Given<str> = Given::<str>::new(
    "majority",
    kind::choice(&["total", "frequency"]),
    ("total", "total"),
    "which sign prevails in `ties`: that of the sum, or the more frequent one",
);
const SEED: Given<u64> = Given::<u64>::new(
    "seed",
    kind::SEED,
    (0, "0"),
    "seed of the parts that `dare` keeps",
);
const RANK: Maybe<u64> = Maybe::new(
    "rank",
    kind::WIDTH,
    "rank of each pair; of several adapters the largest of theirs if not written",
);
const ENERGY: Maybe<Portion> = Maybe::new(
    "energy",
    kind::SHARE,
    "share of the squared singular values that each pair keeps, 99%: its rank is the least that does",
);
const TO: Maybe<str> = Maybe::required("to", kind::STR, "the folder, relative to the recipe");

static SCHEMA: Schema = Schema {
    name: "convert",
    summary: "write what adapters change as a LoRA in peft's format, by singular value decompositions",
    doc: "Of each adapted matrix the update W' - W is decomposed; the LoRA holds its first singular vectors, B = U S and A = V, \
          with alpha equal to the rank. The result names the length of what is lost of each update. With `adapters` several \
          LoRAs become one. The folder is taken by `adapter = peft \"DIR\"` and by the library peft.",
    paper: "TIES: Yadav et al. 2023 (arXiv 2306.01708); DARE: Yu et al. 2023 (arXiv 2311.03099)",
    keys: &[
        FROM.key(),
        MODEL.key(),
        keys::APPLIED.key(),
        ADAPTERS.key(),
        COMBINE.key(),
        DENSITY.key(),
        MAJORITY.key(),
        SEED.key(),
        RANK.key(),
        ENERGY.key(),
        TO.key(),
    ],
};

/// How much is kept.
fn keep(values: &Values) -> Keep {
    match (RANK.get(values), ENERGY.get(values)) {
        (Some(rank), _) => Keep::Rank(rank),
        (None, Some(Portion::Share(share, of))) => Keep::Energy(share, of),
        _ => Keep::Largest,
    }
}

/// How several adapters become one.
fn combination(values: &Values) -> Option<Combination> {
    let (rule, updates) = Combination::named(COMBINE.get(values)?)?;
    Some(Combination {
        rule,
        updates,
        density: DENSITY.get(values).unwrap_or(1.0),
        frequency: MAJORITY.get(values) == "frequency",
        seed: SEED.get(values),
    })
}

/// The adapters that are made one, with their weights.
fn mix(values: &Values) -> Option<Mix> {
    let list = ADAPTERS.get(values)?;
    let folders = list.iter().filter_map(import::folder);
    let weights = list.iter().filter_map(|f| import::WEIGHT.get(&f.values));
    Some(Mix {
        folders: folders.map(Into::into).collect(),
        weights: weights.collect(),
        how: combination(values)?,
    })
}

impl StageKind for Convert {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("from", "model"), span, diags);
        if MODEL.is_written(values) {
            exactly_one(values, ("adapter", "adapters"), span, diags);
        }
        let Some(list) = ADAPTERS.get(values) else {
            exactly_one(values, ("rank", "energy"), span, diags);
            for key in ["combine", "density", "majority", "seed"] {
                if values.written(key) {
                    let says = format!("`{key}` is for several adapters");
                    conflict(
                        diags,
                        values.span(key),
                        &says,
                        "remove it, or write `adapters = [peft \"A\" { … }, …]`",
                    );
                }
            }
            return;
        };
        if FROM.is_written(values) {
            let says = "`adapters` are on a model, and `from` names a stage";
            conflict(
                diags,
                ADAPTERS.span(values),
                says,
                "write `model = …` instead of `from`",
            );
        }
        if let Some(other) = list.iter().find(|f| import::folder(f).is_none()) {
            let says = format!("`{}` is no finished adapter", other.name);
            conflict(diags, other.span, &says, "write `peft \"DIR\"`");
        }
        if let Some(other) = list
            .iter()
            .find(|f| import::WEIGHT.get(&f.values).is_none())
        {
            let says = "it is not said how much this adapter counts";
            let help = "write a weight for each: `peft \"DIR\" { weight = 0.5 }`";
            conflict(diags, other.span, says, help);
        }
        let Some(how) = combination(values) else {
            return;
        };
        if how.prunes() != DENSITY.is_written(values) {
            let (says, help) = match how.prunes() {
                true => (
                    "`combine` keeps a part of each adapter, and `density` does not say which",
                    "write `density = 0.5`",
                ),
                false => ("`density` has no effect: `combine` keeps all", "remove it"),
            };
            let at = if how.prunes() {
                COMBINE.span(values)
            } else {
                DENSITY.span(values)
            };
            conflict(diags, at, says, help);
        }
        for key in ["rank", "energy"] {
            if values.written(key) && !how.updates {
                let says =
                    format!("`{key}` has no effect: `combine` acts on A and B, whose ranks stay");
                conflict(
                    diags,
                    values.span(key),
                    &says,
                    "remove it, or choose a rule that ends with `svd`",
                );
            }
        }
        if RANK.is_written(values) && ENERGY.is_written(values) {
            conflict(
                diags,
                ENERGY.span(values),
                "`rank` and `energy` are both written",
                "keep one of them",
            );
        }
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let tuning = cx.tuning.frozen();
        let key = if FROM.is_written(cx.values) {
            FROM.name()
        } else {
            MODEL.name()
        };
        let at = cx.values.span(key);
        let (_, built) = evaluation(cx, &tuning, false);
        let mix = mix(cx.values);
        let (sites, biases) = match mix {
            Some(_) => (Vec::new(), Vec::new()),
            None => folded(&tuning, &built, at)?,
        };
        if let Some((site, _)) = biases.first() {
            let message = format!(
                "what is on `{}` moves its bias too, and a LoRA holds no biases",
                site.path
            );
            let diag = Diag::error(&NOTHING_TO_MERGE, at, message);
            return Err(vec![diag.help("merge the stage instead")]);
        }
        let map = |s: &Site| s.is_linear() && s.role != Role::LmDecoder;
        if let Some((site, _)) = sites.iter().find(|(site, _)| !map(site)) {
            let message = format!(
                "what is on `{}` is converted to no LoRA: it is no linear map of the blocks",
                site.path
            );
            let diag = Diag::error(&NOTHING_TO_MERGE, at, message);
            return Err(vec![diag.help("merge the stage instead")]);
        }
        if sites.is_empty() && mix.is_none() {
            let diag = Diag::error(&NOTHING_TO_MERGE, at, "there is no adapter to convert");
            return Err(vec![diag.help("name a stage that leaves an adapter")]);
        }
        let fold = Fold {
            sites,
            biases,
            target: Target::Lora(keep(cx.values)),
            mix,
            to: TO.get(cx.values).map(Into::into),
            force: false,
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fold(fold),
        })
    }
}
