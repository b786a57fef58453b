//! `cast`: between storage and compute types. Frozen weights only, so it has no gradient.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::super::types::DType;
use super::math::{for_chunks, part};
use super::launch::{Launches, Operand::{In, Out}, args};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `x → x` in another float type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cast {
    /// The type of the result.
    pub to: DType,
}

impl OpRule for Cast {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if matches!((a.dtype, self.to), (DType::F16 | DType::BF16, DType::F32) | (DType::F32, DType::F16 | DType::BF16)) => {
                Ok(vec![TensorType { dtype: self.to, shape: a.shape.clone() }])
            }
            _ => Err("between f32 and f16 or bf16".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let kernel = match (cx.inputs.first()?.dtype, self.to) {
            (DType::F16, _) => "widen_f16",
            (DType::BF16, _) => "widen_bf16",
            (_, DType::F16) => "narrow_f16",
            _ => "narrow_bf16",
        };
        let mut list = Launches::default();
        list.each("cast", kernel, cx.elements(0), args![In(0), Out(0), cx.elements(0)]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let x = io.input(0);
        let out = &mut io.outputs[0];
        match (x.dtype(), self.to) {
            (DType::F16, _) => convert(x.slice::<f16>(), out.slice::<f32>(), <[f16]>::convert_to_f32_slice),
            (DType::BF16, _) => widen_bf16(x.slice::<bf16>(), out.slice::<f32>()),
            (_, DType::F16) => convert(x.slice::<f32>(), out.slice::<f16>(), |from, to| to.convert_from_f32_slice(from)),
            _ => convert(x.slice::<f32>(), out.slice::<bf16>(), |from, to| to.convert_from_f32_slice(from)),
        }
        Ok(())
    }
}

fn convert<S: Sync, T: Send>(from: &[S], to: &mut [T], f: impl Fn(&[S], &mut [T]) + Sync) {
    for_chunks(to, |start, out| f(part(from, start, out.len()), out));
}

/// The upper half of an f32's bits: what the half crate does, without its care for signalling NaNs,
/// so that it vectorises.
fn widen_bf16(from: &[bf16], to: &mut [f32]) {
    convert(from, to, |from, to| {
        for (o, x) in to.iter_mut().zip(from) {
            *o = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    });
}
