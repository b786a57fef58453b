//! Dropout's random words, many blocks at a time: the numbers of [`crate::base::rng::Stream::block`],
//! laid out so that the rounds vectorise.

use super::math::{Elementary, for_chunks, simd};

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

/// Standard normals out of the words of [`group_of_words`], by Box and Muller's transform: a pair of
/// words gives a pair of normals. Only `+ − × ÷ √` and bit operations, so that they vectorise and have
/// the same bits everywhere.
#[inline(always)]
pub(super) fn group_of_normals(key: [u32; 2], first: u32, tail: [u32; 3]) -> [f32; GROUP] {
    let words = group_of_words(key, first, tail);
    let mut normals = [0.0; GROUP];
    for i in 0..GROUP / 2 {
        // 23 bits each and a half, exact in f32, in the open interval (0, 1).
        let unit = |word: u32| ((word >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
        let radius = (-2.0 * ln(unit(words[2 * i]))).sqrt();
        let (sin, cos) = sin_cos_turns(unit(words[2 * i + 1]));
        normals[2 * i] = radius * cos;
        normals[2 * i + 1] = radius * sin;
    }
    normals
}

/// Fills a list with standard normals times `scale`, in parallel: element `i` depends on key and `first + i`
/// alone. `first` is a multiple of 4,096.
pub fn fill_normal<T: Elementary>(key: [u32; 2], scale: T, first: usize, out: &mut [T]) {
    for_chunks(out, |start, out| {
        let start = first + start;
        simd!(<T> (out: &'a mut [T] = out, start: usize = start, key: [u32; 2] = key, scale: T = scale) {
            for (group, out) in out.chunks_mut(GROUP).enumerate() {
                let block = (start + group * GROUP) / 4;
                let normals = group_of_normals(key, block as u32, [(block >> 32) as u32, 0, 0]);
                for (x, z) in out.iter_mut().zip(normals) {
                    *x = T::of(f64::from(z)) * scale;
                }
            }
        });
    });
}

/// `ln x` of a normal positive number: Cephes' `logf`.
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let low = m < std::f32::consts::FRAC_1_SQRT_2;
    let e = ((bits >> 23).cast_signed() - 126 - i32::from(low)) as f32;
    let m = if low { m + m } else { m } - 1.0;
    let z = m * m;
    let p = 7.037_683_6e-2;
    let p = p * m - 0.115_146_1;
    let p = p * m + 0.116_769_98;
    let p = p * m - 0.124_201_41;
    let p = p * m + 0.142_493_23;
    let p = p * m - 0.166_680_57;
    let p = p * m + 0.200_007_14;
    let p = p * m - 0.249_999_94;
    let p = p * m + 0.333_333_3;
    let y = p * m * z + e * -2.121_944_4e-4 - 0.5 * z;
    m + y + e * 0.693_359_4
}

/// Sine and cosine of `2π u` for `u` in `[0, 1]`: the eighth of a turn around the nearest quarter, by
/// Cephes' polynomials.
#[inline(always)]
fn sin_cos_turns(u: f32) -> (f32, f32) {
    let quarter = (4.0 * u + 0.5) as i32;
    let x = (u - quarter as f32 * 0.25) * std::f32::consts::TAU;
    let z = x * x;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 0.166_666_55) * z * x + x;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (a, b) = if quarter & 1 == 0 {
        (sin, cos)
    } else {
        (cos, sin)
    };
    let a = if quarter & 2 == 0 { a } else { -a };
    let b = if (quarter + 1) & 2 == 0 { b } else { -b };
    (a, b)
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
    fn normals_are_box_and_mullers_of_the_same_words() {
        let (mut sum, mut squares, mut fourth) = (0.0, 0.0, 0.0);
        let n = 4000 * GROUP;
        for g in 0..4000 {
            let words = group_of_words([1, 2], g * 16, [7, 8, 9]);
            let normals = group_of_normals([1, 2], g * 16, [7, 8, 9]);
            for (w, z) in words.chunks(2).zip(normals.chunks(2)) {
                let unit = |w: u32| (f64::from(w >> 9) + 0.5) / 8_388_608.0;
                let r = (-2.0 * unit(w[0]).ln()).sqrt();
                let (sin, cos) = (unit(w[1]) * std::f64::consts::TAU).sin_cos();
                assert!(
                    (f64::from(z[0]) - r * cos).abs() < 2e-6
                        && (f64::from(z[1]) - r * sin).abs() < 2e-6,
                    "{w:?} {z:?}"
                );
            }
            for z in normals.map(f64::from) {
                sum += z;
                squares += z * z;
                fourth += z * z * z * z;
            }
        }
        let n = n as f64;
        assert!(
            (sum / n).abs() < 0.01
                && (squares / n - 1.0).abs() < 0.01
                && (fourth / n - 3.0).abs() < 0.05
        );
    }

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
