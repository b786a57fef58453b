//! `place`: rows of a small table put at marked rows of a matrix, or added there: virtual tokens, vectors at special tokens.

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::{add_to, for_chunks_of_rows, part};
use super::{
    At, Builder, Constant, Expand, Gather, Indices, Io, Kernel, OpError, OpRule, Over, Scatter,
    SizedCx, TensorType, Value,
};

/// `(x [N, d], rows [n, d], marks u32[N]) → [N, d]`: row `i` is that of `x` where `marks[i]` is 0; else row `marks[i] − 1`
/// of the table stands there, or is added.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whether a row is added to what is there.
    pub add: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("place"));

impl OpRule for Place {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, rows, marks] = x else {
            return Err("a matrix, rows and marks are wanted".into());
        };
        let (Some((n, d)), Some((count, width))) = (x.matrix(), rows.matrix()) else {
            return Err("two matrices and a list of marks are wanted".into());
        };
        let fits = width == d && rows.dtype == x.dtype && count.as_const().is_some();
        if fits && x.dtype.is_compute() && marks.dtype == DType::U32 && marks.shape == [n] {
            Ok(vec![(*x).clone()])
        } else {
            Err(
                "rows of the matrix' type and width and a mark for each of its own are wanted"
                    .into(),
            )
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (n, d) = (cx.rows(0), cx.width(0));
        let (count, add) = (cx.rows(1) as u32, u32::from(self.add));
        let args = args![In(0), In(1), In(2), Out(0), Fault, count, d as u32, add];
        list.rows("place", "place", n, d, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (count, d) = (io.input(1).dims[0], io.input(1).dims[1]);
        let marks = io.input(2).slice::<u32>();
        if let Some(&bad) = marks.iter().find(|&&mark| mark as usize > count) {
            return Err(OpError::Index {
                index: u64::from(bad) - 1,
                rows: count as u64,
            });
        }
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
            let rows = io.input(1).slice::<T>();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, out| {
                if let Some(x) = x {
                    out.copy_from_slice(part(x, first * d, out.len()));
                }
                let marked = out.chunks_exact_mut(d.max(1)).zip(marks.iter().skip(first));
                for (out, &mark) in marked.filter(|(_, mark)| **mark > 0) {
                    let row = part(rows, (mark as usize - 1) * d, d);
                    if self.add {
                        add_to(out, row);
                    } else {
                        out.copy_from_slice(row);
                    }
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; 3];
        };
        let marks = at.inputs[2];
        let count = b.ty(at.inputs[1]).shape.first().and_then(|n| n.as_const());
        let count = count.unwrap_or(0);
        let rows = (at.needs[1] || (at.needs[0] && !self.add)).then(|| {
            // The first sum is of the rows without a mark.
            let rows = (count + 1).into();
            let sums = b.push1(Scatter { rows }, &[marks, up]);
            let list = (1..=count as u32).collect();
            let list = b.push1(Indices { list }, &[]);
            let out = b.ty(up).dtype;
            b.push1(Gather { out }, &[sums, list])
        });
        let dx = match (at.needs[0], self.add, rows) {
            (true, true, _) => Some(up),
            (true, false, Some(rows)) => {
                // Nothing goes to a row that another stands for.
                let value = Real::new(0.0);
                let (dtype, shape) = (b.ty(rows).dtype, b.ty(rows).shape.clone());
                let zero = b.push1(Constant { value, dtype }, &[]);
                let (over, mean) = (Over::All, false);
                let none = b.push1(Expand { over, shape, mean }, &[zero]);
                Some(b.push1(self.clone(), &[up, none, marks]))
            }
            _ => None,
        };
        vec![dx, rows.filter(|_| at.needs[1]), None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 2
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for add in [false, true] {
        let marks = ids(&[0, 2, 1, 0, 3, 1]);
        let inputs = [random(4, &[6, 5]), random(5, &[3, 5]), marks];
        all.sample(Place { add }, inputs);
        for (rows, d) in SHAPES {
            let marks: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 4).collect();
            let inputs = [matrix(4, rows, d), matrix(6, 3, d), ids(&marks)];
            all.case(Place { add }, inputs);
        }
    }
    let inputs = [matrix(4, 2, 3), matrix(5, 2, 3), ids(&[0, 3])];
    all.fault(Place { add: false }, inputs);
    all
}
