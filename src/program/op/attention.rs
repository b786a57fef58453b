//! `attention`: scaled dot-product attention of each sequence with itself, over packed tokens.

use rayon::prelude::*;

use super::super::types::{DType, Real, Sym};
use super::dropout::drop_row;
use super::launch::{
    Arg, Call, Launches,
    Operand::{self, Fault, In, Out},
    args, held,
};
use super::math::{Elementary, by_sixteen, exp_all, row_max, row_sum, simd};
use super::random::threshold;
use super::tile::{Into, Rows, Strided, multiply};
use super::{
    At, AttentionGrad, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType,
    Value,
};

/// Dropout on attention probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionDropout {
    /// Probability of dropping.
    pub p: Real,
    /// Key of the random stream.
    pub stream: [u32; 2],
}

/// `(q, k, v [T, d], offsets u32[S+1][, keys u32[T, 2], step u32[1]]) → (o [T, d], lse [T, H])`.
///
/// Sequence `s` has rows `offsets[s] .. offsets[s+1]`; head `h` has columns `h·d/H ..`. For each,
/// `o = Drop(softmax(scale · q kᵀ)) v`. With `fold` = k each token has k keys: keys and values are
/// `[k·T, d]`, and sequence `s` owns their rows `k·offsets[s] .. k·offsets[s+1]`. Only the row-wise log-sum-exp is kept for the backward, which
/// recomputes the probabilities (Dao et al. 2022, arXiv 2205.14135).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Number of heads.
    pub heads: u32,
    /// Keys a token; 1 in self-attention.
    pub fold: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

/// Shared by forward and backward: checks of the operands after the float matrices.
pub(super) fn check_tail(tail: &[&TensorType], dropout: bool) -> Result<(), String> {
    let u32s = tail.iter().all(|t| t.dtype == DType::U32);
    let count = if dropout { 3 } else { 1 };
    if u32s && tail.len() == count {
        Ok(())
    } else {
        Err(format!(
            "{count} u32 operands are wanted after the matrices"
        ))
    }
}

