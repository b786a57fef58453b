//! What models take in memory, before one of them is loaded.

use super::backbone::own;
use super::writer::Capacity;
use super::{DESCRIPTION, Predictor};
use crate::files::RunError;
use crate::library::generate::CHUNK;
use crate::library::model::Positions;
use crate::plan::Plan;
use crate::program::op::Machine;
use crate::program::prefix::Cut;
use crate::program::{Bindings, Class, Resident, Sym, Verified, memory};

/// Bytes that a model takes.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Names and bytes of the tensors that others on the same weights share.
    pub shared: Vec<(String, u64)>,
    /// Tensors of its own.
    pub own: u64,
    /// Caches of the texts it goes on with.
    pub cache: u64,
    /// Most that a run takes beside them.
    pub run: u64,
    /// Where its program is cut, if it shares a pass with others.
    cut: Option<Cut>,
    positions: Positions,
    /// Tokens of the longest text that it reads.
    longest: u64,
}

impl Needs {
    /// Whether it shares a pass with others.
    #[must_use]
    pub const fn shares(&self) -> bool {
        self.cut.is_some()
    }
}

/// The largest texts of a batch: so many, all of the greatest length, each token of which may be read.
fn full(batch: u64, longest: u64) -> Bindings {
    let lengths = (0..batch).map(|_| longest as usize);
    Bindings::of_lengths(lengths).reading(batch.saturating_mul(longest))
}

/// The most that a program takes beside its residents, under sizes that none is above. A single token is looked at,
/// too: products of few rows pack otherwise.
fn most(verified: &Verified, sizes: &Bindings, machine: &Machine) -> u64 {
    let (program, schedule) = (verified.program(), verified.schedule());
    let one = Bindings::of_pairs([[1, 1]]).reading(1);
    let each = [*sizes, one].map(|sizes| {
        let all = memory::profile(program, schedule, &sizes, machine);
        all.into_iter().max().unwrap_or(0)
    });
    each.into_iter().max().unwrap_or(0)
}

/// The most that a pass takes which some of these models share, for so many texts; 0 where there are no two that do.
///
/// # Errors
/// A program that a pass broke: a bug.
pub fn shared_run(models: &[&Needs], batch: u64, machine: &Machine) -> Result<u64, RunError> {
    let mut most_of_all = 0;
    for first in models {
        let beside = models.iter().filter(|n| n.positions == first.positions);
        let group: Vec<(&Cut, u64)> = beside
            .filter_map(|n| Some((n.cut.as_ref()?, n.longest)))
            .collect();
        if group.len() < 2 {
            continue;
        }
        let cuts: Vec<&Cut> = group.iter().map(|(cut, _)| *cut).collect();
        let longest = group.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let sizes = full(batch, longest);
        let joined = Plan::joined(&cuts).map_err(RunError::bug)?;
        let outputs = joined.program().outputs.iter();
        let kept_bytes: u64 = outputs
            .map(|(_, value)| joined.program().ty(*value).bytes(&sizes))
            .sum();
        let behind = cuts.iter().map(|cut| most(&cut.rest, &sizes, machine));
        let behind = kept_bytes + behind.max().unwrap_or(0);
        most_of_all = most_of_all.max(behind).max(most(&joined, &sizes, machine));
    }
    Ok(most_of_all)
}

impl Predictor {
    /// What it takes in memory to label so many texts at once, or to go on with so many that have, with what is made of
    /// them, at most `context` tokens.
    ///
    /// # Errors
    /// Files that cannot be read, methods that do not fit.
    pub fn needs(
        &self,
        (batch, context): (u64, u64),
        machine: &Machine,
    ) -> Result<Needs, RunError> {
        if self.task.generates() {
            self.needs_to_write((batch, context), machine)
        } else {
            self.needs_to_label(batch, machine)
        }
    }

    fn needs_to_label(&self, batch: u64, machine: &Machine) -> Result<Needs, RunError> {
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let described = |why: String| RunError::file(self.folder.join(DESCRIPTION), why);
        let model = self.architecture().map_err(damaged)?;
        let made = Plan::predicting(self.served(model.clone())?);
        let (program, built) = made.map_err(described)?;
        let sources = self.sources(&built.params, model.as_ref())?;
        let residents: Vec<&Resident> = program.program().residents.iter().collect();
        let own = own(&built.params, &residents, &sources);
        let virtual_tokens = u64::from(self.tuning.marking().virtual_tokens);
        let longest = self.description.max_length + virtual_tokens;
        let is_own = |name: &str| own.contains(name);
        Ok(Needs {
            run: most(&program, &full(batch, longest), machine),
            cut: Plan::parted(&program, &is_own).map_err(RunError::bug)?,
            positions: model.facts().positions,
            longest,
            ..of_residents(&residents, is_own)
        })
    }

    fn needs_to_write(
        &self,
        (batch, context): (u64, u64),
        machine: &Machine,
    ) -> Result<Needs, RunError> {
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let model = self.architecture().map_err(damaged)?;
        let virtual_tokens = u64::from(self.tuning.prompt_marking().virtual_tokens);
        let tokens = context.min(model.facts().max_length) + virtual_tokens;
        let capacity = Capacity {
            places: batch,
            tokens,
            source: context,
        };
        let (programs, built) = self.generating(&model, capacity, 1)?;
        let sources = self.sources(&built.params, model.as_ref())?;
        let residents = programs.all().flat_map(|own| &own.program().residents);
        let mut residents: Vec<&Resident> = residents.collect();
        residents.sort_by(|a, b| a.name.cmp(&b.name));
        residents.dedup_by(|a, b| a.name == b.name);
        let own = own(&built.params, &residents, &sources);
        // Runs hold so many tokens of whatever prompts, unless one of each is more.
        let pieces = (CHUNK as u64).max(batch);
        let piece = tokens.min(CHUNK as u64);
        let mut sizes = Bindings::of_lengths([piece as usize]);
        sizes.0[Sym::Sequences as usize] = batch;
        sizes.0[Sym::Tokens as usize] = pieces.min(batch.saturating_mul(tokens));
        sizes.0[Sym::Pairs as usize] = pieces.saturating_mul(piece);
        // A source is read as a whole.
        let source = (CHUNK as u64).max(context);
        for (sym, size) in [
            (Sym::SourceTokens, source),
            (Sym::SourcePairs, source.saturating_mul(context)),
            (Sym::SourceLongest, context),
            (Sym::Crossed, source.saturating_mul(piece)),
        ] {
            sizes.0[sym as usize] = size;
        }
        let run = programs.all().map(|program| most(program, &sizes, machine));
        Ok(Needs {
            run: run.max().unwrap_or(0),
            positions: model.facts().positions,
            longest: tokens,
            ..of_residents(&residents, |name| own.contains(name))
        })
    }
}

/// The bytes of tensors, by whose they are.
fn of_residents(residents: &[&Resident], is_own: impl Fn(&str) -> bool) -> Needs {
    let mut needs = Needs::default();
    for resident in residents {
        let bytes = resident.ty.bytes(&Bindings::default());
        if resident.class == Class::Cache {
            needs.cache += bytes;
        } else if is_own(&resident.name) {
            needs.own += bytes;
        } else {
            needs.shared.push((resident.name.clone(), bytes));
        }
    }
    needs
}
