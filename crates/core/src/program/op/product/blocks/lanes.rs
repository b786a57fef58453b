//! Sixteen rows of a matrix in blocks, decoded in registers: the numbers of one depth are a vector.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch,
    _mm256_loadu_si256, _mm512_add_ps, _mm512_and_si512, _mm512_castsi128_si512,
    _mm512_castsi256_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_fmadd_ps,
    _mm512_inserti32x4, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_shuffle_i32x4,
    _mm512_slli_epi32, _mm512_srai_epi32, _mm512_srli_epi32, _mm512_sub_epi32, _mm512_sub_ps,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::wide::Rows;
use crate::program::format::{nf4, q4_k};

/// Rows that are decoded together: the numbers of a vector.
pub(super) const LANES: usize = 16;
/// Bytes that are fetched in advance, in each row.
const AHEAD: usize = 320;

/// Adds the numbers of one depth, of sixteen rows, times those of the left operand.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add<const M: usize, const N: usize>(
    weight: __m512,
    (x, p): ([&[f32; N]; M], usize),
    sums: &mut [__m512; M],
) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = _mm512_fmadd_ps(_mm512_set1_ps(x[p]), weight, *sum);
    }
}

/// The half byte that begins at a bit of each word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn half_byte<const SHIFT: u32>(words: __m512i) -> __m512i {
    _mm512_and_si512(_mm512_srli_epi32::<SHIFT>(words), _mm512_set1_epi32(15))
}

/// Calls `$do` with the half bytes that begin at these bits, and the depth that each stands at.
macro_rules! halves {
    ($words:expr, $from:expr, $do:ident: $($shift:literal)*) => {
        let mut _at = $from;
        $(
            $do(_at, half_byte::<$shift>($words));
            _at += 1;
        )*
    };
}

/// Codes of six bits: four that begin at a bit of the one word, and two at a bit of the other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn six<const LOW: u32, const HIGH: u32>(low: __m512i, high: __m512i) -> __m512i {
    let high = _mm512_and_si512(_mm512_srli_epi32::<HIGH>(high), _mm512_set1_epi32(3));
    _mm512_or_si512(half_byte::<LOW>(low), _mm512_slli_epi32::<4>(high))
}

/// Calls `$do` with the codes of two parts, whose bits begin at these in words of four and of two bits.
macro_rules! sixes {
    ($do:ident, $q:literal, $low:expr, $high:expr; $(($l:literal $h:literal))*) => {
        for h in 0..2 {
            let of = |d: usize| [$(six::<$l, $h>($low[d], $high[d])),*];
            $do(2 * $q + h, [of(4 * h), of(4 * h + 1), of(4 * h + 2), of(4 * h + 3)]);
        }
    };
}

/// Sixteen rows of the matrix.
pub(super) struct Lanes<'a> {
    /// The matrix.
    pub of: &'a Rows<'a>,
    /// The first block of each.
    pub first: [usize; LANES],
}

