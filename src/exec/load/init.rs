//! Initial values of parameters that no file holds.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::base::rng::Stream;
use crate::library::net::{Init, Param};
use crate::program::DType;
use crate::program::op::{Element, Tensor, fill_normal};

/// A parameter's initial value in f32. Each element is a function of seed, name and index alone.
#[must_use]
pub fn initialise(param: &Param, seed: u64) -> Tensor {
    let stream = Stream::new(seed, &format!("init/{}", param.name));
    let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let mut data = vec![0.0_f32; dims.iter().product()];
    match param.init {
        Init::Constant(value) => data.fill(value as f32),
        Init::Normal(std) => fill_normal(stream.key(), std as f32, 0, &mut data),
        Init::Uniform(bound) => data.par_iter_mut().enumerate().for_each(|(i, x)| {
            *x = ((2.0 * stream.uniform(i as u64) - 1.0) * bound) as f32;
        }),
        Init::Derived { .. } | Init::Pruned(_) => {}
    }
    Tensor::new(data, &dims)
}

/// Elements drawn, or converted, at once where the result is narrower than f32.
pub(in crate::exec) const PIECE: usize = 1 << 20;

/// A parameter's initial value in `dtype`: the same as [`initialise`] and [`cast`] give, without all of it
/// in f32 in between.
#[must_use]
pub fn initialise_as(param: &Param, seed: u64, dtype: DType) -> Tensor {
    match (&param.init, dtype) {
        (Init::Normal(std), DType::F16) => normal(param, seed, *std as f32, f16::from_f32),
        (Init::Normal(std), DType::BF16) => normal(param, seed, *std as f32, bf16::from_f32),
        _ => cast(initialise(param, seed), dtype),
    }
}

fn normal<T: Element>(param: &Param, seed: u64, std: f32, narrow: fn(f32) -> T) -> Tensor {
    let stream = Stream::new(seed, &format!("init/{}", param.name));
    let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let count: usize = dims.iter().product();
    let mut data: Vec<T> = Vec::with_capacity(count);
    let mut piece = vec![0.0_f32; PIECE.min(count)];
    while data.len() < count {
        piece.truncate(count - data.len());
        fill_normal(stream.key(), std, data.len(), &mut piece);
        data.extend(piece.iter().map(|&x| narrow(x)));
    }
    Tensor::new(data, &dims)
}

/// What a number of `tensor` would become in `dtype` if not itself: none may turn into infinity without a word.
#[must_use]
pub fn out_of_range(name: &str, tensor: &Tensor, dtype: DType) -> Option<String> {
    let narrow = |x: f32| match dtype {
        DType::F16 => f16::from_f32(x).is_finite(),
        DType::BF16 => bf16::from_f32(x).is_finite(),
        _ => x.is_finite(),
    };
    let data = tensor.slice::<f32>()?;
    let found = data.iter().copied().find(|&x| !narrow(x))?;
    Some(if found.is_finite() {
        format!(
            "`{name}` holds {found}, which is out of the range of {dtype}; write `dtype = bf16` or `dtype = f32`"
        )
    } else {
        format!("`{name}` holds a number that is not finite: the weights are damaged or diverged")
    })
}

/// A tensor in another float type.
#[must_use]
pub fn cast(tensor: Tensor, dtype: DType) -> Tensor {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tensorfile::bytes_of;
    use crate::library::net::{ParamKind, Role};

    #[test]
    fn narrow_values_are_those_of_the_wide_ones() {
        let shape = [3, (PIECE / 2 + 5) as u64];
        let param = Param::own("a", &shape, ParamKind::Weight, Role::Query);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (one, other) = (
                cast(initialise(&param, 3), dtype),
                initialise_as(&param, 3, dtype),
            );
            assert_eq!(one.dims, other.dims);
            assert!(bytes_of(&one) == bytes_of(&other), "{dtype:?}");
        }
    }
}
