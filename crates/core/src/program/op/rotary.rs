//! `rotary`: queries or keys turned by angles that grow with their positions.

use std::fmt;
use std::sync::Arc;

use super::super::types::{DType, Real};
use super::launch::{
    Call, KernelSource, Launch, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, simd};
use super::{At, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType, Value};

/// The angle a position adds to each rotated pair of a head, in radians: the inverse frequencies.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Frequencies(Arc<[Real]>);

impl Frequencies {
    /// One for each pair, the pairs in their order.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = f64>) -> Self {
        Self(list.into_iter().map(Real::new).collect())
    }

    /// One for each pair.
    #[must_use]
    pub fn list(&self) -> &[Real] {
        &self.0
    }
}

/// How many there are, the first and the last, and a digest of all: what two lists print alike, they share.
impl fmt::Debug for Frequencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, last)) = self.0.first().zip(self.0.last()) else {
            return f.write_str("none");
        };
        let mut digest = blake3::Hasher::new();
        for x in &*self.0 {
            digest.update(&x.get().to_bits().to_le_bytes());
        }
        let digest = digest.finalize().to_hex();
        let short = digest.get(..12).unwrap_or_default();
        write!(f, "{} from {first:?} to {last:?} #{short}", self.0.len())
    }
}

/// Other angles for the tokens of long texts (LongRoPE, Ding et al. 2024, arXiv 2402.13753, section 3.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Beyond {
    /// Texts of more positions have them.
    pub positions: u32,
    /// Angles of a position, one for each pair.
    pub frequencies: Frequencies,
}

/// `(x [T, H·w], positions u32[T]) → [T, H·w]`: the first `r = 2 · frequencies` columns of each head of `w` are pairs,
/// each turned by the angle of its token's position; the rest pass. A pair is `(i, i + r/2)`, or `(2i, 2i + 1)`
/// if they are interleaved (Su et al. 2021, arXiv 2104.09864, section 3.4.2). With angles for long texts there is a third input,
/// `u32[T]`: the positions of the text that each token is of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Rotary {
    /// Columns of a head.
    pub width: u32,
    /// Angles of a position.
    pub frequencies: Frequencies,
    /// Those in long texts, where they differ.
    pub beyond: Option<Beyond>,
    /// Factor of sine and cosine (YaRN, arXiv 2309.00071, section 3.4).
    pub scale: Real,
    /// Whether pairs are neighbours, as in GPT-J, or lie half of the rotated columns apart, as in LLaMA.
    pub interleaved: bool,
    /// Whether it turns back: this is the gradient, since a rotation's transpose is its inverse.
    pub inverse: bool,
}

/// Angles of long texts are printed where there are some.
impl fmt::Debug for Rotary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Rotary");
        text.field("width", &self.width)
            .field("frequencies", &self.frequencies);
        if let Some(beyond) = &self.beyond {
            text.field("beyond", &beyond.positions)
                .field("then", &beyond.frequencies);
        }
        text.field("scale", &self.scale)
            .field("interleaved", &self.interleaved)
            .field("inverse", &self.inverse)
            .finish()
    }
}

impl Rotary {
    /// Angles of the tokens of a text with so many positions.
    fn of_text(&self, length: Option<&u32>) -> &Frequencies {
        match (&self.beyond, length) {
            (Some(beyond), Some(&length)) if length > beyond.positions => &beyond.frequencies,
            _ => &self.frequencies,
        }
    }

