//! `merge`: adapters folded into plain weights.

use super::super::method;
use super::super::net::{Mode, Net, NetOptions};
use super::super::schema::{Default, Key, Kind, RefKind, Schema};
use super::job::{Fold, Job, Routine};
use super::network::{evaluation, verified};
use super::{Diag, Sound, Span, StageCx, StageKind};
use crate::library::error::NOTHING_TO_MERGE;
use crate::program::{Builder, DType};

/// Merging.
#[derive(Debug)]
pub(super) struct Merge;

static SCHEMA: Schema = Schema {
    name: "merge",
    summary: "fold adapters into plain weights: a model any program can load",
    doc: "Leaves a model directory in the Hugging Face layout that gives the same scores as the adapted model. Works \
          tensor by tensor, so it needs far less memory than the model.",
    paper: "",
    keys: &[
        Key {
            name: "from",
            kind: Kind::Ref(RefKind::Stage),
            default: Default::Required,
            doc: "the stage whose adapters to fold in",
        },
        Key {
            name: "dtype",
            kind: Kind::Choice(&["f32", "f16", "bf16"]),
            default: Default::Text("f32"),
            doc: "type of the written weights",
        },
        Key {
            name: "to",
            kind: Kind::Str,
            default: Default::Absent,
            doc: "directory, relative to the recipe, to copy the model to",
        },
    ],
};

/// What a method adds is no plain weight.
fn no_fold(name: &str, at: Span) -> Diag {
    let message = format!("`{name}` cannot be folded into plain weights");
    Diag::error(&NOTHING_TO_MERGE, at, message)
        .help("evaluate it or predict with it as it is; its artifact holds what was trained alone")
}

impl StageKind for Merge {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn merges(&self) -> bool {
        true
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let tuning = cx.tuning.frozen();
        if let Some((method, _)) = tuning.methods.iter().find(|(m, _)| m.ladders()) {
            let name = method.schema().name;
            let diag = Diag::error(&NOTHING_TO_MERGE, cx.values.span("from"), format!("`{name}` is a network beside the model and cannot be folded into its weights"))
                .help("evaluate it or predict with it as it is; its artifact holds the side network alone");
            return Err(vec![diag]);
        }
        let unfolded = |(m, _): &&(&dyn method::Method, _)| m.adapts() && !m.folds();
        if let Some((method, _)) = tuning.methods.iter().find(unfolded) {
            return Err(vec![no_fold(method.schema().name, cx.values.span("from"))]);
        }
        let (_, built) = evaluation(cx, &tuning, false);
        let mut sites = Vec::new();
        for site in &built.sites {
            let stack = tuning.stack(site);
            let Some((method, _)) = stack.last() else {
                continue;
            };
            let mut b = Builder::new("merge");
            let options = NetOptions {
                mode: Mode::Evaluate,
                storage: DType::F32.into(),
                seed: 0,
                dropout_frozen: false,
                probed: std::collections::BTreeSet::new(),
                sites: built.sites.clone(),
            };
            let mut net = Net::new(&mut b, &tuning, options);
            net.b.label(&site.path);
            let Some(weight) = method::weight(&mut net, site, &stack) else {
                return Err(vec![no_fold(method.schema().name, cx.values.span("from"))]);
            };
            b.output("weight", weight);
            sites.push((site.clone(), verified(b.finish())));
        }
        // One whose product is all in the head is folded already.
        if sites.is_empty() && !tuning.leaves_adapter() {
            let diag = Diag::error(
                &NOTHING_TO_MERGE,
                cx.values.span("from"),
                "this stage leaves no adapter to merge",
            )
            .help("its artifact is a plain model already: use it as it is");
            return Err(vec![diag]);
        }
        let dtype = match cx.values.str("dtype") {
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            _ => DType::F32,
        };
        let fold = Fold {
            sites,
            dtype,
            to: cx.values.str("to").map(Into::into),
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fold(fold),
        })
    }
}