impl Lanes<'_> {
    /// Block `i` of each row.
    #[inline(always)]
    fn blocks(&self, i: usize) -> [&[u8]; LANES] {
        let Rows {
            data, bytes, group, ..
        } = *self.of;
        self.first.map(|first| {
            let block = first + i;
            let place = block * bytes + ((block >> group.0) + 1) * group.1;
            fetch(data, place + AHEAD);
            &data[place..place + bytes]
        })
    }

    /// What the blocks share that block `i` of a row is of.
    #[inline(always)]
    fn head(&self, lane: usize, i: usize) -> &[u8] {
        let Rows {
            data, bytes, group, ..
        } = *self.of;
        let place = ((self.first[lane] + i) >> group.0) * ((bytes << group.0) + group.1);
        &data[place..place + group.1]
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn q8_0<const M: usize>(&self, from: usize, x: [&[f32; 32]; M], sums: &mut [__m512; M]) {
        let blocks = self.blocks(from / 32);
        let scales = halves_at(blocks, 0);
        for (d, words) in of_32(blocks, 2).into_iter().enumerate() {
            let bytes = [
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(words)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(words)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(words)),
                _mm512_srai_epi32::<24>(words),
            ];
            for (j, bytes) in bytes.into_iter().enumerate() {
                let weight = _mm512_mul_ps(_mm512_cvtepi32_ps(bytes), scales);
                add(weight, (x, 4 * d + j), sums);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn q4_0<const M: usize>(&self, from: usize, x: [&[f32; 32]; M], sums: &mut [__m512; M]) {
        let blocks = self.blocks(from / 32);
        let scales = halves_at(blocks, 0);
        let words = of_16(blocks, 2);
        let mut one = |p: usize, code: __m512i| {
            let code = _mm512_sub_epi32(code, _mm512_set1_epi32(8));
            let weight = _mm512_mul_ps(_mm512_cvtepi32_ps(code), scales);
            add(weight, (x, p), sums);
        };
        for (d, words) in words.into_iter().enumerate() {
            halves!(words, 4 * d, one: 0 8 16 24);
        }
        for (d, words) in words.into_iter().enumerate() {
            halves!(words, 16 + 4 * d, one: 4 12 20 28);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn q4_1<const M: usize>(&self, from: usize, x: [&[f32; 32]; M], sums: &mut [__m512; M]) {
        let blocks = self.blocks(from / 32);
        let [scales, least] = [halves_at(blocks, 0), halves_at(blocks, 2)];
        let words = of_16(blocks, 4);
        let mut one = |p: usize, code: __m512i| {
            let weight = _mm512_mul_ps(_mm512_cvtepi32_ps(code), scales);
            add(_mm512_add_ps(weight, least), (x, p), sums);
        };
        for (d, words) in words.into_iter().enumerate() {
            halves!(words, 4 * d, one: 0 8 16 24);
        }
        for (d, words) in words.into_iter().enumerate() {
            halves!(words, 16 + 4 * d, one: 4 12 20 28);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn q6_k<const M: usize>(&self, from: usize, x: [&[f32; 128]; M], sums: &mut [__m512; M]) {
        let (blocks, half) = (self.blocks(from / 256), from % 256 / 128);
        let [first, second] = [0, 32].map(|at| of_32(blocks, 64 * half + at));
        let high = of_32(blocks, 128 + 32 * half);
        let step = halves_at(blocks, 208);
        // The sixteen numbers of a part.
        let mut part = |k: usize, codes: [[__m512i; 4]; 4]| {
            let own = blocks.map(|block| f32::from(block[192 + 8 * half + k].cast_signed()));
            let scale = _mm512_mul_ps(step, vector(own));
            for (p, code) in codes.as_flattened().iter().enumerate() {
                let code = _mm512_sub_epi32(*code, _mm512_set1_epi32(32));
                let weight = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(code));
                add(weight, (x, 16 * k + p), sums);
            }
        };
        sixes!(part, 0, first, high; (0 0) (8 8) (16 16) (24 24));
        sixes!(part, 1, second, high; (0 2) (8 10) (16 18) (24 26));
        sixes!(part, 2, first, high; (4 4) (12 12) (20 20) (28 28));
        sixes!(part, 3, second, high; (4 6) (12 14) (20 22) (28 30));
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn q4_k<const M: usize>(&self, from: usize, x: [&[f32; 64]; M], sums: &mut [__m512; M]) {
        let (blocks, pair) = (self.blocks(from / 256), from % 256 / 64);
        let words = of_32(blocks, 16 + 32 * pair);
        let [step, lowest] = [halves_at(blocks, 0), halves_at(blocks, 2)];
        let part = |k: usize| {
            let each = blocks.map(|block| q4_k::part(&block[4..16], k));
            [vector(each.map(|x| x.0)), vector(each.map(|x| x.1))]
        };
        let [[a, b], [c, d]] = [part(2 * pair), part(2 * pair + 1)];
        let first = [_mm512_mul_ps(step, a), _mm512_mul_ps(lowest, b)];
        let second = [_mm512_mul_ps(step, c), _mm512_mul_ps(lowest, d)];
        let mut number = |p: usize, code: __m512i, [scale, least]: [__m512; 2]| {
            let weight = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(code));
            add(_mm512_sub_ps(weight, least), (x, p), sums);
        };
        for (d, words) in words.into_iter().enumerate() {
            let mut one = |p, code| number(p, code, first);
            halves!(words, 4 * d, one: 0 8 16 24);
        }
        for (d, words) in words.into_iter().enumerate() {
            let mut one = |p, code| number(p, code, second);
            halves!(words, 32 + 4 * d, one: 4 12 20 28);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn nf4<const M: usize>(&self, from: usize, x: [&[f32; 64]; M], sums: &mut [__m512; M]) {
        let blocks = self.blocks(from / 64);
        let mut scales = [0.0; LANES];
        for (lane, scale) in scales.iter_mut().enumerate() {
            *scale = nf4::scale(self.head(lane, from / 64), blocks[lane][0]);
        }
        let (scales, levels) = (vector(scales), vector(nf4::levels()));
        let mut one = |p: usize, code: __m512i| {
            let weight = _mm512_mul_ps(_mm512_permutexvar_ps(code, levels), scales);
            add(weight, (x, p), sums);
        };
        for (d, words) in of_32(blocks, 1).into_iter().enumerate() {
            halves!(words, 8 * d, one: 4 0 12 8 20 16 28 24);
        }
    }
}

/// Has a place fetched that is read soon; one beyond the end does no harm.
#[inline(always)]
fn fetch(data: &[u8], place: usize) {
    // SAFETY: a hint reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(place).cast()) };
}

/// The number in f16 at a place of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn halves_at(blocks: [&[u8]; LANES], at: usize) -> __m512 {
    let bits = blocks.map(|block| u16::from_le_bytes([block[at], block[at + 1]]));
    // SAFETY: sixteen halves are half a vector.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn vector(numbers: [f32; LANES]) -> __m512 {
    // SAFETY: sixteen numbers are a vector.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

/// The words of 32 bytes of sixteen rows: one vector a word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn of_32(blocks: [&[u8]; LANES], at: usize) -> [__m512i; 8] {
    let half = |row: usize| -> __m256i {
        let bytes = &blocks[row][at..at + 32];
        // SAFETY: 32 bytes are there.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    };
    // Rows 4 apart side by side: their lanes are in order again behind the last step.
    let pair =
        |row: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(row)), half(row + 4));
    let low = quads([pair(0), pair(1), pair(2), pair(3)]);
    let high = quads([pair(8), pair(9), pair(10), pair(11)]);
    let mut all = [_mm512_set1_epi32(0); 8];
    for d in 0..4 {
        all[d] = _mm512_shuffle_i32x4::<0x88>(low[d], high[d]);
        all[d + 4] = _mm512_shuffle_i32x4::<0xDD>(low[d], high[d]);
    }
    all
}

/// The words of 16 bytes of sixteen rows: one vector a word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn of_16(blocks: [&[u8]; LANES], at: usize) -> [__m512i; 4] {
    let quarter = |row: usize| -> __m128i {
        let bytes = &blocks[row][at..at + 16];
        // SAFETY: 16 bytes are there.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    };
    let four = |row: usize| {
        let own = _mm512_castsi128_si512(quarter(row));
        let own = _mm512_inserti32x4::<1>(own, quarter(row + 4));
        let own = _mm512_inserti32x4::<2>(own, quarter(row + 8));
        _mm512_inserti32x4::<3>(own, quarter(row + 12))
    };
    quads([four(0), four(1), four(2), four(3)])
}

/// In each lane of 128 bits, four rows of four words transposed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quads([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low, low2),
        _mm512_unpackhi_epi64(low, low2),
        _mm512_unpacklo_epi64(high, high2),
        _mm512_unpackhi_epi64(high, high2),
    ]
}
