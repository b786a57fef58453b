//! `adamw_8bit`: one AdamW update in place whose moments are kept in 8 bits (Dettmers et al. 2022, arXiv 2110.02861).

use std::sync::LazyLock;

use rayon::prelude::*;

use super::super::types::{Bindings, DType};
use super::adamw::{AdamW, update};
use super::launch::{KernelSource, Launches, Operand::In, args, source};
use super::math::{CHUNK, Elementary, simd};
use super::{Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(θ[n], g[n], m u32[⌈n/4⌉], v u32[⌈n/4⌉], m's scales f32[⌈n/256⌉], v's scales, lr f32[1], step u32[1], factor f32[1])`,
/// updating θ, the moments and their scales. A moment is a code of the dynamic map times the scale of its block of 256
/// numbers, which is the largest among them; four codes are a word, the first in its lowest bits. The update is that of
/// `adamw`, with the moments in f32 before they are rounded to the nearest code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdamW8bit(pub AdamW);

/// Numbers with one scale.
const BLOCK: usize = 256;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("adamw_8bit"));

impl AdamW8bit {
    /// The types of the four tensors of state of so many numbers: codes of m and v, then their scales.
    #[must_use]
    pub fn state(numbers: u64) -> [TensorType; 4] {
        let codes = TensorType::fixed(DType::U32, &[numbers.div_ceil(4)]);
        let scales = TensorType::fixed(DType::F32, &[numbers.div_ceil(BLOCK as u64)]);
        [codes.clone(), codes, scales.clone(), scales]
    }
}

impl OpRule for AdamW8bit {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let wanted = "a parameter with its gradient, the state of 8-bit AdamW, a rate, a step and a factor are wanted";
        let [p, g, state @ .., lr, step, factor] = x else {
            return Err(wanted.into());
        };
        let one = TensorType::scalar(DType::F32);
        let numbers = p.elements(&Bindings::default());
        let fits = p == g
            && p.dtype == DType::F32
            && state.iter().copied().eq(Self::state(numbers).iter())
            && **lr == one
            && **factor == one
            && **step == TensorType::scalar(DType::U32);
        if fits { Ok(vec![]) } else { Err(wanted.into()) }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let n = cx.elements(0);
        let args = args![
            In(0),
            In(1),
            In(2),
            In(3),
            In(4),
            In(5),
            In(6),
            In(7),
            In(8),
            n,
            self.0.beta1.get(),
            self.0.beta2.get(),
            self.0.eps.get() as f32,
            self.0.weight_decay.get(),
            self.0.since
        ];
        let blocks = n.div_ceil(BLOCK as u64).min(MOST_BLOCKS);
        list.rows("adamw_8bit", "adamw_8bit", blocks, BLOCK as u64, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let g = io.input(1).slice::<f32>();
        let (lr, step, factor) = (
            io.input(6).slice::<f32>()[0],
            io.input(7).slice::<u32>()[0],
            io.input(8).slice::<f32>()[0],
        );
        let now = self.0.now(lr, step, factor);
        let [p, m, v, m_scales, v_scales] = io.updates.as_mut_slice() else {
            unreachable!("five tensors are updated")
        };
        let (m, v) = (m.slice::<u32>(), v.slice::<u32>());
        let (m_scales, v_scales) = (m_scales.slice::<f32>(), v_scales.slice::<f32>());
        let parts = p
            .slice::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK / 4).zip(v.par_chunks_mut(CHUNK / 4)))
            .zip(m_scales.par_chunks_mut(CHUNK / BLOCK))
            .zip(v_scales.par_chunks_mut(CHUNK / BLOCK));
        parts.for_each(|((((p, g), (m, v)), m_scales), v_scales)| {
            let m = bytemuck::cast_slice_mut::<u32, u8>(m).chunks_mut(BLOCK);
            let v = bytemuck::cast_slice_mut::<u32, u8>(v).chunks_mut(BLOCK);
            let blocks = p.chunks_mut(BLOCK).zip(g.chunks(BLOCK)).zip(m.zip(v));
            let scales = m_scales.iter_mut().zip(v_scales);
            for (((p, g), (m, v)), (m_scale, v_scale)) in blocks.zip(scales) {
                let mut first = SIGNED.decoded(m, *m_scale);
                let mut second = UNSIGNED.decoded(v, *v_scale);
                let len = p.len();
                update(now, p, &mut first[..len], &mut second[..len], g);
                *m_scale = SIGNED.encode(&first[..len], m);
                *v_scale = UNSIGNED.encode(&second[..len], v);
            }
        });
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let n = cx.elements(0);
        Cost {
            flops: 16 * n,
            bytes: 3 * 4 * n + 4 * n + 16 * n.div_ceil(BLOCK as u64),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2, 3, 4, 5]
    }
}

/// Most blocks of threads of a launch; a block of threads takes several blocks of numbers where there are more.
const MOST_BLOCKS: u64 = 4096;

/// The dynamic map of 8 bits (arXiv 1511.04561): values of seven decades, the more of them the higher the decade, and 0 and 1.
/// Codes are in the order of the values.
struct Map {
    /// The value of each code.
    values: [f32; 256],
    /// The code of 0.
    zero: u8,
    /// Half the sum of each magnitude, counted from 0 on, and the next.
    between: [f32; 256],
    /// Of the numbers whose first 16 bits are the same, the largest magnitude that is surely not above one of them, from
    /// [`LOWEST`] on.
    below: Vec<u8>,
}

/// The first 16 bits of numbers that are nearest to 0 in both maps.
const LOWEST: u32 = (127 - 24) << 7;

static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(true));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(false));

impl Map {
    /// The map with signs, or without.
    fn new(signed: bool) -> Self {
        let mut magnitudes = vec![0.0_f32];
        for decade in 0..7_i32 {
            let items = 1_u32 << (decade as u32 + u32::from(!signed));
            let unit = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0][decade as usize];
            magnitudes.extend((0..items).map(|j| {
                let mean = 0.1 + 0.9 * (f64::from(j) + 0.5) / f64::from(items);
                (unit * mean) as f32
            }));
        }
        magnitudes.push(1.0);
        let mut between = [f32::INFINITY; 256];
        for (between, pair) in between.iter_mut().zip(magnitudes.windows(2)) {
            *between = (pair[0] + pair[1]) * 0.5;
        }
        let one = 1.0_f32.to_bits() >> 16;
        let below = (LOWEST..=one).map(|first| {
            let least = f32::from_bits(first << 16);
            let code = between.iter().take_while(|&&b| least > b).count();
            if first == LOWEST { 0 } else { code as u8 }
        });
        let below = below.collect();
        let zero = if signed { 127_u8 } else { 0 };
        let mut values = [0.0; 256];
        for (code, value) in (0_i32..).zip(&mut values) {
            let from_zero = code - i32::from(zero);
            let magnitude = magnitudes[from_zero.unsigned_abs() as usize];
            *value = if from_zero < 0 { -magnitude } else { magnitude };
        }
        Self {
            values,
            zero,
            between,
            below,
        }
    }

    /// The numbers of a block.
    fn decoded(&self, codes: &[u8], scale: f32) -> [f32; BLOCK] {
        let mut out = [0.0; BLOCK];
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = self.values[usize::from(code)] * scale;
        }
        out
    }

    /// Writes the codes nearest to a block's numbers over their largest magnitude, which comes back.
    fn encode(&self, block: &[f32], codes: &mut [u8]) -> f32 {
        let scale = largest(block);
        for (code, &x) in codes.iter_mut().zip(block) {
            let x = if scale > 0.0 { x / scale } else { 0.0 };
            let size = x.abs();
            let first = (size.to_bits() >> 16).clamp(LOWEST, 1.0_f32.to_bits() >> 16) - LOWEST;
            let low = self.below[first as usize];
            let above = u8::from(size > self.between[usize::from(low)]);
            let most = if x < 0.0 { self.zero } else { 255 - self.zero };
            let from_zero = (low + above).min(most);
            *code = if x < 0.0 {
                self.zero - from_zero
            } else {
                self.zero + from_zero
            };
        }
        scale
    }
}

/// The largest magnitude; a NaN may be passed over.
fn largest<T: Elementary>(x: &[T]) -> T {
    simd!(<T> (x: &'a [T] = x) -> T {
        let mut lanes = [T::zero(); 16];
        let chunks = x.chunks_exact(16);
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            let size = if x < T::zero() { T::zero() - x } else { x };
            *lane = if size > *lane { size } else { *lane };
        }
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                let size = if x < T::zero() { T::zero() - x } else { x };
                *lane = if size > *lane { size } else { *lane };
            }
        }
        lanes.into_iter().fold(T::zero(), |most, x| if x > most { x } else { most })
    })
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::super::types::Real;
    use super::fixtures::{Fixtures, ids, list, narrow, scalar};
    let mut all = Fixtures::new();
    let op = |since| {
        AdamW8bit(AdamW {
            beta1: Real::new(0.9),
            beta2: Real::new(0.98),
            eps: Real::new(1e-6),
            weight_decay: Real::new(0.1),
            since,
        })
    };
    let inputs = |n: usize, step: u32| {
        let words = |seed: u32| {
            let code = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
            ids(&(0..n.div_ceil(4)).map(code).collect::<Vec<_>>())
        };
        let scales = || super::Tensor::new(vec![0.5_f32; n.div_ceil(BLOCK)], &[n.div_ceil(BLOCK)]);
        [
            list(29, n),
            list(30, n),
            words(1),
            words(2),
            scales(),
            scales(),
            scalar(1e-2),
            ids(&[step]),
            scalar(0.5),
        ]
    };
    all.sample(op(0), inputs(30, 3).map(|x| narrow(&x)));
    all.case(op(0), inputs(1, 0));
    all.case(op(990), inputs(515, 1000));
    all.case(op(0), inputs(20_000, 7));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_the_maps_is_its_own_code() {
        for (map, count) in [(&*SIGNED, 256), (&*UNSIGNED, 256)] {
            let codes: Vec<u8> = (0..=255).collect();
            let mut sorted = map.values;
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, map.values);
            let mut again = vec![0; count];
            assert_eq!(map.encode(&map.values, &mut again), 1.0);
            assert_eq!(again, codes);
            assert_eq!(map.decoded(&codes, 1.0), map.values);
        }
    }

    #[test]
    fn a_number_has_the_nearest_code() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 40) as f32 / (1 << 24) as f32
        };
        for (map, signed) in [(&*SIGNED, true), (&*UNSIGNED, false)] {
            for _ in 0..400 {
                let mut block = [0.0_f32; BLOCK];
                for x in &mut block {
                    let size = random() * 10_f32.powf(-8.0 * random());
                    *x = if signed && random() < 0.5 {
                        -size
                    } else {
                        size
                    };
                }
                let mut codes = [0; BLOCK];
                let scale = map.encode(&block, &mut codes);
                for (&x, &code) in block.iter().zip(&codes) {
                    let off = |value: f32| (value - x / scale).abs();
                    let least = map.values.iter().map(|&v| off(v)).fold(2.0, f32::min);
                    assert!(
                        off(map.values[usize::from(code)]) <= least + 1e-8,
                        "{x} of {scale}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_block_of_zeros_stays_so() {
        let mut codes = [9; 5];
        assert_eq!(SIGNED.encode(&[0.0; 5], &mut codes), 0.0);
        assert_eq!(SIGNED.decoded(&codes, 0.0)[..5], [0.0; 5]);
    }
}
