//! Rows that a training draws among unlabelled ones which other stages label: how many there will be, and the stage with them.
//!
//! **Invariant:** which rows are drawn is known when the stage runs. It is planned with each of them as long as the longest unlabelled
//! one, so that no draw needs more.

use std::sync::Arc;

use super::bind::BoundSplit;
use super::split::Lengths;
use super::stages::{Handed, Sets, Stage};
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedSet, Target, Unread};
use crate::library::stage::drawing::{Count, Drawing, Drawn};
use crate::program::op::Machine;

/// Where the split stands that rows are drawn of.
pub(super) const UNLABELLED: usize = 2;

/// The rows that a training learns beside its own.
#[derive(Clone, Debug)]
pub struct DrawnRows {
    /// Each with its class.
    pub rows: Vec<Drawn>,
    /// What was drawn of each class.
    pub counts: Vec<Count>,
}

/// Makes room for the rows that will be drawn in the splits of a stage that draws: programs read them there, and none in the split that
/// they are of.
pub(super) fn room(start: &Handed, sets: &mut [Sets]) {
    let Some(drawing) = &start.drawing else {
        return;
    };
    for set in sets {
        let [Some(own), _, Some(more)] = set.as_slice() else {
            continue;
        };
        let roomy = with_room(drawing, own, more);
        let pool = BoundSplit {
            drawn_of: true,
            ..more.as_ref().clone()
        };
        for (place, split) in [(0, roomy), (UNLABELLED, pool)] {
            if let Some(slot) = set.get_mut(place) {
                *slot = Some(Arc::new(split));
            }
        }
    }
}

/// A split with the lengths of the rows that will be drawn beside its own.
fn with_room(drawing: &Drawing, own: &BoundSplit, more: &BoundSplit) -> BoundSplit {
    let Lengths::Known(lengths) = &own.lengths else {
        return own.clone();
    };
    let longest = more.lengths.list(1).into_iter().max().unwrap_or(0);
    let beside = drawing.beside(lengths.len() as u64) as usize;
    let all = lengths.iter().copied();
    let all: Vec<u32> = all.chain(std::iter::repeat_n(longest, beside)).collect();
    let bytes = EncodedSet::bytes_in_memory(&all);
    BoundSplit {
        lengths: Lengths::Known(all),
        host_bytes: own.host_bytes + bytes,
        ..own.clone()
    }
}

impl Stage {
    /// Whether rows that it learns are still to be drawn, and how.
    #[must_use]
    pub fn draws(&self) -> Option<&Drawing> {
        self.start.drawing.as_ref().filter(|_| self.drawn.is_none())
    }

    /// How many labelled rows it learns beside those that are drawn, where that is known.
    #[must_use]
    pub fn labelled_rows(&self) -> Option<u64> {
        let drawing = self.start.drawing.as_ref()?;
        let all = self.splits.first()?.as_ref()?.lengths.count()?;
        Some(all / drawing.grow)
    }

    /// How many rows the split of a key has, without those that are drawn, where that is known.
    #[must_use]
    pub fn rows(&self, place: usize) -> Option<u64> {
        let own = self.labelled_rows().filter(|_| place == 0);
        own.or_else(|| self.splits.get(place)?.as_ref()?.lengths.count())
    }

    /// Its labelled rows and the unlabelled ones, where they are at hand.
    #[must_use]
    pub fn drawn_of(&self) -> Option<(&Arc<EncodedSet>, &Arc<EncodedSet>)> {
        let at = |index: usize| self.splits.get(index)?.as_ref()?.encoded.as_ref();
        Some((at(0)?, at(UNLABELLED)?))
    }

    /// How many labelled rows each of its classes has, before any are drawn.
    #[must_use]
    pub fn labelled(&self) -> Vec<u64> {
        let mut counts = vec![0; self.start.classes.len()];
        let Some((own, _)) = self.drawn_of() else {
            return counts;
        };
        for label in (0..to_u32(own.len())).filter_map(|row| own.label(row)) {
            if let Target::Class(class) = label
                && let Some(count) = counts.get_mut(class as usize)
            {
                *count += 1;
            }
        }
        counts
    }

    /// The stage with the rows that were drawn.
    ///
    /// # Errors
    /// Tokens that cannot be read back; inside, a contradiction inside the compiler.
    pub fn with_drawn(
        &self,
        (rows, counts): (Vec<Drawn>, Vec<Count>),
        machine: &Machine,
    ) -> Result<Result<Self, String>, Unread> {
        let mut splits = self.splits.clone();
        if let (Some((own, more)), Some(Some(split))) = (self.drawn_of(), splits.first_mut()) {
            let rows = rows.iter().map(|row| (row.example, row.class));
            let all = own.with(more, rows)?;
            *split = Arc::new(BoundSplit {
                lengths: Lengths::Known(all.lengths()),
                encoded: Some(Arc::new(all)),
                ..split.as_ref().clone()
            });
        }
        let stage = self.with(self.start.clone(), splits, machine);
        Ok(stage.map(|stage| Self {
            drawn: Some(Arc::new(DrawnRows { rows, counts })),
            ..stage
        }))
    }
}
