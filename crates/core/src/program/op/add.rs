//! `add`: elementwise `a + b` of one type.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{add_to, for_chunks, part, simd};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `a + b`, same type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Add;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("add"));

impl OpRule for Add {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b] if a == b && a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        list.fours(
            "add",
            "add",
            cx.elements(0),
            args![In(0), In(1), Out(0), cx.elements(0)],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let taken = io.taken;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            match taken {
                Some(i) => {
                    let other = io.input(1 - i).slice::<T>();
                    for_chunks(io.outputs[0].slice::<T>(), |start, out| add_to(out, part(other, start, out.len())));
                }
                None => {
                    let (a, b) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
                    for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                        let (a, b) = (part(a, start, out.len()), part(b, start, out.len()));
                        simd!(<T> (out: &'a mut [T] = out, a: &'a [T] = a, b: &'a [T] = b) {
                            for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                                *o = a + b;
                            }
                        });
                    });
                }
            }
        });
        Ok(())
    }

    fn grad(&self, _: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        at.needs
            .iter()
            .map(|&wanted| if wanted { at.up[0] } else { None })
            .collect()
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn in_place(&self) -> &'static [usize] {
        &[0, 1]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    all.sample(Add, [small(4), small(5)]);
    all
}
