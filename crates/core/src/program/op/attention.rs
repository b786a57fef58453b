//! `attention`: scaled dot-product attention of each sequence with itself, or with its source, over packed tokens.

use std::ops::Range;

use super::super::types::{DType, Real, Sym};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{self, Fault, In, Out},
    args, source, stored_in,
};
use super::random::threshold;
use super::{
    At, AttentionBiasGrad, AttentionGrad, Builder, Cost, Io, Kernel, Machine, OpError, OpRule,
    Precision, SizedCx, TensorType, Value,
};

#[cfg(test)]
mod fixtures;
mod kernel;
mod lengths;
mod mask;
mod tiling;

#[cfg(test)]
pub(super) use fixtures::{biased, cases, faults, fixtures, samples};
pub(super) use kernel::{
    Bias, Bounds, Draw, centre_rows, clear_outside, is_small, normalise_rows, sequences,
    split_rows, transpose,
};
pub(super) use lengths::{BACKWARD_TILE, Lengths, aligned, padded};
use lengths::{FORWARD_TILE, ITEM};
pub use mask::{Heads, Mask};
#[cfg(test)]
pub(super) use tiling::WIDEST_ON_CORES;
pub(super) use tiling::{Tiling, WIDEST_HEAD};

/// Dropout on attention probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionDropout {
    /// Probability of dropping.
    pub p: Real,
    /// Key of the random stream.
    pub stream: [u32; 2],
}

/// Whose tokens queries and keys are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Streams {
    /// Both of the sequences.
    #[default]
    Own,
    /// Both of the sources.
    Source,
    /// Queries of the sequences, keys of the sources: a sequence sees all of its own source.
    Across,
}

impl Streams {
    /// The lengths of the longest of the queries' and of the keys' sequences.
    pub(super) const fn longest(self) -> [Sym; 2] {
        match self {
            Self::Own => [Sym::Longest, Sym::Longest],
            Self::Source => [Sym::SourceLongest, Sym::SourceLongest],
            Self::Across => [Sym::Longest, Sym::SourceLongest],
        }
    }
}

/// `(q [T, H·w], k, v [T, K·w], offsets u32[S+1][, sources u32[S+1]][, bias [2L+1, H]][, keys u32[T, 2], step u32[1]])
/// → (o [T, H·w], lse [T, H])`.
///
/// Sequence `s` has rows `offsets[s] .. offsets[s+1]`; head `h` has columns `h·w ..`, and reads the keys and values of
/// head `h·K/H`. For each, `o = Drop(softmax(cap(scale · q kᵀ) + mask)) v`, where `cap(x) = c · tanh(x / c)` if there is
/// a soft cap `c`. With `fold` = k each token has k keys: keys and values are
/// `[k·T, K·w]`, and sequence `s` owns their rows `k·offsets[s] .. k·offsets[s+1]`. With `prefix` = P each sequence has P
/// keys before those of its tokens, as if it had begun P tokens earlier: keys and values are `[k·T + P·S, K·w]`. Across
/// streams, sequence `s` has the keys `sources[s] .. sources[s+1]` instead. With a bias, the number in row `L + j − i` and
/// column `h` is added to the score of query `i` and key `j` of a sequence, behind the scale. Only the
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
    /// In what numbers its products are on a GPU; [`Builder`] sets it. On heads no wider than `WIDEST_ON_CORES`, with
    /// [`Precision::Bf16`] queries, keys, values and probabilities (in the gradient, theirs) are rounded to bf16 before they
    /// are multiplied; with [`Precision::Tf32`] probabilities are rounded to TF32, and of the rest the bits behind its ten are
    /// dropped. A processor computes in f32 in any case, which is more exact.
    pub precision: Precision,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
    /// Whose tokens queries and keys are of.
    pub streams: Streams,
    /// Whether a bias by distance is added to the scores.
    pub bias: bool,
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
            streams: Streams::Own,
            bias: false,
        }
    }

    /// Pairs of a query and a key it sees, in one head.
    pub(super) fn pairs(&self, cx: &SizedCx) -> u64 {
        let of = |all, tokens| self.mask.pairs(cx.sizes.get(all), cx.sizes.get(tokens));
        let own = match self.streams {
            Streams::Own => of(Sym::Pairs, Sym::Tokens),
            Streams::Source => of(Sym::SourcePairs, Sym::SourceTokens),
            Streams::Across => return cx.sizes.get(Sym::Crossed),
        };
        own * u64::from(self.fold) + u64::from(self.prefix) * cx.sizes.get(Sym::Tokens)
    }

    /// The keys that some of these queries see, of a sequence of so many tokens with so many keys.
    pub(super) fn seen(
        &self,
        queries: Range<usize>,
        (length, keys): (usize, usize),
    ) -> Range<usize> {
        let (before, fold) = (self.prefix as usize, self.fold as usize);
        if fold == 0 || self.streams == Streams::Across {
            return 0..keys;
        }
        if before == 0 {
            let tokens = self.mask.seen(queries, length);
            return tokens.start * fold..tokens.end * fold;
        }
        let queries = queries.start + before..queries.end + before;
        self.mask.seen(queries, length + before)
    }

    /// The row of a sequence's first key, and how many keys it has; it is sequence `s` and has these tokens. Sources are
    /// those across streams.
    pub(super) fn keys(
        &self,
        s: usize,
        (start, end): (usize, usize),
        sources: &[(usize, usize)],
    ) -> (usize, usize) {
        if let Some((first, end)) = sources.get(s) {
            return (*first, end - first);
        }
        let (before, fold) = (self.prefix as usize, self.fold as usize);
        (start * fold + s * before, (end - start) * fold + before)
    }

    /// Places of the operands behind the matrices, the first of which is the offsets.
    pub(super) const fn tail(&self, offsets: usize) -> Tail {
        let mut next = offsets + 1;
        let sources = match self.streams {
            Streams::Across => Some(next),
            Streams::Own | Streams::Source => None,
        };
        next += sources.is_some() as usize;
        let bias = if self.bias { Some(next) } else { None };
        next += bias.is_some() as usize;
        Tail {
            offsets,
            sources,
            bias,
            draw: next,
        }
    }

    /// Whether its kernels on a GPU form products on tensor cores where they are asked to: not with a bias, nor across
    /// streams.
    pub(super) const fn narrows(&self) -> bool {
        !self.bias && !matches!(self.streams, Streams::Across)
    }

    /// Whether queries and keys are matrices of one type, with these heads and so many keys a token and a sequence.
    fn fits(&self, q: &TensorType, k: &TensorType, offsets: &TensorType) -> bool {
        let (Some((t, d)), Some((keys, kd))) = (q.matrix(), k.matrix()) else {
            return false;
        };
        let (Some(d), Some(kd)) = (d.as_const(), kd.as_const()) else {
            return false;
        };
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
        self.heads.divide(d, kd)
            && counted
            && (self.streams == Streams::Across
                || keys == t.times(self.fold.into()).and(sequences.times(before)))
            && k.dtype == q.dtype
            && q.dtype.is_compute()
    }
}

