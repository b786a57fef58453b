//! Choices that are the same on every machine.

use peftc::base::rng::Stream;

/// Random choices from a counter-based stream: the same on every machine.
pub struct Dice {
    stream: Stream,
    next: u64,
}

impl Dice {
    /// Those of a stream.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self {
            stream: Stream::new(seed, purpose),
            next: 0,
        }
    }

    pub fn unit(&mut self) -> f64 {
        self.next += 1;
        self.stream.uniform(self.next)
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.unit() * n as f64) as u64).min(n - 1)
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// A number from `low` to `high`, all orders of magnitude alike.
    pub fn scale(&mut self, low: u64, high: u64) -> u64 {
        let ratio = (high + 1) as f64 / low as f64;
        ((low as f64 * power(ratio, self.unit())) as u64).clamp(low, high)
    }
}

/// `base^x` by the exponent's bits and square roots, which are exact alike on every machine.
fn power(base: f64, x: f64) -> f64 {
    let (mut result, mut root, mut rest) = (1.0, base, x);
    for _ in 0..40 {
        root = root.sqrt();
        rest *= 2.0;
        if rest >= 1.0 {
            rest -= 1.0;
            result *= root;
        }
    }
    result
}
