//! `sparse_product`: a product with a sparse matrix, given by places and the numbers there.

use rayon::prelude::*;

use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, simd};
use super::places::{Places, TILE};
use super::{
    At, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, SampledProduct, SizedCx, TensorType,
    Value,
};

/// `([base[N, out],] x[N, in], values, ids u32[n][, bounds u32]) → [base +] x Sᵀ`, where `S [rows, columns]` has the values
/// at the places and zeros elsewhere; `x S` if `transposed`. Equal places add up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SparseProduct {
    /// Where the values are.
    pub places: Places,
    /// Whether the product is `x S`.
    pub transposed: bool,
    /// Whether it is added to a first input.
    pub onto: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sparse_product"));

impl SparseProduct {
    /// `x Sᵀ`, added to a first input if `onto`.
    #[must_use]
    pub const fn new(places: Places, onto: bool) -> Self {
        Self {
            places,
            transposed: false,
            onto,
        }
    }

    /// Widths of what is read and of the result.
    const fn widths(&self) -> (u32, u32) {
        let Places { rows, columns, .. } = self.places;
        if self.transposed {
            (rows, columns)
        } else {
            (columns, rows)
        }
    }

    /// The input that `x` is.
    const fn x(&self) -> usize {
        self.onto as usize
    }
}

