//! Dropout's random words, many blocks at a time: the numbers of [`crate::base::rng::Stream::block`],
//! laid out so that the rounds vectorise.

/// Blocks made at once.
const LANES: usize = 16;

/// Words made at once.
pub(super) const GROUP: usize = 4 * LANES;

/// The words of the blocks with counters `[first.., tail…]`: word `i` is word `i % 4` of the block
/// with first counter `first + i / 4`.
#[inline(always)]
pub(super) fn group_of_words(key: [u32; 2], first: u32, tail: [u32; 3]) -> [u32; GROUP] {
    let mut c0 = [0; LANES];
    for (lane, c) in c0.iter_mut().enumerate() {
        *c = first.wrapping_add(lane as u32);
    }
    let (mut c1, mut c2, mut c3) = ([tail[0]; LANES], [tail[1]; LANES], [tail[2]; LANES]);
    let mut k = key;
    for _ in 0..10 {
        for lane in 0..LANES {
            let p0 = u64::from(c0[lane]) * 0xD251_1F53;
            let p1 = u64::from(c2[lane]) * 0xCD9E_8D57;
            c0[lane] = (p1 >> 32) as u32 ^ c1[lane] ^ k[0];
            c2[lane] = (p0 >> 32) as u32 ^ c3[lane] ^ k[1];
            c1[lane] = p1 as u32;
            c3[lane] = p0 as u32;
        }
        k = [
            k[0].wrapping_add(0x9E37_79B9),
            k[1].wrapping_add(0xBB67_AE85),
        ];
    }
    let mut words = [0; GROUP];
    for lane in 0..LANES {
        words[4 * lane] = c0[lane];
        words[4 * lane + 1] = c1[lane];
        words[4 * lane + 2] = c2[lane];
        words[4 * lane + 3] = c3[lane];
    }
    words
}

/// Words below this drop the element.
pub(super) fn threshold(p: f64) -> u32 {
    (p * 4_294_967_296.0).min(4_294_967_295.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;

    #[test]
    fn the_lanes_give_the_same_words_as_the_scalar_generator() {
        let stream = Stream::new(7, "x");
        for (i, word) in group_of_words(stream.key(), 1000, [3, 5, 9])
            .into_iter()
            .enumerate()
        {
            assert_eq!(
                word,
                stream.block([1000 + (i / 4) as u32, 3, 5, 9])[i % 4],
                "{i}"
            );
        }
    }
}
