//! `reduce`: sums, means, sums of squares and maxima, over rows, columns or everything.

use rayon::prelude::*;

use super::launch::{
    Call, KernelSource, Launches,
    Operand::{self, In, Out},
    args, source, stored_in,
};
use super::math::{
    CHUNK, Elementary, add_to, column_fold, column_sums_scratch, part, row_highest, row_sum, simd,
};
use super::sum_rows::add_rows;
use super::{
    At, BinaryKind, Broadcast, Builder, Elementwise, Expand, Io, Kernel, Machine, OpError, OpRule,
    SizedCx, TensorType, Value,
};
use crate::program::types::DType;

/// What is made of many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// `Σ x`
    Sum,
    /// `Σ x / n`
    Mean,
    /// `Σ x²`
    SumOfSquares,
    /// The largest; no number if an element is none. Elements that share the place share the gradient.
    Max,
}

impl ReduceKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sum, Self::Mean, Self::SumOfSquares, Self::Max];

    /// What it is of no elements.
    fn start<T: Elementary>(self) -> T {
        match self {
            Self::Max => T::neg_infinity(),
            Self::Sum | Self::Mean | Self::SumOfSquares => T::zero(),
        }
    }

    /// What combines the results of parts; a mean is a sum that is divided at the end.
    const fn of_parts(self) -> Self {
        match self {
            Self::Max => Self::Max,
            Self::Sum | Self::Mean | Self::SumOfSquares => Self::Sum,
        }
    }
}

/// What is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// The rows of a matrix: `[N, d] → [d]`.
    Rows,
    /// The columns of a matrix: `[N, d] → [N]`.
    Columns,
    /// Everything: `[1]`.
    All,
}

impl Over {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rows, Self::Columns, Self::All];

    /// The shape of what is left.
    pub(super) fn rest(self, x: &TensorType) -> Result<TensorType, String> {
        match (self, x.matrix()) {
            (Self::Rows, Some((_, d))) => Ok(TensorType::new(x.dtype, [d])),
            (Self::Columns, Some((n, _))) => Ok(TensorType::new(x.dtype, [n])),
            (Self::All, _) => Ok(TensorType::scalar(x.dtype)),
            (Self::Rows | Self::Columns, None) => Err("a matrix is wanted".into()),
        }
    }

    /// How what is left meets what was reduced.
    const fn broadcast(self) -> Broadcast {
        match self {
            Self::Rows => Broadcast::Row,
            Self::Columns => Broadcast::Column,
            Self::All => Broadcast::Scalar,
        }
    }
}

/// `x → [d]`, `[N]` or `[1]`. Parts have a fixed size and are combined in order, so that the bits depend on no
/// number of threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// What is made.
    pub kind: ReduceKind,
    /// Of what.
    pub over: Over,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("reduce"));

