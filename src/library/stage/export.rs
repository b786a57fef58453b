//! `export`: a model or an adapter written for other programs.

use super::super::export;
use super::super::schema::{Filled, Given, Maybe, RefKind, Reference, Registry, Schema, kind};
use super::job::{Fold, Job, Routine};
use super::merge::folded;
use super::network::evaluation;
use super::{Diag, Sound, StageCx, StageKind};
use crate::library::error::NOTHING_TO_MERGE;

/// Exporting.
#[derive(Debug)]
pub(super) struct Export;

pub(crate) const FROM: Maybe<Reference> = Maybe::required(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose model or adapter to export",
);
pub(crate) const FORMAT: Maybe<Filled> = Maybe::required(
    "format",
    kind::entry(Registry::Export),
    "what it is exported as; `peftc list exports` names them all",
);
pub(crate) const TO: Maybe<str> = Maybe::required(
    "to",
    kind::STR,
    "the file, or for `mlx` the folder, relative to the recipe",
);
pub(crate) const FORCE: Given<bool> = Given::<bool>::new(
    "force",
    kind::BOOL,
    (false, "false"),
    "write blocks although rounding to them changes a matrix more than the adapter does",
);

static SCHEMA: Schema = Schema {
    name: "export",
    summary: "write a model or an adapter for llama.cpp, Ollama or mlx-lm",
    doc: "What the target has no name for is an error before anything runs. What was written is read back and compared before the stage \
          counts as done.",
    paper: "",
    keys: &[FROM.key(), FORMAT.key(), TO.key(), FORCE.key()],
};

impl StageKind for Export {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let tuning = cx.tuning.frozen();
        let filled = FORMAT.get(cx.values);
        let target = filled.and_then(|f| Some(export::export(&f.name)?.target(&f.values)));
        let Some(target) = target else {
            return Err(Vec::new());
        };
        let (_, built) = evaluation(cx, &tuning, false);
        let (sites, biases) = if target.is_model() {
            folded(&tuning, &built, FROM.span(cx.values))?
        } else {
            let other = tuning
                .methods
                .iter()
                .find(|(m, _)| m.schema().name != "lora");
            let at = FORMAT.span(cx.values);
            if let Some((method, _)) = other {
                let message = format!(
                    "`{}` is no LoRA, and adapters of other kinds have no name in this format",
                    method.schema().name
                );
                return Err(vec![
                    Diag::error(&NOTHING_TO_MERGE, at, message)
                        .help("export the whole model instead: `format = gguf`"),
                ]);
            }
            if tuning.methods.is_empty() {
                let message = "this stage leaves no adapter to export";
                return Err(vec![
                    Diag::error(&NOTHING_TO_MERGE, at, message)
                        .help("export the whole model instead: `format = gguf`"),
                ]);
            }
            (Vec::new(), Vec::new())
        };
        let fold = Fold {
            sites,
            biases,
            target,
            mix: None,
            to: TO.get(cx.values).map(Into::into),
            force: FORCE.get(cx.values),
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Fold(fold),
        })
    }
}
