//! `neighbours`: rows with those around them in their sequence, as a convolution reads them.

use super::super::types::{DType, Dim};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::for_chunks_of_rows;
use super::{At, Builder, Io, Kernel, NeighboursGrad, OpError, OpRule, SizedCx, TensorType, Value};

/// `(x[T, c], offsets u32[S + 1]) → [T, c · k]` for an odd `k`: at `c₀ · k + j` of a row stands column `c₀` of the row `j − (k − 1) / 2` behind
/// it, and 0 where that is of another sequence. So a product with the weight `[out, c · k]` of a convolution of width `k` along the
/// tokens is that convolution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Neighbours {
    /// The width `k`.
    pub width: u32,
}

impl Neighbours {
    /// Checks the operands; gives rows and columns.
    pub(super) fn check(x: &TensorType, offsets: &TensorType) -> Result<(Dim, Dim), String> {
        match x.matrix() {
            Some(shape)
                if x.dtype.is_compute()
                    && offsets.dtype == DType::U32
                    && offsets.shape.len() == 1 =>
            {
                Ok(shape)
            }
            _ => Err("a matrix and offsets are wanted".into()),
        }
    }

    /// For each place of the window the row that stands there, if it is of the same sequence.
    pub(super) fn window(
        &self,
        offsets: &[u32],
        row: usize,
    ) -> impl Iterator<Item = Option<usize>> + use<> {
        let own = offsets.partition_point(|&start| start as usize <= row);
        let bound =
            |at: Option<usize>| at.and_then(|at| offsets.get(at)).map_or(0, |&x| x as usize);
        let (start, end) = (bound(own.checked_sub(1)), bound(Some(own)));
        let (width, left) = (self.width as usize, self.width as usize / 2);
        (0..width).map(move |j| {
            let at = (row + j).checked_sub(left)?;
            (start..end).contains(&at).then_some(at)
        })
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("neighbours" with "neighbours.cuh"));

impl OpRule for Neighbours {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [x, offsets] if self.width % 2 == 1 => {
                let (rows, columns) = Self::check(x, offsets)?;
                let columns = columns.times(self.width.into());
                Ok(vec![TensorType::new(x.dtype, [rows, columns])])
            }
            _ => Err("a matrix, offsets and an odd width are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (columns, sequences) = (cx.width(0), cx.elements(1).saturating_sub(1));
        list.rows(
            "neighbours",
            "neighbours",
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
        let (columns, k) = (io.input(0).dims[1], self.width as usize);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), columns * k, |first, rows| {
                for (row, out) in (first..).zip(rows.chunks_exact_mut(columns * k)) {
                    for (j, from) in self.window(offsets, row).enumerate() {
                        let from = from.map(|at| super::math::part(x, at * columns, columns));
                        let out = out.iter_mut().skip(j).step_by(k);
                        match from {
                            Some(from) => out.zip(from).for_each(|(o, x)| *o = *x),
                            None => out.for_each(|o| *o = T::default()),
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let width = self.width;
        let dx = at.up[0].filter(|_| at.needs[0]);
        let dx = dx.map(|up| b.push1(NeighboursGrad { width }, &[up, at.inputs[1]]));
        vec![dx, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, matrix, random};
    let mut all = Fixtures::with_same_bits();
    for width in [1, 3, 5] {
        let offsets = || ids(&[0, 2, 3, 7]);
        all.sample(Neighbours { width }, [random(61, &[7, 3]), offsets()]);
        for columns in [1, 65, 300] {
            all.case(Neighbours { width }, [matrix(10, 7, columns), offsets()]);
        }
    }
    all
}
