//! Rows of one set of files divided into splits.
//!
//! Which part a row goes to is a function of the seed, the number of rows, and, where values of a column are spread
//! evenly, of the groups these form; what a stage reads or learns has no part in it, so no row is in two splits.

use std::collections::BTreeMap;

use super::super::Cell;
use super::Carve;
use super::spelling::Spelled;
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::library::schema::Portion;

/// Rows by the value of a column.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: BTreeMap<Spelled, u32>,
    of_row: Vec<u32>,
}

impl Groups {
    /// Takes in the value of the next row.
    pub(super) fn see(&mut self, cell: &Cell) {
        let next = to_u32(self.numbers.len());
        let number = *self.numbers.entry(Spelled::of(cell)).or_insert(next);
        self.of_row.push(number);
    }

    /// The rows of each group, the groups in the order of their values.
    fn rows(&self, rows: usize) -> Vec<Vec<u32>> {
        if self.of_row.is_empty() {
            return vec![(0..to_u32(rows)).collect()];
        }
        let mut lists = vec![Vec::new(); self.numbers.len()];
        for (row, &group) in (0u32..).zip(&self.of_row) {
            if let Some(list) = lists.get_mut(group as usize) {
                list.push(row);
            }
        }
        let order = self.numbers.values();
        order
            .filter_map(|&group| lists.get_mut(group as usize).map(std::mem::take))
            .collect()
    }
}

impl Carve {
    /// The rows of the part, in the order of the files.
    pub(super) fn rows(&self, rows: usize, groups: &Groups) -> Vec<u32> {
        let mut own = Vec::new();
        // Shares of all rows so far, so that what rounding takes from one group the next gives back.
        let mut before = 0_u64;
        for (number, list) in groups.rows(rows).into_iter().enumerate() {
            let order = Stream::new(self.seed, &format!("split/{number}")).permutation(list.len());
            let mut order = order.into_iter();
            let after = before + list.len() as u64;
            let counts = self
                .shares
                .iter()
                .map(|share| rounded(*share, after) - rounded(*share, before));
            let counts: Vec<u64> = counts.collect();
            let mut part = |count: usize, take: bool| {
                let rows = order.by_ref().take(count);
                let rows: Vec<u32> = rows
                    .filter_map(|at| list.get(at as usize).copied())
                    .collect();
                if take {
                    own.extend(rows);
                }
            };
            for (place, count) in counts.into_iter().enumerate() {
                part(count as usize, self.own == Some(place));
            }
            part(usize::MAX, self.own.is_none());
            before = after;
        }
        own.sort_unstable();
        own
    }
}

/// A share of so many rows, to the nearest whole number.
fn rounded(share: Portion, of: u64) -> u64 {
    match share {
        Portion::Share(n, d) => {
            let (n, d) = (u128::from(n), u128::from(d.max(1)));
            ((2 * u128::from(of) * n + d) / (2 * d)) as u64
        }
        Portion::Steps(n) => n.min(of),
    }
}
