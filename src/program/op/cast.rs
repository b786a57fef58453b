//! `cast`: between storage and compute types. Frozen weights only, so it has no gradient.

use half::{bf16, f16};

use super::super::types::DType;
use super::math::{for_chunks, rest, simd};
use super::{Io, Kernel, OpError, OpRule, TensorType};

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

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let x = io.input(0);
        let out = &mut io.outputs[0];
        match (x.dtype(), self.to) {
            (DType::F16, _) => convert(x.slice::<f16>(), out.slice::<f32>(), f16::to_f32),
            (DType::BF16, _) => convert(x.slice::<bf16>(), out.slice::<f32>(), bf16::to_f32),
            (_, DType::F16) => convert(x.slice::<f32>(), out.slice::<f16>(), f16::from_f32),
            _ => convert(x.slice::<f32>(), out.slice::<bf16>(), bf16::from_f32),
        }
        Ok(())
    }
}

fn convert<S: Copy + Sync, T: Send>(from: &[S], to: &mut [T], f: impl Fn(S) -> T + Sync) {
    for_chunks(to, |start, out| simd(|| out.iter_mut().zip(rest(from, start)).for_each(|(o, &x)| *o = f(x))));
}