/// Places of an attention's operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub offsets: usize,
    pub sources: Option<usize>,
    pub bias: Option<usize>,
    /// The first of the two of dropout.
    pub draw: usize,
}

impl Tail {
    /// The offsets of the sources.
    pub fn sources(self, io: &Io<'_>) -> Result<Vec<(usize, usize)>, OpError> {
        let Some(at) = self.sources else {
            return Ok(Vec::new());
        };
        let rows = io.input(self.keys()).dims[0];
        let list = sequences(io.input(at).slice::<u32>(), rows)?;
        // Nothing is what a query that sees no key would be given.
        let own = io.input(self.offsets).slice::<u32>().windows(2);
        let mut all = list.iter().zip(own);
        match all.position(|((a, b), own)| a == b && own[0] < own[1]) {
            Some(s) => Err(OpError::Index {
                index: s as u64,
                rows: 0,
            }),
            None => Ok(list),
        }
    }

    /// Where the keys are: behind the queries, which in a gradient stand behind what comes from above.
    const fn keys(self) -> usize {
        if self.offsets == 3 { 1 } else { 2 }
    }
}

impl Attention {
    /// Checks queries and keys with the operands behind the matrices.
    pub(super) fn check(
        &self,
        [q, k]: [&TensorType; 2],
        tail: &[&TensorType],
    ) -> Result<(), String> {
        let at = self.tail(0);
        let count = at.draw + if self.dropout.is_some() { 2 } else { 0 };
        let ids = |(i, t): (usize, &&TensorType)| Some(i) == at.bias || t.dtype == DType::U32;
        if tail.len() != count || !tail.iter().enumerate().all(ids) {
            return Err(format!(
                "{count} operands are wanted behind the matrices, u32 but for the bias"
            ));
        }
        let (plain, full) = (self.fold == 1 && self.prefix == 0, self.mask == Mask::FULL);
        if self.streams == Streams::Across && !(plain && full && !self.bias)
            || self.bias && !(plain && self.softcap.is_none())
        {
            return Err(
                "across streams every key is seen, and a bias stands on plain scores".into(),
            );
        }
        let heads = |bias: usize| {
            let columns = tail.get(bias).and_then(|b| b.matrix());
            let columns = columns.and_then(|(_, heads)| heads.as_const());
            columns == Some(self.heads.queries.into())
        };
        let sources = at.sources.is_none_or(|i| tail[i].shape == tail[0].shape);
        if at.bias.is_none_or(heads) && sources && self.fits(q, k, tail[0]) {
            Ok(())
        } else {
            Err("three matrices of one type, whose widths the heads divide, are wanted".into())
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention" with "sequence.cuh", "attention.cuh"));

/// The kernels whose products are of bf16 numbers on tensor cores.
pub(super) const IN_BF16: KernelSource = source!("attention_bf16" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_tiles.cuh", "attention_cores.cuh", "attention_on_cores.cuh");

/// Those whose products are in TF32 there.
pub(super) const IN_TF32: KernelSource = source!("attention_tf32" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_tiles.cuh", "attention_cores.cuh", "attention_on_cores.cuh");

impl OpRule for Attention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, tail @ ..] = x else {
            return Err("queries, keys, values and offsets are wanted".into());
        };
        self.check([q, k], tail)?;
        match q.matrix() {
            Some((t, _)) if k == v => Ok(vec![
                (*q).clone(),
                TensorType::new(q.dtype, [t, u64::from(self.heads.queries).into()]),
            ]),
            _ => Err("keys and values of one type are wanted".into()),
        }
    }

    fn is_exact(&self, output: usize) -> bool {
        output == 1
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0, 1, 2], &[0])?;
        let mut list = Launches::of(stored_in);
        let tile = Tiling::of(cx.width(0), self.heads.queries, self.precision)?;
        let (source, kernel) = match (tile.products, tile.columns) {
            (Precision::Bf16, 64) => ("attention_bf16", "attention_bf16_64"),
            (Precision::Bf16, _) => ("attention_bf16", "attention_bf16_128"),
            (Precision::Tf32, 64) => ("attention_tf32", "attention_tf32_64"),
            (Precision::Tf32, _) => ("attention_tf32", "attention_tf32_128"),
            (Precision::F32, 64) => ("attention", "attention_64"),
            (Precision::F32, 128) => ("attention", "attention_128"),
            (Precision::F32, _) => ("attention", "attention_256"),
        };
        let at = self.tail(3);
        let mut args = args![In(0), In(1), In(2), In(3)];
        args.extend(draw_buffers(self.dropout.as_ref(), at.draw));
        args.extend(args![Out(0), Out(1), Fault]);
        let lengths = Lengths::of(cx, at, self);
        args.extend(tile.sizes(lengths, lengths.longest, self));
        args.extend(draw_numbers(self.dropout.as_ref()));
        if !tile.on_cores() {
            args.extend(beside(cx, at));
        }
        list.call(Call {
            source,
            kernel,
            stored_in,
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
        let mut inputs = vec![up, *q, *k, *v, at.outputs[0], at.outputs[1]];
        inputs.extend(tail);
        if at.needs.iter().take(3).any(|wanted| *wanted) {
            let made = b.push(AttentionGrad(self.clone()), &inputs);
            for (slot, (grad, &wanted)) in grads.iter_mut().zip(made.into_iter().zip(at.needs)) {
                *slot = wanted.then_some(grad);
            }
        }
        let bias = self.tail(3).bias;
        let wanted = |i: &usize| at.needs.get(*i).is_some_and(|wanted| *wanted);
        if let Some(slot) = bias.filter(wanted).and_then(|i| grads.get_mut(i)) {
            *slot = Some(b.push1(AttentionBiasGrad(self.clone()), &inputs));
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 3 || Some(input) == self.tail(3).bias
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
        Lengths::of(cx, self.tail(3), self).forward_scratch((head, size), self.mask, machine)
    }
}

/// Keys and step of dropout among the operands, from `first`.
pub(super) fn draw_buffers(dropout: Option<&AttentionDropout>, first: usize) -> [Arg; 2] {
    [first, first + 1].map(|i| dropout.map_or(Arg::Null, |_| Operand::In(i).into()))
}

/// The sources' offsets and the bias, where there are such; rows of the keys, tokens of the longest source, and the row
/// of the bias that is of distance 0.
pub(super) fn beside(cx: &SizedCx, at: Tail) -> Vec<Arg> {
    let buffer = |at: Option<usize>| at.map_or(Arg::Null, |i| Operand::In(i).into());
    let middle = at.bias.map_or(0, |i| cx.rows(i) / 2);
    let keys = cx.rows(at.keys());
    let mut list = vec![buffer(at.sources), buffer(at.bias)];
    list.extend(args![
        keys as u32,
        cx.sizes.get(Sym::SourceLongest) as u32,
        middle as u32
    ]);
    list
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
