//! LoftQ's start of LoRA: the pair that comes nearest to what rounding a weight to blocks loses.

use super::split::triplets;
use super::svd::Svd;
use super::{BaseParam, Derive};
use crate::linalg::{in_own_threads, subtract};
use crate::program::Real;
use crate::program::format::Packed;

/// `W ≈ Q(rest) + s · B A`, by turns: Q rounds what the pair leaves, and the pair is the best approximation of what rounding
/// loses. Its parts: what is rounded `[out, in]`, `B [out, r]`, `A [r, in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    /// The weight.
    pub weight: BaseParam,
    /// Rank of the product.
    pub rank: u64,
    /// Its factor s.
    pub scale: Real,
    /// The blocks.
    pub format: Packed,
    /// How often both are done.
    pub turns: u64,
}

impl Residual {
    fn svd(&self) -> Svd {
        Svd {
            weight: self.weight.clone(),
            rank: self.rank,
            keep: None,
        }
    }
}

impl Derive for Residual {
    fn what(&self) -> &'static str {
        super::DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn exact(&self) -> bool {
        true
    }

    fn scratch_bytes(&self) -> u64 {
        let numbers = self.weight.bytes() / 4;
        // What is rounded and what that loses, beside the weight; the blocks are gone when the decomposition begins.
        let turn = self.svd().scratch_bytes() + 4 * self.rank;
        8 * numbers + turn.max(self.format.bytes(numbers))
    }

    fn remake_bytes(&self) -> u64 {
        match self.turns {
            1 => 0,
            _ => self.scratch_bytes(),
        }
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let mut rest = weight.clone();
        let scale = vec![self.scale.get() as f32; self.rank as usize];
        let mut turn = 1;
        loop {
            let mut lost = rest.clone();
            let round = self.format.round(&mut lost);
            round.map_err(|_| "it holds a number that the blocks do not")?;
            let pairs = lost.iter_mut().zip(&weight);
            pairs.for_each(|(rounded, own)| *rounded = own - *rounded);
            if lost.iter().all(|x| *x == 0.0) {
                return Err(
                    "rounding it loses nothing, as where the file holds blocks already: LoftQ has nothing to begin from",
                );
            }
            let (b, a) = triplets(&self.svd(), lost, self.scale.get())?;
            if turn == self.turns {
                return Ok(vec![rest, b, a]);
            }
            turn += 1;
            rest.copy_from_slice(&weight);
            in_own_threads(|| subtract(&mut rest, &b, &scale, &a));
        }
    }

    fn remake(&self, weight: Vec<f32>, _: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        if self.turns == 1 {
            return vec![Some(weight), None, None];
        }
        let rest = self
            .make(weight)
            .ok()
            .and_then(|parts| parts.into_iter().next());
        vec![rest, None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;
    use crate::program::format::Format;

    /// Length of what is left of the weight.
    fn left(by: &Residual, weight: &[f32]) -> f64 {
        let (out, input, rank) = (96, 64, by.rank as usize);
        let parts = by.make(weight.to_vec()).expect("made");
        let [rest, b, a] = &parts[..] else {
            panic!("three parts")
        };
        let mut rounded = rest.clone();
        by.format.round(&mut rounded).expect("finite");
        let again = by.remake(weight.to_vec(), &[]);
        assert_eq!(again[0].as_ref(), Some(rest), "the same bits");
        let mut squares = 0.0;
        for i in 0..out {
            for j in 0..input {
                let pair = (0..rank).map(|k| b[i * rank + k] * a[k * input + j]);
                let pair = by.scale.get() as f32 * pair.sum::<f32>();
                let own = weight[i * input + j] - rounded[i * input + j] - pair;
                squares += f64::from(own).powi(2);
            }
        }
        squares.sqrt()
    }

    #[test]
    fn each_turn_comes_nearer_to_the_weight() {
        let Some(format) = Format::named("nf4").and_then(Format::blocks) else {
            panic!("a format")
        };
        let stream = Stream::new(7, "residual");
        let weight: Vec<f32> = (0..96 * 64).map(|i| stream.normal(i) as f32).collect();
        let by = |turns| Residual {
            weight: BaseParam::weight("a", [96, 64]),
            rank: 8,
            scale: Real::new(0.5),
            format,
            turns,
        };
        let mut rounded = weight.clone();
        format.round(&mut rounded).expect("finite");
        let lost = weight.iter().zip(&rounded);
        let plain = lost
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
            .sqrt();
        let (one, five) = (left(&by(1), &weight), left(&by(5), &weight));
        assert!(five < one && one < plain, "{five} {one} {plain}");
        // What is in blocks already loses nothing.
        assert!(by(1).make(vec![0.0; 96 * 64]).is_err());
    }
}
