//! The phases in a row.

use std::path::{Path, PathBuf};

use crate::base::world::World;
use crate::base::{Diag, Diags, Severity, Sources};
use crate::exec::stage::choose::chosen;
use crate::exec::store::Store;
use crate::library;
use crate::plan::{self, Plan, Stage};
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::resolve;

/// A recipe taken as far as its mistakes allow.
#[derive(Debug)]
pub struct Compiled {
    /// The recipe's path.
    pub path: PathBuf,
    /// Its text and those it imports.
    pub sources: Sources,
    /// The plan; absent when the recipe is rejected.
    pub plan: Option<Plan>,
    /// What was found, in source order.
    pub diags: Vec<Diag>,
}

impl Compiled {
    /// Whether the recipe is rejected.
    #[must_use]
    pub fn rejected(&self) -> bool {
        self.diags.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Reads, resolves and plans a recipe. Every phase reports all it can and hands on what it found sound: a mistake in
/// one declaration does not hide those of another that does not need it.
#[must_use]
pub fn compile(
    path: &Path,
    sets: &[(String, String)],
    world: &dyn World,
    machine: &Machine,
) -> Compiled {
    compile_with(path, sets, world, machine, true)
}

/// [`compile`], which looks at the rows of the data only if `survey` says so.
#[must_use]
pub fn compile_with(
    path: &Path,
    sets: &[(String, String)],
    world: &dyn World,
    machine: &Machine,
    survey: bool,
) -> Compiled {
    compile_until(path, sets, world, machine, (survey, &|| false))
}

/// [`compile_with`] for somebody who may not wait for it: once `stopped` says so it ends, and what it gives is to be
/// thrown away.
#[must_use]
pub fn compile_until(
    path: &Path,
    sets: &[(String, String)],
    world: &dyn World,
    machine: &Machine,
    (survey, stopped): (bool, &dyn Fn() -> bool),
) -> Compiled {
    let mut sources = Sources::default();
    let resolved = tracing::debug_span!("resolve", recipe = %path.display())
        .in_scope(|| resolve::resolve(path, sets, &mut sources, world));
    let mut diags = resolved.diags;
    let plan = resolved.value.and_then(|recipe| {
        let _span = tracing::debug_span!("plan").entered();
        let planned = plan::plan_until(&recipe, world, machine, (survey, stopped));
        let value = planned.value;
        diags.extend(planned.diags);
        value
    });
    let rejected = diags.has_errors();
    Compiled {
        path: path.to_path_buf(),
        sources,
        plan: plan.filter(|_| !rejected),
        diags: diags.into_sorted(),
    }
}

/// Puts the prompts that finished stages of a store have chosen into the plan.
pub fn decide(compiled: &mut Compiled, store: &Store, machine: &Machine) {
    if let Some(plan) = &mut compiled.plan {
        let known = |stage: &Stage| {
            let finished = store.finished(stage.fingerprint.as_deref()?)?;
            chosen(&store.path(&finished.fingerprint)).ok()
        };
        plan.decide(&known, machine);
    }
}

/// Shares the trainings among so many processes, and rejects what cannot be shared.
pub fn divide(compiled: &mut Compiled, ranks: u64, machine: &Machine) {
    let Some(plan) = &mut compiled.plan else {
        return;
    };
    let mut diags = Diags::default();
    plan.divide(ranks, machine, &mut diags);
    reject(compiled, diags);
}

/// Adds what was found of a plan, which is gone where that is an error.
fn reject(compiled: &mut Compiled, mut found: Diags) {
    if found.has_errors() {
        compiled.plan = None;
    }
    for diag in std::mem::take(&mut compiled.diags) {
        found.push(diag);
    }
    compiled.diags = found.into_sorted();
}

/// Rejects what is planned for a GPU and has no kernels there. Stages that a store has finished do not run again.
pub fn check_kernels(compiled: &mut Compiled, store: Option<&Store>, machine: &Machine) {
    let (Some(plan), Device::Cuda(_)) = (&compiled.plan, machine.device) else {
        return;
    };
    let finished = |stage: &Stage| {
        let entry = store.zip(stage.fingerprint.as_deref());
        entry.is_some_and(|(store, key)| store.finished(key).is_some())
    };
    let mut diags = Diags::default();
    plan.check_kernels(&finished, &mut diags);
    reject(compiled, diags);
}

/// Every diagnostic code with its doc.
pub fn codes() -> impl Iterator<Item = &'static crate::base::Code> {
    let layers: [&[&crate::base::Code]; 4] = [
        crate::syntax::error::CODES,
        resolve::error::CODES,
        plan::error::CODES,
        library::error::CODES,
    ];
    layers.into_iter().flatten().copied()
}