impl OpRule for Reduce {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => Ok(vec![self.over.rest(a)?]),
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[])?);
        let (n, rows, d) = (cx.elements(0), cx.rows(0), cx.width(0));
        let (runs, row_runs) = match self.kind {
            ReduceKind::Sum | ReduceKind::Mean => ("reduce_sum", "reduce_sum_rows"),
            ReduceKind::SumOfSquares => ("reduce_squares", "reduce_squares_rows"),
            ReduceKind::Max => ("reduce_max", "reduce_max_rows"),
        };
        let count = match self.over {
            Over::Rows => {
                let combine = match self.kind.of_parts() {
                    ReduceKind::Max => ("reduce", "reduce_max_runs"),
                    _ => ("sum_rows", "sum_runs"),
                };
                list.column_runs(
                    ("reduce", row_runs),
                    combine,
                    (rows, d),
                    &[In(0)],
                    &[Out(0)],
                );
                rows
            }
            Over::Columns => {
                reduce_runs(&mut list, runs, In(0), Out(0), (rows, n, d));
                d
            }
            Over::All => {
                let parts = n.div_ceil(CHUNK as u64).max(1);
                if parts == 1 {
                    reduce_runs(&mut list, runs, In(0), Out(0), (1, n, n));
                } else {
                    let scratch = list.scratch(4 * parts);
                    reduce_runs(&mut list, runs, In(0), scratch, (parts, n, CHUNK as u64));
                    let combine = match self.kind.of_parts() {
                        ReduceKind::Max => "reduce_max",
                        _ => "reduce_sum",
                    };
                    list.stored_in = DType::F32;
                    reduce_runs(&mut list, combine, scratch, Out(0), (1, parts, parts));
                }
                n
            }
        };
        if self.kind == ReduceKind::Mean {
            let n = cx.outputs.first()?.elements();
            list.stored_in = DType::F32;
            list.each("reduce", "reduce_divide", n, args![Out(0), n, count as f32]);
        }
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        self.over != Over::Columns
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (dims, kind) = (io.input(0).dims, self.kind);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            let out = io.outputs[0].slice::<T>();
            let count = match self.over {
                Over::Rows => {
                    reduce_rows(cx, kind, x, out);
                    dims[0]
                }
                Over::Columns => {
                    reduce_columns(kind, x, dims[1], out);
                    dims[1]
                }
                Over::All => {
                    out[0] = reduce_all(cx, kind, x);
                    x.len()
                }
            };
            if kind == ReduceKind::Mean {
                let count = T::of(count as f64);
                out.iter_mut().for_each(|o| *o /= count);
            }
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0].filter(|_| at.needs[0]) else {
            return vec![None];
        };
        let x = at.inputs[0];
        let with = |kind, broadcast| Elementwise { kind, broadcast };
        let broadcast = self.over.broadcast();
        let grad = match self.kind {
            // Reads nothing of the forward pass.
            ReduceKind::Sum | ReduceKind::Mean => {
                let expand = Expand {
                    over: self.over,
                    shape: b.ty(x).shape.clone(),
                    mean: self.kind == ReduceKind::Mean,
                };
                b.push1(expand, &[up])
            }
            ReduceKind::SumOfSquares => {
                let twice = b.push1(with(BinaryKind::Add, Broadcast::Full), &[up, up]);
                b.push1(with(BinaryKind::Mul, broadcast), &[x, twice])
            }
            ReduceKind::Max => {
                let is_max = b.push1(with(BinaryKind::Equal, broadcast), &[x, at.outputs[0]]);
                let kind = ReduceKind::Sum;
                let sharing = b.push1(Self { kind, ..*self }, &[is_max]);
                let share = b.push1(with(BinaryKind::Div, Broadcast::Full), &[up, sharing]);
                b.push1(with(BinaryKind::Mul, broadcast), &[is_max, share])
            }
        };
        vec![Some(grad)]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.inputs.first().map_or(0, |x| x.computed.size());
        match self.over {
            Over::Rows => column_sums_scratch(cx.rows(0), cx.width(0), size),
            Over::Columns => 0,
            Over::All => all_scratch(cx.elements(0), size),
        }
    }
}

/// A block a run of `length` of the `n` elements: its result goes to the run's place in `to`.
fn reduce_runs(
    list: &mut Launches,
    kernel: &'static str,
    from: Operand,
    to: Operand,
    (runs, n, length): (u64, u64, u64),
) {
    let block = length.next_multiple_of(32).clamp(32, 256) as u32;
    list.call(Call {
        source: "reduce",
        kernel,
        stored_in: list.stored_in,
        grid: [runs as u32, 1],
        block,
        shared: 0,
        args: args![from, to, n, length],
    });
}

/// Scratch of a reduction of so many elements to one.
const fn all_scratch(n: u64, size: u64) -> u64 {
    let parts = n.div_ceil(CHUNK as u64);
    if parts <= 1 { 0 } else { parts * size }
}

