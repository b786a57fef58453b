//! `columns`: a slice of a matrix's columns, as one of several maps that are stored as one.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, held, source,
};
use super::math::for_chunks_of_rows;
use super::{At, Builder, ColumnsGrad, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// `x[N, d] → [N, to − from]`: columns `from .. to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Columns {
    /// The first column.
    pub from: u32,
    /// The column after the last.
    pub to: u32,
}

impl Columns {
    /// Columns of the result; `None` if there is none or a matrix of this width has not got them.
    pub(super) fn within(&self, width: u64) -> Option<u64> {
        (self.from < self.to && u64::from(self.to) <= width).then(|| u64::from(self.to - self.from))
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
                    format!("columns {} to {} of {d} are wanted", self.from, self.to)
                })?;
                Ok(vec![TensorType::new(a.dtype, [n, own.into()])])
            }
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(held(cx, &[0], &[0])?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        let own = self.within(d)?;
        list.rows(
            "columns",
            "columns",
            rows,
            own,
            args![In(0), Out(0), d as u32, self.from, own as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (d, own) = (io.input(0).dims[1], io.outputs[0].dims[1]);
        let from = self.from as usize;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), own, |first, rows| {
                for (row, x) in rows.chunks_exact_mut(own).zip(x.chunks_exact(d).skip(first)) {
                    row.copy_from_slice(&x[from..from + own]);
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
    all.map(|(from, to)| Columns { from, to }).to_vec()
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for op in slices(5) {
        all.sample(op, [small(4)]);
    }
    all.large(Columns { from: 30, to: 99 }, [matrix(3, 600, 128)]);
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
        for (from, to) in [(0, 6), (3, 3), (4, 2), (7, 9)] {
            assert!(Columns { from, to }.infer(&[&x]).is_err(), "{from} to {to}");
        }
        let whole = Columns { from: 0, to: 5 };
        assert!(whole.infer(&[&x]).is_ok());
        assert!(whole.infer(&[&ty(&ids(&[1]))]).is_err());
    }
}
