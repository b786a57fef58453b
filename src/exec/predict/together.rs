//! Several models on one backbone in one pass: what the plain weights do with the rows of all is done once.
//!
//! Models whose first part is a function of the plain weights and the text alone have it computed as one program, and each
//! goes on from there with its own rows. The programs of the others run beside it, each with its own rows, and do the
//! products with plain weights together.
//!
//! **Invariant:** a row becomes what it becomes by its model alone. What is computed is each model's own program, whether it
//! is cut or not, and rows of what is shared do not depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Prepared, Session};
use crate::exec::features::Made;
use crate::exec::interpreter::{Outputs, Run, Runner};
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, score};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::batch::{Packed, pack};
use crate::library::data::tokens::EncodedSet;
use crate::library::metric::Predictions;
use crate::library::model::Positions;
use crate::library::task::Form;
use crate::plan::Plan;
use crate::program::meetings::{Meeting, meetings, turns};
use crate::program::prefix::Cut;
use crate::program::{Feed, Verified};

/// Most programs that are kept: each is for models that read the same states.
const KEPT: usize = 32;

/// The rows of a model in such a pass, and how they are answered.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The model.
    pub session: &'a Session,
    /// Its rows.
    pub rows: &'a Prepared,
    /// How they are answered.
    pub form: Form,
}

/// What of a model's work is done together with that of others on its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    /// Nothing.
    Nothing,
    /// Products with plain weights: all of them are done once for the rows of all.
    Products,
    /// All that comes before its own part, as one program for all.
    Prefix,
}

impl Shares {
    pub(super) const fn of(cut: Option<&Cut>, met: &[Meeting]) -> Self {
        match (cut, met.is_empty()) {
            (Some(_), _) => Self::Prefix,
            (None, false) => Self::Products,
            (None, true) => Self::Nothing,
        }
    }

    /// Whether it is anything.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::Nothing
    }

    /// As it is said.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Products => "products",
            Self::Prefix => "prefix",
        }
    }
}

/// A prefix, and the products that it does with others.
#[derive(Debug)]
struct Prefix {
    program: Verified,
    met: Vec<Meeting>,
}

/// What models on one backbone have in common, as programs.
#[derive(Debug, Default)]
pub struct Together {
    /// By what they make.
    prefixes: BTreeMap<BTreeSet<String>, Prefix>,
}

/// Parts whose prefix is computed as one: their numbers, and what they go on from.
struct Group<'a> {
    positions: Positions,
    parts: Vec<(usize, &'a Cut)>,
}

/// A part whose whole program runs: its number, its rows, its batch.
struct Whole<'a> {
    part: usize,
    set: &'a EncodedSet,
    packed: Packed,
}

impl Together {
    /// Whether one pass can hold the rows of both models.
    #[must_use]
    pub fn can_hold(one: &Session, other: &Session) -> bool {
        let both = one.shares().is_some() && other.shares().is_some();
        let prefixes = [one, other].map(Session::shares) == [Shares::Prefix; 2];
        let fits = match prefixes {
            true => one.positions == other.positions || one.place.backbone.walks_beside(),
            false => one.place.backbone.walks_beside(),
        };
        both && fits && one.place.is_beside(&other.place)
    }

