//! `block_product`: products of the blocks of two matrices, block by block.

use rayon::prelude::*;

use super::launch::{
    Call, KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, part};
use super::tile::{Into, Rows, Strided, multiply};
use super::{
    At, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, Sized, SizedCx, TensorType, Value,
};
use crate::program::types::{DType, Dim};

/// Rows of the result that a task makes, where blocks are beside one another.
const TASK_ROWS: usize = 64;
/// Depth after which a sum goes on with the next rows: those of both operands are then still in the cache.
const DEPTH: usize = 128;

/// How the blocks of a matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// One below the other, `[g·r, c]`; one beside the other, `[r, g·c]`, if not.
    stacked: bool,
    /// Whether each is transposed before it is multiplied.
    transposed: bool,
}

impl Blocks {
    /// One below the other.
    pub const STACKED: Self = Self {
        stacked: true,
        transposed: false,
    };
    /// One beside the other.
    pub const BESIDE: Self = Self {
        stacked: false,
        transposed: false,
    };

    /// The same with each block transposed.
    #[must_use]
    pub const fn transposed(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }

    /// Rows and columns of a block of a matrix `[rows, columns]`, as it is multiplied.
    fn block(self, groups: u64, (rows, columns): (Dim, Dim)) -> Option<(Dim, Dim)> {
        let shared = |d: Dim| {
            let each = d.as_const()?.checked_div(groups)?;
            (d.as_const() == Some(each * groups)).then(|| Dim::from(each))
        };
        let (r, c) = if self.stacked {
            (shared(rows)?, columns)
        } else {
            (rows, shared(columns)?)
        };
        Some(if self.transposed { (c, r) } else { (r, c) })
    }

    /// From block to block, from row to row and from column to column, as it is multiplied.
    fn steps(self, groups: usize, (rows, columns): (usize, usize)) -> [usize; 3] {
        let (group, row) = if self.stacked {
            (rows / groups * columns, columns)
        } else {
            (columns / groups, columns)
        };
        if self.transposed {
            [group, 1, row]
        } else {
            [group, row, 1]
        }
    }
}

/// `(a, b) → c`: block `i` of `c` is block `i` of `a` times block `i` of `b`. The gradients are such products too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockProduct {
    /// Blocks of each.
    pub groups: u32,
    /// How the left blocks lie.
    pub a: Blocks,
    /// How the right blocks lie.
    pub b: Blocks,
    /// How those of the result lie; its own `transposed` says nothing.
    pub out: Blocks,
}

impl BlockProduct {
    /// Blocks of the result lie one below the other.
    #[must_use]
    pub const fn new(groups: u32, a: Blocks, b: Blocks) -> Self {
        let out = Blocks::STACKED;
        Self { groups, a, b, out }
    }

    /// `x[N, g·m] · blocks [g·m, n] → [N, g·n]`: each row's parts by a matrix of their own.
    #[must_use]
    pub const fn of_rows(groups: u32, b: Blocks) -> Self {
        let (a, out) = (Blocks::BESIDE, Blocks::BESIDE);
        Self { groups, a, b, out }
    }

