//! Dropout's random words, many blocks at a time: the numbers of [`crate::base::rng::Stream::block`],
//! laid out so that the rounds vectorise.

const LANES: usize = 16;

/// Fills `words` with the stream's words for counters `[0.., b, c, d]`: word `i` is word `i % 4` of
/// the block with first counter `i / 4`.
#[inline(always)]
pub(super) fn words(key: [u32; 2], tail: [u32; 3], words: &mut [u32]) {
    for (group, out) in words.chunks_mut(4 * LANES).enumerate() {
        let mut c0: [u32; LANES] = std::array::from_fn(|lane| (group * LANES + lane) as u32);
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
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        for (lane, out) in out.chunks_mut(4).enumerate() {
            let block = [c0[lane], c1[lane], c2[lane], c3[lane]];
            out.copy_from_slice(&block[..out.len()]);
        }
    }
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
        let mut out = vec![0; 150];
        words(stream.key(), [3, 5, 9], &mut out);
        for (i, &word) in out.iter().enumerate() {
            assert_eq!(word, stream.block([(i / 4) as u32, 3, 5, 9])[i % 4], "{i}");
        }
    }
}
