//! What peft's formats of singular triplets, projections and sparse numbers say of plain weights: a few lines each.

use std::collections::{BTreeMap, HashMap};

use peftc::library::torch::Generator;
use serde_json::Value;

use super::tensor::{Result, Tensor};

type Weights = HashMap<String, Tensor>;

/// `W` without its smallest triplets, by products with the span of the largest: those of `WᵀW`, iterated.
fn largest(weight: &Tensor, keep: usize) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    let list = weight.numbers();
    let m = faer::Mat::from_fn(rows, columns, |i, j| f64::from(list[i * columns + j]));
    let svd = m.thin_svd().expect("it converges");
    let (u, s, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let one = |at: usize| {
        let (i, j) = (at / columns, at % columns);
        (0..keep).map(|k| u[(i, k)] * s[k] * v[(j, k)]).sum::<f64>() as f32
    };
    Tensor::from_vec(
        (0..rows * columns).map(one).collect::<Vec<_>>(),
        (rows, columns),
    )
}

/// The tensors of one module.
struct Own<'a> {
    all: &'a BTreeMap<String, Tensor>,
    module: &'a str,
    config: &'a Value,
}

impl Own<'_> {
    fn get(&self, name: &str) -> &Tensor {
        &self.all[&format!("{}.{name}", self.module)]
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.config[key].as_f64()
    }
}

fn osf(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    let [u, s, v] = ["U", "S", "V"].map(|n| own.get(&format!("osf_svd_params.{n}_low")));
    let (rows, columns) = weight.dims2()?;
    let high = largest(weight, rows.min(columns) - s.dim(0)?)?;
    high + u.broadcast_mul(s)?.matmul(v)?
}

fn deft(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    assert_eq!(own.config["decomposition_method"], "relu");
    let p = own.get("deft_P");
    let gone = p.matmul(&p.relu()?.t()?.matmul(weight)?)?;
    let left = (weight - gone)?;
    if own.config["para"] == true {
        return Ok(left);
    }
    let scale = own
        .number("alpha")
        .map_or(1.0, |alpha| alpha / p.dims()[1] as f64);
    left + (p.matmul(own.get("deft_R"))? * scale)?
}

fn peanut(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    assert_eq!(
        (&own.config["act_fn"], &own.config["depth"]),
        (&"relu".into(), &0.into())
    );
    let h = own.get("peanut_A.weight").matmul(weight)?.relu()?;
    let update = own.get("peanut_B.weight").matmul(&h)?;
    weight + (update * own.number("scaling").expect("a number"))?
}

fn supertuning(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    let values = own.get("supertuning_values").to_vec1()?;
    let places = own.get("supertuning_indices").to_vec1()?;
    let mut all = weight.numbers().to_vec();
    for (value, place) in values.into_iter().zip(places) {
        all[place as usize] += value;
    }
    let mut sum = Tensor::from_vec(all, weight.dims())?;
    if let Some(rank) = own.number("r") {
        let scale = own.number("lora_alpha").unwrap_or(2.0 * rank) / rank;
        let (a, b) = (
            own.get("supertuning_lora_A.weight"),
            own.get("supertuning_lora_B.weight"),
        );
        sum = (sum + (b.matmul(a)? * scale)?)?;
    }
    Ok(sum)
}

fn glora(own: &Own<'_>, (name, weights): (&str, &mut Weights)) -> Result<Tensor> {
    let product = |part: &str| {
        let [d, u] = ["Xd", "Xu"].map(|x| own.get(&format!("glora_{part}.{x}")));
        d.matmul(u)
    };
    let weight = weights[name].clone();
    let bias = name.replace(".weight", ".bias");
    let old = weights[&bias].clone();
    let [d, e] = ["D", "E"].map(|part| own.get(&format!("glora_{part}.X")));
    let moved = old.broadcast_mul(&(d + 1.0)?)?.broadcast_add(e)?;
    weights.insert(bias, (moved + weight.matmul(&product("C")?)?.squeeze(1)?)?);
    (&weight + (&weight * product("A")?)?)? + product("B")?
}

/// One level of the inverse transform of Haar's wavelets: a transposed convolution of stride 2, band by band.
fn waveft(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    assert_eq!(
        (&own.config["wavelet_family"], &own.config["use_idwt"]),
        (&"db1".into(), &true.into())
    );
    let (rows, columns) = weight.dims2()?;
    let seed = own.config["random_loc_seed"].as_u64().expect("a seed");
    let places = Generator::new(seed).permutation(rows * columns);
    let mut update = vec![0.0_f32; rows * columns];
    let scale = own.number("scaling").expect("a number");
    for (c, place) in own
        .get("waveft_spectrum")
        .to_vec1()?
        .into_iter()
        .zip(places)
    {
        let (row, column) = (place / columns, place % columns);
        let (low, right) = (row >= rows / 2, column >= columns / 2);
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let minus = (right && i == 1) != (low && j == 1);
            let at = (row % (rows / 2) * 2 + i) * columns + column % (columns / 2) * 2 + j;
            update[at] += (scale * f64::from(c) * if minus { -0.5 } else { 0.5 }) as f32;
        }
    }
    weight + Tensor::from_vec(update, (rows, columns))?
}

/// Applies one tensor of such an adapter; whether it is of one of these kinds.
pub fn applies(
    config: &Value,
    all: &BTreeMap<String, Tensor>,
    name: &str,
    weights: &mut Weights,
) -> bool {
    let (prefix, first) = match config["peft_type"].as_str() {
        Some("OSF") => (".osf_", "svd_params.U_low"),
        Some("DEFT") => (".deft_", "P"),
        Some("PEANUT") => (".peanut_", "A.weight"),
        Some("SUPERTUNING") => (".supertuning_", "values"),
        Some("GLORA") => (".glora_", "A.Xd"),
        Some("WAVEFT") => (".waveft_", "spectrum"),
        _ => return false,
    };
    let Some((module, suffix)) = name.split_once(prefix) else {
        return false;
    };
    if suffix != first {
        return true;
    }
    let own = Own {
        all,
        module,
        config,
    };
    let weight = format!("{module}.weight");
    let made = match prefix {
        ".osf_" => osf(&own, &weights[&weight]),
        ".deft_" => deft(&own, &weights[&weight]),
        ".peanut_" => peanut(&own, &weights[&weight]),
        ".waveft_" => waveft(&own, &weights[&weight]),
        ".supertuning_" => supertuning(&own, &weights[&weight]),
        _ => glora(&own, (&weight, weights)),
    };
    weights.insert(weight, made.unwrap_or_else(|e| panic!("{name}: {e}")));
    true
}