    /// Pairs of a head.
    fn pairs(&self) -> usize {
        self.frequencies.list().len()
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("rotary"));

impl OpRule for Rotary {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let (a, positions, lengths) = match (x, &self.beyond) {
            ([a, positions], None) => (a, positions, None),
            ([a, positions, lengths], Some(_)) => (a, positions, Some(lengths)),
            _ => return Err("a matrix, positions and, for long texts, lengths are wanted".into()),
        };
        let (pairs, width) = (self.pairs(), u64::from(self.width));
        if pairs == 0 || 2 * pairs as u64 > width {
            return Err(format!("{pairs} pairs do not fit a head of {width}"));
        }
        let beyond = self.beyond.iter().flat_map(|own| own.frequencies.list());
        if self.beyond.is_some() && beyond.clone().count() != pairs {
            return Err(format!("long texts must have {pairs} frequencies, too"));
        }
        let numbers = self.frequencies.list().iter().chain([&self.scale]);
        let mut numbers = numbers.chain(beyond);
        if !numbers.all(|x| x.get().is_finite()) {
            return Err("frequencies and their scale must be finite".into());
        }
        if lengths.is_some_and(|lengths| lengths != positions) {
            return Err("a length for each position is wanted".into());
        }
        match a.matrix() {
            Some((n, d))
                if a.dtype.is_compute()
                    && d.as_const().is_some_and(|d| d.is_multiple_of(width))
                    && **positions == TensorType::new(DType::U32, [n]) =>
            {
                Ok(vec![(*a).clone()])
            }
            _ => Err(format!(
                "a float matrix of heads of {width} and a u32 position for each row are wanted"
            )),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0], &[0])?;
        let mut list = Launches::of(stored_in);
        let (rows, d, pairs) = (cx.rows(0), cx.width(0), self.pairs());
        let mut upload = |of: &Frequencies| {
            let to = list.scratch(4 * pairs as u64);
            let words = of.list().iter().map(|x| (x.get() as f32).to_bits());
            let words = words.collect();
            list.list.push(Launch::Upload { to, words });
            to
        };
        let frequencies = upload(&self.frequencies);
        // Without others, no text is long.
        let (lengths, border, beyond) = match &self.beyond {
            Some(own) => (In(2), own.positions, upload(&own.frequencies)),
            None => (In(1), u32::MAX, frequencies),
        };
        list.call(Call {
            source: "rotary",
            kernel: "rotary",
            stored_in,
            grid: [rows as u32, 1],
            block: (d / 2).next_multiple_of(32).clamp(32, 256) as u32,
            shared: 8 * pairs as u32,
            args: args![
                In(0),
                In(1),
                frequencies,
                lengths,
                border,
                beyond,
                Out(0),
                d as u32,
                self.width,
                pairs as u32,
                u32::from(self.interleaved),
                u32::from(self.inverse),
                self.scale.get() as f32
            ],
        });
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let up = at.up[0].filter(|_| at.needs[0]);
        let back = Self {
            inverse: !self.inverse,
            ..self.clone()
        };
        let own = up.map(|up| {
            let mut inputs = at.inputs.to_vec();
            inputs[0] = up;
            b.push1(back, &inputs)
        });
        let mut all = vec![own];
        all.resize(at.inputs.len(), None);
        all
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 3 * cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        self.scratch(machine, size)
    }
}

impl Rotary {
    /// Bytes of the sines and cosines of a token, on each thread.
    fn scratch(&self, machine: &Machine, size: u64) -> u64 {
        machine.threads as u64 * 2 * self.pairs() as u64 * size
    }

    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
        let positions = io.input(1).slice::<u32>();
        let lengths = self.beyond.as_ref().map(|_| io.input(2).slice::<u32>());
        let d = io.outputs[0].dims[1];
        let out = io.outputs[0].slice::<T>();
        cx.scratch(self.scratch(cx.machine, size_of::<T>() as u64), || {
            for_chunks_of_rows(out, d, |first, rows| {
                if let Some(x) = x {
                    rows.copy_from_slice(part(x, first * d, rows.len()));
                }
                let mut angles = Angles::new(self);
                for ((i, row), &position) in (first..)
                    .zip(rows.chunks_exact_mut(d))
                    .zip(&positions[first..])
                {
                    let length = lengths.and_then(|lengths| lengths.get(i));
                    angles.turn_to(self, self.of_text(length), position);
                    for head in row.chunks_exact_mut(self.width as usize) {
                        let rotated = &mut head[..2 * self.pairs()];
                        if self.interleaved {
                            angles.turn_neighbours(rotated);
                        } else {
                            angles.turn_halves(rotated);
                        }
                    }
                }
            });
        });
    }
}

/// Cosines and sines of a position's angles, each times the scale.
struct Angles<T> {
    cosines: Vec<T>,
    sines: Vec<T>,
}

impl<T: Elementary> Angles<T> {
    fn new(of: &Rotary) -> Self {
        Self {
            cosines: vec![T::zero(); of.pairs()],
            sines: vec![T::zero(); of.pairs()],
        }
    }

