//! `kept_attention`: attention of tokens with keys and values that are kept of other texts, each of its own source.

use super::super::types::{DType, Real, Sym};
use super::attention::{Heads, Mask, Tiling, sequences};
use super::cached_attention::{CachedAttention, Keys, Sequence};
use super::launch::{
    Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx, TensorType};

/// `(q [T, H·w], kept keys, kept values [C, K·w], offsets u32[S+1], kept u32[S, 2]) → o [T, H·w]`.
///
/// The tokens of sequence `s` have rows `offsets[s] .. offsets[s+1]`. `kept[s]` is the first row of its source among what is
/// kept, and how many tokens that has: each token of the sequence attends to all of them, as in
/// [`Attention`](super::Attention) across streams. Several sequences may have one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeptAttention {
    /// Heads of queries and of keys.
    pub heads: Heads,
    /// Factor of the scores.
    pub scale: Real,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("kept_attention" with "sequence.cuh", "attention.cuh"));

impl KeptAttention {
    /// The same as attention over a cache, to which nothing is put.
    const fn cached(&self) -> CachedAttention {
        CachedAttention {
            heads: self.heads,
            fold: 1,
            scale: self.scale,
            mask: Mask::FULL,
            softcap: None,
            bias: false,
        }
    }

    fn fits(&self, q: &TensorType, keys: &TensorType) -> bool {
        let (Some((_, d)), Some((rows, width))) = (q.matrix(), keys.matrix()) else {
            return false;
        };
        let (Some(d), Some(width)) = (d.as_const(), width.as_const()) else {
            return false;
        };
        self.heads.divide(d, width)
            && rows.as_const().is_some()
            && keys.dtype == q.dtype
            && q.dtype.is_compute()
    }

    fn compute<T: super::math::Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let room = io.input(1).dims[0];
        let ranges = sequences(io.input(3).slice::<u32>(), rows)?;
        let mut list = Vec::with_capacity(ranges.len());
        for (range, place) in ranges
            .into_iter()
            .zip(io.input(4).slice::<u32>().chunks_exact(2))
        {
            let (first, length) = (place[0] as usize, place[1] as usize);
            if range.0 == range.1 {
                continue;
            }
            if first + length > room || length == 0 {
                return Err(OpError::Index {
                    index: (first + length) as u64,
                    rows: if length == 0 { 0 } else { room as u64 },
                });
            }
            list.push(Sequence {
                rows: range,
                first,
                before: 0,
                length,
            });
        }
        let to = Keys {
            keys: io.input(1).slice::<T>(),
            values: io.input(2).slice::<T>(),
            bias: None,
        };
        let queries = io.input(0).slice::<T>();
        self.cached()
            .attend(cx, &list, (queries, d, to), io.outputs[0].slice::<T>());
        Ok(())
    }
}

