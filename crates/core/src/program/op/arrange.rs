//! `arrange`: columns of a matrix put elsewhere, with either sign.

use std::sync::Arc;

use super::launch::{
    KernelSource, Launch, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::for_chunks_of_rows;
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `x[N, d] → [N, m]`: a column of the result is a sum of columns of `x`, each with its sign; of none it is 0.
///
/// So permutations, copies, skew-symmetric and circulant matrices are made of what they are given by, and the gradients of
/// all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arrange {
    /// Columns of `x`.
    width: u32,
    /// Where the terms of each column begin, and where those of the last end.
    starts: Arc<[u32]>,
    /// Twice a column of `x`, and one more where it is subtracted.
    terms: Arc<[u32]>,
}

impl Arrange {
    /// Of a matrix of so many columns: for each column of the result the columns that it sums, and whether each is subtracted.
    /// What is not there is refused when the op is applied.
    #[must_use]
    pub fn new<C>(width: u64, columns: impl IntoIterator<Item = C>) -> Self
    where
        C: IntoIterator<Item = (u64, bool)>,
    {
        let mut starts = vec![0];
        let mut terms = Vec::new();
        for column in columns {
            let own = column.into_iter();
            terms.extend(own.map(|(from, minus)| 2 * from as u32 + u32::from(minus)));
            starts.push(terms.len() as u32);
        }
        Self {
            width: width as u32,
            starts: starts.into(),
            terms: terms.into(),
        }
    }

    /// Columns of the result.
    fn columns(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The terms of each column of the result.
    fn each(&self) -> impl Iterator<Item = &[u32]> {
        let bounds = self.starts.windows(2);
        bounds.map(|w| self.terms.get(w[0] as usize..w[1] as usize).unwrap_or(&[]))
    }

    /// What takes a gradient back.
    fn transposed(&self) -> Self {
        let mut lists = vec![Vec::new(); self.width as usize];
        for (to, terms) in self.each().enumerate() {
            for term in terms {
                if let Some(list) = lists.get_mut(*term as usize / 2) {
                    list.push(2 * to as u32 + term % 2);
                }
            }
        }
        let mut starts = vec![0];
        for list in &lists {
            starts.push(starts.last().copied().unwrap_or(0) + list.len() as u32);
        }
        Self {
            width: self.columns() as u32,
            starts: starts.into(),
            terms: lists.concat().into(),
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("arrange"));

impl OpRule for Arrange {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => {
                let (n, d) = a.matrix().ok_or("a matrix is wanted")?;
                let there = self.terms.iter().all(|term| term / 2 < self.width);
                if d.as_const() == Some(u64::from(self.width)) && there {
                    let columns = self.columns() as u64;
                    Ok(vec![TensorType::new(a.dtype, [n, columns.into()])])
                } else {
                    Err(format!("{} columns, and no others, are wanted", self.width))
                }
            }
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let mut upload = |words: &[u32]| {
            let to = list.scratch(4 * words.len().max(1) as u64);
            let words = words.to_vec();
            list.list.push(Launch::Upload { to, words });
            to
        };
        let (starts, terms) = (upload(&self.starts), upload(&self.terms));
        let columns = self.columns() as u32;
        list.rows(
            "arrange",
            "arrange",
            cx.rows(0),
            columns.into(),
            args![In(0), starts, terms, Out(0), self.width, columns],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (d, columns) = (self.width as usize, self.columns());
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), columns, |first, rows| {
                let all = x.chunks_exact(d).skip(first);
                for (row, x) in rows.chunks_exact_mut(columns).zip(all) {
                    for (out, terms) in row.iter_mut().zip(self.each()) {
                        let mut sum: T = 0.0;
                        for term in terms {
                            let own = x[*term as usize / 2];
                            sum = if term % 2 == 0 { sum + own } else { sum - own };
                        }
                        *out = sum;
                    }
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let up = at.up[0].filter(|_| at.needs[0]);
        vec![up.map(|up| b.push1(self.transposed(), &[up]))]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    // A skew-symmetric matrix of 3 numbers, and columns that are there twice.
    let skew = [(0, 1, 2), (-1, 0, 3), (-2, -3, 0)];
    let columns = skew.into_iter().flat_map(|(a, b, c)| [a, b, c]);
    let columns: Vec<_> = columns
        .map(|n: i64| (n != 0).then(|| (n.unsigned_abs() - 1, n < 0)))
        .collect();
    let op = Arrange::new(3, columns);
    all.sample(op.transposed(), [random(3, &[4, 9])]);
    all.sample(op, [random(4, &[5, 3])]);
    all.large(
        Arrange::new(128, (0..128).map(|c| Some(((c * 37) % 128, c % 3 == 0)))),
        [matrix(3, 600, 128)],
    );
    for (rows, d) in SHAPES {
        let n = d as u64;
        let op = Arrange::new(
            n,
            (0..n + 2).map(|c| (c % 5 != 4).then(|| (c * 7 % n, c % 2 == 1))),
        );
        all.case(op.transposed(), [matrix(9, rows, d + 2)]);
        all.case(op, [matrix(10, rows, d)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{small, ty};
    use super::*;

    #[test]
    fn columns_that_are_not_there_are_refused() {
        let x = ty(&small(1));
        let one = |width, from| Arrange::new(width, [Some((from, false))]);
        assert!(one(5, 4).infer(&[&x]).is_ok());
        assert!(one(5, 5).infer(&[&x]).is_err());
        assert!(one(6, 4).infer(&[&x]).is_err());
    }
}
