//! `watch`: the same values, while the gradient of a frozen matrix is looked at.

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, held, source,
};
use super::math::{for_chunks, part};
use super::{
    Accumulate, At, Builder, Io, Kernel, MatMul, Nominate, OpError, OpRule, Places, SampledProduct,
    SizedCx, SquareAccumulate, TensorType, Value,
};

/// `(y[N, rows], x[N, columns], ids u32[k], sums[k], squares[k]) → y`. Backward it looks at the gradient `gᵀ x` of the matrix
/// that `y` is made of `x` by: it nominates the largest `k` of its numbers (`fresh`), or adds those at the places to the
/// sums, and their squares. So a gradient of a whole matrix is there for a moment only, or never.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// The matrix.
    pub places: Places,
    /// Whether the places are chosen anew.
    pub fresh: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("watch"));

impl OpRule for Watch {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [y, input, ids, sums, squares] = x else {
            return Err("two matrices, places, and two lists of numbers are wanted".into());
        };
        let shape = self.places.infer(&[ids])?;
        let (Some((n, rows)), Some((m, columns))) = (y.matrix(), input.matrix()) else {
            return Err("two matrices are wanted".into());
        };
        let fits = y.dtype.is_compute()
            && sums.dtype == y.dtype
            && sums == squares
            && sums.shape == shape
            && n == m
            && rows.as_const() == Some(self.places.rows.into())
            && columns.as_const() == Some(self.places.columns.into());
        if fits {
            Ok(vec![(*y).clone()])
        } else {
            Err("matrices of the widths of the places, and two numbers for each, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(held(cx, &[0, 1], &[0])?);
        let n = cx.elements(0);
        list.each("watch", "watch", n, args![In(0), Out(0), n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            if io.taken.is_none() {
                let x = io.input(0).slice::<T>();
                for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                    out.copy_from_slice(part(x, start, out.len()));
                });
            }
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut made = vec![None; at.inputs.len()];
        let (Some(up), [_, x, ids, sums, squares]) = (at.up[0], at.inputs) else {
            return made;
        };
        if self.fresh {
            let product = MatMul::plain(true, false, Real::new(1.0));
            let gradient = b.push1(product, &[up, *x]);
            b.push(Nominate, &[*ids, *sums, *squares, gradient]);
        } else {
            let op = SampledProduct {
                places: self.places,
                onto: false,
            };
            let own = b.push1(op, &[up, *x, *ids]);
            b.push(Accumulate, &[*sums, own]);
            b.push(SquareAccumulate, &[*squares, own]);
        }
        made[0] = Some(up);
        made
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for fresh in [false, true] {
        let op = Watch {
            places: Places::entries(6, 4),
            fresh,
        };
        let inputs = [
            random(1, &[5, 6]),
            random(2, &[5, 4]),
            ids(&[0, 9, 3]),
            random(3, &[3]),
            random(4, &[3]),
        ];
        all.sample(op, inputs);
    }
    all
}
