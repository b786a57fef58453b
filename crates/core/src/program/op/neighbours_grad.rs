//! `neighbours_grad`: gradient of rows that stood beside those around them.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks_of_rows};
use super::{Io, Kernel, Neighbours, OpError, OpRule, SizedCx, TensorType};
use crate::program::Dim;

/// `(up[T, c · k], offsets u32[S + 1]) → [T, c]`: each row sums what it was in the rows around it, in the order of the window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NeighboursGrad {
    /// The width `k`.
    pub width: u32,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("neighbours_grad" with "neighbours.cuh"));

impl OpRule for NeighboursGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, offsets] = x else {
            return Err("a gradient and offsets are wanted".into());
        };
        let (rows, columns) = Neighbours::check(up, offsets)?;
        let k = u64::from(self.width);
        let whole = k % 2 == 1 && columns.constant % k == 0 && columns.as_const().is_some();
        if !whole {
            return Err(format!("columns must come {k} a column, an odd number"));
        }
        let columns = Dim::from(columns.constant / k);
        Ok(vec![TensorType::new(up.dtype, [rows, columns])])
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let columns = cx.width(0) / u64::from(self.width.max(1));
        let sequences = cx.elements(1).saturating_sub(1);
        list.rows(
            "neighbours_grad",
            "neighbours_grad",
            cx.rows(0),
            columns,
            args![
                In(0),
                In(1),
                Out(0),
                sequences as u32,
                columns as u32,
                self.width
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let offsets = io.input(1).slice::<u32>();
        let k = self.width as usize;
        let (columns, of) = (io.input(0).dims[1] / k, Neighbours { width: self.width });
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), columns, |first, rows| {
                for (row, out) in (first..).zip(rows.chunks_exact_mut(columns)) {
                    // The row is at place k − 1 − j of the one that is at place j of its own window.
                    let window: Vec<Option<usize>> = of.window(offsets, row).collect();
                    for (c, o) in out.iter_mut().enumerate() {
                        let each = window.iter().enumerate().filter_map(|(j, at)| {
                            let from = (*at)? * columns * k + c * k + (k - 1 - j);
                            up.get(from)
                        });
                        *o = T::of(each.map(|x| x.wide()).sum::<f64>());
                    }
                }
            });
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, matrix, random};
    let mut all = Fixtures::new();
    for width in [1, 3, 5] {
        let offsets = || ids(&[0, 2, 3, 7]);
        let k = width as usize;
        let op = NeighboursGrad { width };
        all.sample(op.clone(), [random(61, &[7, 3 * k]), offsets()]);
        for columns in [1, 65, 300] {
            all.case(op.clone(), [matrix(10, 7, columns * k), offsets()]);
        }
    }
    all
}
