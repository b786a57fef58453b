//! What a device has no kernel for, found while nothing has been executed.

use super::error::NO_KERNEL;
use super::{Plan, Stage};
use crate::base::{Diag, Diags, Span};
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::program::op::launch::{Missing, without_launches};

/// Labels of the nodes of a network beside the model begin so.
const SIDE: &str = "side.";

impl Plan {
    /// Refuses stages whose programs a GPU has no kernels for. Those that are `finished` will not run there, and
    /// merging is the host's arithmetic wherever programs run.
    pub fn check_kernels(&self, finished: &dyn Fn(&Stage) -> bool, diags: &mut Diags) {
        for stage in &self.stages {
            let missing = missing(stage);
            if !missing.is_empty() && !finished(stage) {
                missing.iter().for_each(|m| diags.push(refused(stage, m)));
            }
        }
    }
}

/// What a stage's programs want and no kernel does, each thing once.
fn missing(stage: &Stage) -> Vec<Missing> {
    if let Routine::Fold(_) = stage.job.routine {
        return Vec::new();
    }
    let mut list: Vec<Missing> = Vec::new();
    for verified in stage.job.first().chain(stage.job.programs()) {
        for one in without_launches(verified.program()) {
            // Forward and backward lack the same thing: one of them is reported.
            let same = |m: &Missing| m.why == one.why && from_adapter(m) == from_adapter(&one);
            if !list.iter().any(same) {
                list.push(one);
            }
        }
    }
    list
}

fn from_adapter(missing: &Missing) -> bool {
    missing.label.starts_with(SIDE)
}

fn refused(stage: &Stage, missing: &Missing) -> Diag {
    let values = &stage.filled.values;
    let (name, model) = (&stage.declared, &stage.start.model.name);
    let methods = ["adapter", "adapters"].into_iter();
    let key = methods.clone().find(|key| values.written(key));
    let parent = keys::FROM.get(values).map(|_| "from");
    let (key, owner) = match key.filter(|_| from_adapter(missing)) {
        Some(key) => (Some(key), "the adapter needs it".to_owned()),
        None if from_adapter(missing) => (parent, "the adapter needs it".to_owned()),
        None => (
            parent.or(Some("model")),
            format!("the model `{model}` needs it, at `{}`", missing.label),
        ),
    };
    let at = key.map_or(stage.name.span, |key| values.span(key));
    let at = if at == Span::default() {
        stage.name.span
    } else {
        at
    };
    let message = format!(
        "stage `{name}` cannot run on a GPU: there is no kernel of `{}` for it; {}",
        missing.op, missing.why
    );
    let help = format!(
        "run this stage on the processor (`peftc run --stage {name} --device cpu`): once it is in the store, the \
         others run on the GPU"
    );
    Diag::error(&NO_KERNEL, at, message)
        .label(owner)
        .related(stage.name.span, "this stage")
        .help(help)
}