impl OpRule for KeptAttention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, keys, values, offsets, kept] = x else {
            return Err("queries, keys, values, offsets and places are wanted".into());
        };
        let sequences = kept.matrix().filter(|(_, two)| two.as_const() == Some(2));
        let ends = offsets.shape.as_slice();
        let places = sequences.is_some_and(|(s, _)| ends == [s.plus(1)])
            && offsets.dtype == DType::U32
            && kept.dtype == DType::U32;
        if self.fits(q, keys) && keys == values && places {
            Ok(vec![(*q).clone()])
        } else {
            Err("three matrices of one type, whose widths the heads divide, an end and a place for each sequence are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0], &[0])?;
        let mut list = Launches::of(stored_in);
        let tile = Tiling::of(cx.width(0), self.heads.queries, Precision::F32)?;
        let kernel = tile.kernel([
            "kept_attention_64",
            "kept_attention_128",
            "kept_attention_256",
        ]);
        let sequences = cx.rows(3).saturating_sub(1);
        let longest = cx.sizes.get(Sym::Longest);
        let tiles = longest.div_ceil(tile.side());
        list.call(Call {
            source: "kept_attention",
            kernel,
            stored_in,
            grid: [(sequences * tiles) as u32, self.heads.queries],
            block: 256,
            shared: tile.shared(2, 1),
            args: args![
                In(0),
                In(1),
                In(2),
                In(3),
                In(4),
                Out(0),
                Fault,
                cx.rows(0) as u32,
                cx.width(0) as u32,
                self.heads.queries,
                self.heads.keys,
                sequences as u32,
                tiles as u32,
                longest as u32,
                cx.rows(1) as u32,
                self.scale.get() as f32
            ],
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        // How long the sources are is not among the sizes: what is read and written of the tokens.
        let all = cx.inputs.iter().take(1).chain(&cx.outputs);
        Cost {
            flops: 4 * cx.sizes.get(Sym::Tokens) * cx.width(0),
            bytes: all.map(|x| x.bytes).sum(),
        }
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        let head = cx.width(0) / u64::from(self.heads.queries.max(1));
        let sequences = cx.rows(3).saturating_sub(1);
        let sizes = (cx.rows(0), sequences, head, size);
        self.cached().scratch(sizes, machine)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::Tensor;
    use super::fixtures::{Fixtures, ids, matrix, random};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.offsets = Some(3);
    type Made<'a> = (Heads, usize, &'a [(usize, u32, u32)]);
    let made = |(heads, head, list): Made<'_>, of: &dyn Fn(u64, usize, usize) -> Tensor| {
        let tokens = list.iter().map(|(n, ..)| n).sum();
        let room = list.iter().map(|(_, at, n)| at + n).max().unwrap_or(0) as usize + 1;
        let ends = list.iter().scan(0, |end, (n, ..)| {
            *end += *n as u32;
            Some(*end)
        });
        let offsets: Vec<u32> = std::iter::once(0).chain(ends).collect();
        let places: Vec<u32> = list.iter().flat_map(|(_, at, n)| [*at, *n]).collect();
        let (d, kd) = (heads.queries as usize * head, heads.keys as usize * head);
        let op = KeptAttention {
            heads,
            scale: Real::new(0.6),
        };
        let inputs = vec![
            of(1, tokens, d),
            of(2, room, kd),
            of(3, room, kd),
            ids(&offsets),
            Tensor::new(places, &[list.len(), 2]),
        ];
        (op, inputs)
    };
    let on = |queries, keys| Heads { queries, keys };
    let wide = |seed, rows, columns| random(seed, &[rows, columns]);
    let kinds: [Made<'_>; 3] = [
        (on(4, 2), 4, &[(1, 3, 5), (2, 0, 3), (1, 3, 5)]),
        (on(2, 2), 18, &[(1, 0, 200), (3, 200, 1), (0, 4, 0)]),
        (on(1, 1), 3, &[(40, 7, 130)]),
    ];
    for kind in kinds {
        let (op, inputs) = made(kind, &wide);
        all.sample(op, inputs);
    }
    let (op, inputs) = made((on(9, 3), 64, &[(300, 0, 400), (1, 3, 500)]), &matrix);
    all.large(op, inputs);
    let cases: [Made<'_>; 4] = [
        (on(9, 3), 64, &[(70, 1, 90), (1, 0, 130), (1, 5, 1)]),
        (on(4, 1), 33, &[(1, 0, 200), (50, 60, 7)]),
        (on(4, 2), 128, &[(40, 3, 10)]),
        (on(2, 1), 256, &[(20, 5, 60), (1, 30, 40)]),
    ];
    for kind in cases {
        let (op, inputs) = made(kind, &matrix);
        all.case(op, inputs);
    }
    // A source that ends beyond what is kept, and one without a token.
    for list in [[(1, 0, 3), (1, 9, 4)], [(1, 0, 3), (1, 2, 0)]] {
        let (op, mut inputs) = made((on(1, 1), 4, &list), &matrix);
        inputs[1] = matrix(2, 4, 4);
        inputs[2] = matrix(3, 4, 4);
        all.fault(op, inputs);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, ids, random};
    use super::super::{Attention, Op, Streams, Tensor};
    use super::*;

    #[test]
    fn tokens_attend_to_what_is_kept_as_to_their_own_source() {
        let heads = Heads {
            queries: 2,
            keys: 2,
        };
        let own: Op = KeptAttention {
            heads,
            scale: Real::new(0.7),
        }
        .into();
        let (q, keys, values) = (random(1, &[5, 6]), random(2, &[9, 6]), random(3, &[9, 6]));
        let offsets = ids(&[0, 2, 5]);
        let kept = Tensor::new(vec![0, 4, 4, 5], &[2, 2]);
        let inputs = [
            q.clone(),
            keys.clone(),
            values.clone(),
            offsets.clone(),
            kept,
        ];
        let made = floats(&eval(&own, &inputs, 2)[0]);
        let across: Op = Attention {
            streams: Streams::Across,
            ..Attention::plain(heads, Real::new(0.7))
        }
        .into();
        let inputs = [q, keys, values, offsets, ids(&[0, 4, 9])];
        let want = floats(&eval(&across, &inputs, 2)[0]);
        for (a, b) in want.iter().zip(&made) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }
}