    /// Labels rows of several models in one pass. All are at one place, and each shares something.
    ///
    /// # Errors
    /// What device or kernels say.
    pub fn label(
        &mut self,
        parts: &[Part<'_>],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Vec<Json>>>, RunError> {
        let sets = parts.iter().map(|part| part.rows.set());
        let sets: Vec<EncodedSet> = sets.collect::<Result<_, _>>()?;
        let scored = match parts.first() {
            Some(first) => {
                let runner = &mut first.session.runner();
                self.pass(runner, (parts, &sets), observer)?
            }
            None => Vec::new(),
        };
        let all = parts.iter().zip(&sets).zip(&scored);
        let each = all.map(|((part, set), all)| part.session.values(set, all, part.form));
        each.collect()
    }

    /// Scores the rows of all.
    fn pass(
        &mut self,
        runner: &mut Runner,
        (parts, sets): (&[Part<'_>], &[EncodedSet]),
        observer: &mut dyn Observer,
    ) -> Result<Vec<Predictions>, RunError> {
        let (groups, wholes) = planned(runner, parts, sets)?;
        for group in &groups {
            self.prepare(group)?;
        }
        let prefixes = groups.iter().map(|group| self.prefix(group));
        let prefixes: Vec<&Prefix> = prefixes.collect::<Result<_, _>>()?;
        let batches = groups.iter().zip(&prefixes);
        let batches = batches.map(|(group, prefix)| group.packed(parts, &prefix.program));
        let batches: Vec<Packed> = batches.collect::<Result<_, _>>()?;
        // What a prefix makes is kept, so it is made last.
        let own = wholes.iter().filter_map(|own| parts.get(own.part));
        let own = own.map(|part| (&part.session.program, part.session.met.as_slice()));
        let joined = prefixes
            .iter()
            .map(|own| (&own.program, own.met.as_slice()));
        let (programs, met): (Vec<&Verified>, Vec<&[Meeting]>) = own.chain(joined).unzip();
        let all = wholes.iter().map(|own| &own.packed).chain(&batches);
        let runs = programs.into_iter().zip(all).map(|(program, packed)| Run {
            program,
            feeds: packed.feeds.clone(),
            sizes: &packed.sizes,
        });
        let mut outputs = run(runner, runs.collect(), &met)?;
        let made = outputs.split_off(wholes.len());
        let mut scored = vec![Predictions::default(); parts.len()];
        for (own, outputs) in wholes.iter().zip(&outputs) {
            if let (Some(part), Some(to)) = (parts.get(own.part), scored.get_mut(own.part)) {
                *to = walk(part, own.set, None).scored(outputs, &own.packed.read)?;
            }
        }
        let kept_bytes: u64 = made.iter().map(Outputs::bytes).sum();
        runner.meter.alloc(kept_bytes);
        let rests = groups.iter().zip(&made).try_for_each(|(group, made)| {
            group.go_on(runner, (parts, sets, made), &mut scored, observer)
        });
        runner.meter.free(kept_bytes);
        rests.map(|()| scored)
    }

    /// The program that makes what all of a group go on from.
    fn prefix(&self, group: &Group<'_>) -> Result<&Prefix, RunError> {
        let found = self.prefixes.get(&group.key());
        found.ok_or_else(|| RunError::bug("a prefix was not prepared"))
    }

    /// Makes that program, if it is not there.
    fn prepare(&mut self, group: &Group<'_>) -> Result<(), RunError> {
        let key = group.key();
        if self.prefixes.contains_key(&key) {
            return Ok(());
        }
        if self.prefixes.len() >= KEPT {
            self.prefixes.clear();
        }
        let cuts: Vec<&Cut> = group.parts.iter().map(|(_, cut)| *cut).collect();
        let program = Plan::joined(&cuts).map_err(RunError::bug)?;
        let met = meetings(&program, &|_| false);
        self.prefixes.insert(key, Prefix { program, met });
        Ok(())
    }
}

/// The groups of parts whose prefix is computed as one, and the other parts with their batches.
fn planned<'a>(
    runner: &mut Runner,
    parts: &'a [Part<'_>],
    sets: &'a [EncodedSet],
) -> Result<(Vec<Group<'a>>, Vec<Whole<'a>>), RunError> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut wholes = Vec::new();
    for (number, (part, set)) in parts.iter().zip(sets).enumerate() {
        let session = part.session;
        if set.is_empty() {
            continue;
        }
        let Some(cut) = &session.cut else {
            let all: Vec<u32> = (0..to_u32(set.len())).collect();
            let packed = walk(part, set, None).packed(runner, session.program.program(), &all)?;
            wholes.push(Whole {
                part: number,
                set,
                packed,
            });
            continue;
        };
        let own = |group: &&mut Group<'_>| group.positions == session.positions;
        match groups.iter_mut().find(own) {
            Some(group) => group.parts.push((number, cut)),
            None => groups.push(Group {
                positions: session.positions,
                parts: vec![(number, cut)],
            }),
        }
    }
    Ok((groups, wholes))
}

/// Runs programs: one by itself, several beside one another.
fn run(
    runner: &mut Runner,
    mut runs: Vec<Run<'_>>,
    met: &[&[Meeting]],
) -> Result<Vec<Outputs>, RunError> {
    if runs.len() > 1 {
        return runner.run_beside(runs, &turns(met));
    }
    let one = runs.pop();
    let one = one.map(|own| runner.run(own.program, own.feeds, own.sizes));
    one.into_iter().collect()
}

/// All rows of a part at once.
fn walk<'a>(part: &Part<'a>, set: &'a EncodedSet, made: Option<Made<'a>>) -> Walk<'a> {
    Walk {
        batch: set.len().max(1) as u64,
        ..part.session.walk(set, made)
    }
}

impl Group<'_> {
    fn key(&self) -> BTreeSet<String> {
        let kept = self.parts.iter().flat_map(|(_, cut)| &cut.kept);
        kept.map(|kept| kept.id.clone()).collect()
    }

    /// The rows of all.
    fn packed(&self, parts: &[Part<'_>], program: &Verified) -> Result<Packed, RunError> {
        let own = self.parts.iter().filter_map(|(part, _)| parts.get(*part));
        let all = own.flat_map(|part| part.rows.examples().cloned());
        let all: EncodedSet = all.collect();
        let want: Vec<Feed> = program.program().feeds().map(|(feed, _)| feed).collect();
        let every: Vec<u32> = (0..to_u32(all.len())).collect();
        pack(&all, &every, self.positions, None, &want).map_err(RunError::from)
    }

    /// Each part goes on with its own rows of what was made.
    fn go_on(
        &self,
        runner: &mut Runner,
        (parts, sets, outputs): (&[Part<'_>], &[EncodedSet], &Outputs),
        scored: &mut [Predictions],
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let mut before = (0, 0);
        for &(number, cut) in &self.parts {
            let (Some(part), Some(set), Some(to)) =
                (parts.get(number), sets.get(number), scored.get_mut(number))
            else {
                continue;
            };
            let made = Made {
                outputs,
                kept: &cut.kept,
                before,
            };
            *to = score(runner, &cut.rest, walk(part, set, Some(made)), observer)?;
            before.0 += set.lengths().iter().map(|&n| u64::from(n)).sum::<u64>();
            before.1 += set.len() as u64;
        }
        Ok(())
    }
}
