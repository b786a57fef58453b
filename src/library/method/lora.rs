//! LoRA (methods R1): `y = x W₀ᵀ + b + s · (Drop(x) Aᵀ) Bᵀ`, `A: [r, in]`, `B: [out, r]`.

use serde_json::{Map, Value as Json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Refused, Used, WithoutEffect};
use super::super::peft::{
    Config, HeadUpdate, Keys, Misfit, Patterns, Place, Reading, START as BEGAN,
};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::error::RANK_TOO_LARGE;
use crate::library::placement::Placement;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul};

/// Low-rank additive update.
#[derive(Debug)]
pub struct Lora;

// Keys of every method with LoRA's tensors.
pub(crate) const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::int(1, u64::MAX),
    (8, "8"),
    "rank r of the update",
);
pub(crate) const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (8.0, "8"),
    "scale: the update is multiplied by alpha / rank",
);
pub(crate) const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "dropout on the adapter's input",
);
pub(crate) const RS_LORA: Given<bool> = Given::<bool>::new(
    "rs_lora",
    kind::BOOL,
    (false, "false"),
    "scale by alpha / √rank instead",
);
pub(crate) const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention.{query, value}",
    "which linear maps get an adapter",
);

pub(crate) const START: Maybe<str> = Maybe::new(
    "start",
    kind::STR,
    "directory of a peft LoRA adapter to start from, relative to the recipe; rank, alpha, scaling, placement and saved modules are then the adapter's, and so is dropout where it is not written",
);
pub(crate) const MODULES_TO_SAVE: Maybe<[String]> = Maybe::new(
    "modules_to_save",
    kind::NAMES,
    "modules trained whole beside the update, by their paths or ends of them, and kept with the adapter; the head always is",
);

