//! `noise`: a matrix times standard normal numbers, which are drawn again in the backward pass and never stored.

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, simd};
use super::random::{GROUP, group_of_normals};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `(x[N, d], keys u32[N, 2], step u32[1]) → x ⊙ ε`, ε standard normal: what a normal variable adds to its mean.
///
/// As in a dropout, a number depends on the stream, the step, the row's example and position, and the column. The gradient
/// is the same op on the gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Noise {
    /// Key of the random stream.
    pub stream: [u32; 2],
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("noise" with "normal.cuh"));

impl OpRule for Noise {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [a, keys, step] = x else {
            return Err("a float matrix, u32 keys and a u32 step are wanted".into());
        };
        let whole = keys.dtype == DType::U32 && step.dtype == DType::U32;
        match (a.matrix(), keys.matrix()) {
            (Some((n, _)), Some((m, two)))
                if whole && a.dtype.is_compute() && n == m && two.as_const() == Some(2) =>
            {
                Ok(vec![(*a).clone()])
            }
            _ => Err("a float matrix, two u32 keys for each row and a u32 step are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (rows, d, [k0, k1]) = (cx.rows(0), cx.width(0), self.stream);
        let args = args![In(0), In(1), In(2), Out(0), d as u32, k0, k1];
        list.rows("noise", "noise", rows, d.div_ceil(4), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let up = at.up[0].filter(|_| at.needs[0]);
        let dx = up.map(|up| b.push1(self.clone(), &[up, at.inputs[1], at.inputs[2]]));
        vec![dx, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

impl Noise {
    fn compute<T: Elementary>(&self, io: &mut Io<'_>) {
        let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
        let (keys, step) = (io.input(1).slice::<u32>(), io.input(2).slice::<u32>()[0]);
        let (d, stream) = (io.outputs[0].dims[1], self.stream);
        for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
            if let Some(x) = x {
                rows.copy_from_slice(part(x, first * d, rows.len()));
            }
            let keys = keys.chunks_exact(2).skip(first);
            for (row, key) in rows.chunks_exact_mut(d).zip(keys) {
                multiply(stream, [key[1], key[0], step], row);
            }
        });
    }
}

/// Multiplies a row by its numbers: element `i` by number `i % 4` of the block with counter `[i / 4, tail…]`.
fn multiply<T: Elementary>(stream: [u32; 2], tail: [u32; 3], row: &mut [T]) {
    simd!(<T> (stream: [u32; 2] = stream, tail: [u32; 3] = tail, row: &'a mut [T] = row) {
        for (group, out) in row.chunks_mut(GROUP).enumerate() {
            let normals = group_of_normals(stream, (group * GROUP / 4) as u32, tail);
            for (o, &z) in out.iter_mut().zip(&normals) {
                *o *= T::of(f64::from(z));
            }
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, keys, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    let op = Noise { stream: [1, 2] };
    all.sample(op.clone(), [random(18, &[6, 300]), keys(6), ids(&[4])]);
    for (rows, d) in SHAPES {
        all.case(op.clone(), [matrix(10, rows, d), keys(rows), ids(&[11])]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, ids, keys};
    use super::super::{Op, Tensor};
    use super::*;

    #[test]
    fn the_numbers_are_normal_and_depend_on_the_step() {
        let op: Op = Noise { stream: [5, 6] }.into();
        let x = Tensor::new(vec![2.0_f32; 40 * 300], &[40, 300]);
        let y = floats(&eval(&op, &[x.clone(), keys(40), ids(&[1])], 1)[0]);
        let n = y.len() as f64;
        let mean = y.iter().sum::<f64>() / n;
        let square = y.iter().map(|x| x * x).sum::<f64>() / n;
        assert!(mean.abs() < 0.05, "{mean}");
        assert!((square - 4.0).abs() < 0.2, "{square}");
        let other = floats(&eval(&op, &[x, keys(40), ids(&[2])], 1)[0]);
        assert_ne!(y, other, "steps differ");
    }
}