/// One result of a row; a mean is not yet divided.
fn reduce_row<T: Elementary>(kind: ReduceKind, row: &[T]) -> T {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean => {
            simd!(<T> (row: &'a [T] = row) -> T { row_sum(row, |x| x) })
        }
        ReduceKind::SumOfSquares => {
            simd!(<T> (row: &'a [T] = row) -> T { row_sum(row, |x| x * x) })
        }
        ReduceKind::Max => simd!(<T> (row: &'a [T] = row) -> T { row_highest(row) }),
    }
}

fn reduce_rows<T: Elementary>(cx: &Kernel<'_>, kind: ReduceKind, x: &[T], out: &mut [T]) {
    let d = out.len();
    let rows = x.len() / d.max(1);
    let combine: fn(&mut [T], &[T]) = match kind.of_parts() {
        ReduceKind::Max => raise_to,
        _ => add_to,
    };
    let scratch = column_sums_scratch(rows as u64, d as u64, size_of::<T>() as u64);
    cx.scratch(scratch, || {
        column_fold((rows, d), out, kind.start(), combine, |rows, sums| {
            let x = part(x, rows.start * d, rows.len() * d);
            match kind {
                ReduceKind::Sum | ReduceKind::Mean => add_rows(x, sums),
                ReduceKind::SumOfSquares => add_squares(x, sums),
                ReduceKind::Max => x.chunks_exact(d.max(1)).for_each(|row| raise_to(sums, row)),
            }
        });
    });
}

fn reduce_columns<T: Elementary>(kind: ReduceKind, x: &[T], d: usize, out: &mut [T]) {
    let each = |(first, out): (usize, &mut [T])| {
        for (i, o) in out.iter_mut().enumerate() {
            *o = reduce_row(kind, part(x, (first + i) * d, d));
        }
    };
    if x.len() <= 2 * CHUNK {
        each((0, out));
    } else {
        let rows = (CHUNK / d.max(1)).max(1);
        let chunks = out.par_chunks_mut(rows).enumerate();
        chunks.for_each(|(i, out)| each((i * rows, out)));
    }
}

fn reduce_all<T: Elementary>(cx: &Kernel<'_>, kind: ReduceKind, x: &[T]) -> T {
    let scratch = all_scratch(x.len() as u64, size_of::<T>() as u64);
    if scratch == 0 {
        return reduce_row(kind, x);
    }
    cx.scratch(scratch, || {
        let parts = x.par_chunks(CHUNK).map(|part| reduce_row(kind, part));
        let parts: Vec<T> = parts.collect();
        reduce_row(kind.of_parts(), &parts)
    })
}

/// `sums += Σ rows of x²`
fn add_squares<T: Elementary>(x: &[T], sums: &mut [T]) {
    simd!(<T> (x: &'a [T] = x, sums: &'a mut [T] = sums) {
        for row in x.chunks_exact(sums.len().max(1)) {
            for (s, &x) in sums.iter_mut().zip(row) {
                *s += x * x;
            }
        }
    });
}

/// Each element or the row's, whichever is larger; what is no number stays.
fn raise_to<T: Elementary>(highest: &mut [T], row: &[T]) {
    simd!(<T> (highest: &'a mut [T] = highest, row: &'a [T] = row) {
        for (h, &x) in highest.iter_mut().zip(row) {
            *h = super::math::highest(*h, x);
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random, small};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![]));
    for kind in ReduceKind::ALL {
        for over in Over::ALL {
            let op = Reduce { kind, over };
            all.sample(op.clone(), [small(4)]);
            all.sample(op.clone(), [random(5, &[150, 3])]);
            all.large(op.clone(), [matrix(6, 1000, 77)]);
            for (rows, d) in SHAPES {
                all.case(op.clone(), [matrix(7, rows, d)]);
            }
            all.case(
                op,
                [super::Tensor::new(
                    vec![1.0_f32, f32::NAN, 2.0, 3.0, 0.0, -1.0],
                    &[3, 2],
                )],
            );
        }
        let op = Reduce {
            kind,
            over: Over::All,
        };
        all.sample(op.clone(), [random(8, &[9])]);
        all.case(op, [list(9, 70_001)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Tensor;
    use super::super::fixtures::{eval, floats};
    use super::*;

    #[test]
    fn reductions_of_a_small_matrix() {
        let x = Tensor::new(vec![1.0_f64, -2.0, 3.0, 4.0, 5.0, -6.0], &[2, 3]);
        let inputs = [x];
        let made = |kind, over| floats(&eval(&Reduce { kind, over }.into(), &inputs, 1)[0]);
        let expected = [
            (ReduceKind::Sum, vec![5.0, 3.0, -3.0], vec![2.0, 3.0], 5.0),
            (
                ReduceKind::Mean,
                vec![2.5, 1.5, -1.5],
                vec![2.0 / 3.0, 1.0],
                5.0 / 6.0,
            ),
            (
                ReduceKind::SumOfSquares,
                vec![17.0, 29.0, 45.0],
                vec![14.0, 77.0],
                91.0,
            ),
            (ReduceKind::Max, vec![4.0, 5.0, 3.0], vec![3.0, 5.0], 5.0),
        ];
        for (kind, rows, columns, all) in expected {
            assert_eq!(made(kind, Over::Rows), rows, "{kind:?}");
            assert_eq!(made(kind, Over::Columns), columns, "{kind:?}");
            assert_eq!(made(kind, Over::All), [all], "{kind:?}");
        }
    }

    #[test]
    fn a_maximum_is_no_number_if_an_element_is_none() {
        for at in [0, 7, 64, 200] {
            let mut x = vec![0.5_f32; 201];
            x[at] = f32::NAN;
            for (over, dims) in [
                (Over::All, [201, 1]),
                (Over::Rows, [201, 1]),
                (Over::Columns, [1, 201]),
            ] {
                let op = Reduce {
                    kind: ReduceKind::Max,
                    over,
                };
                let made = eval(&op.into(), &[Tensor::new(x.clone(), &dims)], 1);
                assert!(floats(&made[0])[0].is_nan(), "{over:?}, {at}");
            }
        }
    }
}
