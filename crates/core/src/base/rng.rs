//! Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011).
//!
//! **Invariant:** there is no hidden state. A number is a function of a key and a counter, so
//! packing, micro-batches, threads and interruptions cannot change it.

/// A stream of random numbers: a key derived from a seed and what the numbers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of `seed` for `purpose` (a path such as `"shuffle"` or a parameter's name).
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        let hash = hasher.finalize();
        let word =
            |i: usize| u32::from_le_bytes(std::array::from_fn(|j| hash.as_bytes()[4 * i + j]));
        Self {
            key: [word(0), word(1)],
        }
    }

    /// The stream of a key.
    #[must_use]
    pub const fn of_key(key: [u32; 2]) -> Self {
        Self { key }
    }

    /// The key's two words.
    #[must_use]
    pub const fn key(self) -> [u32; 2] {
        self.key
    }

    /// Four uniform 32-bit words for a 128-bit counter.
    #[must_use]
    #[inline(always)]
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        philox(self.key, counter)
    }

    /// A uniform 64-bit word for element `index`.
    #[must_use]
    pub fn word(self, index: u64) -> u64 {
        let [a, b, _, _] = self.block([index as u32, (index >> 32) as u32, 0, 0]);
        u64::from(a) | (u64::from(b) << 32)
    }

    /// A uniform number in `[0, 1)` for element `index`, with 53 bits.
    #[must_use]
    pub fn uniform(self, index: u64) -> f64 {
        (self.word(index) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A standard normal number for element `index` (Box–Muller on one counter block).
    #[must_use]
    pub fn normal(self, index: u64) -> f64 {
        let [a, b, c, d] = self.block([index as u32, (index >> 32) as u32, 1, 0]);
        let unit = |hi: u32, lo: u32| {
            ((u64::from(hi) << 21) ^ (u64::from(lo) >> 11)) as f64 * (1.0 / 9_007_199_254_740_992.0)
        };
        let (u, v) = (1.0 - unit(a, b), unit(c, d));
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(2.0 * std::f64::consts::PI * v)
    }

    /// A permutation of `0..n` (Fisher–Yates).
    #[must_use]
    pub fn permutation(self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(n).unwrap_or(u32::MAX)).collect();
        for i in (1..order.len()).rev() {
            let j = ((u128::from(self.word(i as u64)) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[inline(always)]
fn philox(mut key: [u32; 2], mut c: [u32; 4]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [
            (p1 >> 32) as u32 ^ c[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ c[3] ^ key[1],
            p0 as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(
            philox([0, 0], [0; 4]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn normals_have_unit_variance_and_streams_differ() {
        let s = Stream::new(42, "a");
        let xs: Vec<f64> = (0..20_000).map(|i| s.normal(i)).collect();
        let mean = xs.iter().sum::<f64>() / 20_000.0;
        let var = xs.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.03,
            "{mean} {var}"
        );
        assert_ne!(s, Stream::new(42, "b"));
        let mut p = s.permutation(100);
        p.sort_unstable();
        assert!(p.iter().enumerate().all(|(i, &x)| i == x as usize));
    }
}
