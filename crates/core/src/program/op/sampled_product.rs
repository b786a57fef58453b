//! `sampled_product`: some numbers of a product of two matrices, without the others: the gradient of a sparse update.

use rayon::prelude::*;

use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, simd};
use super::places::{Places, TILE, turn};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `([earlier,] g[N, rows], x[N, columns], ids u32[n][, bounds u32]) → [earlier +] (gᵀ x)` at the places; outside of the
/// segment that counts it is zero, or what was there earlier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SampledProduct {
    /// Which numbers.
    pub places: Places,
    /// Whether they are added to a first input.
    pub onto: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sampled_product"));

/// Places of a parallel piece.
const PIECE: usize = 1024;

impl OpRule for SampledProduct {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let first = usize::from(self.onto);
        if x.len() != first + 2 + self.places.arity() {
            return Err("another number of inputs is wanted".into());
        }
        let (g, input) = (x[first], x[first + 1]);
        let shape = self.places.infer(&x[first + 2..])?;
        let out = TensorType::new(g.dtype, shape);
        let (Some((n, rows)), Some((m, columns))) = (g.matrix(), input.matrix()) else {
            return Err("two matrices are wanted".into());
        };
        let fits = g.dtype.is_compute()
            && g.dtype == input.dtype
            && n == m
            && rows.as_const() == Some(self.places.rows.into())
            && columns.as_const() == Some(self.places.columns.into())
            && (!self.onto || *x[0] == out);
        if fits {
            Ok(vec![out])
        } else {
            Err("two matrices with as many rows, of the widths of the places, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let first = usize::from(self.onto);
        let mut list = Launches::of(stored_in(cx, &[first, first + 1], &[])?);
        let Places {
            rows,
            columns,
            side,
            segment,
        } = self.places;
        let earlier = if self.onto { Arg::At(In(0)) } else { Arg::Null };
        let bounds = segment.map_or(Arg::Null, |_| Arg::At(In(first + 3)));
        let mut args = vec![earlier];
        args.extend(args![In(first), In(first + 1), In(first + 2)]);
        args.push(bounds);
        args.extend(args![
            Out(0),
            Fault,
            cx.rows(first) as u32,
            rows,
            columns,
            side,
            segment.unwrap_or(0),
            cx.elements(first + 2) as u32
        ]);
        let n = cx.outputs.first()?.elements();
        list.each("sampled_product", "sampled_product", n, args);
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let first = usize::from(self.onto);
        let ids = io.input(first + 2).slice::<u32>();
        let bounds = self
            .places
            .segment
            .map(|_| io.input(first + 3).slice::<u32>());
        let range = self.places.range(ids.len(), bounds)?;
        let ids = &ids[range.clone()];
        self.places.check(ids)?;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (g, x) = (io.input(first).slice::<T>(), io.input(first + 1).slice::<T>());
            let earlier = (self.onto && io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            let out = io.outputs[0].slice::<T>();
            match earlier {
                Some(earlier) => out.copy_from_slice(earlier),
                None if !self.onto => out.fill(T::of(0.0)),
                None => {}
            }
            let area = self.places.area();
            let out = &mut out[range.start * area..range.end * area];
            let (rows, columns) = (self.places.rows as usize, self.places.columns as usize);
            let bytes = (rows + columns) * TILE * size_of::<T>();
            cx.scratch(bytes as u64, || {
                let (mut gt, mut xt) = (vec![T::of(0.0); rows * TILE], vec![T::of(0.0); columns * TILE]);
                let tiles = g.chunks(rows.max(1) * TILE).zip(x.chunks(columns.max(1) * TILE));
                for (g, x) in tiles {
                    let width = g.len() / rows.max(1);
                    turn(g, rows, width, &mut gt);
                    turn(x, columns, width, &mut xt);
                    let one = |(ids, out): (&[u32], &mut [T])| self.add(ids, &gt, &xt, out);
                    let piece = (PIECE / area).max(1);
                    if ids.len() <= 2 * piece {
                        one((ids, &mut *out));
                    } else {
                        ids.par_chunks(piece).zip(out.par_chunks_mut(piece * area)).for_each(one);
                    }
                }
            });
        });
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        if self.onto { &[0] } else { &[] }
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let first = usize::from(self.onto);
        let numbers = self.places.usual(cx, first + 2) * self.places.area() as u64;
        Cost {
            flops: 2 * numbers * cx.rows(first),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |o| o.computed.size());
        (u64::from(self.places.rows) + u64::from(self.places.columns)) * TILE as u64 * size
    }
}

impl SampledProduct {
    /// Adds the products of a tile to those at some places.
    fn add<T: Elementary>(&self, ids: &[u32], gt: &[T], xt: &[T], out: &mut [T]) {
        let places = self.places;
        simd!(<T> (places: Places = places, ids: &'a [u32] = ids, gt: &'a [T] = gt, xt: &'a [T] = xt, out: &'a mut [T] = out) {
            let side = places.side as usize;
            for (&id, out) in ids.iter().zip(out.chunks_exact_mut(side * side)) {
                let (row, column) = places.corner(id);
                for a in 0..side {
                    let Some(g) = gt[(row + a) * TILE..].first_chunk::<TILE>() else { continue };
                    for b in 0..side {
                        let Some(x) = xt[(column + b) * TILE..].first_chunk::<TILE>() else { continue };
                        let mut lanes = [T::of(0.0); 8];
                        for (g, x) in g.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0) {
                            for ((lane, &g), &x) in lanes.iter_mut().zip(g).zip(x) {
                                *lane += g * x;
                            }
                        }
                        let [p, q, r, s, t, u, v, w] = lanes;
                        out[a * side + b] += ((p + q) + (r + s)) + ((t + u) + (v + w));
                    }
                }
            }
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, matrix, random};
    let mut all = Fixtures::new();
    all.activations = Some(|op, _| match op {
        super::Op::SampledProduct(op) if op.onto => (vec![1, 2], vec![]),
        _ => (vec![0, 1], vec![]),
    });
    let own = |side, segment| Places {
        rows: 6,
        columns: 4,
        side,
        segment,
    };
    let op = |places, onto| SampledProduct { places, onto };
    let (g, x) = (|| random(1, &[37, 6]), || random(2, &[37, 4]));
    all.sample(op(own(1, None), false), [g(), x(), ids(&[0, 23, 7, 14])]);
    all.sample(
        op(own(1, None), true),
        [random(3, &[4]), g(), x(), ids(&[0, 23, 7, 14])],
    );
    all.sample(op(own(2, None), false), [g(), x(), ids(&[5, 0, 3])]);
    all.sample(
        op(own(1, Some(1)), true),
        [
            random(3, &[4]),
            g(),
            x(),
            ids(&[0, 23, 7, 14]),
            ids(&[0, 1, 3]),
        ],
    );
    let many: Vec<u32> = (0..4000).map(|i| i * 7919 % 30_000).collect();
    for n in [70, 1] {
        let inputs = [matrix(4, n, 200), matrix(5, n, 150), ids(&many)];
        all.case(op(Places::entries(200, 150), false), inputs.clone());
        all.large(op(Places::entries(200, 150), false), inputs);
    }
    let onto = [
        list(3, 4000),
        matrix(4, 40, 200),
        matrix(5, 40, 150),
        ids(&many),
    ];
    all.case(op(Places::entries(200, 150), true), onto);
    all.fault(
        op(own(1, None), false),
        [matrix(1, 3, 6), matrix(2, 3, 4), ids(&[24])],
    );
    all
}
