//! `disentangled_attention`: attention of each sequence with itself, whose scores also tell how far apart two tokens are.

use super::super::types::{DType, Real, Sym};
use super::attention::{AttentionDropout, draw_buffers, draw_numbers};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{self, Fault, In, Out},
    args, source, stored_in,
};
use super::{
    At, Builder, Cost, DisentangledAttentionGrad, Io, Kernel, Machine, OpError, OpRule, SizedCx,
    TensorType, Value,
};

#[cfg(test)]
mod fixtures;
mod kernel;

#[cfg(test)]
pub(super) use fixtures::{cases, faults, fixtures, samples};
pub(super) use kernel::{BACKWARD_TILE, Lengths, Places, by_head, gather_row};

/// `(q [T, H·w], k, v [T, H·w], offsets u32[S+1], distances u32[2L+1][, r [B, H·w]][, p [B, H·w]][, keys u32[T, 2], step u32[1]])
/// → (o [T, H·w], lse [T, H])`.
///
/// Of tokens `i` and `j` of a sequence, `b = distances[L + j − i]` is a row of the tables. With `by_queries` there is `r`, the keys of
/// distances; with `by_keys` there is `p`, the queries of distances. For each head,
/// `s_ij = scale · (q_i k_jᵀ + q_i r_bᵀ + k_j p_bᵀ)` and `o = Drop(softmax(s)) v` (He et al. 2021, arXiv 2006.03654, section 3.1). Of
/// the forward only the row-wise log-sum-exp is kept: the backward makes the scores again. Products with a table are made of the
/// rows that a sequence's distances have, by head, in scratch; a matrix of tokens and rows never stands in memory. On a GPU all
/// products are in f32.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DisentangledAttention {
    /// Heads of queries, keys and values.
    pub heads: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Whether queries meet distances.
    pub by_queries: bool,
    /// Whether keys meet distances.
    pub by_keys: bool,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

/// Places of the operands behind the matrices, the first of which is the offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub offsets: usize,
    pub distances: usize,
    /// The keys of distances.
    pub keys: Option<usize>,
    /// The queries of distances.
    pub queries: Option<usize>,
    /// The first of the two of dropout.
    pub draw: usize,
}

impl Tail {
    /// The tables that are there.
    pub fn tables(self) -> impl Iterator<Item = usize> {
        self.keys.into_iter().chain(self.queries)
    }
}

impl DisentangledAttention {
    /// Places of the operands behind the matrices.
    pub(super) const fn tail(&self, offsets: usize) -> Tail {
        let keys = offsets + 2;
        let queries = keys + self.by_queries as usize;
        Tail {
            offsets,
            distances: offsets + 1,
            keys: if self.by_queries { Some(keys) } else { None },
            queries: if self.by_keys { Some(queries) } else { None },
            draw: queries + self.by_keys as usize,
        }
    }

    /// Checks a matrix and the operands behind the matrices.
    pub(super) fn check(&self, q: &TensorType, tail: &[&TensorType]) -> Result<(), String> {
        let at = self.tail(0);
        let count = at.draw + if self.dropout.is_some() { 2 } else { 0 };
        let is_table = |i: usize| Some(i) == at.keys || Some(i) == at.queries;
        let ids = |(i, t): (usize, &&TensorType)| is_table(i) || t.dtype == DType::U32;
        if tail.len() != count || !tail.iter().enumerate().all(ids) {
            return Err(format!(
                "{count} operands are wanted behind the matrices, u32 but for the tables"
            ));
        }
        let width = q.matrix().and_then(|(_, d)| d.as_const());
        let divided = |d: u64| self.heads > 0 && d.is_multiple_of(self.heads.into());
        let rows: Vec<_> = at.tables().filter_map(|i| tail[i].matrix()).collect();
        let wide = rows
            .iter()
            .all(|(rows, d)| d.as_const() == width && rows.as_const().is_some());
        let alike = rows.windows(2).all(|two| two[0].0 == two[1].0);
        let typed = at.tables().all(|i| tail[i].dtype == q.dtype);
        let lists = [at.offsets, at.distances]
            .iter()
            .all(|&i| tail[i].shape.len() == 1);
        if width.is_some_and(divided)
            && q.dtype.is_compute()
            && rows.len() == at.tables().count()
            && wide
            && alike
            && typed
            && lists
        {
            Ok(())
        } else {
            Err("matrices of one type whose width the heads divide, tables as wide with as many rows, and lists of offsets \
                 and distances are wanted"
                .into())
        }
    }

    /// Pairs of a query and a key in one head.
    fn pairs(cx: &SizedCx) -> u64 {
        cx.sizes.get(Sym::Pairs)
    }

