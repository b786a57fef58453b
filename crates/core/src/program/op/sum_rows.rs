//! `sum_rows`: the sum of a matrix's rows, the gradient of a bias.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    source, stored_in,
};
use super::math::{Elementary, column_sums, column_sums_scratch, part, simd};
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `x[N, d] → [d]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SumRows;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sum_rows"));

impl OpRule for SumRows {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => match a.matrix() {
                Some((_, d)) => Ok(vec![TensorType::new(a.dtype, [d])]),
                None => Err("a matrix is wanted".into()),
            },
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[])?);
        list.column_sums(
            ("sum_rows", "sum_rows"),
            (cx.rows(0), cx.width(0)),
            &[In(0)],
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
            let x = io.input(0).slice::<T>();
            let scratch = column_sums_scratch(n as u64, d as u64, size_of::<T>() as u64);
            cx.scratch(scratch, || column_sums(n, d, io.outputs[0].slice::<T>(), |rows, sums| add_rows(part(x, rows.start * d, rows.len() * d), sums)));
        });
        Ok(())
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        sums_workspace(cx)
    }
}

/// `sums += Σ rows of x`
pub(super) fn add_rows<T: Elementary>(x: &[T], sums: &mut [T]) {
    simd!(<T> (x: &'a [T] = x, sums: &'a mut [T] = sums) {
        for row in x.chunks_exact(sums.len().max(1)) {
            for (s, &x) in sums.iter_mut().zip(row) {
                *s += x;
            }
        }
    });
}

/// Scratch of a column sum over input 0.
pub(super) fn sums_workspace(cx: &SizedCx) -> u64 {
    let Some(x) = cx.inputs.first() else { return 0 };
    let (n, d) = (
        x.dims.first().copied().unwrap_or(0) as u64,
        x.dims.get(1).copied().unwrap_or(0) as u64,
    );
    column_sums_scratch(n, d, x.bytes / (n * d).max(1))
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![]));
    all.sample(SumRows, [random(7, &[150, 5])]);
    all.large(SumRows, [matrix(3, 1000, 77)]);
    for (rows, d) in SHAPES {
        all.case(SumRows, [matrix(10, rows, d)]);
    }
    all
}
