//! `sum_rows_product`: the row sum of an elementwise product, the gradient of a scaling vector.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    source, stored_in,
};
use super::math::{column_sums, column_sums_scratch, part, simd};
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(a[N, d], b[N, d]) → Σ rows of a ⊙ b: [d]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumRowsProduct;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sum_rows_product"));

impl OpRule for SumRowsProduct {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b] if a == b && a.dtype.is_compute() => match a.matrix() {
                Some((_, d)) => Ok(vec![TensorType::new(a.dtype, [d])]),
                None => Err("matrices are wanted".into()),
            },
            _ => Err("two float matrices of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[])?);
        list.column_sums(
            ("sum_rows_product", "sum_rows_product"),
            (cx.rows(0), cx.width(0)),
            &[In(0), In(1)],
            &[Out(0)],
        );
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (n, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (a, b) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
            let scratch = column_sums_scratch(n as u64, d as u64, size_of::<T>() as u64);
            cx.scratch(scratch, || column_sums(n, d, io.outputs[0].slice::<T>(), |rows, sums| {
                let (a, b) = (part(a, rows.start * d, rows.len() * d), part(b, rows.start * d, rows.len() * d));
                simd!(<T> (a: &'a [T] = a, b: &'a [T] = b, sums: &'a mut [T] = sums) {
                    let d = sums.len().max(1);
                    for (a, b) in a.chunks_exact(d).zip(b.chunks_exact(d)) {
                        for ((s, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                            *s += a * b;
                        }
                    }
                });
            }));
        });
        Ok(())
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        super::sum_rows::sums_workspace(cx)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![]));
    all.sample(SumRowsProduct, [random(7, &[150, 5]), random(8, &[150, 5])]);
    for (rows, d) in SHAPES {
        all.case(SumRowsProduct, [matrix(10, rows, d), matrix(13, rows, d)]);
    }
    all
}
