//! `reshape`: the same elements in the same order, as another shape.

use super::super::types::{DType, Shape};
use super::launch::{KernelSource, Launch, Launches, Operand::In, Operand::Out, stored_in};
use super::math::{for_chunks, part};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};
use crate::program::types::Dim;

/// `x → shape`. Only the first dimension of either may vary with the batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reshape {
    /// The shape of the result.
    pub shape: Shape,
}

/// How many elements a shape has, as a number of its first dimension's kind.
fn elements(shape: &[Dim]) -> Option<Dim> {
    let (first, rest) = shape.split_first()?;
    let each = rest.iter().map(|d| d.as_const()).product::<Option<u64>>()?;
    Some(first.times(each))
}

pub(super) const SOURCE: Option<KernelSource> = None;

impl OpRule for Reshape {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() || a.dtype == DType::U32 => {
                let (own, wanted) = (elements(&a.shape), elements(&self.shape));
                if own.is_some() && own == wanted {
                    let shape = self.shape.iter().copied();
                    Ok(vec![TensorType::new(a.dtype, shape)])
                } else {
                    Err("a shape of as many elements is wanted".into())
                }
            }
            _ => Err("one operand is wanted, floats or u32".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (from, to) = (In(0), Out(0));
        list.list.push(Launch::Copy { from, to });
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        if io.outputs[0].dtype() == DType::U32 {
            let x = io.input(0).slice::<u32>();
            io.outputs[0].slice::<u32>().copy_from_slice(x);
            return Ok(());
        }
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                out.copy_from_slice(part(x, start, out.len()));
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let shape = b.ty(at.inputs[0]).shape.clone();
        let up = at.up[0].filter(|_| at.needs[0]);
        vec![up.map(|up| b.push1(Self { shape }, &[up]))]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, matrix, random};
    let to = |dims: &[u64]| Reshape {
        shape: dims.iter().map(|&d| d.into()).collect(),
    };
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.sample(to(&[12, 2]), [random(4, &[4, 6])]);
    all.sample(to(&[24]), [random(4, &[2, 3, 4])]);
    all.large(to(&[300, 200]), [matrix(5, 100, 600)]);
    all.case(to(&[33, 65]), [matrix(6, 65, 33)]);
    all.case(to(&[1, 1]), [matrix(7, 1, 1)]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{random, ty};
    use super::*;

    #[test]
    fn a_shape_of_other_elements_is_refused() {
        let x = ty(&random(1, &[4, 6]));
        let to = |dims: &[u64]| Reshape {
            shape: dims.iter().map(|&d| d.into()).collect(),
        };
        assert!(to(&[8, 3]).infer(&[&x]).is_ok());
        assert!(to(&[5, 5]).infer(&[&x]).is_err());
        assert!(to(&[]).infer(&[&x]).is_err());
    }
}
