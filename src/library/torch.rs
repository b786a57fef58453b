//! Random numbers as PyTorch's generator on the processor draws them, in its order: some types of peft's keep the seed of
//! their indices or projections in the adapter, and not the numbers.
//!
//! Numbers of [`Generator::uniform`], [`Generator::permutation`] and [`Generator::below`] are PyTorch's to the bit; those
//! of [`Generator::normal`] to the last digits of its logarithm, sine and cosine.

use std::f64::consts::TAU;

/// Words of the state.
const WORDS: usize = 624;
/// How far ahead a word looks.
const AHEAD: usize = 397;
/// Normal numbers that are made together.
const TOGETHER: usize = 16;

/// A generator: `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Clone, Debug)]
pub struct Generator {
    state: Vec<u32>,
    next: usize,
    /// The second of a pair of normal numbers, where they are made one at a time.
    spare: Option<f64>,
}

impl Generator {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut word = seed as u32;
        let mut state = Vec::with_capacity(WORDS);
        state.push(word);
        for i in 1..WORDS as u32 {
            word = 1_812_433_253_u32
                .wrapping_mul(word ^ (word >> 30))
                .wrapping_add(i);
            state.push(word);
        }
        Self {
            state,
            next: WORDS,
            spare: None,
        }
    }

    /// 32 random bits: those of the Mersenne Twister.
    pub fn bits(&mut self) -> u32 {
        if self.next >= WORDS {
            self.turn();
        }
        let mut y = self.state.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn turn(&mut self) {
        let at = |state: &[u32], i: usize| state.get(i % WORDS).copied().unwrap_or_default();
        for i in 0..WORDS {
            let y = (at(&self.state, i) & 0x8000_0000) | (at(&self.state, i + 1) & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            let new = at(&self.state, i + AHEAD) ^ (y >> 1) ^ odd;
            if let Some(word) = self.state.get_mut(i) {
                *word = new;
            }
        }
        self.next = 0;
    }

    fn bits64(&mut self) -> u64 {
        let high = u64::from(self.bits());
        (high << 32) | u64::from(self.bits())
    }

    /// A number of [0, 1) in f32.
    fn unit(&mut self) -> f32 {
        (self.bits() & 0x00ff_ffff) as f32 / (1 << 24) as f32
    }

    /// A number of [0, 1) in f64.
    fn unit64(&mut self) -> f64 {
        (self.bits64() & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }

    // PyTorch's kernels multiply and add in one rounding.

    /// `torch.empty(count).uniform_(from, to)`; `torch.rand(count)` is that from 0 to 1.
    pub fn uniform(&mut self, count: usize, from: f32, to: f32) -> Vec<f32> {
        (0..count)
            .map(|_| self.unit().mul_add(to - from, from))
            .collect()
    }

    /// `kaiming_uniform_(a = √5)` of a matrix: uniform in ±1/√width.
    pub fn kaiming_uniform(&mut self, rows: usize, width: usize) -> Vec<f32> {
        // PyTorch's gain, √(2 / (1 + a²)), in its order.
        let gain = (2.0 / (1.0 + 5.0_f64.sqrt().powi(2))).sqrt();
        let bound = (3.0_f64.sqrt() * (gain / (width as f64).sqrt())) as f32;
        self.uniform(rows * width, -bound, bound)
    }

    /// `torch.empty(count).normal_(mean, std)`; `torch.randn(count)` is that with 0 and 1.
    pub fn normal(&mut self, count: usize, mean: f64, std: f64) -> Vec<f32> {
        if count < TOGETHER {
            return (0..count).map(|_| self.one_normal(mean, std)).collect();
        }
        let mut data = self.uniform(count, 0.0, 1.0);
        let (mean, std) = (mean as f32, std as f32);
        data.chunks_exact_mut(TOGETHER)
            .for_each(|chunk| normal_pairs(chunk, mean, std));
        if !count.is_multiple_of(TOGETHER)
            && let Some(last) = data.get_mut(count - TOGETHER..)
        {
            // The last sixteen are drawn anew.
            last.iter_mut().for_each(|x| *x = self.unit());
            normal_pairs(last, mean, std);
        }
        data
    }

    fn one_normal(&mut self, mean: f64, std: f64) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare.mul_add(std, mean) as f32;
        }
        let (u1, u2) = (self.unit64(), self.unit64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = TAU * u1;
        self.spare = Some(radius * theta.sin());
        (radius * theta.cos()).mul_add(std, mean) as f32
    }

    /// `torch.randperm(count)`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut list: Vec<usize> = (0..count).collect();
        for i in 0..count.saturating_sub(1) {
            let rest = (count - i) as u64;
            let other = u64::from(self.bits()) % rest;
            list.swap(i, i + other as usize);
        }
        list
    }

    /// The first `few` of `torch.randperm(count)`, without a list of all.
    pub fn permutation_start(&mut self, count: usize, few: usize) -> Vec<usize> {
        let mut moved = std::collections::BTreeMap::new();
        let drawn = (0..few.min(count)).map(|i| {
            // The last one is left over, and not drawn.
            let rest = (count - i) as u64;
            let step = if rest > 1 {
                u64::from(self.bits()) % rest
            } else {
                0
            };
            let other = i + step as usize;
            let here = moved.remove(&i).unwrap_or(i);
            if other == i {
                return here;
            }
            moved.insert(other, here).unwrap_or(other)
        });
        drawn.collect()
    }

    /// `torch.randint(high, (count,))`: whole numbers below `high`.
    pub fn below(&mut self, count: usize, high: u64) -> Vec<u64> {
        let high = high.max(1);
        let wide = high >= 1 << 28;
        let mut draw = || {
            if wide {
                self.bits64()
            } else {
                u64::from(self.bits())
            }
        };
        (0..count).map(|_| draw() % high).collect()
    }
}

