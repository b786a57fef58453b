//! Matrices in blocks for tests.

use half::f16;

use super::Packed;
use crate::program::op::{Storage, Tensor};

/// A matrix in a format of blocks; in one that is never made, any blocks of it.
pub(in crate::program) fn sample(t: &Tensor, format: Packed) -> Tensor {
    if format.is_made() {
        return t.clone().stored_as(format).expect("finite numbers");
    }
    let rule = format.rule();
    let numbers = t.dims.iter().product::<usize>() as u32;
    let hash = |i: u32| i.wrapping_mul(2_654_435_761) >> 11;
    let bytes = 0..format.bytes(u64::from(numbers)) as u32;
    let mut data: Vec<u8> = bytes.map(|i| hash(i + numbers) as u8).collect();
    for (i, block) in data.chunks_exact_mut(rule.bytes()).enumerate() {
        for &at in rule.halves() {
            let x = f16::from_f32((hash(i as u32) & 63) as f32 * 2e-5 - 4e-4);
            block[at..at + 2].copy_from_slice(&x.to_le_bytes());
        }
    }
    Tensor {
        storage: Storage::Blocks(format, data),
        dims: t.dims.clone(),
    }
}
