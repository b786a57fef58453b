//! What peft's formats of scalings, rotations and circulant updates say of plain weights: a few lines each.

use std::collections::{BTreeMap, HashMap};

use peftc::library::torch::Generator;
use serde_json::Value;

use super::tensor::{Result, Tensor};

type Weights = HashMap<String, Tensor>;

/// The inverse of a small matrix, by Neumann's iteration from a start that always converges.
fn inverse(a: &Tensor) -> Result<Tensor> {
    let n = a.dim(0)?;
    let norm = |sums: Tensor| sums.max(0)?.to_scalar();
    let bound = norm(a.abs()?.sum(0)?)? * norm(a.abs()?.sum(1)?)?;
    let mut x = (a.t()? / f64::from(bound))?;
    for _ in 0..60 {
        x = x.matmul(&((Tensor::eye(n) * 2.0)? - a.matmul(&x)?)?)?;
    }
    Ok(x)
}

/// `(I − Q)(I + Q)⁻¹`
fn cayley(q: &Tensor) -> Result<Tensor> {
    let n = q.dim(0)?;
    (Tensor::eye(n) - q)?.matmul(&inverse(&(Tensor::eye(n) + q)?)?)
}

/// Blocks along a diagonal.
fn diagonal(blocks: &[Tensor]) -> Result<Tensor> {
    let size = blocks[0].dim(0)?;
    let row = |i: usize| {
        let part = |j| {
            if i == j {
                Ok(blocks[i].clone())
            } else {
                blocks[i].zeros_like()
            }
        };
        let parts: Result<Vec<Tensor>> = (0..blocks.len()).map(part).collect();
        Tensor::cat(&parts?, 1)
    };
    let rows: Result<Vec<Tensor>> = (0..blocks.len()).map(row).collect();
    let all = Tensor::cat(&rows?, 0)?;
    assert_eq!(all.dim(0)?, size * blocks.len());
    Ok(all)
}

/// A skew-symmetric matrix of what stands above its diagonal.
fn skew(upper: &[f32], n: usize) -> Result<Tensor> {
    let mut all = vec![0.0; n * n];
    let mut next = upper.iter();
    for i in 0..n {
        for j in i + 1..n {
            let x = *next.next().expect("as many as there are places");
            all[i * n + j] = x;
            all[j * n + i] = -x;
        }
    }
    Tensor::from_vec(all, (n, n))
}

fn number(config: &Value, key: &str) -> usize {
    config[key].as_u64().expect("a number") as usize
}

fn oft(config: &Value, own: &Tensor, input: usize) -> Result<Tensor> {
    let size = number(config, "oft_block_size");
    let one = |upper: &Vec<f32>| -> Result<Tensor> {
        let q = skew(upper, size)?;
        if config["use_cayley_neumann"] == false {
            return cayley(&q);
        }
        let last = number(config, "num_cayley_neumann_terms") - 1;
        let (mut power, mut sum) = (Tensor::eye(size), Tensor::eye(size));
        for i in 1..=last {
            power = power.matmul(&q)?;
            sum = (sum + (&power * if i == last { 1.0 } else { 2.0 })?)?;
        }
        Ok(sum)
    };
    let mut blocks: Vec<Tensor> = own.to_vec2()?.iter().map(one).collect::<Result<_>>()?;
    if config["block_share"] == true {
        blocks = vec![blocks[0].clone(); input / size];
    }
    diagonal(&blocks)
}

fn hra(config: &Value, own: &Tensor) -> Result<Tensor> {
    let mut turned = Tensor::eye(own.dim(0)?);
    assert_eq!(config["apply_GS"], false);
    for i in 0..own.dim(1)? {
        let u = own.narrow(1, i, 1)?;
        let u = u.broadcast_div(&u.sqr()?.sum_all()?.sqrt()?)?;
        turned = (&turned - (turned.matmul(&u)?.matmul(&u.t()?)? * 2.0)?)?;
    }
    Ok(turned)
}

/// The matrix that RoAd multiplies outputs by.
fn road(config: &Value, theta: &[f32], alpha: &[f32], out: usize) -> Result<Tensor> {
    let size = number(config, "group_size");
    let half = size / 2;
    let mut all = vec![0.0; out * out];
    for o in 0..out {
        let (group, at) = (o / size, o % size);
        let (first, second) = match config["variant"].as_str() {
            Some("road_1") => (group * half + at % half, group * half + at % half),
            Some("road_2") => (o, o),
            _ => (group * 2 * size + at, (group * 2 + 1) * size + at),
        };
        all[o * out + o] = alpha[first] * theta[first].cos();
        let (other, sign) = if at < half {
            (o + half, -1.0)
        } else {
            (o - half, 1.0)
        };
        all[o * out + other] = sign * alpha[second] * theta[second].sin();
    }
    Tensor::from_vec(all, (out, out))
}

