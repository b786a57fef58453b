//! A short list spread over many elements: each of its numbers is as many elements as the others, or one more (Uni-LoRA).

use crate::library::counts::to_u32;
use crate::library::numpy::Generator;

/// How the numbers of a short list are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Numbers of the list.
    pub length: u64,
    /// Elements, of all matrices together.
    pub total: u64,
    /// Seed of the order.
    pub seed: u64,
}

/// What a parameter holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dealt {
    /// Which number each element is, from this element on.
    Indices(u64),
    /// One over the root of how many elements each number is.
    Factors,
}

impl Spread {
    /// Which number each element is, as peft deals them.
    #[must_use]
    pub fn indices(&self) -> Vec<u32> {
        let (length, all) = (to_u32(self.length), self.total as usize);
        let each = self.total / self.length.max(1);
        let mut generator = Generator::new(self.seed);
        let mut list = Vec::with_capacity(all);
        list.extend((0..length).flat_map(|i| std::iter::repeat_n(i, each as usize)));
        let rest = to_u32(self.total - each * self.length);
        if rest > 0 {
            list.extend(generator.choice(length, rest));
        }
        generator.shuffle(&mut list);
        list
    }

    /// One over the root of how many elements each number is; 0 for one that is none.
    #[must_use]
    pub fn factors(&self, indices: &[u32]) -> Vec<f32> {
        let mut counts = vec![0_u32; self.length as usize];
        for &i in indices {
            if let Some(count) = counts.get_mut(i as usize) {
                *count += 1;
            }
        }
        let factor = |n: u32| match n {
            0 => 0.0,
            n => 1.0 / (n as f32).sqrt(),
        };
        counts.into_iter().map(factor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(total: u64, length: u64, seed: u64) -> Vec<u32> {
        let by = Spread {
            length,
            total,
            seed,
        };
        by.indices()
    }

    /// `UniLoraModel.generate_index`, peft 0.21.2 with NumPy 2.4.6.
    #[test]
    fn elements_are_dealt_as_peft_deals_them() {
        assert_eq!(
            dealt(23, 5, 42),
            [
                1, 4, 1, 3, 4, 1, 2, 0, 2, 4, 4, 2, 1, 4, 0, 0, 3, 0, 3, 2, 3, 3, 0
            ]
        );
        assert_eq!(
            dealt(40, 32, 7),
            [
                10, 2, 26, 28, 21, 12, 16, 0, 24, 6, 19, 4, 16, 22, 27, 23, 29, 7, 28, 20, 9, 25,
                14, 29, 23, 3, 25, 11, 1, 13, 18, 17, 18, 31, 5, 8, 7, 30, 30, 15
            ]
        );
        let ends = |list: &[u32]| [list[..8].to_vec(), list[list.len() - 8..].to_vec()].concat();
        assert_eq!(
            ends(&dealt(100_003, 256, 1_234_567_890_123)),
            [
                76, 109, 65, 169, 18, 19, 221, 246, 82, 38, 8, 2, 123, 223, 38, 243
            ]
        );
        assert_eq!(
            ends(&dealt(30_000, 20_011, 3)),
            [
                450, 10880, 634, 17824, 1163, 13207, 11670, 15328, 1216, 10066, 15668, 2077, 7813,
                3070, 13166, 15446
            ]
        );
    }

    #[test]
    fn factors_are_of_the_counts() {
        let by = Spread {
            length: 3,
            total: 5,
            seed: 1,
        };
        let factors = by.factors(&[0, 1, 0, 0, 0]);
        assert_eq!(factors, [0.5, 1.0, 0.0]);
    }
}
