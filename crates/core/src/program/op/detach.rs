//! `detach`: the same values, which count as constants in the backward pass.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{for_chunks, part};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `x → x`, any shape; no gradient goes through it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detach;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("detach"));

impl OpRule for Detach {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let n = cx.elements(0);
        list.fours("detach", "detach", n, args![In(0), Out(0), n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            if io.taken.is_none() {
                let x = io.input(0).slice::<T>();
                for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                    out.copy_from_slice(part(x, start, out.len()));
                });
            }
        });
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.sample(Detach, [random(4, &[6, 5])]);
    all.large(Detach, [random(5, &[30_000])]);
    for (rows, d) in SHAPES {
        all.case(Detach, [matrix(6, rows, d)]);
    }
    all
}
