//! Sines and cosines that stand for positions.

/// How their frequencies lie, and where in a row each stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waves {
    /// `sin(p / 10000^(2i/d))`, then `cos` of the same (Vaswani et al. 2017, arXiv 1706.03762, section 3.5, with all sines first).
    Halves,
    /// `sin(p · 10000^(-i/(d/2 - 1)))`, then `cos` of the same, as tensor2tensor has them; an odd last column is 0.
    Geometric {
        /// The row of padding, which is 0.
        zero: Option<u64>,
    },
}

impl Waves {
    /// The rows of positions from 0 on, so wide.
    #[must_use]
    pub fn numbers(self, rows: usize, width: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(rows * width);
        for row in 0..rows {
            all.extend((0..width).map(|column| self.number(row, column, width)));
        }
        all
    }

    fn number(self, row: usize, column: usize, width: usize) -> f32 {
        match self {
            Self::Halves => {
                let sines = width.div_ceil(2);
                let (pair, wave): (usize, fn(f64) -> f64) = match column.checked_sub(sines) {
                    None => (column, libm::sin),
                    Some(pair) => (pair, libm::cos),
                };
                let power = 2.0 * pair as f64 / width as f64;
                wave(row as f64 / libm::pow(10_000.0, power)) as f32
            }
            Self::Geometric { zero } => {
                let half = width / 2;
                if column >= 2 * half || zero == Some(row as u64) {
                    return 0.0;
                }
                let (pair, wave): (usize, fn(f64) -> f64) = match column.checked_sub(half) {
                    None => (column, libm::sin),
                    Some(pair) => (pair, libm::cos),
                };
                // In single precision, as the models were trained.
                let step = libm::log(10_000.0) / (half.max(2) - 1) as f64;
                let frequency = libm::exp(f64::from(pair as f32 * -(step as f32))) as f32;
                wave(f64::from(row as f32 * frequency)) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(made: &[f32], want: &[f32]) {
        assert_eq!(made.len(), want.len());
        for (a, b) in made.iter().zip(want) {
            assert!((a - b).abs() < 1e-6, "{made:?} {want:?}");
        }
    }

    /// As `MarianSinusoidalPositionalEmbedding` and `M2M100SinusoidalPositionalEmbedding` of transformers make them.
    #[test]
    fn rows_are_those_of_transformers() {
        let halves = Waves::Halves.numbers(3, 5);
        let second = [
            2.0_f64,
            2.0 / 10_000_f64.powf(0.4),
            2.0 / 10_000_f64.powf(0.8),
        ];
        let sines = second.map(|x| x.sin() as f32);
        let cosines = [second[0], second[1]].map(|x| x.cos() as f32);
        near(&halves[..5], &[0.0, 0.0, 0.0, 1.0, 1.0]);
        near(
            &halves[10..],
            &[sines[0], sines[1], sines[2], cosines[0], cosines[1]],
        );
        let own = Waves::Geometric { zero: Some(1) }.numbers(3, 5);
        near(&own[5..10], &[0.0; 5]);
        let two = [2.0_f64, 2.0e-4];
        let want = [two[0].sin(), two[1].sin(), two[0].cos(), two[1].cos(), 0.0];
        near(&own[10..], &want.map(|x| x as f32));
    }
}
