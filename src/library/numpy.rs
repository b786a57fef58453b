//! NumPy's default generator (PCG64 behind a seed sequence), to the bit: adapters of peft's hold the seed of what it drew.

/// `numpy.random.default_rng(seed)`.
#[derive(Clone, Debug)]
pub struct Generator {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, where their lower half was given.
    spare: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// The words of a seed sequence of one number: a pool of four, hashed.
fn words(seed: u64) -> [u32; 8] {
    const POOL: usize = 4;
    let mut hash = 0x43B0_D7E5_u32;
    let mut hashed = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x931E_8875);
        let value = value.wrapping_mul(hash);
        value ^ (value >> 16)
    };
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut pool = entropy.map(&mut hashed);
    for from in 0..POOL {
        for to in 0..POOL {
            if from == to {
                continue;
            }
            let source = pool.get(from).copied().unwrap_or_default();
            let Some(y) = pool.get_mut(to) else {
                continue;
            };
            let mixed = 0xCA01_F9DD_u32
                .wrapping_mul(*y)
                .wrapping_sub(0x4973_F715_u32.wrapping_mul(hashed(source)));
            *y = mixed ^ (mixed >> 16);
        }
    }
    let mut hash = 0x8B51_F9DD_u32;
    let mut all = pool.iter().cycle();
    [(); 8].map(|()| {
        let value = all.next().copied().unwrap_or_default() ^ hash;
        hash = hash.wrapping_mul(0x58F3_8DED);
        let value = value.wrapping_mul(hash);
        value ^ (value >> 16)
    })
}

impl Generator {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = words(seed).map(u128::from);
        // Words of 64 bits, the upper of two first.
        let (state, stream) = (
            (b << 32 | a) << 64 | (d << 32 | c),
            (f << 32 | e) << 64 | (h << 32 | g),
        );
        let mut own = Self {
            state: 0,
            increment: stream << 1 | 1,
            spare: None,
        };
        own.step();
        own.state = own.state.wrapping_add(state);
        own.step();
        own
    }

    const fn step(&mut self) {
        self.state = self
            .state
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(self.increment);
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// The next 32 bits: of 64 the lower half, and then the upper.
    pub const fn half(&mut self) -> u32 {
        if let Some(upper) = self.spare.take() {
            return upper;
        }
        let bits = self.bits();
        self.spare = Some((bits >> 32) as u32);
        bits as u32
    }

    /// A number of `0 ..= most`, by Lemire's method.
    fn at_most(&mut self, most: u32) -> u32 {
        let Some(count) = most.checked_add(1) else {
            return self.half();
        };
        let mut product = u64::from(self.half()) * u64::from(count);
        if (product as u32) < count {
            let least = (u32::MAX - most) % count;
            while (product as u32) < least {
                product = u64::from(self.half()) * u64::from(count);
            }
        }
        (product >> 32) as u32
    }

    /// A number of `0 ..= most`, by drawing as many bits until they are one.
    fn within(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let drawn = self.half() & mask;
            if drawn <= most {
                return drawn;
            }
        }
    }

    /// Shuffles what stands at `first` and behind it.
    fn exchange(list: &mut [u32], first: usize, mut draw: impl FnMut(u32) -> u32) {
        for i in (first..list.len()).rev() {
            list.swap(i, draw(i as u32) as usize);
        }
    }

    /// `shuffle(list)`
    pub fn shuffle(&mut self, list: &mut [u32]) {
        Self::exchange(list, 1, |i| self.within(i));
    }

    /// `choice(count, size=few, replace=False)`; `few` is at most `count`.
    pub fn choice(&mut self, count: u32, few: u32) -> Vec<u32> {
        const LARGE: u32 = 10_000;
        const PART: u32 = 50;
        let few = few.min(count);
        let rest = count - few;
        if count > LARGE && few > count / PART {
            let mut list: Vec<u32> = (0..count).collect();
            Self::exchange(&mut list, rest.max(1) as usize, |i| self.at_most(i));
            return list.split_off(rest as usize);
        }
        let mut seen = std::collections::HashSet::new();
        let mut list: Vec<u32> = (rest..count)
            .map(|last| {
                let drawn = if last == 0 { 0 } else { self.at_most(last) };
                let own = if seen.contains(&drawn) { last } else { drawn };
                seen.insert(own);
                own
            })
            .collect();
        Self::exchange(&mut list, 1, |i| self.at_most(i));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `np.random.default_rng(42)`, NumPy 2.4.6.
    #[test]
    fn bits_are_numpys() {
        let mut generator = Generator::new(42);
        assert_eq!(
            generator.state,
            274_674_114_334_540_486_603_088_602_300_644_985_544
        );
        assert_eq!(
            generator.increment,
            332_724_090_758_049_132_448_979_897_138_935_081_983
        );
        let drawn: Vec<u32> = (0..4).map(|_| generator.half()).collect();
        assert_eq!(
            drawn,
            [383_329_928, 3_324_115_917, 2_811_363_265, 1_884_968_545]
        );
    }
}
