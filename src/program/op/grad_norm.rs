//! `grad_norm`: the global L2 norm of all gradients.

use rayon::prelude::*;

use super::math::{CHUNK, Elementary, simd};
use super::super::types::DType;
use super::{Io, Kernel, OpError, OpRule, TensorType};

/// `(g₁, …, gₙ) → √Σ g²: f32[1]`; sums of fixed chunks, combined in order in f64.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GradNorm;

impl OpRule for GradNorm {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.iter().all(|t| t.dtype == DType::F32) { Ok(vec![TensorType::scalar(DType::F32)]) } else { Err("f32 gradients are wanted".into()) }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let mut sum = 0.0;
        for i in 0..io.arity() {
            let parts: Vec<f64> = io.input(i).slice::<f32>().par_chunks(CHUNK).map(|chunk| simd(|| squares(chunk))).collect();
            sum += parts.iter().sum::<f64>();
        }
        io.outputs[0].slice::<f32>()[0] = sum.sqrt() as f32;
        Ok(())
    }
}

#[inline(always)]
fn squares(chunk: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    for eight in chunk.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(eight) {
            *lane += x.wide() * x.wide();
        }
    }
    lanes.iter().sum()
}