    /// Rows, columns and depth of a block's product.
    fn sizes(&self, cx: &SizedCx) -> Option<(usize, usize, usize)> {
        let g = self.groups as usize;
        let dims = |x: &Sized| Some((*x.dims.first()?, *x.dims.get(1)?));
        let (out, a) = (dims(cx.outputs.first()?)?, dims(cx.inputs.first()?)?);
        let (m, n) = if self.out.stacked {
            (out.0 / g, out.1)
        } else {
            (out.0, out.1 / g)
        };
        let (rows, columns) = if self.a.stacked {
            (a.0 / g, a.1)
        } else {
            (a.0, a.1 / g)
        };
        Some((m, n, if self.a.transposed { rows } else { columns }))
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("block_product"));

impl OpRule for BlockProduct {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [a, b] = x else {
            return Err("two matrices are wanted".into());
        };
        let (true, Some(am), Some(bm)) = (
            a.dtype == b.dtype && a.dtype.is_compute() && self.groups > 0,
            a.matrix(),
            b.matrix(),
        ) else {
            return Err("two float matrices of one type are wanted".into());
        };
        let groups = u64::from(self.groups);
        let blocks = self.a.block(groups, am).zip(self.b.block(groups, bm));
        match blocks {
            Some(((m, k), (k2, n))) if k == k2 => {
                let shape = if self.out.stacked {
                    [m.times(groups), n]
                } else {
                    [m, n.times(groups)]
                };
                Ok(vec![TensorType::new(a.dtype, shape)])
            }
            _ => Err(format!(
                "blocks of one inner size, {groups} of each, are wanted"
            )),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (m, n, k) = self.sizes(cx)?;
        let g = self.groups as usize;
        let dims = |x: &Sized| Some((*x.dims.first()?, *x.dims.get(1)?));
        let a = self.a.steps(g, dims(cx.inputs.first()?)?).map(|n| n as u64);
        let b = self.b.steps(g, dims(cx.inputs.get(1)?)?).map(|n| n as u64);
        let tiles = (m.div_ceil(64) * g, n.div_ceil(32));
        list.call(Call {
            source: "block_product",
            kernel: "block_product",
            stored_in: DType::F32,
            grid: [tiles.0 as u32, tiles.1 as u32],
            block: 256,
            shared: 0,
            args: args![
                In(0),
                In(1),
                Out(0),
                self.groups,
                m as u32,
                n as u32,
                k as u32,
                u32::from(self.out.stacked),
                a[0],
                a[1],
                a[2],
                b[0],
                b[1],
                b[2]
            ],
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None, None];
        };
        let (x, y) = (at.inputs[0], at.inputs[1]);
        let groups = self.groups;
        let plain = Blocks {
            transposed: false,
            ..self.out
        };
        let to = |of: Blocks| Blocks {
            transposed: false,
            ..of
        };
        // C = A B:  dA = up Bᵀ,  dB = Aᵀ up;  of a transposed block, the transpose of that.
        let da = at.needs[0].then(|| {
            let out = to(self.a);
            let (own, inputs) = if self.a.transposed {
                ((self.b, plain.transposed()), [y, up])
            } else {
                ((plain, self.b.transposed()), [up, y])
            };
            let (a, right) = own;
            b.push1(
                Self {
                    groups,
                    a,
                    b: right,
                    out,
                },
                &inputs,
            )
        });
        let db = at.needs[1].then(|| {
            let out = to(self.b);
            let (own, inputs) = if self.b.transposed {
                ((plain.transposed(), self.a), [up, x])
            } else {
                ((self.a.transposed(), plain), [x, up])
            };
            let (a, right) = own;
            b.push1(
                Self {
                    groups,
                    a,
                    b: right,
                    out,
                },
                &inputs,
            )
        });
        vec![da, db]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (m, n, k) = self.sizes(cx).unwrap_or_default();
        Cost {
            flops: 2 * u64::from(self.groups) * (m * n * k) as u64,
            bytes: cx.traffic(),
        }
    }

