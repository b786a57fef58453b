//! `attention`: scaled dot-product attention of each sequence with itself, over packed tokens.

use std::ops::Range;

use super::super::types::{DType, Real, Sym};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{self, Fault, In, Out},
    args, held, source,
};
use super::random::threshold;
use super::{
    At, AttentionGrad, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx,
    TensorType, Value,
};

#[cfg(test)]
mod fixtures;
mod kernel;
mod mask;

#[cfg(test)]
pub(super) use fixtures::{cases, faults, fixtures, samples};
pub(super) use kernel::{Draw, clear_outside, is_small, sequences, split_rows, transpose};
pub use mask::{Heads, Mask};

/// Dropout on attention probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionDropout {
    /// Probability of dropping.
    pub p: Real,
    /// Key of the random stream.
    pub stream: [u32; 2],
}

/// `(q [T, H·w], k, v [T, K·w], offsets u32[S+1][, keys u32[T, 2], step u32[1]]) → (o [T, H·w], lse [T, H])`.
///
/// Sequence `s` has rows `offsets[s] .. offsets[s+1]`; head `h` has columns `h·w ..`, and reads the keys and values of
/// head `h·K/H`. For each, `o = Drop(softmax(cap(scale · q kᵀ) + mask)) v`, where `cap(x) = c · tanh(x / c)` if there is
/// a soft cap `c`. With `fold` = k each token has k keys: keys and values are
/// `[k·T, K·w]`, and sequence `s` owns their rows `k·offsets[s] .. k·offsets[s+1]`. With `prefix` = P each sequence has P
/// keys before those of its tokens, as if it had begun P tokens earlier: keys and values are `[k·T + P·S, K·w]`. Only the
/// row-wise log-sum-exp is kept for the backward, which recomputes the probabilities (Dao et al. 2022, arXiv 2205.14135).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Heads of queries and of keys.
    pub heads: Heads,
    /// Keys a token; 1 in self-attention, 0 where queries see the prefix alone.
    pub fold: u32,
    /// Keys before those of each sequence's tokens; the mask counts them as tokens. Only with one key a token, or none.
    pub prefix: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Which tokens a query sees.
    pub mask: Mask,
    /// Bound that scores approach (Gemma 2, arXiv 2408.00118, section 2).
    pub softcap: Option<Real>,
    /// In what numbers its products are on a GPU; [`Builder`] sets it. With [`Precision::Bf16`] queries, keys, values and
    /// probabilities (in the gradient, theirs) are rounded to bf16 before they are multiplied, where heads are no wider
    /// than `WIDEST_IN_BF16`; a processor computes in f32 in any case, which is more exact.
    pub precision: Precision,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

impl Attention {
    /// Every token with every other, one key a token, without dropout.
    #[must_use]
    pub const fn plain(heads: Heads, scale: Real) -> Self {
        Self {
            heads,
            fold: 1,
            prefix: 0,
            scale,
            mask: Mask::FULL,
            softcap: None,
            precision: Precision::F32,
            dropout: None,
        }
    }

    /// Pairs of a query and a key it sees, in one head.
    pub(super) fn pairs(&self, cx: &SizedCx) -> u64 {
        let before = u64::from(self.prefix) * cx.sizes.get(Sym::Tokens);
        self.mask.pairs(&cx.sizes) * u64::from(self.fold) + before
    }

    /// The keys of a sequence of so many tokens that some of these queries see.
    pub(super) fn seen(&self, queries: Range<usize>, length: usize) -> Range<usize> {
        let (before, fold) = (self.prefix as usize, self.fold as usize);
        if before == 0 {
            let tokens = self.mask.seen(queries, length);
            return tokens.start * fold..tokens.end * fold;
        }
        if fold == 0 {
            return 0..before;
        }
        let queries = queries.start + before..queries.end + before;
        self.mask.seen(queries, length + before)
    }

    /// The row of a sequence's first key, and how many keys it has; it is sequence `s` and has these tokens.
    pub(super) const fn keys(&self, s: usize, (start, end): (usize, usize)) -> (usize, usize) {
        let (before, fold) = (self.prefix as usize, self.fold as usize);
        (start * fold + s * before, (end - start) * fold + before)
    }

