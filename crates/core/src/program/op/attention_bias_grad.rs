//! `attention_bias_grad`: gradient of attention by the bias of its scores.

use rayon::prelude::*;

use super::attention::{
    Attention, BACKWARD_TILE, Lengths, aligned, beside, draw_buffers, draw_numbers, head_and_size,
    sequences,
};
use super::attention_grad::{Buffers, Operands, Part};
use super::launch::{
    Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::Elementary;
use super::{AttentionGrad, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up, q, k, v, o, lse, offsets, bias [2L+1, H][, keys, step]) → [2L+1, H]` of an [`Attention`] with a bias.
///
/// With `P`, `M` and `D` as in [`AttentionGrad`], the number of a distance and a head is the sum of `P ⊙ (M ⊙ (up vᵀ) − D)`
/// over the pairs of a query and a key at that distance, sequence by sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionBiasGrad(pub Attention);

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention_bias_grad" with "sequence.cuh", "attention.cuh"));

impl OpRule for AttentionBiasGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else {
            return Err("six matrices and offsets are wanted".into());
        };
        self.0.check([q, k], tail)?;
        let bias = self.0.tail(0).bias.and_then(|i| tail.get(i));
        match bias {
            Some(bias) if up == q && k == v && q == o && lse.dtype == q.dtype => {
                Ok(vec![(*bias).clone()])
            }
            _ => Err("five matrices of one type and a bias are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let op = &self.0;
        let at = op.tail(6);
        let stored_in = stored_in(cx, &[0, 1, 2, 3, 4], &[])?;
        let mut list = Launches::of(stored_in);
        let lengths = Lengths::of(cx, at, op);
        let [behind, ahead] = op.mask.bounds();
        let mut args = args![In(0), In(1), In(2), In(3), In(4), In(5), In(6)];
        args.extend(draw_buffers(op.dropout.as_ref(), at.draw));
        args.extend(args![
            Out(0),
            Fault,
            lengths.tokens as u32,
            cx.width(0) as u32,
            op.heads.queries,
            op.heads.keys,
            lengths.sequences as u32,
            lengths.longest as u32,
            behind,
            ahead,
            op.scale.get() as f32
        ]);
        args.extend(draw_numbers(op.dropout.as_ref()));
        args.extend(beside(cx, at));
        list.call(Call {
            source: "attention_bias_grad",
            kernel: "attention_bias_grad",
            stored_in,
            grid: [at.bias.map_or(0, |i| cx.rows(i)) as u32, op.heads.queries],
            block: 256,
            shared: 0,
            args,
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let pairs = self.0.pairs(cx);
        Cost {
            flops: 4 * pairs * cx.width(0) + 6 * pairs * u64::from(self.0.heads.queries),
            bytes: cx.traffic(),
        }
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.0.heads.queries);
        let lengths = Lengths::of(cx, self.0.tail(6), &self.0);
        let distances = cx.outputs.first().and_then(|x| x.dims.first());
        let distances = distances.copied().unwrap_or(0) as u64;
        self.scratch((lengths, distances), (head, size), machine)
    }
}

impl AttentionBiasGrad {
    /// Scratch: the sums of each head, and on each thread what the gradient of a sequence takes.
    fn scratch(
        &self,
        (lengths, distances): (Lengths, u64),
        (head, size): (u64, u64),
        machine: &Machine,
    ) -> u64 {
        let heads = u64::from(self.0.heads.queries);
        let threads = Lengths {
            sequences: heads,
            ..lengths
        };
        let sums = if lengths.sequences == 0 {
            0
        } else {
            heads * distances * size
        };
        sums + threads.backward_scratch(head, size, machine)
    }

    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (op, at) = (&self.0, self.0.tail(6));
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(at.offsets).slice::<u32>(), rows)?;
        let lengths = Lengths::of_sequences(op, &seqs, None);
        let x = Operands::<T>::of(op, io, lengths.longest)?;
        let heads = op.heads.queries as usize;
        let distances = io.outputs[0].dims[0];
        let sizes = ((d / heads) as u64, size_of::<T>() as u64);
        let scratch = self.scratch((lengths, distances as u64), sizes, cx.machine);
        let out = io.outputs[0].slice::<T>();
        cx.scratch(scratch, || {
            let all = (0..heads).into_par_iter();
            let sums: Vec<Vec<T>> = all
                .map(|h| self.head(h, &seqs, (d, distances), &x))
                .collect();
            for (h, own) in sums.iter().enumerate() {
                for (to, &sum) in out[h..].iter_mut().step_by(heads).zip(own) {
                    *to = sum;
                }
            }
        });
        Ok(())
    }

    /// The sums of a head.
    fn head<T: Elementary>(
        &self,
        h: usize,
        seqs: &[(usize, usize)],
        (d, distances): (usize, usize),
        x: &Operands<'_, T>,
    ) -> Vec<T> {
        let op = &self.0;
        let (heads, group) = (op.heads.queries as usize, op.heads.group() as usize);
        let head = d / heads;
        let kd = head * op.heads.keys as usize;
        let mut sums = vec![T::zero(); distances];
        // What is made holds the scale, which the bias stands behind.
        let inverse = T::one() / T::of(op.scale.get());
        for &(start, end) in seqs.iter().filter(|(start, end)| start < end) {
            let (n, tile) = (end - start, BACKWARD_TILE.min(end - start));
            let mut buffers = Buffers::new((head, n, tile));
            buffers.fill(x, (start * kd + h / group * head, kd), (head, n));
            for row in (start..end).step_by(tile) {
                let rows = row..end.min(row + tile);
                let seen = op.seen(row - start..rows.end - start, (n, n));
                let part = Part {
                    h,
                    start,
                    end,
                    rows,
                    all: n,
                    keys: aligned(seen.start)..seen.end,
                };
                AttentionGrad(op.clone()).scores(&part, d, x, &mut buffers);
                let stride = super::attention::padded(part.keys.len());
                let slopes = buffers.ds.chunks_exact(stride).take(part.rows.len());
                for (i, ds) in slopes.enumerate() {
                    let query = part.rows.start + i - start;
                    let first = distances / 2 + part.keys.start - query;
                    let (from, to) = part.seen(op, i);
                    for (sum, &ds) in sums[first + from..].iter_mut().zip(&ds[from..to]) {
                        *sum += ds * inverse;
                    }
                }
            }
        }
        sums
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::attention::biased;
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2, 3, 4], vec![]));
    all.offsets = Some(6);
    for (op, inputs) in biased(super::fixtures::random) {
        all.sample(op, inputs);
    }
    for (op, inputs) in
        biased(|seed, dims| super::fixtures::narrow(&super::fixtures::random(seed, dims)))
    {
        all.case(op, inputs);
    }
    all
}
