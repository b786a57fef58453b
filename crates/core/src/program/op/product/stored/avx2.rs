//! Vectors of AVX2: eight rows.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_blendv_ps, _mm256_castsi128_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_inserti128_si256, _mm256_loadu_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_permute4x64_epi64, _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_sllv_epi32, _mm256_srav_epi32, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::vectors::Vectors;

/// AVX2 with fused multiply-adds and halves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2;

/// Whether the processor has the instructions.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

impl Vectors<8> for Avx2 {
    type Words = __m256i;
    type Floats = __m256;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: the caller promises the instructions, here and below.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: &[f32; 8]) -> __m256 {
        // SAFETY: eight numbers are a vector.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(x: __m256, to: &mut [f32; 8]) {
        // SAFETY: eight numbers are a vector.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    unsafe fn halves(words: __m256i) -> [__m256; 2] {
        // SAFETY: as above. Packing leaves four low ones, four high ones, and so on.
        unsafe {
            let low = Self::and(words, 0xFFFF);
            let both = _mm256_packus_epi32(low, _mm256_srli_epi32::<16>(words));
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn bits(words: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(words) }
    }

    #[inline(always)]
    unsafe fn numbers(words: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(words) }
    }

    #[inline(always)]
    unsafe fn and(words: __m256i, mask: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_and_si256(words, _mm256_set1_epi32(mask.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn plus(words: __m256i, x: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(words, _mm256_set1_epi32(x)) }
    }

    #[inline(always)]
    unsafe fn up(words: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_sllv_epi32(words, _mm256_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn down(words: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_srlv_epi32(words, _mm256_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn down_signed(words: __m256i, by: u32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_srav_epi32(words, _mm256_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn entries(words: __m256i, table: &[f32; 16]) -> __m256 {
        // SAFETY: the table has two vectors. A permutation reads the low three bits of a word; the fourth, as the sign,
        // chooses between them.
        unsafe {
            let [low, high] = [0, 8].map(|at| _mm256_loadu_ps(table.as_ptr().add(at)));
            _mm256_blendv_ps(
                _mm256_permutevar8x32_ps(low, words),
                _mm256_permutevar8x32_ps(high, words),
                Self::bits(Self::up(words, 28)),
            )
        }
    }

    #[inline(always)]
    unsafe fn word(places: &[*const u8; 8]) -> __m256i {
        // SAFETY: a word is at each place.
        unsafe {
            let [a, b, c, d, e, f, g, h] = places.map(|at| at.cast::<i32>().read_unaligned());
            _mm256_setr_epi32(a, b, c, d, e, f, g, h)
        }
    }

    #[inline(always)]
    unsafe fn four_words(places: &[*const u8; 8]) -> [__m256i; 4] {
        // SAFETY: passed on.
        unsafe { words_at(places, 0) }
    }

    #[inline(always)]
    unsafe fn eight_words(places: &[*const u8; 8]) -> [__m256i; 8] {
        // SAFETY: passed on.
        unsafe {
            let [a, b, c, d] = words_at(places, 0);
            let [e, f, g, h] = words_at(places, 16);
            [a, b, c, d, e, f, g, h]
        }
    }
}

/// The four words of 16 bytes, so far behind each place.
///
/// # Safety
/// The processor has the instructions, and the bytes are there.
#[inline(always)]
unsafe fn words_at(places: &[*const u8; 8], behind: usize) -> [__m256i; 4] {
    // SAFETY: the caller promises both. Rows 4 apart side by side are in order again behind `quads`.
    unsafe {
        let mut rows = [_mm256_set1_epi32(0); 4];
        for (r, own) in rows.iter_mut().enumerate() {
            let at = [r, r + 4].map(|r| places[r].add(behind).cast());
            let low = _mm256_castsi128_si256(_mm_loadu_si128(at[0]));
            *own = _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(at[1]));
        }
        quads(rows)
    }
}

/// In each lane of 128 bits, four rows of four words transposed.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn quads([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller promises the instructions.
    unsafe {
        let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(low, low2),
            _mm256_unpackhi_epi64(low, low2),
            _mm256_unpacklo_epi64(high, high2),
            _mm256_unpackhi_epi64(high, high2),
        ]
    }
}
