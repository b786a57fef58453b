//! `attention_grad`: gradient of attention by queries, keys and values.

use super::attention::{
    Attention, Lengths, Tiling, beside, draw_buffers, draw_numbers, head_and_size,
};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx, TensorType};

mod kernel;

pub(super) use kernel::{Buffers, Operands, Part, Query, dot, score_row, shift_row};

/// `(up, q [T, H·w], k, v [k·T, K·w], o [T, H·w], lse [T, H], offsets[, sources][, bias][, keys, step]) → (dq, dk, dv)` of an
/// [`Attention`].
///
/// With `s = scale · q kᵀ`, `P = exp(cap(s) − lse)`, mask factor `M` and `D = Σ up ⊙ o` per row and head:
/// `dv = (P⊙M)ᵀ up`, `dS = P ⊙ (M ⊙ (up vᵀ) − D) ⊙ cap'(s)`, `dq = scale · dS k`, `dk = scale · dSᵀ q`, those of keys and
/// values summed over the heads that share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionGrad(pub Attention);

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention_grad" with "sequence.cuh", "attention.cuh"));

/// The kernels whose products are of bf16 numbers on tensor cores.
pub(super) const IN_BF16: KernelSource = source!("attention_grad_bf16" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_tiles.cuh", "attention_cores.cuh", "attention_grad_on_cores.cuh");

/// Those whose products are in TF32 there.
pub(super) const IN_TF32: KernelSource = source!("attention_grad_tf32" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_tiles.cuh", "attention_cores.cuh", "attention_grad_on_cores.cuh");

impl OpRule for AttentionGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else {
            return Err("six matrices and offsets are wanted".into());
        };
        self.0.check([q, k], tail)?;
        if up == q && k == v && q == o && lse.dtype == q.dtype {
            Ok(vec![(*q).clone(), (*k).clone(), (*k).clone()])
        } else {
            Err("five matrices of one type, whose widths the heads divide, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let op = &self.0;
        let stored_in = stored_in(cx, &[0, 1, 2, 3, 4], &[0, 1, 2])?;
        let mut list = Launches::of(stored_in);
        let tile = Tiling::of(cx.width(0), op.heads.queries, op.precision)?;
        let (source, queries, keys) = kernels(tile);
        let at = op.tail(6);
        let lengths = Lengths::of(cx, at, op);
        let heads = op.heads.queries;
        let (count, d) = (lengths.tokens * u64::from(heads), cx.width(0));
        let dots = list.scratch(4 * count);
        // The walk by queries on tensor cores makes them itself.
        if !tile.on_cores() {
            list.rows(
                "attention_grad",
                "attention_dots",
                count.div_ceil(8),
                256,
                args![In(0), In(4), dots, d as u32, heads, count],
            );
        }
        let outputs = if tile.on_cores() {
            args![In(4)]
        } else {
            args![]
        };
        let mut call =
            |kernel: &'static str, (before, outs): (&[Arg], Vec<Arg>), longest: u64, heads: u32| {
                let mut args = args![In(0), In(1), In(2), In(3)];
                args.extend(before);
                args.extend(args![In(5), dots, In(6)]);
                args.extend(draw_buffers(op.dropout.as_ref(), at.draw));
                args.extend(outs);
                args.extend(args![Fault]);
                args.extend(tile.sizes(lengths, longest, op));
                args.extend(draw_numbers(op.dropout.as_ref()));
                if !tile.on_cores() {
                    args.extend(beside(cx, at));
                }
                list.call(Call {
                    source,
                    kernel,
                    stored_in,
                    grid: tile.grid(lengths, longest, heads),
                    block: tile.threads(),
                    shared: tile.backward_shared(),
                    args,
                });
            };
        call(queries, (&outputs, args![Out(0)]), lengths.longest, heads);
        let outs = (&[][..], args![Out(1), Out(2)]);
        call(keys, outs, lengths.most_keys(), op.heads.keys);
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let pairs = self.0.pairs(cx);
        Cost {
            flops: 10 * pairs * cx.width(0) + 6 * pairs * u64::from(self.0.heads.queries),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.0.heads.queries);
        Lengths::of(cx, self.0.tail(6), &self.0).backward_scratch(head, size, machine)
    }
}

/// The source of the kernels for these tiles, that by queries and that by keys.
const fn kernels(tile: Tiling) -> (&'static str, &'static str, &'static str) {
    match (tile.products, tile.columns) {
        (Precision::Bf16, 64) => (
            "attention_grad_bf16",
            "attention_grad_queries_bf16_64",
            "attention_grad_keys_bf16_64",
        ),
        (Precision::Bf16, _) => (
            "attention_grad_bf16",
            "attention_grad_queries_bf16_128",
            "attention_grad_keys_bf16_128",
        ),
        (Precision::Tf32, 64) => (
            "attention_grad_tf32",
            "attention_grad_queries_tf32_64",
            "attention_grad_keys_tf32_64",
        ),
        (Precision::Tf32, _) => (
            "attention_grad_tf32",
            "attention_grad_queries_tf32_128",
            "attention_grad_keys_tf32_128",
        ),
        (Precision::F32, 64) => (
            "attention_grad",
            "attention_grad_queries_64",
            "attention_grad_keys_64",
        ),
        (Precision::F32, 128) => (
            "attention_grad",
            "attention_grad_queries_128",
            "attention_grad_keys_128",
        ),
        (Precision::F32, _) => (
            "attention_grad",
            "attention_grad_queries_256",
            "attention_grad_keys_256",
        ),
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::attention::{cases, faults, samples};
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2, 3, 4], vec![0, 1, 2]));
    for [_, (op, inputs)] in samples() {
        all.sample(op, inputs);
    }
    all.offsets = Some(6);
    for [_, (op, inputs)] in cases() {
        all.case(op, inputs);
    }
    for [_, (op, inputs)] in faults() {
        all.fault(op, inputs);
    }
    all
}
