//! What models take in memory, before one of them is loaded.

use super::backbone::own;
use super::writer::Capacity;
use super::{DESCRIPTION, Predictor, Shares};
use crate::files::RunError;
use crate::library::generate::CHUNK;
use crate::library::model::Positions;
use crate::plan::Plan;
use crate::program::device::Device;
use crate::program::meetings::{Alive, Meeting, Walker, meetings, most_beside, turns};
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
    /// Where its program is cut, if it shares its prefix with others.
    cut: Option<Cut>,
    /// Its program and the products that it does with others, if it shares those.
    met: Option<(Verified, Vec<Meeting>)>,
    positions: Positions,
    /// Tokens of the longest text that it reads.
    longest: u64,
}

impl Needs {
    /// What of its work is done together with that of others.
    #[must_use]
    pub fn shares(&self) -> Shares {
        let met = self.met.as_ref().map_or(&[][..], |(_, met)| met);
        Shares::of(self.cut.as_ref(), met)
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

/// The prefix of some models as one program.
struct Prefix {
    program: Verified,
    met: Vec<Meeting>,
    longest: u64,
    models: usize,
    /// The most that it takes with what is kept of it while models go on from there.
    most: u64,
}

/// A program in a pass, with the products that it does with others and its largest texts.
type Beside<'a> = (&'a Verified, &'a [Meeting], Bindings);

/// The most that a pass takes which some of these models share, for so many texts; 0 where there are no two that do.
///
/// # Errors
/// A program that a pass broke: a bug.
pub fn shared_run(models: &[&Needs], batch: u64, machine: &Machine) -> Result<u64, RunError> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for (i, first) in models.iter().enumerate() {
        let beside = |n: &&&Needs| n.positions == first.positions && n.cut.is_some();
        let is_new = !models.iter().take(i).any(|n| beside(&n));
        if first.cut.is_some() && is_new {
            let group: Vec<&Needs> = models.iter().filter(beside).copied().collect();
            prefixes.push(prefix(&group, batch, machine)?);
        }
    }
    let wholes = models.iter().filter_map(|n| {
        let (program, met) = n.met.as_ref()?;
        Some((
            program,
            met.as_slice(),
            few(Plan::enough(program, met), n.longest),
        ))
    });
    let wholes: Vec<Beside<'_>> = wholes.collect();
    let alone = |own: &&Prefix| own.models > 1 || !wholes.is_empty();
    let behind = prefixes.iter().filter(alone).map(|own| own.most).max();
    let together = match machine.device {
        Device::Cpu => most_of_pass(&wholes, &prefixes, batch, machine),
        Device::Cuda(_) => 0,
    };
    Ok(behind.unwrap_or(0).max(together))
}

/// The largest texts of so many tokens, none longer than `longest`.
fn few(tokens: u64, longest: u64) -> Bindings {
    let longest = longest.max(1);
    let whole = (0..tokens / longest).map(|_| longest as usize);
    let rest = Some(tokens % longest).filter(|rest| *rest > 0);
    Bindings::of_lengths(whole.chain(rest.map(|rest| rest as usize))).reading(tokens)
}

/// The prefix of models that have it in common.
fn prefix(group: &[&Needs], batch: u64, machine: &Machine) -> Result<Prefix, RunError> {
    let cuts: Vec<&Cut> = group.iter().filter_map(|n| n.cut.as_ref()).collect();
    let longest = group.iter().map(|n| n.longest).max().unwrap_or(0);
    let sizes = full(batch, longest);
    let program = Plan::joined(&cuts).map_err(RunError::bug)?;
    let outputs = program.program().outputs.iter();
    let kept_bytes: u64 = outputs
        .map(|(_, value)| program.program().ty(*value).bytes(&sizes))
        .sum();
    let behind = cuts.iter().map(|cut| most(&cut.rest, &sizes, machine));
    let behind = kept_bytes + behind.max().unwrap_or(0);
    Ok(Prefix {
        most: behind.max(most(&program, &sizes, machine)),
        met: meetings(&program, &|_| false),
        models: cuts.len(),
        program,
        longest,
    })
}

/// The most that a pass of programs beside one another takes: some that do their products with others, each with as many
/// tokens as it does so with, and a prefix with all rows that are left. Those that take most by themselves come first.
fn most_of_pass(wholes: &[Beside<'_>], prefixes: &[Prefix], batch: u64, machine: &Machine) -> u64 {
    let alive = wholes.iter().map(|own| Alive::of(own.0, &own.2, machine));
    let mut order: Vec<(&Beside<'_>, Alive)> = wholes.iter().zip(alive).collect();
    order.sort_by_key(|(_, alive)| std::cmp::Reverse(alive.most()));
    let all = (order.len() as u64).min(batch);
    let doubled = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < all);
    let mut most = 0;
    for count in doubled.chain((all > 0).then_some(all)) {
        let left = batch - count;
        for prefix in prefixes.iter().map(Some).chain([None]) {
            let here = order.iter().take(count as usize);
            let mut walkers: Vec<Walker<'_>> = here
                .clone()
                .map(|(own, alive)| Walker {
                    program: own.0,
                    sizes: &own.2,
                    alive,
                })
                .collect();
            let mut met: Vec<&[Meeting]> = here.map(|(own, _)| own.1).collect();
            let joined = prefix.filter(|_| left > 0).map(|own| {
                let sizes = full(left, own.longest);
                (own, sizes, Alive::of(&own.program, &sizes, machine))
            });
            if let Some((own, sizes, alive)) = &joined {
                met.push(&own.met);
                walkers.push(Walker {
                    program: &own.program,
                    sizes,
                    alive,
                });
            }
            most = most.max(most_beside(&walkers, &turns(&met), machine));
        }
    }
    most
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
        let cut = Plan::parted(&program, &is_own).map_err(RunError::bug)?;
        let beside = cut.is_none() && matches!(machine.device, Device::Cpu);
        let met = beside.then(|| Plan::met(&program, &is_own));
        let run = most(&program, &full(batch, longest), machine);
        let shared = of_residents(&residents, is_own);
        Ok(Needs {
            run,
            cut,
            met: met.filter(|met| !met.is_empty()).map(|met| (program, met)),
            positions: model.facts().positions,
            longest,
            ..shared
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
