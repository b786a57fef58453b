//! `inverse`: the inverses of small matrices beside the identity, which need no exchange of rows.

use rayon::prelude::*;

use super::launch::{
    Call, KernelSource, Launch, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, part, simd};
use super::{
    At, BlockProduct, Blocks, Builder, Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType,
    Unary, UnaryKind, Value,
};
use crate::program::types::DType;

/// `a[g·b, b] → (I + a)⁻¹ [g·b, b]` of each of `g` square matrices, one below the other, by Gauss' and Jordan's elimination
/// without exchanges of rows. It is exact to rounding for what methods invert: `a` is skew-symmetric, as of Cayley transforms,
/// or strictly triangular, as of products of reflections, or `I + a` is positive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inverse;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("inverse"));

/// Turns a matrix of `n` rows into the inverse of the identity plus it.
fn invert<T: Elementary>(a: &mut [T], n: usize) {
    for x in a.iter_mut().step_by(n + 1) {
        *x += T::one();
    }
    let mut pivot_row = vec![T::zero(); n];
    for p in 0..n {
        let row = &mut a[p * n..(p + 1) * n];
        let by = T::one() / row[p];
        row[p] = T::one();
        for x in row.iter_mut() {
            *x *= by;
        }
        pivot_row.copy_from_slice(row);
        for (r, row) in a.chunks_exact_mut(n).enumerate() {
            if r == p {
                continue;
            }
            let factor = row[p];
            row[p] = T::zero();
            let pivot = pivot_row.as_slice();
            simd!(<T> (row: &'a mut [T] = row, pivot: &'a [T] = pivot, factor: T = factor) {
                for (x, &p) in row.iter_mut().zip(pivot) {
                    *x -= factor * p;
                }
            });
        }
    }
}

impl OpRule for Inverse {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => {
                let (rows, columns) = a.matrix().ok_or("a matrix is wanted")?;
                match (rows.as_const(), columns.as_const()) {
                    (Some(rows), Some(n)) if n > 0 && rows % n == 0 => Ok(vec![(*a).clone()]),
                    _ => Err("square matrices, one below the other, are wanted".into()),
                }
            }
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (rows, n) = (cx.rows(0), cx.width(0));
        let (from, to) = (In(0), Out(0));
        list.list.push(Launch::Copy { from, to });
        list.call(Call {
            source: "inverse",
            kernel: "inverse",
            stored_in: DType::F32,
            grid: [(rows / n.max(1)) as u32, 1],
            block: n.next_multiple_of(32).clamp(32, 256) as u32,
            shared: 0,
            args: args![Out(0), n as u32],
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let n = io.outputs[0].dims[1];
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
            let scratch = (cx.machine.threads * n * size_of::<T>()) as u64;
            cx.scratch(scratch, || {
                io.outputs[0].slice::<T>().par_chunks_exact_mut(n * n).enumerate().for_each(|(g, out)| {
                    if let Some(x) = x {
                        out.copy_from_slice(part(x, g * n * n, n * n));
                    }
                    invert(out, n);
                });
            });
        });
        Ok(())
    }

    /// Of `M = (I + A)⁻¹` it is `−Mᵀ G Mᵀ`.
    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0].filter(|_| at.needs[0]) else {
            return vec![None];
        };
        let made = at.outputs[0];
        let matrix = b.ty(made).matrix();
        let sizes = matrix.and_then(|(rows, n)| rows.as_const().zip(n.as_const()));
        let groups = sizes.map_or(1, |(rows, n)| rows / n.max(1)) as u32;
        let (plain, turned) = (Blocks::STACKED, Blocks::STACKED.transposed());
        let left = b.push1(BlockProduct::new(groups, turned, plain), &[made, up]);
        let both = b.push1(BlockProduct::new(groups, plain, turned), &[left, made]);
        let kind = UnaryKind::Neg;
        vec![Some(b.push1(Unary { kind }, &[both]))]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (rows, n) = (cx.rows(0), cx.width(0));
        Cost {
            flops: 2 * rows * n * n,
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn workspace(&self, cx: &SizedCx, machine: &super::Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        machine.threads as u64 * cx.width(0) * size
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::Tensor;
    use super::fixtures::{Fixtures, narrow, random};
    // One more on the diagonal, and what is left is small.
    let near = |seed, groups: usize, n: usize| -> Tensor {
        let mut x = random(seed, &[groups * n, n]);
        let all = x.slice_mut::<f64>().expect("f64");
        for (i, x) in all.iter_mut().enumerate() {
            let (r, c) = (i / n % n, i % n);
            *x = *x * 0.3 / n as f64 + if r == c { 1.0 } else { 0.0 };
        }
        x
    };
    let mut all = Fixtures::new();
    all.sample(Inverse, [near(1, 2, 3)]);
    all.sample(Inverse, [near(2, 1, 1)]);
    all.large(Inverse, [narrow(&near(3, 40, 24))]);
    for (groups, n) in [(1, 1), (3, 5), (2, 33), (1, 70)] {
        all.case(Inverse, [narrow(&near(4, groups, n))]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_times_its_matrix_is_the_identity() {
        let skew = [0.0_f64, 3.0, -2.0, -3.0, 0.0, 0.5, 2.0, -0.5, 0.0];
        let mut a = skew;
        a.iter_mut().step_by(4).for_each(|x| *x += 1.0);
        let mut own = skew;
        invert(&mut own, 3);
        for r in 0..3 {
            for c in 0..3 {
                let at: f64 = (0..3).map(|k| own[r * 3 + k] * a[k * 3 + c]).sum();
                assert!((at - if r == c { 1.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
    }
}
