//! `dropout`: inverted dropout whose mask is recomputed, never stored.

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, simd};
use super::random::{GROUP, group_of_words, threshold};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `(x[N, d], keys u32[N, 2], step u32[1]) → x ⊙ mask / (1 − p)` (Srivastava et al. 2014).
///
/// The mask of an element depends on the stream, the step, the row's example and position, and the
/// column: not on packing, micro-batches or threads. The gradient is the same op on the gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropout {
    /// Probability of dropping.
    pub p: Real,
    /// Key of the random stream.
    pub stream: [u32; 2],
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("dropout"));

impl OpRule for Dropout {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, keys, step]
                if a.dtype.is_compute() && keys.dtype == DType::U32 && step.dtype == DType::U32 =>
            {
                match (a.matrix(), keys.matrix()) {
                    (Some((n, _)), Some((m, two))) if n == m && two.as_const() == Some(2) => {
                        Ok(vec![(*a).clone()])
                    }
                    _ => Err("a matrix and two keys for each row are wanted".into()),
                }
            }
            _ => Err("a float matrix, u32 keys and a u32 step are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (rows, d, p) = (cx.rows(0), cx.width(0), self.p.get());
        let [k0, k1] = self.stream;
        let args = args![
            In(0),
            In(1),
            In(2),
            Out(0),
            d as u32,
            k0,
            k1,
            threshold(p),
            (1.0 / (1.0 - p)) as f32
        ];
        list.rows("dropout", "dropout", rows, d.div_ceil(4), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0]
            .filter(|_| at.needs[0])
            .map(|up| b.push1(self.clone(), &[up, at.inputs[1], at.inputs[2]]));
        vec![dx, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

impl Dropout {
    fn compute<T: Elementary>(&self, io: &mut Io<'_>) {
        let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
        let (keys, step) = (io.input(1).slice::<u32>(), io.input(2).slice::<u32>()[0]);
        let (limit, scale) = (threshold(self.p.get()), T::of(1.0 / (1.0 - self.p.get())));
        let d = io.outputs[0].dims[1];
        let stream = self.stream;
        for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
            if let Some(x) = x {
                rows.copy_from_slice(part(x, first * d, rows.len()));
            }
            for (row, key) in rows
                .chunks_exact_mut(d)
                .zip(keys.chunks_exact(2).skip(first))
            {
                drop_row(stream, 0, [key[1], key[0], step], limit, scale, row);
            }
        });
    }
}

/// Drops and scales a row in place: element `i` by word `i % 4` of the block with counter
/// `[first + i / 4, tail…]`.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn drop_row<T: Elementary>(
    stream: [u32; 2],
    first: u32,
    tail: [u32; 3],
    limit: u32,
    scale: T,
    row: &mut [T],
) {
    simd!(<T> (stream: [u32; 2] = stream, first: u32 = first, tail: [u32; 3] = tail, limit: u32 = limit, scale: T = scale, row: &'a mut [T] = row) {
        for (group, out) in row.chunks_mut(GROUP).enumerate() {
            let words = group_of_words(stream, first + (group * GROUP / 4) as u32, tail);
            for (o, &word) in out.iter_mut().zip(&words) {
                *o = if word < limit { T::zero() } else { *o * scale };
            }
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, keys, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    let sample = Dropout {
        p: Real::new(0.3),
        stream: [1, 2],
    };
    all.sample(sample, [random(18, &[6, 300]), keys(6), ids(&[4])]);
    let op = Dropout {
        p: Real::new(0.1),
        stream: [5, 6],
    };
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
    fn dropout_keeps_the_rate_and_does_not_depend_on_packing() {
        let op: Op = Dropout {
            p: Real::new(0.3),
            stream: [5, 6],
        }
        .into();
        let x = Tensor::new(vec![1.0_f32; 40 * 300], &[40, 300]);
        let y = eval(&op, &[x.clone(), keys(40), ids(&[1])], 1);
        let zeros = floats(&y[0]).iter().filter(|x| **x == 0.0).count() as f64 / 12_000.0;
        assert!((zeros - 0.3).abs() < 0.02, "{zeros}");
        let mut reversed: Vec<[u32; 2]> = (0..40_u32).map(|i| [i / 3, i % 3]).collect();
        reversed.reverse();
        let reversed = Tensor::new(reversed.concat(), &[40, 2]);
        let z = eval(&op, &[x.clone(), reversed, ids(&[1])], 1);
        let rows: Vec<Vec<f64>> = floats(&y[0]).chunks(300).map(<[f64]>::to_vec).collect();
        let back: Vec<Vec<f64>> = floats(&z[0])
            .chunks(300)
            .rev()
            .map(<[f64]>::to_vec)
            .collect();
        assert_eq!(rows, back);
        assert_ne!(
            floats(&y[0]),
            floats(&eval(&op, &[x, keys(40), ids(&[2])], 1)[0]),
            "steps differ"
        );
    }
}