impl OpRule for Attention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, tail @ ..] = x else {
            return Err("queries, keys, values and offsets are wanted".into());
        };
        check_tail(tail, self.dropout.is_some())?;
        match q.matrix() {
            Some((t, d))
                if k == v
                    && k.dtype == q.dtype
                    && k.matrix() == Some((t.times(self.fold.into()), d))
                    && q.dtype.is_compute()
                    && d.as_const().is_some_and(|d| d % u64::from(self.heads) == 0) =>
            {
                Ok(vec![
                    (*q).clone(),
                    TensorType::new(q.dtype, [t, u64::from(self.heads).into()]),
                ])
            }
            _ => Err("three matrices of one type, whose width the heads divide, are wanted".into()),
        }
    }

    fn is_exact(&self, output: usize) -> bool {
        output == 1
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let held = held(cx, &[0, 1, 2], &[0])?;
        let mut list = Launches::of(held);
        let (kernel, tile) = match Tiling::of(cx.width(0), self.heads)? {
            tile @ Tiling { columns: 64, .. } => ("attention_64", tile),
            tile @ Tiling { columns: 128, .. } => ("attention_128", tile),
            tile => ("attention_256", tile),
        };
        let mut args = args![In(0), In(1), In(2), In(3)];
        args.extend(draw_buffers(self.dropout.as_ref(), 4));
        args.extend(args![Out(0), Out(1), Fault]);
        let lengths = Lengths::of(cx, 3, self.fold);
        args.extend(tile.sizes(lengths, lengths.longest, self.scale));
        args.extend(draw_numbers(self.dropout.as_ref()));
        let shared = tile.shared(2, 1);
        list.call(Call {
            source: "attention",
            kernel,
            held,
            grid: tile.grid(lengths, lengths.longest),
            block: 256,
            shared,
            args,
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut grads = vec![None; at.inputs.len()];
        let (Some(up), [q, k, v, tail @ ..]) = (at.up[0], at.inputs) else {
            return grads;
        };
        let op = AttentionGrad {
            heads: self.heads,
            fold: self.fold,
            scale: self.scale,
            dropout: self.dropout.clone(),
        };
        let mut inputs = vec![up, *q, *k, *v, at.outputs[0], at.outputs[1]];
        inputs.extend(tail);
        let made = b.push(op, &inputs);
        for (slot, (grad, &wanted)) in grads.iter_mut().zip(made.into_iter().zip(at.needs)) {
            *slot = wanted.then_some(grad);
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 3
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let d = cx
            .inputs
            .first()
            .and_then(|x| x.dims.get(1))
            .copied()
            .unwrap_or(0) as u64;
        let pairs = cx.sizes.get(Sym::Pairs) * u64::from(self.fold);
        Cost {
            flops: 4 * pairs * d + 5 * pairs * u64::from(self.heads),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.heads);
        Lengths::of(cx, 3, self.fold).forward_scratch(head, size, machine)
    }
}

/// Query rows of a forward work item; rows of its score tile, and of the backward's.
const ITEM: usize = 64;
const FORWARD_TILE: usize = 16;
pub(super) const BACKWARD_TILE: usize = 32;

/// Sequences of a batch as the kernels' scratch depends on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub sequences: u64,
    pub tokens: u64,
    pub longest: u64,
    pub fold: u64,
}

impl Lengths {
    /// From the operands of a node: the first matrix and the offsets.
    pub fn of(cx: &SizedCx, offsets: usize, fold: u32) -> Self {
        let rows = |i: usize| {
            cx.inputs
                .get(i)
                .and_then(|x| x.dims.first())
                .copied()
                .unwrap_or(0) as u64
        };
        Self {
            sequences: rows(offsets).saturating_sub(1),
            tokens: rows(0),
            longest: cx.sizes.get(Sym::Longest),
            fold: fold.into(),
        }
    }

    /// Scratch of the forward: on each thread the keys of a head, transposed, and a tile of scores.
    fn forward_scratch(self, head: u64, size: u64, machine: &Machine) -> u64 {
        let items = self.sequences + self.tokens / ITEM as u64;
        let tile = (FORWARD_TILE as u64).min(self.longest);
        (machine.threads as u64).min(items) * (head + tile) * self.keys() * size
    }

    /// Scratch of the backward: on each thread keys and values of a head, transposed, two tiles, and
    /// a row of dropout factors.
    pub fn backward_scratch(self, head: u64, size: u64, machine: &Machine) -> u64 {
        let tile = (BACKWARD_TILE as u64).min(self.longest);
        (machine.threads as u64).min(self.sequences)
            * (2 * head + 2 * tile + 1)
            * self.keys()
            * size
    }

    /// Keys of the longest sequence, in whole vectors.
    const fn keys(self) -> u64 {
        padded((self.longest * self.fold) as usize) as u64
    }
}

/// A length rounded up to whole vectors.
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// The widest head that a GPU kernel's tiles hold.
pub(super) const WIDEST_HEAD: u64 = 256;

/// How a GPU kernel cuts a head up: tiles of `side` queries or keys, heads of up to `columns` columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub columns: u32,
    side: u64,
    head: u64,
    width: u64,
    heads: u32,
}

impl Tiling {
    /// The tiles for heads of matrices of a width; `None` if they are too wide for shared memory.
    pub fn of(width: u64, heads: u32) -> Option<Self> {
        let head = width / u64::from(heads.max(1));
        let (columns, side) = [(64, 64), (128, 32), (WIDEST_HEAD as u32, 16)]
            .into_iter()
            .find(|&(columns, _)| head <= u64::from(columns))?;
        Some(Self {
            columns,
            side,
            head,
            width,
            heads,
        })
    }

    /// Bytes of shared memory for some tiles of rows of a head and some of scores.
    pub const fn shared(self, rows: u64, scores: u64) -> u32 {
        ((rows * self.head + scores * self.side) * (self.side + 1) * 4) as u32
    }

    /// A block for each tile of the longest sequence, of each sequence, and each head.
    pub fn grid(self, lengths: Lengths, longest: u64) -> [u32; 2] {
        [
            (lengths.sequences * longest.div_ceil(self.side)) as u32,
            self.heads,
        ]
    }

    /// The kernels' numbers: rows, width, heads, sequences, tiles of the longest, its tokens, fold, scale.
    pub fn sizes(self, lengths: Lengths, longest: u64, scale: Real) -> Vec<Arg> {
        let tiles = longest.div_ceil(self.side) as u32;
        let Lengths {
            sequences,
            tokens,
            longest,
            fold,
        } = lengths;
        args![
            tokens as u32,
            self.width as u32,
            self.heads,
            sequences as u32,
            tiles,
            longest as u32,
            fold as u32,
            scale.get() as f32
        ]
    }
}

