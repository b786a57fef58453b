//! Lists of places in a matrix: what the ops of sparse updates share.
//!
//! **Invariant:** a token's results depend on no other token, and the numbers of a list are summed in its order, so that bits
//! depend neither on tiles nor on threads.

use rayon::prelude::*;

use super::super::types::{DType, Dim, TensorType};
use super::math::Elementary;
use super::{OpError, SizedCx};

/// Tokens of a tile: its matrices stand transposed, so that loops over tokens vectorise.
pub(super) const TILE: usize = 32;

/// Which numbers of a matrix a list of u32 stands for, and which part of the list counts.
///
/// A place is the number of a square block, row by row; with `side` 1 that is the number of an entry. The numbers at a
/// list of places are `[n]` for entries, and `[n · side, side]` for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Places {
    /// Rows of the matrix.
    pub rows: u32,
    /// Its columns.
    pub columns: u32,
    /// Rows and columns of a block.
    pub side: u32,
    /// The part of a list that several matrices share: it begins and ends where a further input, `bounds`, says at this
    /// number and the next. All of it if there are no bounds.
    pub segment: Option<u32>,
}

impl Places {
    /// Entries of a matrix, in a list of its own.
    #[must_use]
    pub const fn entries(rows: u64, columns: u64) -> Self {
        Self {
            rows: rows as u32,
            columns: columns as u32,
            side: 1,
            segment: None,
        }
    }

    /// Inputs that say which places are meant: the list, and the bounds if there are some.
    pub(super) const fn arity(&self) -> usize {
        1 + self.segment.is_some() as usize
    }

    /// The shape of the numbers at `n` places.
    #[must_use]
    pub fn values(&self, n: Dim) -> Vec<Dim> {
        match u64::from(self.side) {
            1 => vec![n],
            side => vec![n.times(side), side.into()],
        }
    }

    /// Checks the list and the bounds, and gives the shape of the numbers at the list.
    pub(super) fn infer(&self, x: &[&TensorType]) -> Result<Vec<Dim>, String> {
        let whole = |n: u32| self.side > 0 && n.is_multiple_of(self.side);
        if !whole(self.rows) || !whole(self.columns) {
            return Err(format!("no whole blocks of {} fit", self.side));
        }
        let list = |t: &TensorType| t.dtype == DType::U32 && t.shape.len() == 1;
        match (x, self.segment) {
            ([ids], None) if list(ids) => Ok(self.values(ids.shape[0])),
            ([ids, bounds], Some(segment)) if list(ids) && list(bounds) => {
                let enough = bounds.shape[0].as_const();
                if enough.is_some_and(|n| n > u64::from(segment) + 1) {
                    Ok(self.values(ids.shape[0]))
                } else {
                    Err("a segment is wanted that the bounds do not have".into())
                }
            }
            _ => Err("a list of u32 is wanted, and bounds where it is shared".into()),
        }
    }

    /// The matrix.
    #[must_use]
    pub fn matrix(&self, dtype: DType) -> TensorType {
        TensorType::fixed(dtype, &[self.rows.into(), self.columns.into()])
    }

    /// The range of the list that counts.
    pub(super) fn range(
        &self,
        count: usize,
        bounds: Option<&[u32]>,
    ) -> Result<std::ops::Range<usize>, OpError> {
        let (Some(bounds), Some(segment)) = (bounds, self.segment) else {
            return Ok(0..count);
        };
        let at = |i: usize| bounds.get(i).map_or(0, |&n| n as usize);
        let (from, to) = (at(segment as usize), at(segment as usize + 1));
        if from <= to && to <= count {
            Ok(from..to)
        } else {
            let index = to.max(from) as u64;
            Err(OpError::Index {
                index,
                rows: count as u64,
            })
        }
    }

    /// Row and column of the first number of a place.
    #[inline(always)]
    pub(super) fn corner(&self, place: u32) -> (usize, usize) {
        let wide = (self.columns / self.side).max(1);
        let (row, column) = (place / wide, place % wide);
        ((row * self.side) as usize, (column * self.side) as usize)
    }

    /// Says which place is outside of the matrix, if one is.
    pub(super) fn check(&self, ids: &[u32]) -> Result<(), OpError> {
        let (side, rows) = (u64::from(self.side.max(1)), u64::from(self.rows));
        let all = (rows / side) * (u64::from(self.columns) / side);
        match ids.iter().find(|&&id| u64::from(id) >= all) {
            Some(&id) => Err(OpError::Index {
                index: u64::from(id),
                rows: all,
            }),
            None => Ok(()),
        }
    }

    /// Numbers of a place.
    #[must_use]
    pub const fn area(&self) -> usize {
        (self.side * self.side) as usize
    }

    /// Places that a segment has on the average.
    pub(super) fn usual(&self, cx: &SizedCx, ids: usize) -> u64 {
        let all = cx.elements(ids);
        match self.segment {
            Some(_) => all / (cx.elements(ids + 1).max(2) - 1),
            None => all,
        }
    }
}

/// `to[d, width] = from[width, d]`, columns in parallel where it pays.
pub(super) fn turn<T: Elementary>(from: &[T], d: usize, width: usize, to: &mut [T]) {
    let one = |(first, to): (usize, &mut [T])| {
        for (i, column) in to.chunks_exact_mut(TILE).enumerate() {
            let at = first * 64 + i;
            for (t, x) in column.iter_mut().enumerate() {
                *x = if t < width {
                    from[t * d + at]
                } else {
                    T::zero()
                };
            }
        }
    };
    if d <= 128 {
        to.chunks_mut(64 * TILE).enumerate().for_each(one);
    } else {
        to.par_chunks_mut(64 * TILE).enumerate().for_each(one);
    }
}
