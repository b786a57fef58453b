//! `masked`: what a mask of bits leaves of a tensor.

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks, part};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(x, bits u32) → scale · x` where bit `i % 32` of word `i / 32` is set, else 0. Any shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Masked {
    /// Factor of what is left.
    pub scale: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("masked"));

/// Whether a list has a bit for every element of a tensor.
pub(super) fn covers(x: &TensorType, bits: &TensorType) -> bool {
    let all = x
        .shape
        .iter()
        .try_fold(1_u64, |n, d| Some(n * d.as_const()?));
    match (all, bits.shape.as_slice(), bits.dtype) {
        (Some(n), [words], DType::U32) => words.as_const() == Some(n.div_ceil(32)),
        _ => false,
    }
}

/// Whether a bit is set.
#[inline(always)]
pub(super) fn is_set(bits: &[u32], i: usize) -> bool {
    bits[i / 32] >> (i % 32) & 1 == 1
}

impl OpRule for Masked {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, bits] if a.dtype.is_compute() && covers(a, bits) => Ok(vec![(*a).clone()]),
            _ => Err("a float of constant shape and a bit for each element are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        let args = args![In(0), In(1), Out(0), n, self.scale.get() as f32];
        list.each("masked", "masked", n, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let bits = io.input(1).slice::<u32>();
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = (io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            let scale = T::of(self.scale.get());
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                if let Some(x) = x {
                    out.copy_from_slice(part(x, start, out.len()));
                }
                for (i, x) in out.iter_mut().enumerate() {
                    *x = if is_set(bits, start + i) { *x * scale } else { T::of(0.0) };
                }
            });
        });
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, small};
    let mut all = Fixtures::with_same_bits();
    let op = Masked {
        scale: Real::new(1.0 / 0.3),
    };
    all.sample(op.clone(), [small(4), ids(&[0x2f0f_1234])]);
    let bits: Vec<u32> = (0..626_u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    all.case(op, [list(1, 20_001), ids(&bits)]);
    all
}
