//! `nominate`: the places of a matrix with the largest numbers, with their numbers: candidates of a sparse update.

use rayon::prelude::*;

use super::super::types::DType;
use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::math::Elementary;
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(ids u32[k], sums[k], squares[k], m[rows, columns])`, in place: the `k` places of `m` whose numbers are largest without
/// their sign, in order, the first of equal ones; and those numbers, and their squares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nominate;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("nominate"));

impl OpRule for Nominate {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [ids, sums, squares, m]
                if ids.dtype == DType::U32
                    && sums == squares
                    && ids.shape == sums.shape
                    && ids.shape.len() == 1
                    && m.dtype == sums.dtype
                    && m.dtype.is_compute() =>
            {
                let size = |t: &TensorType| {
                    t.shape
                        .iter()
                        .map(|d| d.as_const())
                        .product::<Option<u64>>()
                };
                match (size(ids), size(m)) {
                    (Some(k), Some(n)) if k <= n && u32::try_from(n).is_ok() => Ok(vec![]),
                    _ => Err("at most as many places as there are numbers are wanted".into()),
                }
            }
            _ => Err("places, two lists of numbers and a matrix are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let args = args![
            In(0),
            In(1),
            In(2),
            In(3),
            cx.elements(3),
            cx.elements(0) as u32
        ];
        list.once_of(1024, "nominate", "nominate", args);
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.updates[1].dtype(), T => {
            let m = io.input(3).slice::<T>();
            let [ids, sums, squares] = io.updates.as_mut_slice() else {
                unreachable!("three lists are updated")
            };
            let ids = ids.slice::<u32>();
            if ids.is_empty() {
                return Ok(());
            }
            let bytes = m.len() as u64 * 4;
            let limit = cx.scratch(bytes, || {
                let mut keys: Vec<u32> = m.par_iter().map(|&x| key(x)).collect();
                let place = keys.len() - ids.len();
                *keys.select_nth_unstable(place).1
            });
            let above = m.iter().filter(|&&x| key(x) > limit).count();
            let mut ties = ids.len() - above;
            let chosen = m.iter().enumerate().filter(|&(_, &x)| {
                let own = key(x);
                let tie = own == limit && ties > 0;
                ties -= usize::from(tie);
                own > limit || tie
            });
            let to = ids.iter_mut().zip(sums.slice::<T>()).zip(squares.slice::<T>());
            for (((id, sum), square), (at, &x)) in to.zip(chosen) {
                (*id, *sum, *square) = (at as u32, x, x * x);
            }
        });
        Ok(())
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        4 * cx.elements(3)
    }
}

/// What numbers without their sign are ordered by.
#[inline(always)]
fn key<T: Elementary>(x: T) -> u32 {
    (x.wide() as f32).to_bits() & 0x7fff_ffff
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.sample(
        Nominate,
        [ids(&[0; 7]), random(1, &[7]), random(2, &[7]), small(4)],
    );
    let mut even = matrix(3, 40, 50);
    let numbers = even.slice_mut::<f32>().expect("f32");
    numbers.iter_mut().for_each(|x| *x = (*x * 4.0).round());
    all.case(Nominate, [ids(&[0; 300]), list(1, 300), list(2, 300), even]);
    all.large(
        Nominate,
        [
            ids(&[0; 3000]),
            list(1, 3000),
            list(2, 3000),
            matrix(3, 200, 150),
        ],
    );
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, ids, list};
    use super::super::{Op, Tensor};
    use super::*;

    #[test]
    fn the_largest_without_their_sign_are_taken_and_the_first_of_equal_ones() {
        let op: Op = Nominate.into();
        let m = Tensor::new(vec![1.0_f32, -3.0, 0.5, 1.0, 1.0, 2.0], &[2, 3]);
        let made = eval(&op, &[ids(&[9; 4]), list(1, 4), list(2, 4), m], 1);
        assert_eq!(made[0].slice::<u32>().expect("u32"), [0, 1, 3, 5]);
        assert_eq!(floats(&made[1]), [1.0, -3.0, 1.0, 2.0]);
        assert_eq!(floats(&made[2]), [1.0, 9.0, 1.0, 4.0]);
    }
}
