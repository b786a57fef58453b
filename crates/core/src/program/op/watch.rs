//! `watch`: the same values, while the gradient of a frozen matrix is looked at.

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{for_chunks, part};
use super::{
    Accumulate, At, Builder, Io, Kernel, MatMul, Nominate, OpError, OpRule, Places, SampledProduct,
    SizedCx, SquareAccumulate, TensorType, Value,
};

/// What is done with the gradient that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Look {
    /// `(ids u32[k], sums[k], squares[k])`: the places of its largest numbers, those numbers and their squares.
    Nominate,
    /// `(ids, sums, squares)`: its numbers at the places are added to the sums, and their squares.
    Add,
    /// `(ids, sums)`: its numbers at the places are added to the sums.
    Sum,
    /// `(whole[rows, columns])`: all of it is added.
    Whole,
}

impl Look {
    /// Inputs behind the two matrices.
    const fn arity(self) -> usize {
        match self {
            Self::Nominate | Self::Add => 3,
            Self::Sum => 2,
            Self::Whole => 1,
        }
    }
}

/// `(y[N, rows], x[N, columns], …) → y`. Backward it looks at the gradient `gᵀ x` of the matrix that `y` is made of `x` by, as
/// [`Look`] says. So a gradient of a whole matrix is there for a moment only, or never, but for the sum of those of several runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// The matrix.
    pub places: Places,
    /// What is done with its gradient.
    pub look: Look,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("watch"));

impl OpRule for Watch {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [y, input, own @ ..] = x else {
            return Err("two matrices are wanted, and what is made of the gradient".into());
        };
        let (Some((n, rows)), Some((m, columns))) = (y.matrix(), input.matrix()) else {
            return Err("two matrices are wanted".into());
        };
        let lists = match own {
            [whole] => **whole == self.places.matrix(y.dtype),
            [ids, sums, more @ ..] => {
                sums.shape == self.places.infer(&[ids])?
                    && sums.dtype == y.dtype
                    && more.iter().all(|list| list == sums)
            }
            [] => false,
        };
        let fits = y.dtype.is_compute()
            && lists
            && own.len() == self.look.arity()
            && n == m
            && rows.as_const() == Some(self.places.rows.into())
            && columns.as_const() == Some(self.places.columns.into());
        if fits {
            Ok(vec![(*y).clone()])
        } else {
            Err("matrices of the widths of the places, and what is made of the gradient, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let n = cx.elements(0);
        list.fours("watch", "watch", n, args![In(0), Out(0), n]);
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

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut made = vec![None; at.inputs.len()];
        let (Some(up), [_, x, own @ ..]) = (at.up[0], at.inputs) else {
            return made;
        };
        match (self.look, own) {
            (Look::Nominate, &[ids, sums, squares]) => {
                let gradient = whole(b, up, *x);
                b.push(Nominate, &[ids, sums, squares, gradient]);
            }
            (Look::Whole, &[sum]) => {
                let gradient = whole(b, up, *x);
                b.push(Accumulate, &[sum, gradient]);
            }
            (_, &[ids, sums, ref squares @ ..]) => {
                let op = SampledProduct {
                    places: self.places,
                    onto: false,
                };
                let own = b.push1(op, &[up, *x, ids]);
                b.push(Accumulate, &[sums, own]);
                for &squares in squares {
                    b.push(SquareAccumulate, &[squares, own]);
                }
            }
            _ => {}
        }
        made[0] = Some(up);
        made
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

/// `gᵀ x`
fn whole(b: &mut Builder, up: Value, x: Value) -> Value {
    b.push1(MatMul::plain(true, false, Real::new(1.0)), &[up, x])
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for look in [Look::Nominate, Look::Add, Look::Sum, Look::Whole] {
        let op = Watch {
            places: Places::entries(6, 4),
            look,
        };
        let mut inputs = vec![random(1, &[5, 6]), random(2, &[5, 4])];
        match look {
            Look::Whole => inputs.push(random(3, &[6, 4])),
            _ => inputs.extend([ids(&[0, 9, 3]), random(3, &[3])]),
        }
        if look.arity() == 3 {
            inputs.push(random(4, &[3]));
        }
        all.sample(op, inputs);
    }
    all
}
