//! `move_rows`: rows put into a cache, or copied from one place of it to another.

use super::super::types::DType;
use super::launch::{
    Call, KernelSource, Launches,
    Operand::{Fault, In},
    args, source, stored_in,
};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(cache [k·C, w], moves u32[S, 3][, x [N, w]])`, in place: move `(from, to, count)` puts the rows `k·from ..` of `x`, so many
/// as `k·count`, at `k·to ..` of the cache; without `x` they are the cache's own. No move writes what another reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MoveRows {
    /// Rows of each token.
    pub fold: u32,
    /// Whether they are the cache's own.
    pub within: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("move_rows"));

/// Blocks of threads that a move has.
const PARTS: u32 = 8;

impl OpRule for MoveRows {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [cache, moves, rows @ ..] = x else {
            return Err("a cache and moves are wanted".into());
        };
        let size = cache.matrix().and_then(|(rows, width)| {
            let whole = rows.as_const()?.is_multiple_of(self.fold.max(1).into());
            (whole && self.fold > 0 && cache.dtype.is_compute()).then_some(width)
        });
        let three = moves.matrix().and_then(|(_, three)| three.as_const());
        let from = match rows {
            [] => self.within,
            [own] => {
                let width = own.matrix().map(|(_, width)| width);
                !self.within && width == size && own.dtype == cache.dtype
            }
            _ => false,
        };
        if size.is_some() && three == Some(3) && moves.dtype == DType::U32 && from {
            Ok(vec![])
        } else {
            Err("a cache, three numbers for each move and rows of its width are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let inputs: &[usize] = if self.within { &[] } else { &[2] };
        let stored_in = stored_in(cx, inputs, &[])?;
        let mut list = Launches::of(stored_in);
        let from = if self.within { 0 } else { 2 };
        let kernel = match self.within {
            true => "copy_rows",
            false => "put_rows",
        };
        list.call(Call {
            source: "move_rows",
            kernel,
            stored_in,
            grid: [cx.rows(1) as u32, PARTS],
            block: 256,
            shared: 0,
            args: args![
                In(0),
                In(from),
                In(1),
                Fault,
                cx.rows(0) as u32,
                cx.rows(from) as u32,
                cx.width(0) as u32,
                self.fold
            ],
        });
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let moves = io.input(1).slice::<u32>();
        let dims = io.updates[0].dims;
        let (rows, width) = (dims[0], dims[1]);
        let there = match self.within {
            true => rows,
            false => io.input(2).dims[0],
        };
        super::kernel::float!(io.updates[0].dtype(), T => {
            let from = (!self.within).then(|| io.input(2).slice::<T>());
            let cache = io.updates[0].slice::<T>();
            for own in moves.chunks_exact(3) {
                let [first, to, count] = [own[0], own[1], own[2]].map(|n| n as usize * self.fold as usize);
                for (end, rows) in [(first + count, there), (to + count, rows)] {
                    if end > rows {
                        return Err(OpError::Index { index: end as u64, rows: rows as u64 });
                    }
                }
                let (first, to, count) = (first * width, to * width, count * width);
                match from {
                    Some(from) => cache[to..to + count].copy_from_slice(&from[first..first + count]),
                    None => cache.copy_within(first..first + count, to),
                }
            }
        });
        Ok(())
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|op, _| match op {
        super::Op::MoveRows(MoveRows { within: false, .. }) => (vec![2], vec![]),
        _ => (vec![], vec![]),
    });
    let moves = |list: &[u32]| super::Tensor::new(list.to_vec(), &[list.len() / 3, 3]);
    let (within, put) = (
        MoveRows {
            fold: 1,
            within: true,
        },
        MoveRows {
            fold: 2,
            within: false,
        },
    );
    let inputs = [random(1, &[7, 3]), moves(&[0, 4, 2, 3, 6, 1, 2, 0, 0])];
    all.sample(within.clone(), inputs);
    let inputs = [
        random(1, &[8, 3]),
        moves(&[0, 3, 1, 1, 0, 2]),
        random(2, &[6, 3]),
    ];
    all.sample(put.clone(), inputs);
    all.case(
        within.clone(),
        [matrix(1, 90, 300), moves(&[0, 50, 40, 41, 44, 3])],
    );
    let inputs = [
        matrix(1, 160, 65),
        moves(&[3, 0, 60, 0, 70, 3]),
        matrix(2, 130, 65),
    ];
    all.case(put.clone(), inputs);
    all.fault(within, [matrix(1, 9, 4), moves(&[0, 5, 5])]);
    let inputs = [matrix(1, 40, 4), moves(&[0, 0, 4]), matrix(2, 6, 4)];
    all.fault(put, inputs);
    all
}
