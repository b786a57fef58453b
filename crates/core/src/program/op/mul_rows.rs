//! `mul_rows`: every row times one vector, elementwise.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{for_chunks_of_rows, part, simd};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, SumRowsProduct, TensorType, Value};

/// `(x[N, d], v[d]) → x ⊙ v` on every row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MulRows;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("mul_rows"));

impl OpRule for MulRows {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, v] if a.dtype == v.dtype && a.dtype.is_compute() => match a.matrix() {
                Some((_, d)) if v.shape == [d] => Ok(vec![(*a).clone()]),
                _ => Err("a matrix and a vector of its width are wanted".into()),
            },
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        list.rows(
            "mul_rows",
            "mul_rows",
            rows,
            d,
            args![In(0), In(1), Out(0), d as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let v = io.input(1).slice::<T>();
            let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
            let d = v.len();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
                if let Some(x) = x {
                    rows.copy_from_slice(part(x, first * d, rows.len()));
                }
                simd!(<T> (rows: &'a mut [T] = rows, v: &'a [T] = v) {
                    for row in rows.chunks_exact_mut(v.len().max(1)) {
                        for (o, &s) in row.iter_mut().zip(v) {
                            *o *= s;
                        }
                    }
                });
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None, None];
        };
        let dx = at.needs[0].then(|| b.push1(Self, &[up, at.inputs[1]]));
        let dv = at.needs[1].then(|| b.push1(SumRowsProduct, &[up, at.inputs[0]]));
        vec![dx, dv]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.sample(MulRows, [small(4), random(6, &[5])]);
    for (rows, d) in SHAPES {
        all.case(MulRows, [matrix(10, rows, d), list(14, d)]);
    }
    all
}
