//! Bringing a stage's tensors into memory: from checkpoints, from an earlier stage's adapter, from
//! a peft adapter, or from their initialisers.

use std::collections::{BTreeMap, BTreeSet};

use self::loader::Loader;
use self::prune::Guide;
use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::files::weights::Checkpoint;
use crate::files::weights::TensorFile;
use crate::library::model::Model;
use crate::library::net::Param;
use crate::library::peft::Ready;
use crate::program::format::Storing;
use crate::program::op::Tensor;
use crate::program::{Bindings, Class, Resident};

mod adapter;
pub mod init;
mod loader;
pub mod prune;
mod unread;

/// Where a stage's tensors come from.
#[derive(Debug, Default)]
pub struct Origins {
    /// Plain weights; `None` for random ones.
    pub weights: Option<Checkpoint>,
    /// Plain weights that another training of the same model left, to be compared with.
    pub tuned: Option<Checkpoint>,
    /// An adapter left by an earlier stage.
    pub adapter: Option<TensorFile>,
    /// Tensors of adapters in peft's format, by our parameter names.
    pub given: BTreeMap<String, Tensor>,
    /// What such adapters change of the model's own parameters, in their order.
    pub edits: BTreeMap<String, Vec<Ready>>,
    /// How the stage stores frozen matrices of the plain weights. What is computed from one in blocks, or takes its
    /// place in a file, is what the blocks decode to.
    pub storage: Storing,
    /// Whether the head of the plain weights is one of other classes.
    pub fresh_head: bool,
    /// Seed of random weights.
    pub weights_seed: u64,
    /// Seed of heads and adapters.
    pub seed: u64,
    /// Whether a head or an adapter that nothing holds is made; otherwise it is missing.
    pub fresh: bool,
}

/// First values of tensors by name, which adapters keep for exports and for what is made again: small.
pub type Initial = BTreeMap<String, Tensor>;

/// Loads the residents asked for, one tensor at a time, but for those that are in memory; zeroes
/// optimizer state and accumulators.
///
/// # Errors
/// A missing or misshapen tensor, an unreadable file.
pub fn load(
    runner: &mut Runner,
    params: &[Param],
    residents: &[&Resident],
    model: &dyn Model,
    sources: &Origins,
) -> Result<(), RunError> {
    let how = (Guide::nothing(), false);
    load_pruned(runner, params, residents, model, sources, how).map(|_| ())
}

/// The same, with what was measured of the backbone to prune it by. Gives the initial values that exports need, if they
/// are to be kept.
///
/// # Errors
/// A missing or misshapen tensor, an unreadable file.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
pub(in crate::exec) fn load_pruned(
    runner: &mut Runner,
    params: &[Param],
    residents: &[&Resident],
    model: &dyn Model,
    sources: &Origins,
    (guide, keeps): (Guide, bool),
) -> Result<Initial, RunError> {
    let _span = tracing::debug_span!("load", tensors = residents.len()).entered();
    let wanted: BTreeMap<&str, &Resident> =
        residents.iter().map(|r| (r.name.as_str(), *r)).collect();
    let mut loader = Loader {
        keeps,
        model,
        sources,
        params,
        made: Vec::new(),
        dealt: None,
        initial: Initial::new(),
    };
    let mut seen = BTreeSet::new();
    loader.measured(runner, &wanted, guide, &mut seen)?;
    for param in params {
        let Some(resident) = wanted.get(param.name.as_str()) else {
            continue;
        };
        let there = runner.residents.holds(&param.name);
        if seen.insert(param.name.as_str()) && !there {
            runner.meter.scratch(loader.scratch(param));
            let tensor = loader.tensor(param, resident.ty.stored)?;
            runner
                .residents
                .insert(&param.name, resident.class, tensor, &mut runner.meter);
            if param.only_on_device(resident.class) {
                runner.send(&param.name)?;
            }
        }
    }
    for resident in residents
        .iter()
        .filter(|r| matches!(r.class, Class::Gradient | Class::Optimizer))
    {
        let zeros = Tensor::zeros(resident.ty.stored, &resident.ty.dims(&Bindings::default()));
        runner
            .residents
            .insert(&resident.name, resident.class, zeros, &mut runner.meter);
    }
    // Caches come when something is generated.
    let mut loaded = residents.iter().filter(|r| r.class != Class::Cache);
    if let Some(missing) = loaded.find(|r| !runner.residents.holds(&r.name)) {
        return Err(RunError::bug(format!(
            "nothing declares the resident `{}`",
            missing.name
        )));
    }
    Ok(loader.initial)
}

/// Everything in an adapter of ours is read, or is left behind with a reason.
pub(in crate::exec) fn check_adapter(
    file: &TensorFile,
    params: &[Param],
    left: &dyn Fn(&str) -> bool,
) -> Result<(), RunError> {
    let known = |name: &str| params.iter().any(|p| p.name == name);
    for name in file.names() {
        // Beside trained singular vectors lie those they began with.
        let began = name.strip_suffix('0');
        if !known(&name) && !left(&name) && !began.is_some_and(known) {
            return Err(RunError::file(
                file.path(),
                format!(
                    "nothing reads its tensor `{name}`: it is not what its description says; run the stage again"
                ),
            ));
        }
    }
    Ok(())
}