    /// Operations of the products with tables: a token meets no more rows than its table has, nor than its sequence has distances.
    pub(super) fn met(&self, cx: &SizedCx, at: Tail) -> u64 {
        let tables = u64::from(self.by_queries) + u64::from(self.by_keys);
        let rows = at.tables().map(|i| cx.rows(i)).max().unwrap_or(0);
        let met = (2 * Self::pairs(cx)).min(cx.rows(0) * rows);
        tables * (2 * met * cx.width(0) + Self::pairs(cx) * u64::from(self.heads))
    }

    /// Flops of so many products of queries and keys, and of tables.
    pub(super) fn flops(&self, cx: &SizedCx, at: Tail, (plain, tables): (u64, u64)) -> u64 {
        let pairs = Self::pairs(cx);
        plain * 2 * pairs * cx.width(0)
            + 6 * pairs * u64::from(self.heads)
            + tables * self.met(cx, at)
    }

    /// The numbers of the kernels: rows, width, heads, sequences, tokens of the longest, distances, rows of the tables, scale.
    pub(super) fn sizes(&self, cx: &SizedCx, at: Tail) -> Vec<Arg> {
        let rows = at.tables().map(|i| cx.rows(i)).max().unwrap_or(0);
        args![
            cx.rows(0) as u32,
            cx.width(0) as u32,
            self.heads,
            cx.rows(at.offsets).saturating_sub(1) as u32,
            cx.sizes.get(Sym::Longest) as u32,
            cx.rows(at.distances) as u32,
            rows as u32,
            self.scale.get() as f32
        ]
    }

    /// The buffers behind the matrices.
    pub(super) fn buffers(&self, at: Tail) -> Vec<Arg> {
        let table = |at: Option<usize>| at.map_or(Arg::Null, |i| Operand::In(i).into());
        let mut list = args![In(at.offsets), In(at.distances)];
        list.extend([table(at.keys), table(at.queries)]);
        list.extend(draw_buffers(self.dropout.as_ref(), at.draw));
        list
    }
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("disentangled_attention" with "sequence.cuh", "disentangled.cuh"));

/// Keys or queries that a block of the kernels looks at in turn: its threads.
pub(super) const CHUNK: u32 = 128;

/// The widest head that the kernels' threads hold two columns of.
pub(super) const WIDEST: u64 = 2 * CHUNK as u64;

impl OpRule for DisentangledAttention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, tail @ ..] = x else {
            return Err("queries, keys, values and offsets are wanted".into());
        };
        self.check(q, tail)?;
        match q.matrix() {
            Some((t, _)) if q == k && k == v => Ok(vec![
                (*q).clone(),
                TensorType::new(q.dtype, [t, u64::from(self.heads).into()]),
            ]),
            _ => Err("queries, keys and values of one type are wanted".into()),
        }
    }

    fn is_exact(&self, output: usize) -> bool {
        output == 1
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0, 1, 2], &[0])?;
        let head = cx.width(0) / u64::from(self.heads.max(1));
        if head > WIDEST {
            return None;
        }
        let mut list = Launches::of(stored_in);
        let at = self.tail(3);
        let mut args = args![In(0), In(1), In(2)];
        args.extend(self.buffers(at));
        args.extend(args![Out(0), Out(1), Fault]);
        args.extend(self.sizes(cx, at));
        args.extend(draw_numbers(self.dropout.as_ref()));
        list.call(Call {
            source: "disentangled_attention",
            kernel: "disentangled_attention",
            stored_in,
            grid: grid(cx, at, self.heads),
            block: CHUNK,
            shared: 0,
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
        let wanted = |i: usize| at.needs.get(i).is_some_and(|wanted| *wanted);
        let tables: Vec<usize> = self.tail(3).tables().collect();
        let all = (0..3).chain(tables.iter().copied());
        if !all.clone().any(wanted) {
            return grads;
        }
        let op = DisentangledAttentionGrad {
            of: self.clone(),
            tables: tables.iter().any(|&i| wanted(i)),
        };
        for (i, grad) in all.zip(b.push(op, &inputs)) {
            grads[i] = wanted(i).then_some(grad);
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 3 || self.tail(3).tables().any(|i| i == input)
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: self.flops(cx, self.tail(3), (2, 1)),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        Lengths::of(cx, self.tail(3)).forward(self, machine)
    }
}

/// A block for each token of the longest sequence, of each sequence, and each head.
pub(super) fn grid(cx: &SizedCx, at: Tail, heads: u32) -> [u32; 2] {
    let sequences = cx.rows(at.offsets).saturating_sub(1);
    [(sequences * cx.sizes.get(Sym::Longest)) as u32, heads]
}
