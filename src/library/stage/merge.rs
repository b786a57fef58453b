//! `merge`: adapters folded into plain weights.

use super::super::export::Target;
use super::super::method::{self, Tuning};
use super::super::net::{Mode, Net, NetOptions, ParamKind, Part, Role, Site};
use super::super::schema::{Given, Maybe, RefKind, Reference, Schema, Values, kind};
use super::job::{Fold, Job, Routine};
use super::keys;
use super::network::{Built, evaluation, verified};
use super::train::exactly_one;
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};
use crate::library::error::NOTHING_TO_MERGE;
use crate::program::Value;
use crate::program::format::Storing;
use crate::program::{Builder, DType, Verified};

/// Merging.
#[derive(Debug)]
pub(super) struct Merge;

const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose adapters to fold in",
);
const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "a model to fold `adapter` into, instead of `from`",
);
const DTYPE: Given<str> = Given::<str>::new(
    "dtype",
    kind::choice(&["f32", "f16", "bf16"]),
    ("f32", "f32"),
    "type of the written weights",
);

static SCHEMA: Schema = Schema {
    name: "merge",
    summary: "fold adapters into plain weights: a model any program can load",
    doc: "Leaves a model directory in the Hugging Face layout that gives the same scores as the adapted model. Works \
          tensor by tensor, so it needs far less memory than the model. In 16 bits, `result.json` has of each matrix how much \
          rounding changed it (`rounding`), beside how much the adapter did (`update`).",
    paper: "",
    keys: &[
        FROM.key(),
        MODEL.key(),
        keys::APPLIED.key(),
        DTYPE.key(),
        keys::TO.key(),
    ],
};

/// What a method adds is no plain weight.
fn no_fold(name: &str, at: Span) -> Diag {
    let message = format!("`{name}` cannot be folded into plain weights");
    Diag::error(&NOTHING_TO_MERGE, at, message)
        .help("evaluate it or predict with it as it is; its artifact holds what was trained alone")
}

/// Sites, each with a program that makes one of its tensors plain.
pub(super) type Folded = Vec<(Site, Verified)>;

/// The programs of the weights that what is on sites is folded into, and those of biases.
pub(super) fn folded(
    tuning: &Tuning,
    built: &Built,
    at: Span,
) -> Result<(Folded, Folded), Vec<Diag>> {
    if let Some((method, _)) = tuning.methods.iter().find(|(m, _)| m.ladders()) {
        let name = method.schema().name;
        let diag = Diag::error(
            &NOTHING_TO_MERGE,
            at,
            format!("`{name}` is a network beside the model and cannot be folded into its weights"),
        )
        .help("evaluate it or predict with it as it is; its artifact holds the side network alone");
        return Err(vec![diag]);
    }
    let unfolded = |(m, _): &&(&dyn method::Method, _)| m.adapts() && !m.folds();
    if let Some((method, _)) = tuning.methods.iter().find(unfolded) {
        return Err(vec![no_fold(method.schema().name, at)]);
    }
    let (mut sites, mut biases) = (Vec::new(), Vec::new());
    let tied = is_tied(built);
    // What is on a norm is the norm itself, trained.
    let holds = |s: &&Site| s.is_linear() || matches!(s.part, Part::Table { .. });
    for site in built.sites.iter().filter(holds) {
        let stack = tuning.stack(site);
        let Some((method, _)) = stack.last() else {
            continue;
        };
        let one = |(m, v): &&(&dyn method::Method, &Values)| match site.role {
            Role::LmDecoder => tied,
            Role::WordEmbedding => tied && !m.ties(v),
            _ => false,
        };
        if let Some((method, _)) = stack.iter().find(one) {
            return Err(vec![one_of_both(method.schema().name, site, at)]);
        }
        let weight = program(tuning, built, site, |net| method::weight(net, site, &stack));
        let Some(weight) = weight else {
            return Err(vec![no_fold(method.schema().name, at)]);
        };
        sites.push((site.clone(), weight));
        let moves = |&(m, values): &(&dyn method::Method, &Values)| m.moves_bias(values, site);
        if site.has_bias()
            && stack.iter().any(moves)
            && let Some(bias) = program(tuning, built, site, |net| method::bias(net, site, &stack))
        {
            biases.push((site.clone(), bias));
        }
    }
    Ok((sites, biases))
}

/// Whether the head for tokens is the table of embeddings.
fn is_tied(built: &Built) -> bool {
    let mut params = built.params.iter().filter(|p| p.role == Role::LmDecoder);
    let own = params.clone().any(|p| p.kind == ParamKind::Embedding);
    let head = params.next().is_some() || built.sites.iter().any(|s| s.role == Role::LmDecoder);
    head && !own
}

/// What changes one of two that are one matrix in the model's files.
fn one_of_both(name: &str, site: &Site, at: Span) -> Diag {
    let message = format!(
        "`{name}` on `{}` cannot be folded in: the head and the embeddings are one matrix of this model, and it changes one of \
         them",
        site.path
    );
    Diag::error(&NOTHING_TO_MERGE, at, message).help(
        "evaluate it or predict with it as it is, or place it on linear maps of the blocks alone",
    )
}

/// A program that makes one tensor of a site; `None` where there is no such tensor.
fn program(
    tuning: &Tuning,
    built: &Built,
    site: &Site,
    make: impl FnOnce(&mut Net<'_>) -> Option<Value>,
) -> Option<Verified> {
    let mut b = Builder::new("merge");
    let options = NetOptions {
        parts: false,
        route: 0,
        steps: None,
        until: None,
        mode: Mode::Evaluate,
        storage: Storing::default(),
        seed: 0,
        dropout_frozen: false,
        probed: std::collections::BTreeSet::new(),
        sites: built.sites.clone(),
    };
    let mut net = Net::new(&mut b, tuning, options);
    net.b.label(&site.path);
    let made = make(&mut net)?;
    b.output("folded", made);
    Some(verified(b.finish()))
}

impl StageKind for Merge {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn merges(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("from", "model"), span, diags);
        // Beside `from` it is complained about already.
        let alone = MODEL.is_written(values) && !FROM.is_written(values);
        if alone && !keys::APPLIED.is_written(values) {
            let message = "the model has no adapter to fold in";
            let diag = Diag::error(&NOTHING_TO_MERGE, MODEL.span(values), message);
            diags.push(diag.help("write `adapter = peft \"DIR\"` beside it"));
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
        let (sites, biases) = folded(&tuning, &built, at)?;
        // One whose product is all in the head is folded already.
        if sites.is_empty() && !tuning.exports_adapter() {
            let diag = Diag::error(
                &NOTHING_TO_MERGE,
                at,
                "this stage leaves no adapter to merge",
            )
            .help("its artifact is a plain model already: use it as it is");
            return Err(vec![diag]);
        }
        let dtype = match DTYPE.find(cx.values) {
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            _ => DType::F32,
        };
        let fold = Fold {
            sites,
            biases,
            target: Target::Folder(dtype),
            mix: None,
            to: keys::TO.get(cx.values).map(Into::into),
            force: false,
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fold(fold),
        })
    }
}
