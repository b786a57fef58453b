//! Initial values of parameters that no file holds.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::base::rng::Stream;
use crate::library::params::{Init, Param};
use crate::program::DType;
use crate::program::op::{Tensor, fill_normal};

/// A parameter's initial value in f32. Each element is a function of seed, name and index alone.
#[must_use]
pub fn initialise(param: &Param, seed: u64) -> Tensor {
    let stream = Stream::new(seed, &format!("init/{}", param.name));
    let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let mut data = vec![0.0_f32; dims.iter().product()];
    match param.init {
        Init::Constant(value) => data.fill(value as f32),
        Init::Normal(std) => fill_normal(stream.key(), std as f32, &mut data),
        Init::Uniform(bound) => data.par_iter_mut().enumerate().for_each(|(i, x)| {
            *x = ((2.0 * stream.uniform(i as u64) - 1.0) * bound) as f32;
        }),
        Init::Svd { .. } | Init::Pruned(_) => {}
    }
    Tensor::new(data, &dims)
}

/// A tensor in another float type.
#[must_use]
pub fn cast(tensor: Tensor, dtype: DType) -> Tensor {
    match (tensor.slice::<f32>(), dtype) {
        (Some(x), DType::F16) => Tensor::new(
            x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>(),
            &tensor.dims,
        ),
        (Some(x), DType::BF16) => Tensor::new(
            x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>(),
            &tensor.dims,
        ),
        _ => tensor,
    }
}
