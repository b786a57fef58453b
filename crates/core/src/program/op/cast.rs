//! `cast`: between storage and compute types, of what is frozen, so it has no gradient.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::super::format::Format;
use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    source,
};
use super::math::{for_chunks, part};
use super::{Io, Kernel, OpError, OpRule, SizedCx, Storage, TensorMut, TensorRef, TensorType};

/// `x → x` in another float type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cast {
    /// The type of the result.
    pub to: DType,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("cast"));

impl OpRule for Cast {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if matches!(
                (a.dtype, self.to),
                (DType::F16 | DType::BF16, DType::F32) | (DType::F32, DType::F16 | DType::BF16)
            ) =>
            {
                Ok(vec![TensorType::new(self.to, a.shape.clone())])
            }
            _ => Err("between f32 and f16 or bf16".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let (from, to) = (cx.inputs.first()?, cx.outputs.first()?);
        if from.is_narrow() || to.is_narrow() {
            return None;
        }
        let mut list = Launches::default();
        let n = cx.elements(0);
        list.cast(cast_kernel(from.computed, self.to)?, In(0), Out(0), n);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        cast_elements(io.input(0), io.outputs[0].view_mut());
        Ok(())
    }

    fn reads(&self, _: usize, stored: Format) -> bool {
        stored.is_half()
    }

    fn writes_half(&self) -> bool {
        true
    }
}

/// The kernel that casts on a GPU, between f32 and a float of 16 bits.
#[must_use]
pub fn cast_kernel(from: DType, to: DType) -> Option<&'static str> {
    Some(match (from, to) {
        (DType::F16, DType::F32) => "widen_f16",
        (DType::BF16, DType::F32) => "widen_bf16",
        (DType::F32, DType::F16) => "narrow_f16",
        (DType::F32, DType::BF16) => "narrow_bf16",
        _ => return None,
    })
}

/// Casts elements between floats of 32 and 16 bits, rounding once to the nearest, and decodes blocks to f32.
///
/// # Panics
/// If one of the two holds no such type (a bug).
pub fn cast_elements(x: TensorRef<'_>, mut out: TensorMut<'_>) {
    if let Storage::Blocks(format, data) = x.storage {
        return format.decode_all(data, out.slice::<f32>());
    }
    match (x.dtype(), out.dtype()) {
        (DType::F16, DType::F32) => convert(
            x.slice::<f16>(),
            out.slice::<f32>(),
            <[f16]>::convert_to_f32_slice,
        ),
        (DType::BF16, DType::F32) => widen_bf16(x.slice::<bf16>(), out.slice::<f32>()),
        (DType::F32, DType::F16) => convert(x.slice::<f32>(), out.slice::<f16>(), |from, to| {
            to.convert_from_f32_slice(from)
        }),
        (DType::F32, DType::BF16) => convert(x.slice::<f32>(), out.slice::<bf16>(), |from, to| {
            to.convert_from_f32_slice(from)
        }),
        (DType::BF16, DType::F16) => convert(x.slice::<bf16>(), out.slice::<f16>(), |from, to| {
            from.iter()
                .zip(to)
                .for_each(|(x, o)| *o = f16::from_f32(x.to_f32()));
        }),
        (DType::F16, DType::BF16) => convert(x.slice::<f16>(), out.slice::<bf16>(), |from, to| {
            from.iter()
                .zip(to)
                .for_each(|(x, o)| *o = bf16::from_f32(x.to_f32()));
        }),
        (DType::F16, _) => out.slice::<f16>().copy_from_slice(x.slice::<f16>()),
        (DType::BF16, _) => out.slice::<bf16>().copy_from_slice(x.slice::<bf16>()),
        _ => out.slice::<f32>().copy_from_slice(x.slice::<f32>()),
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

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow, small};
    let mut all = Fixtures::with_same_bits();
    let x = narrow(&small(4));
    all.sample(Cast { to: DType::F16 }, [x]);
    let x = wide();
    for to in [DType::F16, DType::BF16] {
        all.case(Cast { to }, [x.clone()]);
        all.case(Cast { to: DType::F32 }, [x.cast(to)]);
    }
    all
}

/// Numbers at the ends and between the steps of 16-bit types.
#[cfg(test)]
pub(super) fn wide() -> super::Tensor {
    let special = [
        0.0,
        -0.0,
        1.0,
        65_504.0,
        65_519.0,
        65_520.0,
        1e9,
        6e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        1e-40,
        -3.3e-5,
        f32::INFINITY,
    ];
    let steps = (0..4000).map(|i| (i as f32 - 2000.0) * 1.7e-3);
    let all: Vec<f32> = special.into_iter().chain(steps).collect();
    super::Tensor::new(all, &[4014])
}
