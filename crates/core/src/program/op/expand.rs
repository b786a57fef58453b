//! `expand`: a vector or a number repeated to a shape, the gradient of a sum and of a mean.

use super::super::types::Shape;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::for_chunks_of_rows;
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, Over, Reduce, ReduceKind, SizedCx, TensorType, Value,
};

/// `[d]`, `[N]` or `[1]` `→ shape`: what a reduction over rows, columns or everything would make of the result is
/// the operand, for a sum as often as it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expand {
    /// What the operand is repeated over.
    pub over: Over,
    /// The shape of the result.
    pub shape: Shape,
    /// Whether each element is divided by how often it is repeated.
    pub mean: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("expand"));

impl OpRule for Expand {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => {
                let made = TensorType::new(a.dtype, self.shape.iter().copied());
                let wanted = self.over.rest(&made)?;
                if **a == wanted {
                    Ok(vec![made])
                } else {
                    Err(format!("{wanted} is wanted"))
                }
            }
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[], &[0])?);
        let out = cx.outputs.first()?;
        let (n, rows) = (out.elements(), out.dims.first().copied()? as u64);
        let d = out.dims.get(1).copied().unwrap_or(1) as u64;
        let (count, steps) = match self.over {
            Over::All => {
                let by = if self.mean { n as f32 } else { 1.0 };
                list.each("expand", "expand_all", n, args![In(0), Out(0), n, by]);
                return Some(list);
            }
            Over::Rows => (rows, (0_u32, 1_u32)),
            Over::Columns => (d, (1, 0)),
        };
        let by = if self.mean { count as f32 } else { 1.0 };
        let args = args![In(0), Out(0), d as u32, steps.0, steps.1, by];
        list.rows("expand", "expand", rows, d, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (over, mean) = (self.over, self.mean);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            let (rows, d) = (
                io.outputs[0].dims.first().copied().unwrap_or(1),
                io.outputs[0].dims.get(1).copied().unwrap_or(1),
            );
            let count = match over {
                Over::Rows => rows,
                Over::Columns => d,
                Over::All => rows * d,
            };
            let by = if mean { count as T } else { 1.0 };
            for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, out| match over {
                Over::Rows => {
                    for row in out.chunks_exact_mut(d) {
                        row.iter_mut().zip(x).for_each(|(o, &x)| *o = x / by);
                    }
                }
                Over::Columns => {
                    for (row, &x) in out.chunks_exact_mut(d).zip(&x[first..]) {
                        row.fill(x / by);
                    }
                }
                Over::All => out.fill(x[0] / by),
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let kind = match self.mean {
            true => ReduceKind::Mean,
            false => ReduceKind::Sum,
        };
        let over = self.over;
        let up = at.up[0].filter(|_| at.needs[0]);
        vec![up.map(|up| b.push1(Reduce { kind, over }, &[up]))]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![], vec![0]));
    let own = |over, rows, d| match over {
        Over::Rows => d,
        Over::Columns => rows,
        Over::All => 1,
    };
    for over in Over::ALL {
        for mean in [false, true] {
            let op = |shape: &[usize]| Expand {
                over,
                shape: shape.iter().map(|&n| (n as u64).into()).collect(),
                mean,
            };
            all.sample(op(&[6, 5]), [random(4, &[own(over, 6, 5)])]);
            all.large(op(&[300, 128]), [random(5, &[own(over, 300, 128)])]);
            for (rows, d) in SHAPES {
                all.case(op(&[rows, d]), [list(6, own(over, rows, d))]);
            }
            if over == Over::All {
                all.sample(op(&[7]), [random(7, &[1])]);
                all.case(op(&[70_001]), [list(8, 1)]);
            }
        }
    }
    all
}
