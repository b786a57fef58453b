//! `columns_grad`: gradient of a slice of columns.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::for_chunks_of_rows;
use super::{Columns, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `up[N, g·(to − from)] → [N, of]`: the slices where they were cut out, zeros elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnsGrad {
    /// The slice.
    pub own: Columns,
    /// Columns of the matrix that it was cut out of.
    pub of: u64,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("columns_grad"));

impl OpRule for ColumnsGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up] if up.dtype.is_compute() => match (up.matrix(), self.own.within(self.of)) {
                (Some((n, d)), Some(own)) if d.as_const() == Some(own) => {
                    Ok(vec![TensorType::new(up.dtype, [n, self.of.into()])])
                }
                _ => Err("a matrix as wide as the slice is wanted".into()),
            },
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (from, own) = (self.own.from, cx.width(0) as u32);
        list.rows(
            "columns_grad",
            "columns_grad",
            cx.rows(0),
            self.of,
            args![In(0), Out(0), self.of as u32, from, own, self.own.groups],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (own, of) = (io.input(0).dims[1], io.outputs[0].dims[1]);
        let (from, to) = (self.own.from as usize, self.own.to as usize);
        let groups = self.own.groups as usize;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(0).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), of, |first, rows| {
                let all = up.chunks_exact(own / groups).skip(first * groups);
                for (row, up) in rows.chunks_exact_mut(of / groups).zip(all) {
                    row.fill(0.0);
                    row[from..to].copy_from_slice(up);
                }
            });
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    let of = |d: usize| {
        let each = super::columns::slices(d).into_iter();
        each.map(move |own| {
            let width = ((own.to - own.from) * own.groups) as usize;
            (ColumnsGrad { own, of: d as u64 }, width)
        })
    };
    for (op, width) in of(5) {
        all.sample(op, [random(4, &[6, width])]);
    }
    for (rows, d) in SHAPES {
        for (op, width) in of(d) {
            all.case(op, [matrix(10, rows, width)]);
        }
    }
    all
}
