//! `cached_attention`: attention of new tokens with all tokens of their sequences, whose keys and values are cached.

use super::super::types::{DType, Real, Sym};
use super::attention::{Heads, Mask, Tiling};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx, TensorType};

#[cfg(test)]
mod fixtures;
mod kernel;

pub(super) use kernel::{Keys, Sequence};

#[cfg(test)]
pub(super) use fixtures::fixtures;

/// `(q [T, H·w], k, v [k·T, K·w], cached keys, cached values [k·C, K·w], offsets u32[S+1], cached u32[S, 2][, bias [N, H]])
/// → o [T, H·w]`.
///
/// New tokens of sequence `s` have rows `offsets[s] .. offsets[s+1]`. `cached[s]` is the first row of the sequence in the
/// cache, and how many tokens it has there. The new keys and values are put behind these, in place; then each new token
/// attends to all tokens of its sequence that the mask shows it, as in [`Attention`](super::Attention). With a bias, the number
/// in row `N − 1 + j − i` and column `h` is added to the score of query `i` and key `j`, behind the scale; no sequence has more
/// than `N` tokens then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CachedAttention {
    /// Heads of queries and of keys.
    pub heads: Heads,
    /// Keys a token; 1 in self-attention.
    pub fold: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Which tokens a query sees: none ahead.
    pub mask: Mask,
    /// Bound that scores approach.
    pub softcap: Option<Real>,
    /// Whether a bias by distance is added to the scores.
    pub bias: bool,
}

/// Queries that are done together, and keys.
const QUERIES: usize = 32;
const KEYS: usize = 128;

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("cached_attention" with "sequence.cuh", "attention.cuh"));

impl CachedAttention {
    /// Whether queries, new keys and a cache are matrices of one type with these heads.
    fn fits(&self, q: &TensorType, k: &TensorType, cache: &TensorType) -> bool {
        let (Some((t, d)), Some((keys, kd)), Some((rows, width))) =
            (q.matrix(), k.matrix(), cache.matrix())
        else {
            return false;
        };
        let (Some(d), Some(kd), Some(rows)) = (d.as_const(), kd.as_const(), rows.as_const()) else {
            return false;
        };
        self.heads.divide(d, kd)
            && self.fold > 0
            && keys == t.times(self.fold.into())
            && width.as_const() == Some(kd)
            && rows.is_multiple_of(u64::from(self.fold))
            && k.dtype == q.dtype
            && cache.dtype == q.dtype
            && q.dtype.is_compute()
    }

    /// Whether these are the operands of its bias, if it has one.
    fn takes(&self, bias: &[&TensorType]) -> bool {
        match bias {
            [] => !self.bias,
            [own] => {
                let columns = own.matrix().and_then(|(_, heads)| heads.as_const());
                let plain = self.fold == 1 && self.softcap.is_none() && own.dtype.is_compute();
                self.bias && plain && columns == Some(self.heads.queries.into())
            }
            _ => false,
        }
    }

    /// Bytes of scratch: on each thread a block of keys, transposed, a tile of scores, and what is kept of each query.
    pub(super) fn scratch(
        &self,
        (rows, sequences, head, size): (u64, u64, u64, u64),
        machine: &Machine,
    ) -> u64 {
        let items = sequences * u64::from(self.heads.keys) + rows / QUERIES as u64;
        let (queries, keys) = (QUERIES as u64, KEYS as u64);
        let each = (head + queries) * keys + 2 * queries * u64::from(self.heads.group());
        (machine.threads as u64).min(items) * each * size
    }
}

impl OpRule for CachedAttention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, keys, values, offsets, cached, bias @ ..] = x else {
            return Err("queries, keys, values, both caches, offsets and places are wanted".into());
        };
        if !self.takes(bias) {
            return Err("a bias has a column for each head, and stands on plain scores".into());
        }
        if self.mask.ahead != Some(0) {
            return Err("a query cannot see tokens that are still to come".into());
        }
        let sequences = cached.matrix().filter(|(_, two)| two.as_const() == Some(2));
        let ends = offsets.shape.as_slice();
        let places = sequences.is_some_and(|(s, _)| ends == [s.plus(1)])
            && offsets.dtype == DType::U32
            && cached.dtype == DType::U32;
        if self.fits(q, k, keys) && k == v && keys == values && places {
            Ok(vec![(*q).clone()])
        } else {
            Err("five matrices of one type, whose widths the heads divide, an end and a place for each sequence are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0, 1, 2], &[0])?;
        let mut list = Launches::of(stored_in);
        let tile = Tiling::of(cx.width(0), self.heads.queries, Precision::F32)?;
        let attend = tile.kernel([
            "cached_attention_64",
            "cached_attention_128",
            "cached_attention_256",
        ]);
        let sequences = cx.rows(5).saturating_sub(1);
        let longest = cx.sizes.get(Sym::Longest);
        let tiles = longest.div_ceil(tile.side());
        let numbers = args![
            cx.rows(0) as u32,
            cx.width(0) as u32,
            self.heads.queries,
            self.heads.keys,
            sequences as u32,
            tiles as u32,
            longest as u32,
            self.fold,
            (cx.rows(3) / u64::from(self.fold)) as u32
        ];
        let mut put = args![In(1), In(2), In(3), In(4), In(5), In(6), Fault];
        put.extend(numbers.iter().copied());
        put.extend(args![tile.side() as u32]);
        let grid = (sequences * tiles) as u32;
        list.call(Call {
            source: "cached_attention",
            kernel: "cache_rows",
            stored_in,
            grid: [grid, 1],
            block: 256,
            shared: 0,
            args: put,
        });
        let [behind, ahead] = self.mask.bounds();
        let mut args = args![In(0), In(3), In(4), In(5), In(6), Out(0), Fault];
        args.extend(numbers);
        args.extend(args![
            behind,
            ahead,
            self.scale.get() as f32,
            self.softcap.map_or(0.0, Real::get) as f32
        ]);
        args.push(if self.bias { Arg::At(In(7)) } else { Arg::Null });
        args.extend(args![if self.bias { cx.rows(7) as u32 } else { 0 }]);
        list.call(Call {
            source: "cached_attention",
            kernel: attend,
            stored_in,
            grid: [grid, self.heads.queries],
            block: 256,
            shared: tile.shared(2, 1),
            args,
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        // How long the sequences are in the cache is not among the sizes: the new tokens' own pairs, and all that is
        // read and written of them.
        let (all, tokens) = (cx.sizes.get(Sym::Pairs), cx.sizes.get(Sym::Tokens));
        let pairs = self.mask.pairs(all, tokens) * u64::from(self.fold);
        let all = cx.inputs.iter().take(3).chain(&cx.outputs);
        Cost {
            flops: 4 * pairs * cx.width(0) + 5 * pairs * u64::from(self.heads.queries),
            bytes: all.map(|x| x.bytes).sum(),
        }
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn updates(&self) -> &'static [usize] {
        &[3, 4]
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        let head = cx.width(0) / u64::from(self.heads.queries.max(1));
        let sequences = cx.rows(5).saturating_sub(1);
        self.scratch((cx.rows(0), sequences, head, size), machine)
    }
}