    /// Whether queries and keys are matrices of one type, with these heads and so many keys a token and a sequence.
    pub(super) fn fits(&self, q: &TensorType, k: &TensorType, offsets: &TensorType) -> bool {
        let (Some((t, d)), Some((keys, kd))) = (q.matrix(), k.matrix()) else {
            return false;
        };
        let (Some(d), Some(kd)) = (d.as_const(), kd.as_const()) else {
            return false;
        };
        let (heads, shared) = (u64::from(self.heads.queries), u64::from(self.heads.keys));
        let sequences = offsets.shape.first().map(|n| n.without(1.into()));
        let Some(Some(sequences)) = sequences else {
            return false;
        };
        let before = u64::from(self.prefix);
        let counted = match self.fold {
            0 => before > 0 && self.mask == Mask::FULL,
            1 => true,
            _ => before == 0,
        };
        self.heads.are_even()
            && counted
            && keys == t.times(self.fold.into()).and(sequences.times(before))
            && d.is_multiple_of(heads)
            && kd == d / heads * shared
            && k.dtype == q.dtype
            && q.dtype.is_compute()
    }
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

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention" with "sequence.cuh", "attention.cuh"));

/// The kernels whose products are of bf16 numbers.
pub(super) const IN_BF16: KernelSource = source!("attention_bf16" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_bf16.cuh");

impl OpRule for Attention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, tail @ ..] = x else {
            return Err("queries, keys, values and offsets are wanted".into());
        };
        check_tail(tail, self.dropout.is_some())?;
        match (q.matrix(), tail) {
            (Some((t, _)), [offsets, ..]) if k == v && self.fits(q, k, offsets) => Ok(vec![
                (*q).clone(),
                TensorType::new(q.dtype, [t, u64::from(self.heads.queries).into()]),
            ]),
            _ => {
                Err("three matrices of one type, whose widths the heads divide, are wanted".into())
            }
        }
    }

    fn is_exact(&self, output: usize) -> bool {
        output == 1
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let held = held(cx, &[0, 1, 2], &[0])?;
        let mut list = Launches::of(held);
        let tile = Tiling::of(cx.width(0), self.heads.queries, self.precision)?;
        let (source, kernel) = match (tile.in_bf16, tile.columns) {
            (true, 64) => ("attention_bf16", "attention_bf16_64"),
            (true, _) => ("attention_bf16", "attention_bf16_128"),
            (false, 64) => ("attention", "attention_64"),
            (false, 128) => ("attention", "attention_128"),
            (false, _) => ("attention", "attention_256"),
        };
        let mut args = args![In(0), In(1), In(2), In(3)];
        args.extend(draw_buffers(self.dropout.as_ref(), 4));
        args.extend(args![Out(0), Out(1), Fault]);
        let lengths = Lengths::of(cx, 3, self);
        args.extend(tile.sizes(lengths, lengths.longest, self));
        args.extend(draw_numbers(self.dropout.as_ref()));
        list.call(Call {
            source,
            kernel,
            held,
            grid: tile.grid(lengths, lengths.longest, self.heads.queries),
            block: tile.threads(),
            shared: tile.forward_shared(),
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
        let op = AttentionGrad(self.clone());
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
        let pairs = self.pairs(cx);
        Cost {
            flops: 4 * pairs * cx.width(0) + 5 * pairs * u64::from(self.heads.queries),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.heads.queries);
        Lengths::of(cx, 3, self).forward_scratch((head, size), self.mask, machine)
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
    pub prefix: u64,
}

impl Lengths {
    /// From the operands of a node: the first matrix and the offsets.
    pub fn of(cx: &SizedCx, offsets: usize, op: &Attention) -> Self {
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
            fold: op.fold.into(),
            prefix: op.prefix.into(),
        }
    }

    /// Scratch of the forward: on each thread the keys of a head, transposed, and a tile of scores.
    fn forward_scratch(self, (head, size): (u64, u64), mask: Mask, machine: &Machine) -> u64 {
        let items = self.sequences + self.tokens / ITEM as u64;
        let tile = (FORWARD_TILE as u64).min(self.longest);
        let queries = (ITEM as u64).min(self.longest);
        let seen = match (self.prefix, self.fold) {
            (0, fold) => mask.reach(queries, self.longest) * fold,
            (before, 0) => before,
            (before, _) => mask.reach(queries, self.longest + before),
        };
        // Where they do not begin at the first key, they begin at a whole vector.
        let keys = self.keys().min(padded(seen as usize) as u64 + LANES as u64);
        (machine.threads as u64).min(items) * (head + tile) * keys * size
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

    /// Keys of the longest sequence.
    pub const fn most_keys(self) -> u64 {
        self.longest * self.fold + self.prefix
    }

    /// The same in whole vectors.
    const fn keys(self) -> u64 {
        padded(self.most_keys() as usize) as u64
    }
}

/// Elements of a whole vector.
const LANES: usize = 16;

/// A length rounded up to whole vectors.
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// The largest whole number of vectors that is not longer.
pub(super) const fn aligned(n: usize) -> usize {
    n - n % LANES
}

/// The widest head that a GPU kernel's tiles hold.
pub(super) const WIDEST_HEAD: u64 = 256;

/// The widest head whose products are formed on tensor cores: a warp holds the sums of 16 rows.
pub const WIDEST_IN_BF16: u64 = 128;

/// How a GPU kernel cuts a head up: tiles of `side` queries or keys, heads of up to `columns` columns; whether products are
/// of bf16 numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub columns: u32,
    pub in_bf16: bool,
    side: u64,
    head: u64,
    width: u64,
}

impl Tiling {
    /// The tiles for heads of matrices of a width; `None` if they are too wide for shared memory.
    pub fn of(width: u64, heads: u32, precision: Precision) -> Option<Self> {
        let head = width / u64::from(heads.max(1));
        let in_bf16 = precision == Precision::Bf16 && head <= WIDEST_IN_BF16;
        let (columns, side) = match in_bf16 {
            true => [(64, 64), (WIDEST_IN_BF16 as u32, 64)].as_slice(),
            false => [(64, 64), (128, 32), (WIDEST_HEAD as u32, 16)].as_slice(),
        }
        .iter()
        .copied()
        .find(|&(columns, _)| head <= u64::from(columns))?;
        Some(Self {
            columns,
            in_bf16,
            side,
            head,
            width,
        })
    }

    /// Queries or keys of a tile.
    pub const fn side(self) -> u64 {
        self.side
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        if self.in_bf16 { 128 } else { 256 }
    }

    /// Bytes of shared memory of the forward: queries, then keys and values, in turn where there is a tile of scores, else
    /// twice.
    pub const fn forward_shared(self) -> u32 {
        if self.in_bf16 {
            self.rows_in_bf16(5)
        } else {
            self.shared(2, 1)
        }
    }

    /// Bytes of shared memory of the backward: queries, their outputs' gradients, keys and values; and a tile of scores, or
    /// two numbers and the draw's two a query. Of narrow heads in bf16, what passes by is there twice.
    pub const fn backward_shared(self) -> u32 {
        if self.in_bf16 {
            let stages = if self.columns == 64 { 2 } else { 1 };
            self.rows_in_bf16(2 + 2 * stages as u64) + stages * 64 * 4 * 4
        } else {
            self.shared(4, 1)
        }
    }

    /// Tiles of rows of bf16 numbers, eight further apart than they are long.
    const fn rows_in_bf16(self, tiles: u64) -> u32 {
        (tiles * self.side * (self.columns as u64 + 8) * 2) as u32
    }

    /// Bytes for some tiles of rows of a head and some of scores.
    pub const fn shared(self, rows: u64, scores: u64) -> u32 {
        ((rows * self.head + scores * self.side) * (self.side + 1) * 4) as u32
    }

    /// A block for each tile of the longest sequence, of each sequence, and each head.
    pub fn grid(self, lengths: Lengths, longest: u64, heads: u32) -> [u32; 2] {
        [
            (lengths.sequences * longest.div_ceil(self.side)) as u32,
            heads,
        ]
    }

    /// The kernels' numbers: rows, width, heads of queries and of keys, sequences, tiles of the longest, its tokens,
    /// fold, prefix, the mask's bounds, scale, soft cap (0 for none).
    pub fn sizes(self, lengths: Lengths, longest: u64, op: &Attention) -> Vec<Arg> {
        let tiles = longest.div_ceil(self.side) as u32;
        let Lengths {
            sequences,
            tokens,
            longest,
            fold,
            prefix,
        } = lengths;
        let [behind, ahead] = op.mask.bounds();
        args![
            tokens as u32,
            self.width as u32,
            op.heads.queries,
            op.heads.keys,
            sequences as u32,
            tiles,
            longest as u32,
            fold as u32,
            prefix as u32,
            behind,
            ahead,
            op.scale.get() as f32,
            op.softcap.map_or(0.0, Real::get) as f32
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
