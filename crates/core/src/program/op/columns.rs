//! `columns`: a slice of a matrix's columns, as one of several maps that are stored as one.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::for_chunks_of_rows;
use super::{At, Builder, ColumnsGrad, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `x[N, g·w] → [N, g·(to − from)]`: columns `from .. to` of each of `g` groups of columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Columns {
    /// The first column of a group.
    pub from: u32,
    /// The column after the last.
    pub to: u32,
    /// Groups of as many columns.
    pub groups: u32,
}

impl Columns {
    /// Columns of the result; `None` if there is none or a matrix of this width has not got them.
    pub(super) fn within(&self, width: u64) -> Option<u64> {
        let groups = u64::from(self.groups);
        let fits = self.from < self.to
            && width.checked_rem(groups) == Some(0)
            && u64::from(self.to) * groups <= width;
        fits.then(|| groups * u64::from(self.to - self.from))
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("columns"));

impl OpRule for Columns {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => {
                let (n, d) = a.matrix().ok_or("a matrix is wanted")?;
                let own = d.as_const().and_then(|d| self.within(d));
                let own = own.ok_or_else(|| {
                    format!(
                        "columns {} to {} of each of {} groups of {d} are wanted",
                        self.from, self.to, self.groups
                    )
                })?;
                Ok(vec![TensorType::new(a.dtype, [n, own.into()])])
            }
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        let own = self.within(d)?;
        list.rows(
            "columns",
            "columns",
            rows,
            own,
            args![In(0), Out(0), d as u32, self.from, own as u32, self.groups],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (d, own) = (io.input(0).dims[1], io.outputs[0].dims[1]);
        let (from, to, groups) = (self.from as usize, self.to as usize, self.groups as usize);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), own, |first, rows| {
                let all = x.chunks_exact(d / groups).skip(first * groups);
                for (row, x) in rows.chunks_exact_mut(to - from).zip(all) {
                    row.copy_from_slice(&x[from..to]);
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let of = b.ty(at.inputs[0]).matrix().and_then(|(_, d)| d.as_const());
        let up = at.up[0].filter(|_| at.needs[0]);
        vec![up.zip(of).map(|(up, of)| {
            let own = self.clone();
            b.push1(ColumnsGrad { own, of }, &[up])
        })]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

/// The slices that tests take of a matrix of so many columns.
#[cfg(test)]
pub(super) fn slices(d: usize) -> Vec<Columns> {
    let d = d as u32;
    let all = [(0, d), (0, d.div_ceil(3)), (d / 2, d), (d / 3, d / 3 + 1)];
    let mut list = all.map(|(from, to)| of(from, to, 1)).to_vec();
    for groups in (2..=d).filter(|g| d.is_multiple_of(*g)).take(2) {
        let each = d / groups;
        list.extend([of(0, each, groups), of(each / 2, each / 2 + 1, groups)]);
    }
    list
}

#[cfg(test)]
const fn of(from: u32, to: u32, groups: u32) -> Columns {
    Columns { from, to, groups }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for op in slices(5) {
        all.sample(op, [small(4)]);
    }
    all.large(of(30, 99, 1), [matrix(3, 600, 128)]);
    all.sample(of(1, 3, 2), [random(9, &[4, 6])]);
    for (rows, d) in SHAPES {
        for op in slices(d) {
            all.case(op, [matrix(10, rows, d)]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ids, small, ty};
    use super::*;

    #[test]
    fn columns_that_are_not_there_are_refused() {
        let x = ty(&small(1));
        for (from, to, groups) in [
            (0, 6, 1),
            (3, 3, 1),
            (4, 2, 1),
            (7, 9, 1),
            (0, 1, 2),
            (0, 2, 5),
            (0, 1, 0),
        ] {
            let op = of(from, to, groups);
            assert!(op.infer(&[&x]).is_err(), "{op:?}");
        }
        let whole = of(0, 5, 1);
        assert!(whole.infer(&[&x]).is_ok());
        assert!(whole.infer(&[&ty(&ids(&[1]))]).is_err());
    }
}
