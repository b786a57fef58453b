//! `perturb`: moves a tensor along a random direction that is drawn again wherever it is needed.

use super::super::types::{DType, Real};
use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::math::{CHUNK, Elementary, for_chunks, simd};
use super::random::{GROUP, group_of_normals};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(w, by f32[3], draw u32[2])`, in place: with `z` standard normal, keyed by the tensor's stream, the
/// element's place and the draw (step, sample), and `by = [a, b, rate]`:
/// `t = w + a z`, `w ← t − (b z + rate · λ t)`.
///
/// So MeZO's `+εz` and `−2εz` are `a = ±…, b = 0`, and its last pass restores and updates at once, with
/// `a = ε` and `b = η g` (Malladi et al. 2023, arXiv 2305.17333, algorithm 1). No direction is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Perturb {
    /// Key of the tensor's stream.
    pub stream: [u32; 2],
    /// λ
    pub weight_decay: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("perturb" with "normal.cuh"));

impl OpRule for Perturb {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [w, by, draw]
                if w.dtype.is_compute()
                    && **by == TensorType::fixed(DType::F32, &[3])
                    && **draw == TensorType::fixed(DType::U32, &[2]) =>
            {
                Ok(vec![])
            }
            _ => Err("a float, three factors and a draw are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (n, [k0, k1]) = (cx.elements(0), self.stream);
        let args = args![
            In(0),
            In(1),
            In(2),
            n,
            k0,
            k1,
            self.weight_decay.get() as f32
        ];
        list.each("perturb", "perturb", n.div_ceil(4), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let by = io.input(1).slice::<f32>();
        let draw = io.input(2).slice::<u32>();
        let (by, draw) = ([by[0], by[1], by[2]], [draw[0], draw[1]]);
        super::kernel::float!(io.updates[0].dtype(), T => self.walk::<T>(io.updates[0].slice::<T>(), by, draw));
        Ok(())
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }
}

impl Perturb {
    fn walk<T: Elementary>(&self, w: &mut [T], by: [f32; 3], draw: [u32; 2]) {
        const { assert!(CHUNK.is_multiple_of(GROUP)) };
        let [a, b, rate] = by.map(|x| T::of(f64::from(x)));
        let decay = rate * T::of(self.weight_decay.get());
        let stream = self.stream;
        for_chunks(w, |start, w| {
            simd!(<T> (w: &'a mut [T] = w, start: usize = start, stream: [u32; 2] = stream, draw: [u32; 2] = draw, a: T = a, b: T = b, decay: T = decay) {
                for (group, w) in w.chunks_mut(GROUP).enumerate() {
                    let first = (start + group * GROUP) / 4;
                    // Tensors of more than 2³⁴ elements do not exist here: four a block, 32 bits of blocks.
                    let z = group_of_normals(stream, first as u32, [0, draw[1], draw[0]]);
                    for (w, z) in w.iter_mut().zip(z) {
                        let z = T::of(f64::from(z));
                        let t = *w + a * z;
                        *w = t - (b * z + decay * t);
                    }
                }
            });
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, random};
    let mut all = Fixtures::with_same_bits();
    let op = |stream| Perturb {
        stream,
        weight_decay: Real::new(0.01),
    };
    let by = |a: f32, b, c| super::Tensor::new(vec![a, b, c], &[3]);
    all.sample(
        op([5, 6]),
        [random(42, &[20_001]), by(0.5, 0.25, 0.1), ids(&[3, 1])],
    );
    for n in [1, 2, 3, 4, 5, 65_537] {
        all.case(
            op([n as u32, 77]),
            [list(28, n), by(1e-3, 2e-4, 1e-5), ids(&[9, 2])],
        );
    }
    all
}
