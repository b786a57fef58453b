//! Models in memory that stand on the same weights: what none of them has changed is there once.
//!
//! **Invariant:** a tensor is shared only where it is the plain weights' own, frozen, in the same format and by the same hash of their
//! bytes; everything else has its model's name before its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Predictor;
use crate::exec::backend::Open;
use crate::exec::interpreter::Runner;
use crate::exec::load::{Origins, load};
use crate::files::RunError;
use crate::library::model::Model;
use crate::library::net::{Init, Owner, Param};
use crate::library::stage::network::{Built, Generators};
use crate::program::op::Machine;
use crate::program::{Class, Resident, Verified, verify};

/// What parts a model's name from a tensor's: no tensor of a file has it.
const SEPARATOR: char = '\u{1f}';

/// Weights in memory, and what stands on them.
#[derive(Clone, Debug)]
pub struct Backbone(Arc<Mutex<Runner>>);

impl Backbone {
    /// One without weights, on a device.
    ///
    /// # Errors
    /// The device cannot be used.
    pub fn on((machine, device): (Machine, &Arc<dyn Open>)) -> Result<Self, RunError> {
        Ok(Self(Arc::new(Mutex::new(Runner::on(machine, device)?))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Runner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether models on it can do products together.
    pub(super) fn walks_beside(&self) -> bool {
        self.lock().walks_beside()
    }

    /// Gives up all tensors but those of these names.
    pub fn keep(&self, names: &BTreeSet<String>) {
        let runner = &mut *self.lock();
        let keep = |name: &str, _: Class| names.contains(name);
        runner.residents.retain(&mut runner.meter, keep);
    }

    /// Most tensor bytes at once so far, of all models on it.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.lock().peak()
    }
}

/// Where a model is in memory.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it stands on.
    pub backbone: Backbone,
    /// Its name there; `None` where it is alone.
    pub name: Option<String>,
}

impl Place {
    /// A place of its own.
    pub(super) fn alone((machine, device): (Machine, Arc<dyn Open>)) -> Result<Self, RunError> {
        Ok(Self {
            backbone: Backbone::on((machine, &device))?,
            name: None,
        })
    }

    /// Whether both are on one backbone.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backbone.0, &other.backbone.0)
    }

    /// Whether a tensor is a model's own.
    pub(super) fn is_own(tensor: &str) -> bool {
        tensor.contains(SEPARATOR)
    }

    /// A program whose own residents, and caches, have the model's name before theirs.
    ///
    /// # Errors
    /// Two tensors have one name then: a bug.
    pub(super) fn renamed(
        &self,
        verified: Verified,
        own: &BTreeSet<String>,
    ) -> Result<Verified, RunError> {
        let Some(name) = &self.name else {
            return Ok(verified);
        };
        let mut program = verified.program().clone();
        for resident in &mut program.residents {
            if resident.class == Class::Cache || own.contains(&resident.name) {
                resident.name = named(name, &resident.name);
            }
        }
        verify(program).map_err(RunError::bug)
    }

    /// The same of programs that generate.
    ///
    /// # Errors
    /// As of [`Self::renamed`].
    pub(super) fn renamed_all(
        &self,
        programs: Generators,
        own: &BTreeSet<String>,
    ) -> Result<Generators, RunError> {
        let sources = programs.sources;
        Ok(Generators {
            next: self.renamed(programs.next, own)?,
            sources: sources
                .map(|own_one| self.renamed(own_one, own))
                .transpose()?,
            copies: self.renamed(programs.copies, own)?,
        })
    }
}

fn named(model: &str, tensor: &str) -> String {
    format!("{model}{SEPARATOR}{tensor}")
}

impl Predictor {
    /// The weights of programs in memory, at a place; gives the names of those that are the model's own.
    pub(super) fn loaded(
        &self,
        (programs, built): (&[&Verified], &Built),
        model: &dyn Model,
        place: &Place,
    ) -> Result<BTreeSet<String>, RunError> {
        let mut runner = place.backbone.lock();
        runner.accepts(programs.iter().copied())?;
        let sources = self.sources(&built.params, model)?;
        let residents = programs.iter().flat_map(|own| &own.program().residents);
        let residents: Vec<&Resident> = residents.collect();
        let Some(name) = &place.name else {
            load(&mut runner, &built.params, &residents, model, &sources)?;
            return Ok(BTreeSet::new());
        };
        let own = own(&built.params, &residents, &sources);
        let (mine, shared): (Vec<&Resident>, Vec<&Resident>) = residents
            .iter()
            .copied()
            .partition(|r| own.contains(&r.name));
        load(&mut runner, &built.params, &shared, model, &sources)?;
        // One of a name that others share is another tensor.
        let shared = own.iter().filter(|own| runner.residents.holds(own));
        let aside: Vec<&String> = shared.collect();
        for tensor in &aside {
            runner.residents.rename(tensor, named("", tensor));
        }
        let loaded = load(&mut runner, &built.params, &mine, model, &sources);
        for tensor in &own {
            runner.residents.rename(tensor, named(name, tensor));
        }
        for tensor in aside {
            runner.residents.rename(&named("", tensor), tensor.clone());
        }
        loaded?;
        Ok(own)
    }
}

/// The names of what is no tensor of the plain weights as they are.
pub(super) fn own(
    params: &[Param],
    residents: &[&Resident],
    sources: &Origins,
) -> BTreeSet<String> {
    let plain = |resident: &&&Resident| {
        let mut all = params.iter().filter(|p| p.name == resident.name);
        let of_files = |p: &Param| {
            p.owner == Owner::Base
                && p.derivation().is_none()
                && !matches!(
                    p.init,
                    Init::Pruned(_)
                        | Init::Component { .. }
                        | Init::Cached(_)
                        | Init::Chosen { .. }
                        | Init::Spread { .. }
                )
                && p.replaces.is_none()
        };
        let changed = sources.given.contains_key(&resident.name)
            || sources.edits.contains_key(&resident.name)
            || sources
                .adapter
                .as_ref()
                .is_some_and(|file| file.get(&resident.name).is_some());
        resident.class == Class::Frozen && !changed && all.next().is_some_and(of_files)
    };
    let caches = |resident: &&&Resident| resident.class == Class::Cache;
    residents
        .iter()
        .filter(|r| !plain(r) && !caches(r))
        .map(|r| r.name.clone())
        .collect()
}
