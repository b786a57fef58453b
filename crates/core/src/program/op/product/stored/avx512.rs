//! Vectors of AVX-512: sixteen rows.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi128_si512, _mm512_castsi256_si512, _mm512_castsi512_ps,
    _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_fmadd_ps,
    _mm512_inserti32x4, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_or_si512, _mm512_permutexvar_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_shuffle_i32x4, _mm512_sllv_epi32, _mm512_srav_epi32, _mm512_srlv_epi32,
    _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::vectors::Vectors;

/// AVX-512 with its instructions for bytes and words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512;

/// Whether the processor has the instructions.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

impl Vectors<16> for Avx512 {
    type Words = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller promises the instructions, here and below.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: &[f32; 16]) -> __m512 {
        // SAFETY: sixteen numbers are a vector.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(x: __m512, to: &mut [f32; 16]) {
        // SAFETY: sixteen numbers are a vector.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    unsafe fn halves(words: __m512i) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            [words, Self::down(words, 16)]
                .map(|words| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)))
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn bits(words: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(words) }
    }

    #[inline(always)]
    unsafe fn numbers(words: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(words) }
    }

    #[inline(always)]
    unsafe fn and(words: __m512i, mask: u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(words, _mm512_set1_epi32(mask.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn plus(words: __m512i, x: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_add_epi32(words, _mm512_set1_epi32(x)) }
    }

    #[inline(always)]
    unsafe fn up(words: __m512i, by: u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_sllv_epi32(words, _mm512_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn down(words: __m512i, by: u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srlv_epi32(words, _mm512_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn down_signed(words: __m512i, by: u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srav_epi32(words, _mm512_set1_epi32(by.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn entries(words: __m512i, table: &[f32; 16]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_permutexvar_ps(words, Self::load(table)) }
    }

    #[inline(always)]
    unsafe fn word(places: &[*const u8; 16]) -> __m512i {
        let mut words = [0_i32; 16];
        // SAFETY: a word is at each place, and sixteen are a vector.
        unsafe {
            for (word, at) in words.iter_mut().zip(places) {
                *word = at.cast::<i32>().read_unaligned();
            }
            _mm512_loadu_si512(words.as_ptr().cast())
        }
    }

    #[inline(always)]
    unsafe fn four_words(places: &[*const u8; 16]) -> [__m512i; 4] {
        // SAFETY: 16 bytes are at each place. Rows 4 apart side by side are in order again behind `quads`.
        unsafe {
            let mut rows = [_mm512_set1_epi32(0); 4];
            for (r, own) in rows.iter_mut().enumerate() {
                let at = [r, r + 4, r + 8, r + 12].map(|r| places[r].cast());
                *own = _mm512_castsi128_si512(_mm_loadu_si128(at[0]));
                *own = _mm512_inserti32x4::<1>(*own, _mm_loadu_si128(at[1]));
                *own = _mm512_inserti32x4::<2>(*own, _mm_loadu_si128(at[2]));
                *own = _mm512_inserti32x4::<3>(*own, _mm_loadu_si128(at[3]));
            }
            quads(rows)
        }
    }

    #[inline(always)]
    unsafe fn eight_words(places: &[*const u8; 16]) -> [__m512i; 8] {
        // SAFETY: 32 bytes are at each place.
        unsafe {
            // Rows 4 apart side by side: their lanes are in order again behind the last step.
            let mut rows = [[_mm512_set1_epi32(0); 4]; 2];
            for (r, own) in rows.as_flattened_mut().iter_mut().enumerate() {
                let at = [r + r / 4 * 4, r + r / 4 * 4 + 4].map(|r| places[r].cast());
                *own = _mm512_castsi256_si512(_mm256_loadu_si256(at[0]));
                *own = _mm512_inserti64x4::<1>(*own, _mm256_loadu_si256(at[1]));
            }
            let [low, high] = [quads(rows[0]), quads(rows[1])];
            let mut all = [_mm512_set1_epi32(0); 8];
            for d in 0..4 {
                all[d] = _mm512_shuffle_i32x4::<0x88>(low[d], high[d]);
                all[d + 4] = _mm512_shuffle_i32x4::<0xDD>(low[d], high[d]);
            }
            all
        }
    }
}

/// In each lane of 128 bits, four rows of four words transposed.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn quads([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller promises the instructions.
    unsafe {
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ]
    }
}