impl OpRule for SparseProduct {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let first = self.x();
        if x.len() != first + 2 + self.places.arity() {
            return Err("another number of inputs is wanted".into());
        }
        let (input, values) = (x[first], x[first + 1]);
        let wanted = self.places.infer(&x[first + 2..])?;
        let (from, to) = self.widths();
        let Some((n, d)) = input.matrix() else {
            return Err("a matrix is wanted".into());
        };
        let out = TensorType::new(input.dtype, [n, u64::from(to).into()]);
        let fits = input.dtype.is_compute()
            && d.as_const() == Some(from.into())
            && values.dtype == input.dtype
            && values.shape == wanted
            && (!self.onto || *x[0] == out);
        if fits {
            Ok(vec![out])
        } else {
            Err("a matrix as wide as the sparse one, and a number for each place are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let first = self.x();
        let acts: Vec<usize> = (0..=first).collect();
        let mut list = Launches::of(stored_in(cx, &acts, &[0])?);
        let (n, (_, to)) = (cx.rows(first), self.widths());
        let Places {
            rows,
            columns,
            side,
            segment,
        } = self.places;
        let base = if self.onto { Arg::At(In(0)) } else { Arg::Null };
        let bounds = segment.map_or(Arg::Null, |_| Arg::At(In(first + 3)));
        let mut args = vec![base];
        args.extend(args![In(first), In(first + 1), In(first + 2)]);
        args.push(bounds);
        args.extend(args![
            Out(0),
            Fault,
            n as u32,
            rows,
            columns,
            side,
            u32::from(self.transposed),
            segment.unwrap_or(0),
            cx.elements(first + 2) as u32
        ]);
        let stored_in = list.stored_in;
        list.call(Call {
            source: "sparse_product",
            kernel: "sparse_product",
            stored_in,
            grid: [n.div_ceil(128) as u32, to.div_ceil(32)],
            block: 128,
            shared: 0,
            args,
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let first = self.x();
        let ids = io.input(first + 2).slice::<u32>();
        let bounds = self
            .places
            .segment
            .map(|_| io.input(first + 3).slice::<u32>());
        let range = self.places.range(ids.len(), bounds)?;
        self.places.check(&ids[range.clone()])?;
        let n = io.outputs[0].dims[0];
        let (from, to) = self.widths();
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let area = self.places.area();
            let list = List {
                places: self.places,
                transposed: self.transposed,
                ids: &ids[range.clone()],
                values: &io.input(first + 1).slice::<T>()[range.start * area..range.end * area],
            };
            let base = (self.onto && io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            let x = io.input(first).slice::<T>();
            let out = io.outputs[0].slice::<T>();
            let (from, to) = (from as usize, to as usize);
            let bytes = tile_bytes::<T>(from, to) * n.div_ceil(TILE).min(cx.machine.threads) as u64;
            cx.scratch(bytes, || {
                let tile = |(index, out): (usize, &mut [T])| {
                    let (first, width) = (index * TILE, out.len() / to);
                    let mut turned = vec![T::of(0.0); from * TILE];
                    for (t, row) in x[first * from..(first + width) * from].chunks_exact(from).enumerate() {
                        for (column, &x) in turned.chunks_exact_mut(TILE).zip(row) {
                            column[t] = x;
                        }
                    }
                    let mut sums = vec![T::of(0.0); to * TILE];
                    list.add(&turned, &mut sums);
                    for (t, row) in out.chunks_exact_mut(to).enumerate() {
                        let sums = sums.chunks_exact(TILE).map(|c| c[t]);
                        match base {
                            Some(base) => {
                                let base = &base[(first + t) * to..(first + t + 1) * to];
                                row.iter_mut().zip(base).zip(sums).for_each(|((o, &b), s)| *o = b + s);
                            }
                            None if self.onto => row.iter_mut().zip(sums).for_each(|(o, s)| *o += s),
                            None => row.iter_mut().zip(sums).for_each(|(o, s)| *o = s),
                        }
                    }
                };
                out.par_chunks_mut(TILE * to).enumerate().for_each(tile);
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let first = self.x();
        let mut made = vec![None; at.inputs.len()];
        let Some(up) = at.up[0] else { return made };
        if self.onto && at.needs[0] {
            made[0] = Some(up);
        }
        let rest = &at.inputs[first + 2..];
        if at.needs[first] {
            let op = Self {
                transposed: !self.transposed,
                onto: false,
                ..*self
            };
            let mut inputs = vec![up, at.inputs[first + 1]];
            inputs.extend(rest);
            made[first] = Some(b.push1(op, &inputs));
        }
        if at.needs[first + 1] {
            let pair = match self.transposed {
                false => [up, at.inputs[first]],
                true => [at.inputs[first], up],
            };
            let mut inputs = pair.to_vec();
            inputs.extend(rest);
            let op = SampledProduct {
                places: self.places,
                onto: false,
            };
            made[first + 1] = Some(b.push1(op, &inputs));
        }
        made
    }

    fn differentiable(&self, input: usize) -> bool {
        input <= self.x() + 1
    }

    fn in_place(&self) -> &'static [usize] {
        if self.onto { &[0] } else { &[] }
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let first = self.x();
        let numbers = self.places.usual(cx, first + 2) * self.places.area() as u64;
        Cost {
            flops: 2 * numbers * cx.rows(first),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let ((from, to), n) = (self.widths(), cx.rows(self.x()));
        let size = cx.outputs.first().map_or(4, |o| o.computed.size());
        let tiles = n.div_ceil(TILE as u64).min(machine.threads as u64);
        tiles * (u64::from(from) + u64::from(to)) * TILE as u64 * size
    }
}

const fn tile_bytes<T>(from: usize, to: usize) -> u64 {
    ((from + to) * TILE * size_of::<T>()) as u64
}

/// The places that count, with their numbers.
#[derive(Clone, Copy)]
struct List<'a, T> {
    places: Places,
    transposed: bool,
    ids: &'a [u32],
    values: &'a [T],
}

impl<T: Elementary> List<'_, T> {
    /// Adds the product of a turned tile to `sums`.
    fn add(&self, turned: &[T], sums: &mut [T]) {
        let list = *self;
        simd!(<T> (list: List<'a, T> = list, turned: &'a [T] = turned, sums: &'a mut [T] = sums) {
            let side = list.places.side as usize;
            for (&id, values) in list.ids.iter().zip(list.values.chunks_exact(side * side)) {
                let (row, column) = list.places.corner(id);
                let (to, from) = if list.transposed { (column, row) } else { (row, column) };
                for a in 0..side {
                    let Some(sums) = sums[(to + a) * TILE..].first_chunk_mut::<TILE>() else { continue };
                    for b in 0..side {
                        let value = values[if list.transposed { b * side + a } else { a * side + b }];
                        let Some(x) = turned[(from + b) * TILE..].first_chunk::<TILE>() else { continue };
                        for (s, &x) in sums.iter_mut().zip(x) {
                            *s += value * x;
                        }
                    }
                }
            }
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|op, _| match op {
        super::Op::SparseProduct(op) if op.onto => (vec![0, 1], vec![0]),
        _ => (vec![0], vec![0]),
    });
    let own = |side, segment| Places {
        rows: 6,
        columns: 4,
        side,
        segment,
    };
    let op = |places, transposed, onto| SparseProduct {
        places,
        transposed,
        onto,
    };
    let places = || ids(&[0, 23, 7, 7, 14]);
    all.sample(
        op(own(1, None), false, true),
        [
            random(1, &[5, 6]),
            random(2, &[5, 4]),
            random(3, &[5]),
            places(),
        ],
    );
    all.sample(
        op(own(1, None), true, false),
        [random(2, &[5, 6]), random(3, &[5]), places()],
    );
    all.sample(
        op(own(2, None), false, false),
        [random(2, &[5, 4]), random(3, &[6, 2]), ids(&[5, 0, 3])],
    );
    all.sample(
        op(own(2, None), true, true),
        [
            random(1, &[5, 4]),
            random(2, &[5, 6]),
            random(3, &[6, 2]),
            ids(&[5, 0, 3]),
        ],
    );
    let shared = [
        random(2, &[3, 4]),
        random(3, &[5]),
        places(),
        ids(&[0, 1, 4, 5]),
    ];
    all.sample(op(own(1, Some(1)), false, false), shared);
    let large = Places::entries(200, 150);
    let many: Vec<u32> = (0..900).map(|i| i * 7919 % 30_000).collect();
    for (n, transposed) in [(70, false), (33, true), (1, false)] {
        let d = if transposed { 200 } else { 150 };
        let inputs = [matrix(4, n, d), list(5, 900), ids(&many)];
        all.case(op(large, transposed, false), inputs.clone());
        all.large(op(large, transposed, false), inputs);
    }
    all.fault(
        op(own(1, None), false, false),
        [matrix(2, 3, 4), list(3, 1), ids(&[24])],
    );
    all
}