    /// Takes the angles of a position: its product with each frequency, in `T`.
    fn turn_to(&mut self, of: &Rotary, frequencies: &Frequencies, position: u32) {
        let (cosines, sines) = (self.cosines.as_mut_slice(), self.sines.as_mut_slice());
        let (position, scale) = (T::of(f64::from(position)), T::of(of.scale.get()));
        let (frequencies, sign) = (frequencies.list(), if of.inverse { -scale } else { scale });
        simd!(<T> (cosines: &'a mut [T] = cosines, sines: &'a mut [T] = sines, frequencies: &'a [Real] = frequencies, position: T = position, scale: T = scale, sign: T = sign) {
            for ((c, s), f) in cosines.iter_mut().zip(sines).zip(frequencies) {
                let (sin, cos) = (position * T::of(f.get())).sin_cos_fast();
                *c = cos * scale;
                *s = sin * sign;
            }
        });
    }

    /// Turns pairs that lie half of the columns apart.
    fn turn_halves(&self, columns: &mut [T]) {
        let (cosines, sines) = (self.cosines.as_slice(), self.sines.as_slice());
        simd!(<T> (columns: &'a mut [T] = columns, cosines: &'a [T] = cosines, sines: &'a [T] = sines) {
            let (left, right) = columns.split_at_mut(cosines.len());
            for (((a, b), &c), &s) in left.iter_mut().zip(right).zip(cosines).zip(sines) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        });
    }