static SCHEMA: Schema = Schema {
    name: "lora",
    summary: "low-rank adaptation: a trained product B·A beside each frozen matrix",
    doc: "y = x W0ᵀ + b + s · (dropout(x) Aᵀ) Bᵀ with A [rank, in] uniform in ±1/√in and B [out, rank] zero, so the \
          model starts unchanged. s = alpha / rank, or alpha / √rank with `rs_lora`. Merges exactly into plain weights \
          and is written in peft's format.",
    paper: "Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        RS_LORA.key(),
        START.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// `base + s · (Drop(x) Aᵀ) Bᵀ`
pub(super) fn add_update(at: &At<'_>, net: &mut Net<'_>, base: Value, x: Value) -> Value {
    let (a, bt) = factors(at, net);
    let dropped = net.dropout_before(x, DROPOUT.get(at.values), a);
    let z = net.project(dropped, a);
    net.project_onto(base, z, bt, scale(at.values))
}

/// `W + s · B A`
pub(super) fn add_product(at: &At<'_>, net: &mut Net<'_>, weight: Value) -> Value {
    let (a, b) = factors(at, net);
    let op = MatMul {
        epilogue: Epilogue::Accumulate,
        ..MatMul::plain(false, false, Real::new(scale(at.values)))
    };
    net.b.push1(op, &[b, a, weight])
}

/// The factor of the update.
#[must_use]
pub(super) fn scale(values: &Values) -> f64 {
    let rank = RANK.get(values) as f64;
    ALPHA.get(values)
        / if RS_LORA.get(values) {
            rank.sqrt()
        } else {
            rank
        }
}

/// The complaint about a rank larger than the matrix, if it is.
pub(super) fn check_rank(values: &Values, of: &Given<u64>, site: &Site) -> Option<Complaint> {
    let key = of.name();
    let (rank, most) = (of.get(values), site.input().min(site.output()));
    (rank > most).then(|| Complaint {
        key,
        code: &RANK_TOO_LARGE,
        message: format!(
            "`{key}` is {rank}, but `{}` is a matrix of {} × {}",
            site.path,
            site.output(),
            site.input()
        ),
        help: Some(format!("write at most `{key} = {most}`")),
    })
}

/// The keys of peft's `LoraConfig`, up to 0.21, and those that older versions wrote.
pub(super) const PEFT_KEYS: Keys = &[
    ("alora_invocation_tokens", Refused),
    ("alpha_pattern", Used),
    ("arrow_config", Refused),
    ("bias", Only(&["\"none\""])),
    ("corda_config", WithoutEffect(BEGAN)),
    (
        "enable_lora",
        WithoutEffect("of fused projections, which these models do not have"),
    ),
    (
        "ensure_weight_tying",
        WithoutEffect("of tied embeddings, which are refused as targets"),
    ),
    ("eva_config", WithoutEffect(BEGAN)),
    (
        "init_lora_weights",
        // These start A and B elsewhere and leave the base weights alone; others change them.
        Only(&["true", "\"gaussian\"", "\"eva\"", "\"orthogonal\""]),
    ),
    ("kasa_config", Refused),
    ("layer_replication", Refused),
    (
        "loftq_config",
        WithoutEffect("read beside `init_lora_weights` only"),
    ),
    ("lora_alpha", Used),
    ("lora_bias", Refused),
    ("lora_dropout", Used),
    ("lora_ga_config", WithoutEffect(BEGAN)),
    ("megatron_config", Refused),
    (
        "megatron_core",
        WithoutEffect("read beside `megatron_config` only"),
    ),
    (
        "merge_weights",
        WithoutEffect("when peft folded the product in, not what it is"),
    ),
    ("monteclora_config", Refused),
    (
        "qalora_group_size",
        WithoutEffect("read beside `use_qalora` only"),
    ),
    ("r", Used),
    ("rank_pattern", Used),
    ("runtime_config", WithoutEffect("how peft runs")),
    ("target_parameters", Refused),
    ("trainable_token_indices", Refused),
    ("use_bdlora", Refused),
    ("use_dora", Used),
    ("use_qalora", Refused),
    ("use_rslora", Used),
    (
        "velora_config",
        WithoutEffect("changes the backward pass of a training only"),
    ),
];

/// The sizes of an adapter of peft's at each of its modules.
struct Sizes {
    rank: u64,
    alpha: f64,
    ranks: Patterns<u64>,
    alphas: Patterns<f64>,
    dropout: f64,
    rs_lora: bool,
}

impl Sizes {
    fn read(config: &Config) -> Result<Self, Misfit> {
        let alpha = config.number("lora_alpha", 8.0)?;
        if alpha <= 0.0 {
            let what = format!("`lora_alpha` must be above 0, not {alpha}");
            return Err(Misfit::of_config(what));
        }
        Ok(Self {
            rank: config.positive("r", 8)?,
            alpha,
            ranks: config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?,
            alphas: config.patterns("alpha_pattern", |v| v.as_f64().filter(|&a| a > 0.0))?,
            dropout: config.rate("lora_dropout")?,
            rs_lora: config.flag("use_rslora", false)?,
        })
    }

    /// Rank and alpha of a module.
    fn of(&self, module: &str) -> (u64, f64) {
        let rank = self.ranks.of(module).unwrap_or(self.rank);
        (rank, self.alphas.of(module).unwrap_or(self.alpha))
    }
}

/// Reads the pairs of an adapter of peft's and puts `method` where they are; `more` takes what else is there, of these names.
pub(super) fn read_pairs(
    file: &mut Reading<'_>,
    method: &'static dyn Method,
    (names, more): (
        &[&str],
        fn(&mut Reading<'_>, &Place<'_>) -> Result<(), Misfit>,
    ),
) -> Result<(), Misfit> {
    let known = [&["lora_A.weight", "lora_B.weight"], names].concat();
    let sizes = Sizes::read(file.config())?;
    let (places, head) = file.all_places()?;
    for place in places.iter().chain(&head) {
        place.only(&known)?;
    }
    for place in places {
        let (rank, alpha) = sizes.of(&place.module);
        let (site, [a, b]) = (place.site, ["lora_A.weight", "lora_B.weight"]);
        file.take(&place.name(a), place.own(a), &[rank, site.input()])?;
        file.take(&place.name(b), place.own(b), &[site.output(), rank])?;
        file.idle(&place.name(b), 0.0);
        more(file, &place)?;
        let values = vec![
            (RANK.name(), Checked::Int(rank)),
            (ALPHA.name(), Checked::Float(alpha)),
            (RS_LORA.name(), Checked::Bool(sizes.rs_lora)),
            (DROPOUT.name(), Checked::Float(sizes.dropout)),
        ];
        file.put(method, site, values);
    }
    for place in head {
        let (rank, alpha) = sizes.of(&place.module);
        let (a, b) = (place.name("lora_A.weight"), place.name("lora_B.weight"));
        file.check_shape(&a, &[rank, place.site.input()])?;
        // How many classes there are is known later.
        let rows = file.shape(&b).and_then(|shape| shape.first().copied());
        file.check_shape(&b, &[rows.unwrap_or_default(), rank])?;
        file.read(&a)?;
        file.read(&b)?;
        file.idle(&b, 0.0);
        let divisor = if sizes.rs_lora {
            (rank as f64).sqrt()
        } else {
            rank as f64
        };
        file.put_in_head(HeadUpdate {
            module: place.site.path.clone(),
            a,
            b,
            scale: alpha / divisor,
        });
    }
    Ok(())
}

impl Method for Lora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_rank(values, &RANK, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        add_update(at, net, base, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        Some(add_product(at, net, weight))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm::lora(product(values), false))
    }

    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        let dora = config.get("use_dora") == Some(&Json::Bool(true));
        (kind == "LORA" && !dora).then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        read_pairs(file, &Lora, (&[], |_, _| Ok(())))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (rank, input, output) = (
            RANK.get(values) as usize,
            site.input() as usize,
            site.output() as usize,
        );
        let tensor = |suffix: &str, shape: [usize; 2]| {
            Some((suffix.to_owned(), shape.to_vec(), get(suffix)?))
        };
        Some(vec![
            tensor("lora_A.weight", [rank, input])?,
            tensor("lora_B.weight", [output, rank])?,
        ])
    }
}

/// The update as peft has it.
pub(super) fn product(values: &Values) -> Product {
    Product {
        rank: RANK.get(values),
        scale: scale(values),
        dropout: DROPOUT.get(values),
        rs_lora: RS_LORA.get(values),
    }
}

/// `A [r, in]` and `B [out, r]` under peft's names.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank) = (at.site, RANK.get(at.values));
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, "lora_A.weight").shape(&[rank, site.input()]);
    let b = Param::at(site, "lora_B.weight").shape(&[site.output(), rank]);
    (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b))
}