/// Keys and step of dropout among the operands, from `first`.
pub(super) fn draw_buffers(dropout: Option<&AttentionDropout>, first: usize) -> [Arg; 2] {
    [first, first + 1].map(|i| dropout.map_or(Arg::Null, |_| Operand::In(i).into()))
}

/// The stream, the threshold and the factor of dropout.
pub(super) fn draw_numbers(dropout: Option<&AttentionDropout>) -> Vec<Arg> {
    let ([k0, k1], p) = dropout.map_or(([0, 0], 0.0), |d| (d.stream, d.p.get()));
    args![k0, k1, threshold(p), (1.0 / (1.0 - p)) as f32]
}

/// A head's width and the size of an element.
pub(super) fn head_and_size(cx: &SizedCx, heads: u32) -> (u64, u64) {
    let Some(x) = cx.inputs.first() else {
        return (0, 0);
    };
    let elements = x.dims.iter().product::<usize>() as u64;
    (
        x.dims.get(1).copied().unwrap_or(0) as u64 / u64::from(heads).max(1),
        x.bytes / elements.max(1),
    )
}

/// Start and end of each sequence, checked against the number of rows.
pub(super) fn sequences(offsets: &[u32], rows: usize) -> Result<Vec<(usize, usize)>, OpError> {
    let list: Vec<(usize, usize)> = offsets
        .windows(2)
        .map(|w| (w[0] as usize, w[1] as usize))
        .collect();
    let good = list.iter().all(|(a, b)| a <= b)
        && offsets.first() == Some(&0)
        && offsets.last().is_some_and(|&n| n as usize == rows);
    if good {
        Ok(list)
    } else {
        Err(OpError::Index {
            index: u64::from(offsets.last().copied().unwrap_or(0)),
            rows: rows as u64,
        })
    }
}

/// Splits a `[T, width]` buffer into one slice a range of rows; the ranges follow each other.
pub(super) fn split_rows<T>(
    mut rest: &mut [T],
    ranges: impl Iterator<Item = (usize, usize)>,
    width: usize,
) -> Vec<&mut [T]> {
    ranges
        .map(|(start, end)| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut((end - start) * width);
            rest = tail;
            head
        })
        .collect()
}

/// Whether so little work, in products of elements, is done on one thread.
pub(super) fn is_small(seqs: &[(usize, usize)], width: usize) -> bool {
    seqs.iter().map(|(a, b)| (b - a) * (b - a)).sum::<usize>() * width < 1 << 16
}

/// Dropout with the keys and the step it draws by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw<'a> {
    stream: [u32; 2],
    limit: u32,
    scale: f64,
    keys: &'a [u32],
    step: u32,
}

impl<'a> Draw<'a> {
    pub fn new(dropout: &AttentionDropout, keys: &'a [u32], step: u32) -> Self {
        let p = dropout.p.get();
        Self {
            stream: dropout.stream,
            limit: threshold(p),
            scale: 1.0 / (1.0 - p),
            keys,
            step,
        }
    }

    /// Drops and scales one query's row, over keys: counter `[head · 2²⁰ + key/4, query, example,
    /// step]`, positions counted within the sequence.
    pub fn drop<T: Elementary>(&self, head: usize, query_row: usize, row: &mut [T]) {
        let tail = [
            self.keys[2 * query_row + 1],
            self.keys[2 * query_row],
            self.step,
        ];
        drop_row(
            self.stream,
            (head << 20) as u32,
            tail,
            self.limit,
            T::of(self.scale),
            row,
        );
    }
}

/// `to[c, j] = from[j, c]` for `n` rows of one head, with rows of `to` padded with zeros.
pub(super) fn transpose<T: Elementary>(from: &[T], d: usize, n: usize, head: usize, to: &mut [T]) {
    let stride = padded(n);
    for (c, to) in to.chunks_exact_mut(stride).take(head).enumerate() {
        for (j, x) in to.iter_mut().enumerate() {
            *x = if j < n { from[j * d + c] } else { T::zero() };
        }
    }
}

