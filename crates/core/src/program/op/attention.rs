//! `attention`: scaled dot-product attention of each sequence with itself, over packed tokens.

use super::super::types::{DType, Real, Sym};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{self, Fault, In, Out},
    args, held, source,
};
use super::random::threshold;
use super::{
    At, AttentionGrad, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType,
    Value,
};

mod kernel;

pub(super) use kernel::{Draw, is_small, sequences, split_rows, transpose};

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

pub(super) const SOURCE: Option<KernelSource> = Some(source!("attention" with "attention.cuh"));

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

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0]));
    for [(op, inputs), _] in samples() {
        all.sample(op, inputs);
    }
    all.offsets = Some(3);
    for [(op, inputs), _] in cases() {
        all.case(op, inputs);
    }
    for [(op, inputs), _] in faults() {
        all.fault(op, inputs);
    }
    all
}

/// Forward and backward of one attention; `operands` are the gradient, queries, keys and values.
#[cfg(test)]
fn both(
    op: Attention,
    operands: [super::Tensor; 4],
    offsets: &[u32],
    tail: &[super::Tensor],
) -> [super::fixtures::Application; 2] {
    use super::fixtures::{eval, ids};
    let [up, queries, keys, values] = operands;
    let tail = [&[ids(offsets)], tail].concat();
    let inputs = [vec![queries, keys, values], tail.clone()].concat();
    let made = eval(&op.clone().into(), &inputs, 1);
    let backward = AttentionGrad {
        heads: op.heads,
        fold: op.fold,
        scale: op.scale,
        dropout: op.dropout.clone(),
    };
    let back = [vec![up], inputs[..3].to_vec(), made, tail].concat();
    [(op.into(), inputs), (backward.into(), back)]
}

/// The offsets of sequences of these lengths.
#[cfg(test)]
fn offsets(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, &n| {
        *end += n as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

#[cfg(test)]
pub(super) fn samples() -> Vec<[super::fixtures::Application; 2]> {
    use super::fixtures::{ids, keys, random};
    let op = |fold, dropout| Attention {
        heads: 2,
        fold,
        scale: Real::new(0.5),
        dropout,
    };
    let operands = || [22, 19, 20, 21].map(|seed| random(seed, &[9, 8]));
    let dropout = AttentionDropout {
        p: Real::new(0.25),
        stream: [3, 4],
    };
    let mut list = vec![
        both(op(1, None), operands(), &[0, 4, 5, 9], &[]),
        both(
            op(1, Some(dropout)),
            operands(),
            &[0, 4, 5, 9],
            &[keys(9), ids(&[2])],
        ),
    ];
    // Two keys a token, and sequences longer than the tiles of queries.
    for (fold, lengths) in [(2, vec![4, 1, 4]), (1, vec![150, 3]), (3, vec![70])] {
        let tokens: usize = lengths.iter().sum();
        let operands = [(33, 1), (30, 1), (31, fold), (32, fold)]
            .map(|(seed, keys)| random(seed, &[keys * tokens, 4]));
        let op = op(fold as u32, None);
        list.push(both(op, operands, &offsets(&lengths), &[]));
    }
    list
}

/// Heads that fill their columns and do not, sequences that fill their tiles and do not.
#[cfg(test)]
pub(super) fn cases() -> Vec<[super::fixtures::Application; 2]> {
    use super::fixtures::{ids, keys, matrix};
    let all = [
        (1, 64, 1, vec![1], None),
        (2, 64, 1, vec![70, 1, 65, 64], Some(0.2)),
        (3, 33, 2, vec![1, 35, 2], Some(0.1)),
        (1, 8, 3, vec![130], None),
        (2, 100, 1, vec![33, 32, 1], Some(0.5)),
        (1, 128, 2, vec![40], None),
        (1, 200, 1, vec![17, 1], Some(0.1)),
        (1, 256, 3, vec![9, 16], None),
    ];
    let one = |(heads, head, fold, lengths, p): (u32, usize, usize, Vec<usize>, Option<f64>)| {
        let (tokens, d) = (lengths.iter().sum::<usize>(), heads as usize * head);
        let op = Attention {
            heads,
            fold: fold as u32,
            scale: Real::new(0.3),
            dropout: p.map(|p| AttentionDropout {
                p: Real::new(p),
                stream: [7, 9],
            }),
        };
        let operands = [(4, 1), (1, 1), (2, fold), (3, fold)]
            .map(|(seed, keys)| matrix(seed, keys * tokens, d));
        let tail = p.map_or(Vec::new(), |_| vec![keys(tokens), ids(&[3])]);
        both(op, operands, &offsets(&lengths), &tail)
    };
    all.into_iter().map(one).collect()
}

/// Offsets that go backwards, do not start at 0, and end outside the rows or before their end.
#[cfg(test)]
pub(super) fn faults() -> Vec<[super::fixtures::Application; 2]> {
    use super::fixtures::{ids, matrix};
    let mut list = Vec::new();
    for wrong in [[0, 5, 4], [1, 3, 4], [0, 3, 5], [0, 2, 3]] {
        let op = Attention {
            heads: 1,
            fold: 1,
            scale: Real::new(0.3),
            dropout: None,
        };
        let operands = [4, 1, 2, 3].map(|seed| matrix(seed, 4, 4));
        let mut own = both(op, operands, &[0, 3, 4], &[]);
        own[0].1[3] = ids(&wrong);
        own[1].1[6] = ids(&wrong);
        list.push(own);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, ids, random};
    use super::super::{Op, Tensor};
    use super::*;

    #[test]
    fn attention_does_not_depend_on_grouping_and_equals_the_plain_formula() {
        let (q, k, v) = (random(1, &[7, 6]), random(2, &[7, 6]), random(3, &[7, 6]));
        let op: Op = Attention {
            heads: 2,
            fold: 1,
            scale: Real::new(0.6),
            dropout: None,
        }
        .into();
        let all = floats(&eval(&op, &[q.clone(), k.clone(), v.clone(), ids(&[0, 3, 7])], 1)[0]);
        let rows = |t: &Tensor, a: usize, b: usize| {
            Tensor::new(floats(t)[a * 6..b * 6].to_vec(), &[b - a, 6])
        };
        let alone = floats(
            &eval(
                &op,
                &[rows(&q, 3, 7), rows(&k, 3, 7), rows(&v, 3, 7), ids(&[0, 4])],
                1,
            )[0],
        );
        assert_eq!(&all[18..], &alone[..]);
        let (q, k, v) = (floats(&q), floats(&k), floats(&v));
        for (i, h) in [(0, 0), (2, 1)] {
            let score = |j: usize| {
                (0..3)
                    .map(|c| q[i * 6 + h * 3 + c] * k[j * 6 + h * 3 + c])
                    .sum::<f64>()
                    * 0.6
            };
            let sum: f64 = (0..3).map(|j| score(j).exp()).sum();
            let out: f64 = (0..3)
                .map(|j| score(j).exp() / sum * v[j * 6 + h * 3])
                .sum();
            assert!((out - all[i * 6 + h * 3]).abs() < 1e-12);
        }
    }
}