    /// A row of the result is made of the same row alone where rows are not summed over.
    fn mixes_rows(&self) -> bool {
        self.a.stacked || self.a.transposed || self.out.stacked
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        if self.b.transposed {
            cx.inputs
                .get(1)
                .map_or(0, |b| b.elements() * b.computed.size())
        } else {
            0
        }
    }
}

impl BlockProduct {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let (a, b) = (io.input(0), io.input(1));
        let g = self.groups as usize;
        let (ad, bd) = ((a.dims[0], a.dims[1]), (b.dims[0], b.dims[1]));
        let a_steps = self.a.steps(g, ad);
        let mut b_steps = self.b.steps(g, bd);
        let (k, n) = match (self.b.stacked, self.b.transposed) {
            (true, false) => (bd.0 / g, bd.1),
            (true, true) => (bd.1, bd.0 / g),
            (false, false) => (bd.0, bd.1 / g),
            (false, true) => (bd.1 / g, bd.0),
        };
        let (left, mut right) = (a.slice::<T>(), b.slice::<T>());
        let mut turned = Vec::new();
        let scratch = if self.b.transposed {
            size_of_val(right)
        } else {
            0
        };
        cx.scratch(scratch as u64, || {
            if self.b.transposed {
                // The inner loop reads rows of the right blocks.
                turned.resize(right.len(), T::zero());
                turned
                    .par_chunks_mut((k * n).max(1))
                    .enumerate()
                    .for_each(|(i, out)| {
                        for (r, row) in out.chunks_exact_mut(n).enumerate() {
                            for (c, x) in row.iter_mut().enumerate() {
                                *x = right[i * b_steps[0] + r * b_steps[1] + c * b_steps[2]];
                            }
                        }
                    });
                right = &turned;
                b_steps = [k * n, n, 1];
            }
            let out = io.outputs[0].slice::<T>();
            let one = |i: usize, (first, rows): (usize, usize), out: &mut [T], stride: usize| {
                for from in (0..k).step_by(DEPTH) {
                    let depth = DEPTH.min(k - from);
                    let start = i * a_steps[0] + first * a_steps[1] + from * a_steps[2];
                    let a = Strided {
                        data: part(left, start, left.len() - start),
                        row: a_steps[1],
                        column: a_steps[2],
                    };
                    let start = i * b_steps[0] + from * b_steps[1];
                    let b = Rows {
                        data: part(right, start, right.len() - start),
                        row: b_steps[1],
                    };
                    let into = if from == 0 { Into::Set } else { Into::Add };
                    multiply((rows, n, depth), out, stride, a, b, into);
                }
            };
            if self.out.stacked {
                let m = out.len() / (g * n).max(1);
                out.par_chunks_mut((m * n).max(1))
                    .enumerate()
                    .for_each(|(i, out)| one(i, (0, m), out, n));
            } else {
                let width = g * n;
                out.par_chunks_mut((TASK_ROWS * width).max(1))
                    .enumerate()
                    .for_each(|(task, out)| {
                        let rows = out.len() / width.max(1);
                        for i in 0..g {
                            one(i, (task * TASK_ROWS, rows), &mut out[i * n..], width);
                        }
                    });
            }
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, matrix, random};
    let mut all = Fixtures::new();
    let lie = [
        Blocks::STACKED,
        Blocks::BESIDE,
        Blocks::STACKED.transposed(),
        Blocks::BESIDE.transposed(),
    ];
    let dims = |of: Blocks, g: usize, (r, c): (usize, usize)| {
        let (r, c) = if of.transposed { (c, r) } else { (r, c) };
        if of.stacked { [g * r, c] } else { [r, g * c] }
    };
    for a in lie {
        for b in lie {
            for out in [Blocks::STACKED, Blocks::BESIDE] {
                let (g, m, n, k) = (2, 5, 3, 4);
                let op = BlockProduct {
                    groups: g as u32,
                    a,
                    b,
                    out,
                };
                let given = |g, m, n, k| [dims(a, g, (m, k)), dims(b, g, (k, n))];
                let [left, right] = given(g, m, n, k);
                all.sample(op.clone(), [random(1, &left), random(2, &right)]);
                if a == b || out.stacked {
                    continue;
                }
                // More than one block of threads.
                let [left, right] = given(g, 13, 17, 6);
                let [left, right] = [matrix(3, left[0], left[1]), matrix(4, right[0], right[1])];
                all.case(op, [left, right]);
            }
        }
    }
    let rows = BlockProduct::of_rows(8, Blocks::STACKED);
    all.large(rows, [matrix(5, 400, 64), matrix(6, 64, 8)]);
    let sums = BlockProduct::new(8, Blocks::BESIDE.transposed(), Blocks::BESIDE);
    all.large(sums, [matrix(5, 400, 64), matrix(6, 400, 64)]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{random, ty};
    use super::*;

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        let [x, y] = [ty(&random(1, &[6, 8])), ty(&random(2, &[8, 2]))];
        let rows = |groups| BlockProduct::of_rows(groups, Blocks::STACKED);
        assert!(rows(4).infer(&[&x, &y]).is_ok());
        assert!(rows(3).infer(&[&x, &y]).is_err());
        assert!(rows(0).infer(&[&x, &y]).is_err());
        assert!(rows(2).infer(&[&x, &x]).is_err());
    }
}
