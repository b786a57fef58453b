//! `adafactor`: one update in place whose second moment is that of rows and columns (Shazeer and Stern 2018, arXiv 1804.04235).

use rayon::prelude::*;

use super::super::types::{Bindings, DType, Real};
use super::launch::{Arg, KernelSource, Launches, Operand, Operand::In, args, source};
use super::math::{CHUNK, Elementary, simd};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(θ[…, R, C], g, rows f32[…·R], columns f32[…·C], lr f32[1], step u32[1], factor f32[1])`, updating θ, rows and columns; of a
/// list `(θ[C], g, columns f32[C], lr, step, factor)`, whose moments are its own. As in `transformers`, with
/// `t = step + 1 − since`, `β = 1 − t^−decay` and `g` times `factor`: rows and columns become `β` of themselves and `1 − β` of the
/// means of `g² + ε`; `u = g / √(row · column / mean of rows)`; `u` is divided by what its root mean square is above
/// `clip`; the rate is times the larger of `scale` and the root mean square of θ where there is a `scale`;
/// `θ ← θ − lr · λ · θ − lr · u`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adafactor {
    /// Whether there is a moment a row; else θ is a list.
    pub factored: bool,
    /// The exponent of the second moment's decay.
    pub decay: Real,
    /// Added to squares of gradients.
    pub eps: Real,
    /// Root mean square of an update above which it is made smaller.
    pub clip: Real,
    /// The least root mean square of a parameter for the rate, which is times it; `None` where the rate stands for itself.
    pub scale: Option<Real>,
    /// Decoupled weight decay λ.
    pub weight_decay: Real,
    /// Steps before the first of its updates.
    pub since: u32,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("adafactor"));

impl Adafactor {
    /// The types of the moments of a parameter: of rows and columns, or of a list itself.
    #[must_use]
    pub fn state(param: &TensorType) -> Vec<TensorType> {
        let n = param.elements(&Bindings::default());
        let width = |from_end: usize| {
            let dims = param.shape.iter().rev();
            dims.skip(from_end).map(|d| d.constant).next().unwrap_or(1)
        };
        let list = |length: u64| TensorType::fixed(DType::F32, &[length]);
        if param.shape.len() < 2 {
            return vec![list(n)];
        }
        [width(0), width(1)]
            .map(|along| list(n / along.max(1)))
            .into()
    }

    /// What the second moment keeps in this step.
    fn kept(&self, step: u32) -> f64 {
        let t = f64::from(step.saturating_sub(self.since)) + 1.0;
        1.0 - libm::pow(t, -self.decay.get())
    }
}

/// A parameter as matrices behind one another: how many, their rows and columns.
#[derive(Clone, Copy, Debug)]
struct Size {
    matrices: usize,
    rows: usize,
    columns: usize,
}

impl Size {
    /// Of so many numbers with so many moments of rows, if there are some, and of columns.
    fn of(n: usize, row_moments: Option<usize>, column_moments: usize) -> Self {
        let columns = row_moments.map_or(n, |rows| n / rows.max(1)).max(1);
        Self {
            matrices: column_moments / columns,
            rows: n / column_moments.max(1),
            columns,
        }
    }
}

impl OpRule for Adafactor {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let wanted = "a parameter with its gradient, the moments of Adafactor, a rate, a step and a factor are wanted";
        let [p, g, state @ .., lr, step, factor] = x else {
            return Err(wanted.into());
        };
        let one = TensorType::scalar(DType::F32);
        let fits = p == g
            && p.dtype == DType::F32
            && self.factored == (p.shape.len() > 1)
            && state.iter().copied().eq(Self::state(p).iter())
            && **lr == one
            && **factor == one
            && **step == TensorType::scalar(DType::U32);
        if fits { Ok(vec![]) } else { Err(wanted.into()) }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let at = |place: usize| cx.elements(place) as usize;
        let n = at(0);
        let (row_moments, last) = if self.factored {
            (Some(at(2)), 3)
        } else {
            (None, 2)
        };
        let size = Size::of(n, row_moments, at(last));
        let [matrices, rows, columns] = [size.matrices, size.rows, size.columns].map(|n| n as u32);
        let (lr, step, factor) = (In(last + 1), In(last + 2), In(last + 3));
        let (decay, eps) = (self.decay.get(), self.eps.get() as f32);
        let all_rows = u64::from(matrices) * u64::from(rows);
        let (means, sums) = (
            list.scratch(4 * u64::from(matrices)),
            list.scratch(16 * all_rows),
        );
        let moments = if self.factored {
            Arg::At(In(2))
        } else {
            Arg::Null
        };
        let each =
            |list: &mut Launches, kernel: &'static str, blocks: u64, width: u32, args: Vec<Arg>| {
                list.rows("adafactor", kernel, blocks, width.into(), args);
            };
        let follow = |of: usize| args![In(1), In(of), step, factor];
        if self.factored {
            let mut args = follow(2);
            args.extend(args![columns, eps, decay, self.since]);
            each(&mut list, "adafactor_rows", all_rows, columns, args);
            let args = args![In(2), means, rows];
            each(&mut list, "adafactor_means", matrices.into(), rows, args);
        }
        let mut args = follow(last);
        args.extend(args![rows, columns, eps, decay, self.since]);
        let strips = u64::from(matrices) * u64::from(columns.div_ceil(32));
        each(&mut list, "adafactor_columns", strips, 256, args);
        let update = |to: Operand| {
            let mut args = args![In(0), In(1)];
            args.push(moments);
            args.extend(args![In(last), means, factor, to, rows, columns]);
            args
        };
        each(&mut list, "adafactor_sums", all_rows, columns, update(sums));
        let numbers = list.scratch(8);
        let scale = self.scale.map_or(-1.0, Real::get);
        let (clip, decays) = (self.clip.get(), self.weight_decay.get());
        let args = args![
            sums,
            numbers,
            lr,
            n as u64,
            all_rows as u32,
            clip,
            scale,
            decays
        ];
        list.once("adafactor", "adafactor_numbers", args);
        each(
            &mut list,
            "adafactor_apply",
            all_rows,
            columns,
            update(numbers),
        );
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let g = io.input(1).slice::<f32>();
        let last = 2 + usize::from(self.factored);
        let (lr, step, factor) = (
            io.input(last + 1).slice::<f32>()[0],
            io.input(last + 2).slice::<u32>()[0],
            io.input(last + 3).slice::<f32>()[0],
        );
        let (p, rows, columns) = match io.updates.as_mut_slice() {
            [p, rows, columns] => (p, Some(rows.slice::<f32>()), columns),
            [p, columns] => (p, None, columns),
            _ => unreachable!("a parameter and its moments are updated"),
        };
        let (p, columns) = (p.slice::<f32>(), columns.slice::<f32>());
        let size = Size::of(g.len(), rows.as_ref().map(|rows| rows.len()), columns.len());
        let kept = self.kept(step);
        let of = Moments {
            kept: kept as f32,
            fresh: (1.0 - kept) as f32,
            eps: self.eps.get() as f32,
            factor,
        };
        cx.scratch(scratch(size), || {
            let row_factors = match rows {
                Some(rows) => {
                    let each = rows.par_iter_mut().zip(g.par_chunks(size.columns));
                    each.for_each(|(row, g)| of.mix(row, of.squares(g) / size.columns as f64));
                    let matrices = rows.chunks(size.rows);
                    matrices.flat_map(row_factors).collect()
                }
                None => vec![1.0; size.rows * size.matrices],
            };
            let of_columns = columns.par_chunks_mut(size.columns);
            let matrices = of_columns.zip(g.par_chunks(size.rows * size.columns));
            matrices.for_each(|(columns, g)| of.columns(columns, g));
            let column_factors: Vec<f32> = columns.iter().map(|&c| 1.0 / c.sqrt()).collect();
            let factors = |row: usize| {
                let first = row / size.rows * size.columns;
                let columns = &column_factors[first..first + size.columns];
                (row_factors[row] * factor, columns)
            };
            let sums: Vec<[f64; 2]> = g
                .par_chunks(size.columns)
                .zip(p.par_chunks(size.columns))
                .enumerate()
                .map(|(row, (g, p))| [squares_of_update(g, factors(row)), of_zero(p)])
                .collect();
            let mean = |at: usize| {
                let sum: f64 = sums.iter().map(|row| row[at]).sum();
                (sum / g.len().max(1) as f64).sqrt()
            };
            let scale = self.scale.map_or(1.0, |least| least.get().max(mean(1)));
            let rate = f64::from(lr) * scale;
            let keep = (1.0 - rate * self.weight_decay.get()) as f32;
            let rate = (rate / (mean(0) / self.clip.get()).max(1.0)) as f32;
            let together = (CHUNK / size.columns).max(1);
            let parts = p.par_chunks_mut(together * size.columns);
            parts
                .zip(g.par_chunks(together * size.columns))
                .enumerate()
                .for_each(|(part, (p, g))| {
                    let rows = p.chunks_mut(size.columns).zip(g.chunks(size.columns));
                    for (row, (p, g)) in rows.enumerate() {
                        apply(p, g, factors(part * together + row), (keep, rate));
                    }
                });
        });
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 16 * cx.elements(0),
            bytes: 7 * 4 * cx.elements(0),
        }
    }

    fn updates(&self) -> &'static [usize] {
        if self.factored { &[0, 2, 3] } else { &[0, 2] }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let at = |place: usize| cx.elements(place) as usize;
        let (rows, columns) = if self.factored {
            (Some(at(2)), at(3))
        } else {
            (None, at(2))
        };
        scratch(Size::of(at(0), rows, columns))
    }
}

/// Bytes of the factors of rows and columns, and of two sums a row.
fn scratch(size: Size) -> u64 {
    let (rows, columns) = (size.matrices * size.rows, size.matrices * size.columns);
    (4 * (rows + columns) + 16 * rows) as u64
}

/// `1 / √(row / mean of rows)` of a matrix' rows.
fn row_factors(rows: &[f32]) -> impl Iterator<Item = f32> {
    let sum: f64 = rows.iter().map(|&row| f64::from(row)).sum();
    let mean = (sum / rows.len().max(1) as f64) as f32;
    rows.iter().map(move |&row| 1.0 / (row / mean).sqrt())
}

/// How moments follow a step's gradient.
#[derive(Clone, Copy)]
struct Moments {
    kept: f32,
    fresh: f32,
    eps: f32,
    factor: f32,
}

/// Columns whose means are taken together.
const STRIP: usize = 64;

impl Moments {
    fn mix(self, moment: &mut f32, mean: f64) {
        *moment = *moment * self.kept + mean as f32 * self.fresh;
    }

    /// Σ g² + ε of a row.
    fn squares(self, g: &[f32]) -> f64 {
        fn sum<T: Elementary>(g: &[T], factor: T, eps: T) -> f64 {
            simd!(<T> (g: &'a [T] = g, factor: T = factor, eps: T = eps) -> f64 {
                let mut lanes = [0.0_f64; 16];
                let chunks = g.chunks_exact(16);
                for (lane, &g) in lanes.iter_mut().zip(chunks.remainder()) {
                    let g = g * factor;
                    *lane += (g * g + eps).wide();
                }
                for chunk in chunks {
                    for (lane, &g) in lanes.iter_mut().zip(chunk) {
                        let g = g * factor;
                        *lane += (g * g + eps).wide();
                    }
                }
                lanes.iter().sum()
            })
        }
        sum(g, self.factor, self.eps)
    }

    /// The moments of a matrix' columns.
    fn columns(self, columns: &mut [f32], g: &[f32]) {
        let width = columns.len();
        let rows = g.len() / width.max(1);
        let strips = columns.par_chunks_mut(STRIP).enumerate();
        strips.for_each(|(strip, columns)| {
            let mut sums = [0.0_f64; STRIP];
            for g in g.chunks(width) {
                let own = &g[strip * STRIP..][..columns.len()];
                add_squares(&mut sums, own, self.factor, self.eps);
            }
            for (column, sum) in columns.iter_mut().zip(sums) {
                self.mix(column, sum / rows as f64);
            }
        });
    }
}

fn add_squares<T: Elementary>(sums: &mut [f64], g: &[T], factor: T, eps: T) {
    simd!(<T> (sums: &'a mut [f64] = sums, g: &'a [T] = g, factor: T = factor, eps: T = eps) {
        for (sum, &g) in sums.iter_mut().zip(g) {
            let g = g * factor;
            *sum += (g * g + eps).wide();
        }
    });
}

/// Σ u² of a row.
fn squares_of_update<T: Elementary>(g: &[T], (row, columns): (T, &[T])) -> f64 {
    simd!(<T> (g: &'a [T] = g, row: T = row, columns: &'a [T] = columns) -> f64 {
        let mut lanes = [0.0_f64; 16];
        let (chunks, wide) = (g.chunks_exact(16), columns.chunks_exact(16));
        for ((lane, &g), &column) in lanes.iter_mut().zip(chunks.remainder()).zip(wide.remainder()) {
            let u = g * row * column;
            *lane += (u * u).wide();
        }
        for (chunk, columns) in chunks.zip(wide) {
            for ((lane, &g), &column) in lanes.iter_mut().zip(chunk).zip(columns) {
                let u = g * row * column;
                *lane += (u * u).wide();
            }
        }
        lanes.iter().sum()
    })
}

/// Σ θ² of a row.
fn of_zero(p: &[f32]) -> f64 {
    let of = Moments {
        kept: 0.0,
        fresh: 0.0,
        eps: 0.0,
        factor: 1.0,
    };
    of.squares(p)
}

fn apply<T: Elementary>(p: &mut [T], g: &[T], (row, columns): (T, &[T]), (keep, rate): (T, T)) {
    simd!(<T> (p: &'a mut [T] = p, g: &'a [T] = g, row: T = row, columns: &'a [T] = columns, keep: T = keep, rate: T = rate) {
        for ((p, &g), &column) in p.iter_mut().zip(g).zip(columns) {
            *p = *p * keep - rate * (g * row * column);
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, matrix, narrow, random_positive, scalar};
    let mut all = Fixtures::new();
    let op = |factored, scale: Option<f64>, since| Adafactor {
        factored,
        decay: Real::new(0.8),
        eps: Real::new(1e-30),
        clip: Real::new(1.0),
        scale: scale.map(Real::new),
        weight_decay: Real::new(0.1),
        since,
    };
    let end = |step: u32| [scalar(1e-2), ids(&[step]), scalar(0.5)];
    let moments = |n: usize| narrow(&random_positive(n as u64, &[n]));
    for (rows, columns, step, scale) in [
        (6, 5, 3, None),
        (1, 1, 0, Some(1e-3)),
        (70, 130, 7, Some(1e-3)),
        (300, 33, 1000, None),
    ] {
        let mut inputs = vec![matrix(3, rows, columns), matrix(4, rows, columns)];
        inputs.extend([moments(rows), moments(columns)]);
        inputs.extend(end(step));
        all.case(op(true, scale, 0), inputs.clone());
        if rows == 6 {
            all.sample(op(true, Some(1e-3), 0), inputs);
        }
    }
    let mut inputs = vec![list(5, 700), list(6, 700), moments(700)];
    inputs.extend(end(5));
    all.case(op(false, None, 2), inputs);
    let three = |seed| {
        let flat = list(seed, 2 * 9 * 20);
        super::Tensor::new(flat.slice::<f32>().expect("numbers").to_vec(), &[2, 9, 20])
    };
    let mut inputs = vec![three(7), three(8), moments(18), moments(40)];
    inputs.extend(end(2));
    all.case(op(true, Some(1e-3), 0), inputs);
    all
}