impl Attention {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (q, k, v) = (
            io.input(0).slice::<T>(),
            io.input(1).slice::<T>(),
            io.input(2).slice::<T>(),
        );
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(3).slice::<u32>(), rows)?;
        let draw = self.dropout.as_ref().map(|drop| {
            Draw::new(
                drop,
                io.input(4).slice::<u32>(),
                io.input(5).slice::<u32>()[0],
            )
        });
        let heads = self.heads as usize;
        let head = d / heads;
        let items: Vec<(usize, usize, usize, usize)> = seqs
            .iter()
            .flat_map(|&(start, end)| {
                (start..end)
                    .step_by(ITEM)
                    .map(move |from| (start, end, from, (from + ITEM).min(end)))
            })
            .collect();
        let [o, lse] = io.outputs.as_mut_slice() else {
            unreachable!("two outputs: inferred")
        };
        let ranges = || items.iter().map(|&(_, _, from, to)| (from, to));
        let outs = split_rows(o.slice::<T>(), ranges(), d);
        let lses = split_rows(lse.slice::<T>(), ranges(), heads);
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64;
        let fold = self.fold as usize;
        let lengths = Lengths {
            sequences: seqs.len() as u64,
            tokens: rows as u64,
            longest,
            fold: fold as u64,
        };
        let work = |((&(start, end, from, to), out), lse): (
            (&(usize, usize, usize, usize), &mut [T]),
            &mut [T],
        )| {
            let n = (end - start) * fold;
            let stride = padded(n);
            let (mut keys, mut p) = (
                vec![T::zero(); head * stride],
                vec![T::zero(); FORWARD_TILE.min(end - start) * stride],
            );
            for h in 0..heads {
                let at = |row: usize| row * d + h * head;
                transpose(&k[at(start * fold)..], d, n, head, &mut keys);
                for row in (from..to).step_by(FORWARD_TILE) {
                    let m = FORWARD_TILE.min(to - row);
                    let queries = Strided {
                        data: &q[at(row)..],
                        row: d,
                        column: 1,
                    };
                    multiply(
                        (m, stride, head),
                        &mut p,
                        stride,
                        queries,
                        Rows {
                            data: &keys,
                            row: stride,
                        },
                        Into::Set,
                    );
                    let scores = &mut p[..m * stride];
                    let maxima = &mut lse[(row - from) * heads..];
                    centre_rows(scores, n, T::of(self.scale.get()), &mut maxima[h..], heads);
                    exp_all(scores);
                    normalise_rows(scores, n, &mut maxima[h..], heads);
                    if let Some(draw) = &draw {
                        for (i, p) in scores.chunks_exact_mut(stride).enumerate() {
                            draw.drop(h, row + i, &mut p[..n]);
                        }
                    }
                    let weights = Strided {
                        data: &p,
                        row: stride,
                        column: 1,
                    };
                    multiply(
                        (m, head, n),
                        &mut out[at(row - from)..],
                        d,
                        weights,
                        Rows {
                            data: &v[at(start * fold)..],
                            row: d,
                        },
                        Into::Set,
                    );
                }
            }
        };
        cx.scratch(
            lengths.forward_scratch(head as u64, size_of::<T>() as u64, cx.machine),
            || {
                if is_small(&seqs, d) {
                    items.iter().zip(outs).zip(lses).for_each(work);
                } else {
                    items.par_iter().zip(outs).zip(lses).for_each(work);
                }
            },
        );
        Ok(())
    }
}

/// Of a tile of scores with `n` real columns: times `scale`, minus each row's largest, which goes to
/// every `step`-th of `maxima`.
fn centre_rows<T: Elementary>(tile: &mut [T], n: usize, scale: T, maxima: &mut [T], step: usize) {
    simd!(<T> (tile: &'a mut [T] = tile, n: usize = n, scale: T = scale, maxima: &'a mut [T] = maxima, step: usize = step) {
        for (row, max) in tile.chunks_exact_mut(padded(n)).zip(maxima.iter_mut().step_by(step)) {
            by_sixteen(row, |x| x * scale);
            row[n..].fill(T::neg_infinity());
            let m = row_max(row);
            by_sixteen(row, |x| x - m);
            *max = m;
        }
    });
}

/// Of a tile of exponentials: each row over its sum; the maxima become log-sum-exps.
fn normalise_rows<T: Elementary>(tile: &mut [T], n: usize, maxima: &mut [T], step: usize) {
    simd!(<T> (tile: &'a mut [T] = tile, n: usize = n, maxima: &'a mut [T] = maxima, step: usize = step) {
        for (row, max) in tile.chunks_exact_mut(padded(n)).zip(maxima.iter_mut().step_by(step)) {
            row[n..].fill(T::zero());
            let sum = row_sum(row, |x| x);
            let inverse = T::one() / sum;
            by_sixteen(row, |x| x * inverse);
            *max += T::of(libm::log(sum.wide()));
        }
    });
}