fn c3a(own: &Tensor) -> Result<Tensor> {
    let (down, across, size) = own.dims3()?;
    let kernels = own.numbers();
    let width = across * size;
    let one = |i: usize| {
        let (row, column) = (i / width, i % width);
        let kernel = row / size * across + column / size;
        kernels[kernel * size + (column % size + size - row % size) % size] / width as f32
    };
    Tensor::from_vec(
        (0..down * size * width).map(one).collect(),
        (down * size, width),
    )
}

/// The real part of the inverse transform of few coefficients, at the places that PyTorch's generator gives.
fn fourier(config: &Value, spectrum: &[f32], (out, input): (usize, usize)) -> Result<Tensor> {
    let seed = config["random_loc_seed"].as_u64().expect("a seed");
    let places = Generator::new(seed).permutation(out * input);
    let scale = config["scaling"].as_f64().expect("a number") / (out * input) as f64;
    let mut all = vec![0.0; out * input];
    for (c, place) in spectrum.iter().zip(places) {
        let (u, v) = (place / input, place % input);
        for (at, x) in all.iter_mut().enumerate() {
            let turns =
                (u * (at / input)) as f64 / out as f64 + (v * (at % input)) as f64 / input as f64;
            *x += (scale * f64::from(*c) * (std::f64::consts::TAU * turns).cos()) as f32;
        }
    }
    Tensor::from_vec(all, (out, input))
}

/// What one tensor of an adapter makes of its module's weight and bias. Whether it was such a tensor.
fn apply(
    config: &Value,
    own: &BTreeMap<String, Tensor>,
    name: &str,
    weights: &mut Weights,
) -> Result<bool> {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    let tensor = &own[name];
    let (weight, bias) = (format!("{module}.weight"), format!("{module}.bias"));
    let mut put = |name: String, made: Tensor| weights.insert(name, made).expect("one of the base");
    match last {
        "ia3_l" => {
            let old = weights[&weight].clone();
            weights.insert(weight, old.broadcast_mul(tensor)?);
            if tensor.dim(0)? > 1 || tensor.elem_count() == 1 {
                let old = weights[&bias].clone();
                weights.insert(bias, (old * tensor.flatten_all()?)?);
            }
        }
        "beft_bias" => {
            let old = weights[&bias].clone();
            weights.insert(bias, (old + tensor.flatten_all()?)?);
        }
        "weight" | "bias" if module.ends_with(".ln_tuning_layers") => {
            let module = module.trim_end_matches(".ln_tuning_layers");
            put(format!("{module}.{last}"), tensor.clone());
        }
        "weight" if module.ends_with(".oft_R") => {
            let weight = format!("{}.weight", module.trim_end_matches(".oft_R"));
            let old = weights[&weight].clone();
            let turned = oft(config, tensor, old.dim(1)?)?;
            weights.insert(weight, old.matmul(&turned.t()?)?);
        }
        "boft_R" => {
            assert_eq!(
                tensor.dim(0)?,
                1,
                "several rotations have a test of their own"
            );
            let blocks = (0..tensor.dim(1)?).map(|i| {
                let a = tensor.get(0)?.get(i)?;
                cayley(&((&a - a.t()?)? / 2.0)?)
            });
            let turned = diagonal(&blocks.collect::<Result<Vec<_>>>()?)?;
            let old = weights[&weight].clone();
            let made = old.matmul(&turned.t()?)?;
            weights.insert(
                weight,
                made.broadcast_mul(&own[&format!("{module}.boft_s")])?,
            );
        }
        "hra_u" => {
            let old = weights[&weight].clone();
            weights.insert(weight, old.matmul(&hra(config, tensor)?)?);
        }
        "road_theta" => {
            let alpha = own[&format!("{module}.road_alpha")].to_vec1()?;
            let old = weights[&weight].clone();
            let turned = road(config, &tensor.to_vec1()?, &alpha, old.dim(0)?)?;
            weights.insert(weight, turned.matmul(&old)?);
            let old = weights[&bias].clone();
            weights.insert(bias, turned.matmul(&old.unsqueeze(1)?)?.squeeze(1)?);
        }
        "c3a_kernel" => {
            let old = weights[&weight].clone();
            weights.insert(weight, (old + c3a(tensor)?)?);
        }
        "fourierft_spectrum" => {
            let old = weights[&weight].clone();
            let made = fourier(config, &tensor.to_vec1()?, old.dims2()?)?;
            weights.insert(weight, (old + made)?);
        }
        "boft_s" | "road_alpha" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// Applies one tensor of such an adapter; whether it is of one of these kinds.
pub fn turns(
    config: &Value,
    own: &BTreeMap<String, Tensor>,
    name: &str,
    weights: &mut Weights,
) -> bool {
    apply(config, own, name, weights).unwrap_or_else(|e| panic!("{name}: {e}"))
}
