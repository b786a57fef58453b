//! `dropout`: inverted dropout whose mask is recomputed, never stored.

use super::super::types::{DType, Real};
use super::math::{Elementary, for_chunks_of_rows, part, simd};
use super::random::{threshold, words};
use super::{At, Builder, Io, Kernel, OpError, OpRule, TensorType, Value};

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

impl OpRule for Dropout {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, keys, step] if a.dtype.is_compute() && keys.dtype == DType::U32 && step.dtype == DType::U32 => match (a.matrix(), keys.matrix()) {
                (Some((n, _)), Some((m, two))) if n == m && two.as_const() == Some(2) => Ok(vec![(*a).clone()]),
                _ => Err("a matrix and two keys for each row are wanted".into()),
            },
            _ => Err("a float matrix, u32 keys and a u32 step are wanted".into()),
        }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| b.push1(self.clone(), &[up, at.inputs[1], at.inputs[2]]));
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
            simd(|| {
                if let Some(x) = x {
                    rows.copy_from_slice(part(x, first * d, rows.len()));
                }
                for (row, key) in rows.chunks_exact_mut(d).zip(part(keys, 2 * first, keys.len() - 2 * first).chunks_exact(2)) {
                    mask_row(stream, [key[1], key[0], step], limit, scale, row);
                }
            });
        });
    }
}

/// Drops and scales a row in place.
#[inline(always)]
fn mask_row<T: Elementary>(stream: [u32; 2], tail: [u32; 3], limit: u32, scale: T, row: &mut [T]) {
    let mut buffer = [0_u32; 256];
    for (piece, out) in row.chunks_mut(256).enumerate() {
        // The first counter goes on over the pieces: 64 blocks each.
        let own = [stream[0].wrapping_add(piece as u32), stream[1]];
        let random = &mut buffer[..out.len()];
        words(own, tail, random);
        for (o, &word) in out.iter_mut().zip(random.iter()) {
            *o = if word < limit { T::zero() } else { *o * scale };
        }
    }
}
