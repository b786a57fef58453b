//! Several models on one backbone in one pass: what the plain weights make of the texts of all is computed once, and
//! each model goes on from there with its own texts.
//!
//! **Invariant:** a row becomes what it becomes by its model alone. The pass is the part of each model's own program in
//! front of a cut, whose rows do not depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Prepared, Session};
use crate::exec::features::Made;
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, score};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::batch::pack;
use crate::library::data::tokens::EncodedSet;
use crate::library::task::Form;
use crate::plan::Plan;
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

/// What models on one backbone have in common, as programs.
#[derive(Debug, Default)]
pub struct Together {
    /// By what they make.
    programs: BTreeMap<BTreeSet<String>, Verified>,
}

impl Together {
    /// Whether one pass can hold the rows of both models.
    #[must_use]
    pub fn can_hold(one: &Session, other: &Session) -> bool {
        let both = one.cut.is_some() && other.cut.is_some();
        both && one.positions == other.positions && one.place.is_beside(&other.place)
    }

    /// Labels rows of several models in one pass. All are at one place, and each shares.
    ///
    /// # Errors
    /// What device or kernels say.
    pub fn label(
        &mut self,
        parts: &[Part<'_>],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Vec<Json>>>, RunError> {
        let Some(first) = parts.first() else {
            return Ok(Vec::new());
        };
        let bug = || RunError::bug("a model that shares nothing is in a pass with others");
        let cuts = parts.iter().map(|part| part.session.cut.as_ref());
        let cuts: Vec<&Cut> = cuts.collect::<Option<_>>().ok_or_else(bug)?;
        let program = self.program(&cuts)?;
        let all = parts.iter().flat_map(|part| part.rows.examples().cloned());
        let all: EncodedSet = all.collect();
        let want: Vec<Feed> = program.program().feeds().map(|(feed, _)| feed).collect();
        let every: Vec<u32> = (0..to_u32(all.len())).collect();
        let packed = pack(&all, &every, first.session.positions, None, &want)?;
        let mut runner = first.session.runner();
        let outputs = runner.run(program, packed.feeds, &packed.sizes)?;
        let kept_bytes = outputs.bytes();
        runner.meter.alloc(kept_bytes);
        let mut before = (0, 0);
        let mut scored = Vec::with_capacity(parts.len());
        for (part, cut) in parts.iter().zip(cuts) {
            let set = part.rows.set()?;
            let made = Made {
                outputs: &outputs,
                kept: &cut.kept,
                before,
            };
            let walk = Walk {
                batch: set.len().max(1) as u64,
                ..part.session.walk(&set, Some(made))
            };
            let one = score(&mut runner, &cut.rest, walk, observer);
            before.0 += set.lengths().iter().map(|&n| u64::from(n)).sum::<u64>();
            before.1 += set.len() as u64;
            scored.push(one.map(|one| (set, one)));
            if scored.last().is_some_and(Result::is_err) {
                break;
            }
        }
        runner.meter.free(kept_bytes);
        drop(runner);
        let each = parts.iter().zip(scored).map(|(part, scored)| {
            let (set, all) = scored?;
            part.session.values(&set, &all, part.form)
        });
        each.collect()
    }

    /// The program that makes what all of them go on from.
    fn program(&mut self, cuts: &[&Cut]) -> Result<&Verified, RunError> {
        let kept = cuts.iter().flat_map(|cut| &cut.kept);
        let key: BTreeSet<String> = kept.map(|kept| kept.id.clone()).collect();
        if self.programs.len() >= KEPT && !self.programs.contains_key(&key) {
            self.programs.clear();
        }
        match self.programs.entry(key) {
            std::collections::btree_map::Entry::Occupied(own) => Ok(own.into_mut()),
            std::collections::btree_map::Entry::Vacant(free) => {
                let made = Plan::joined(cuts).map_err(RunError::bug)?;
                Ok(free.insert(made))
            }
        }
    }
}
