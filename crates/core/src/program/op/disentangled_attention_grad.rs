//! `disentangled_attention_grad`: gradient of disentangled attention by queries, keys, values and tables.

use super::attention::draw_numbers;
use super::disentangled_attention::{CHUNK, DisentangledAttention, Lengths, WIDEST, grid};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

mod kernel;

/// `(up, q [T, H·w], k, v, o [T, H·w], lse [T, H], offsets, distances[, r][, p][, keys, step]) → (dq, dk, dv[, dr][, dp])` of a
/// [`DisentangledAttention`]; the last two only with `tables`.
///
/// With `P = exp(s − lse)`, mask factor `M`, `D = Σ up ⊙ o` per row and head, and `dS = scale · P ⊙ (M ⊙ (up vᵀ) − D)`:
/// `dv = (P⊙M)ᵀ up`, `dq_i = Σ_j dS_ij (k_j + r_b)`, `dk_j = Σ_i dS_ij (q_i + p_b)`, `dr_b = Σ dS_ij q_i` and `dp_b = Σ dS_ij k_j` over
/// the pairs at that distance, sequence by sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DisentangledAttentionGrad {
    /// The attention.
    pub of: DisentangledAttention,
    /// Whether the gradients by the tables are made.
    pub tables: bool,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("disentangled_attention_grad" with "sequence.cuh", "disentangled.cuh"));

impl OpRule for DisentangledAttentionGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else {
            return Err("six matrices and offsets are wanted".into());
        };
        self.of.check(q, tail)?;
        if !(up == q && q == k && k == v && q == o && lse.dtype == q.dtype) {
            return Err(
                "five matrices of one type, whose width the heads divide, are wanted".into(),
            );
        }
        let mut made = vec![(*q).clone(); 3];
        if self.tables {
            made.extend(self.of.tail(0).tables().map(|i| tail[i].clone()));
        }
        Ok(made)
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let op = &self.of;
        let stored_in = stored_in(cx, &[0, 1, 2, 3, 4], &[0, 1, 2])?;
        if cx.width(0) / u64::from(op.heads.max(1)) > WIDEST {
            return None;
        }
        let mut list = Launches::of(stored_in);
        let at = op.tail(6);
        let mut call = |kernel: &'static str, outs: Vec<Arg>, grid: [u32; 2]| {
            let mut args = args![In(0), In(1), In(2), In(3), In(4), In(5)];
            args.extend(op.buffers(at));
            args.extend(outs);
            args.extend(args![Fault]);
            args.extend(op.sizes(cx, at));
            args.extend(draw_numbers(op.dropout.as_ref()));
            list.call(Call {
                source: "disentangled_attention_grad",
                kernel,
                stored_in,
                grid,
                block: CHUNK,
                shared: 0,
                args,
            });
        };
        let each = grid(cx, at, op.heads);
        call("disentangled_grad_queries", args![Out(0), Arg::Null], each);
        call("disentangled_grad_keys", args![Out(1), Out(2)], each);
        if self.tables {
            let out = |there: bool, i: usize| if there { Out(i).into() } else { Arg::Null };
            let outs = vec![
                out(op.by_queries, 3),
                out(op.by_keys, 3 + usize::from(op.by_queries)),
            ];
            let rows = at.tables().map(|i| cx.rows(i)).max().unwrap_or(0) as u32;
            call("disentangled_grad_tables", outs, [rows, op.heads]);
        }
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let tables = if self.tables { 3 } else { 2 };
        Cost {
            flops: self.of.flops(cx, self.of.tail(6), (5, tables)),
            bytes: cx.traffic(),
        }
    }

    fn mixes_rows(&self) -> bool {
        self.tables
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        Lengths::of(cx, self.of.tail(6)).backward(&self.of, self.tables, machine)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::disentangled_attention::{cases, faults, samples};
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2, 3, 4], vec![0, 1, 2]));
    all.offsets = Some(6);
    for [_, (op, inputs)] in samples() {
        all.sample(op, inputs);
    }
    for [_, (op, inputs)] in cases() {
        all.case(op, inputs);
    }
    for [_, (op, inputs)] in faults() {
        all.fault(op, inputs);
    }
    all
}
