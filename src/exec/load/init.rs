//! Initial values of parameters that no file holds.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::base::rng::Stream;
use crate::files::RunError;
use crate::library::net::{Init, Param};
use crate::program::format::Encoder;
use crate::program::op::{Element, Storage, Tensor, fill_normal};
use crate::program::{DType, Format};

/// A parameter's initial value in f32. Each element is a function of seed, name and index alone.
#[must_use]
pub fn initialise(param: &Param, seed: u64) -> Tensor {
    let stream = Stream::new(seed, &format!("init/{}", param.name));
    let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let mut data = vec![0.0_f32; dims.iter().product()];
    match param.init {
        Init::Constant(value) => data.fill(value as f32),
        Init::Identity => {
            let width = dims.last().copied().unwrap_or(1);
            data.iter_mut().step_by(width + 1).for_each(|x| *x = 1.0);
        }
        Init::Normal(std) => fill_normal(stream.key(), std as f32, 0, &mut data),
        Init::Waves(waves) => {
            let width = dims.last().copied().unwrap_or(1).max(1);
            data = waves.numbers(data.len() / width, width);
        }
        Init::Uniform(bound) => data.par_iter_mut().enumerate().for_each(|(i, x)| {
            *x = ((2.0 * stream.uniform(i as u64) - 1.0) * bound) as f32;
        }),
        Init::UniformPairs(bound) => {
            let width = dims.last().copied().unwrap_or(1).max(1);
            data.par_iter_mut().enumerate().for_each(|(i, x)| {
                let (row, pair) = (i / width, i % width / 2);
                let of = (row * width.div_ceil(2) + pair) as u64;
                *x = ((2.0 * stream.uniform(of) - 1.0) * bound) as f32;
            });
        }
        Init::Derived { .. }
        | Init::Pruned(_)
        | Init::Component { .. }
        | Init::Cached(_)
        | Init::Chosen { .. }
        | Init::Spread { .. } => {}
    }
    Tensor::new(data, &dims)
}

/// Elements drawn, or converted, at once where the result is narrower than f32.
pub(in crate::exec) const PIECE: usize = 1 << 20;

/// A parameter's initial value in a format: the same as [`initialise`] and [`cast`] give, without all of it
/// in f32 in between.
///
/// # Errors
/// A format of blocks does not hold it (a bug: initial values are small).
pub fn initialise_as(param: &Param, seed: u64, stored: Format) -> Result<Tensor, RunError> {
    let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let unfit = |x: f32| RunError::bug(format!("`{}` starts with {x}", param.name));
    Ok(match (&param.init, stored) {
        (Init::Normal(std), Format::Plain(DType::F16)) => {
            Tensor::new(narrow(param, seed, *std as f32, f16::from_f32), &dims)
        }
        (Init::Normal(std), Format::Plain(DType::BF16)) => {
            Tensor::new(narrow(param, seed, *std as f32, bf16::from_f32), &dims)
        }
        (Init::Normal(std), Format::Blocks(packed)) => {
            let count = param.elements();
            let mut encoder = Encoder::new(packed, count);
            normal(param, seed, *std as f32, &mut |piece| {
                encoder.push(piece).map_err(unfit)
            })?;
            Tensor {
                storage: Storage::Blocks(packed, encoder.finish()),
                dims,
            }
        }
        _ => initialise(param, seed).stored_as(stored).map_err(unfit)?,
    })
}

/// Normal numbers, a piece at a time; pieces begin at multiples of [`PIECE`], which are whole blocks.
fn normal(
    param: &Param,
    seed: u64,
    std: f32,
    take: &mut dyn FnMut(&[f32]) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let stream = Stream::new(seed, &format!("init/{}", param.name));
    let count = param.elements() as usize;
    let mut piece = vec![0.0_f32; PIECE.min(count)];
    for start in (0..count).step_by(PIECE) {
        piece.truncate(count - start);
        fill_normal(stream.key(), std, start, &mut piece);
        take(&piece)?;
    }
    Ok(())
}

fn narrow<T: Element>(param: &Param, seed: u64, std: f32, to: fn(f32) -> T) -> Vec<T> {
    let mut data: Vec<T> = Vec::with_capacity(param.elements() as usize);
    // Taking numbers cannot fail.
    let _always = normal(param, seed, std, &mut |piece| {
        data.extend(piece.iter().map(|&x| to(x)));
        Ok(())
    });
    data
}

/// What a number of `tensor` would become in a type if not itself: none may turn into infinity without a word.
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
    if tensor.format() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::net::{ParamKind, Role};
    use crate::program::format::{FORMATS, Packed};

    #[test]
    fn narrow_values_are_those_of_the_wide_ones() {
        let shape = [3, (PIECE / 2 + 256) as u64];
        let param = Param::own("a", &shape, ParamKind::Weight, Role::Query);
        let blocks = FORMATS.iter().filter(|f| f.encode().is_some());
        let blocks = blocks.map(|f| Format::Blocks(Packed::of(*f)));
        let plain = [DType::F32, DType::F16, DType::BF16].map(Format::Plain);
        for format in plain.into_iter().chain(blocks) {
            let one = initialise(&param, 3).stored_as(format).unwrap();
            let other = initialise_as(&param, 3, format).unwrap();
            assert_eq!(one.dims, other.dims);
            assert!(one.storage.bytes() == other.storage.bytes(), "{format:?}");
        }
    }
}
