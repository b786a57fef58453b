//! `add`: elementwise `a + b` of one type.

use super::{At, Builder, Io, Kernel, OpError, OpRule, TensorType, Value};
use rayon::prelude::*;

/// `a + b`, same type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Add;

impl OpRule for Add {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b] if a == b && a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let taken = io.taken;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            match taken {
                Some(i) => {
                    let other = io.input(1 - i).slice::<T>();
                    io.outputs[0].slice::<T>().par_iter_mut().zip(other).for_each(|(o, x)| *o += *x);
                }
                None => {
                    let (a, b) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
                    io.outputs[0].slice::<T>().par_iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o = *a + *b);
                }
            }
        });
        Ok(())
    }

    fn grad(&self, _: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        at.needs.iter().map(|&wanted| if wanted { at.up[0] } else { None }).collect()
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn in_place(&self) -> &'static [usize] {
        &[0, 1]
    }
}