    /// Turns pairs of neighbours.
    fn turn_neighbours(&self, columns: &mut [T]) {
        let (cosines, sines) = (self.cosines.as_slice(), self.sines.as_slice());
        simd!(<T> (columns: &'a mut [T] = columns, cosines: &'a [T] = cosines, sines: &'a [T] = sines) {
            for ((pair, &c), &s) in columns.as_chunks_mut::<2>().0.iter_mut().zip(cosines).zip(sines) {
                let [a, b] = *pair;
                *pair = [a * c - b * s, b * c + a * s];
            }
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, matrix, small};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    let op = |width: usize, rotated: usize, bits: u32| Rotary {
        width: width as u32,
        frequencies: Frequencies::new(
            (0..rotated / 2).map(|i| 1e4_f64.powf(-2.0 * i as f64 / rotated as f64)),
        ),
        beyond: None,
        scale: Real::new(1.1),
        interleaved: bits & 1 == 1,
        inverse: bits & 2 == 2,
    };
    let places = |rows: usize| {
        let list: Vec<u32> = (0..rows as u32).map(|i| i * 37 % 4001).collect();
        ids(&list)
    };
    for bits in 0..4 {
        all.sample(op(5, 4, bits), [small(4), places(6)]);
        all.large(op(32, 32, bits), [matrix(3, 300, 128), places(300)]);
        let sizes = [
            (3, 64, 64, 64),
            (33, 64, 16, 8),
            (2, 1024, 128, 96),
            (1, 4, 2, 2),
        ];
        for (rows, d, width, rotated) in sizes {
            let inputs = [matrix(10, rows, d), places(rows)];
            all.case(op(width, rotated, bits), inputs);
        }
        // The first half of the tokens is of a text that is not long.
        let long = |width, rotated: usize| Rotary {
            beyond: Some(Beyond {
                positions: 7,
                frequencies: Frequencies::new((0..rotated / 2).map(|i| 0.3 / (i + 1) as f64)),
            }),
            ..op(width, rotated, bits)
        };
        let lengths = |rows: usize| {
            let each = |i| if i < rows / 2 { 7 } else { 8 };
            ids(&(0..rows).map(each).collect::<Vec<u32>>())
        };
        all.sample(long(5, 4), [small(4), places(6), lengths(6)]);
        all.large(
            long(32, 32),
            [matrix(3, 300, 128), places(300), lengths(300)],
        );
        all.case(long(16, 8), [matrix(10, 33, 64), places(33), lengths(33)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Tensor;
    use super::super::fixtures::{eval, floats, ids, random, ty};
    use super::*;

    fn op(width: u32, frequencies: &[f64]) -> Rotary {
        Rotary {
            width,
            frequencies: Frequencies::new(frequencies.iter().copied()),
            beyond: None,
            scale: Real::new(1.25),
            interleaved: false,
            inverse: false,
        }
    }

    #[test]
    fn pairs_are_turned_by_their_angles_and_the_rest_passes() {
        let (x, places) = (random(1, &[4, 14]), [0, 3, 100_000, 7]);
        let frequencies = [1.0, 0.3, 0.01];
        for interleaved in [false, true] {
            let own = Rotary {
                interleaved,
                ..op(7, &frequencies)
            };
            let made = floats(&eval(&own.into(), &[x.clone(), ids(&places)], 1)[0]);
            let x = floats(&x);
            for ((x, y), place) in x
                .chunks(7)
                .zip(made.chunks(7))
                .zip(places.map(|p| [p; 2]).as_flattened())
            {
                assert_eq!(x[6], y[6]);
                for (i, f) in frequencies.iter().enumerate() {
                    let (a, b) = if interleaved {
                        (2 * i, 2 * i + 1)
                    } else {
                        (i, i + 3)
                    };
                    let (s, c) = (f64::from(*place) * f).sin_cos();
                    let want = [1.25 * (x[a] * c - x[b] * s), 1.25 * (x[b] * c + x[a] * s)];
                    assert!((y[a] - want[0]).abs() < 1e-12 && (y[b] - want[1]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn frequencies_that_differ_print_differently() {
        let text = |list: &[f64]| format!("{:?}", Frequencies::new(list.iter().copied()));
        let (a, b) = (text(&[1.0, 0.5, 0.25]), text(&[1.0, 0.6, 0.25]));
        assert!(a.starts_with("3 from 1 to 0.25 #") && b.starts_with("3 from 1 to 0.25 #"));
        assert_ne!(a, b);
    }

    #[test]
    fn tokens_of_long_texts_are_turned_by_their_own_angles() {
        let (x, places) = (random(1, &[4, 8]), ids(&[0, 3, 100, 7]));
        let turned = |op: Rotary, more: Option<Tensor>| {
            let inputs = [x.clone(), places.clone()].into_iter().chain(more);
            floats(&eval(&op.into(), &inputs.collect::<Vec<_>>(), 1)[0])
        };
        let both = Rotary {
            beyond: Some(Beyond {
                positions: 10,
                frequencies: Frequencies::new([0.7, 0.2]),
            }),
            ..op(4, &[1.0, 0.3])
        };
        let made = turned(both.clone(), Some(ids(&[10, 11, 10, 4000])));
        let (short, long) = (
            turned(op(4, &[1.0, 0.3]), None),
            turned(op(4, &[0.7, 0.2]), None),
        );
        assert_eq!(made[..8], short[..8]);
        assert_eq!(made[8..16], long[8..16]);
        assert_eq!(made[16..24], short[16..24]);
        assert_eq!(made[24..], long[24..]);
        let (x, places) = (ty(&x), ty(&places));
        assert!(both.infer(&[&x, &places]).is_err(), "no lengths");
        assert!(both.infer(&[&x, &places, &places]).is_ok());
        assert!(both.infer(&[&x, &places, &ty(&ids(&[1]))]).is_err());
        assert!(op(4, &[1.0, 0.3]).infer(&[&x, &places, &places]).is_err());
        assert!(format!("{both:?}").contains("beyond: 10"));
    }

    #[test]
    fn what_does_not_fit_a_head_is_refused() {
        let (x, places) = (ty(&random(1, &[2, 12])), ty(&ids(&[0, 1])));
        let fits = |op: Rotary| op.infer(&[&x, &places]).is_ok();
        assert!(fits(op(4, &[1.0, 0.1])) && fits(op(6, &[1.0])));
        assert!(!fits(op(5, &[1.0])), "heads that do not divide the width");
        assert!(!fits(op(4, &[1.0, 0.1, 0.01])), "more pairs than columns");
        assert!(!fits(op(4, &[])) && !fits(op(4, &[f64::NAN])));
        let other = ty(&ids(&[0, 1, 2]));
        assert!(op(4, &[1.0]).infer(&[&x, &other]).is_err());
    }
}