/// Sixteen uniform numbers become normal ones: the first eight with the last.
fn normal_pairs(chunk: &mut [f32], mean: f32, std: f32) {
    let (first, second) = chunk.split_at_mut(TOGETHER / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let theta = TAU as f32 * *b;
        (*a, *b) = (
            radius * theta.cos() * std + mean,
            radius * theta.sin() * std + mean,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    /// The numbers that PyTorch draws, by `tests/reference/make_torch_random.py`: one draw after the other of one generator.
    #[test]
    fn draws_are_those_of_pytorch() {
        let text = include_str!("../../tests/reference/torch_random.json");
        let all: Json = serde_json::from_str(text).unwrap();
        for (seed, drawn) in all.as_object().unwrap() {
            let mut g = Generator::new(seed.parse().unwrap());
            let floats = |key: &str| -> Vec<f32> {
                let list = drawn[key].as_array().unwrap().iter();
                list.map(|x| x.as_f64().unwrap() as f32).collect()
            };
            let wholes = |key: &str| -> Vec<u64> {
                let list = drawn[key].as_array().unwrap().iter();
                list.map(|x| x.as_u64().unwrap()).collect()
            };
            let near = |key: &str, own: &[f32]| {
                let wanted = floats(key);
                assert_eq!(wanted.len(), own.len());
                for (a, b) in wanted.iter().zip(own) {
                    assert!((a - b).abs() < 1e-6, "{seed} {key}: {a} {b}");
                }
            };
            let widened =
                |list: Vec<usize>| -> Vec<u64> { list.into_iter().map(|i| i as u64).collect() };
            assert_eq!(g.uniform(5, -0.3, 0.4), floats("uniform"));
            assert_eq!(widened(g.permutation(11)), wholes("perm"));
            assert_eq!(g.below(6, 37), wholes("below"));
            assert_eq!(g.below(3, 1 << 40), wholes("wide"));
            assert_eq!(g.below(3, 1 << 28), wholes("edge"));
            assert_eq!(g.below(3, (1 << 28) - 1), wholes("below_edge"));
            near("normal3", &g.normal(3, 0.3, 0.7));
            near("normal21", &g.normal(21, 0.0, 1.0));
            near("normal2", &g.normal(2, 0.0, 1.0));
            assert_eq!(g.uniform(700, 0.0, 1.0)[697..], floats("rand"));
            assert_eq!(g.kaiming_uniform(3, 7)[..4], floats("kaiming"));
            assert_eq!(widened(g.permutation(70_001))[69_998..], wholes("big"));
        }
    }
}
