//! What peft's formats of mixtures and subspaces say of plain weights: a few lines each.

use std::collections::{BTreeMap, HashMap};

use peftc::library::derive::{BaseParam, Derive, Subspaces};
use peftc::library::net::ParamKind;
use serde_json::Value;

use super::tensor::{Result, Tensor};

type Weights = HashMap<String, Tensor>;

/// The mixture that a task makes of the skills of a module; the task is the first.
fn poly(all: &BTreeMap<String, Tensor>, module: &str, config: &Value) -> Result<Tensor> {
    let get = |suffix: &str| &all[&format!("{module}.{suffix}")];
    let (a, b) = (get("poly_lora_A"), get("poly_lora_B"));
    let (splits, skills, d, r) = a.dims4()?;
    let (_, _, _, e) = b.dims4()?;
    let logits = get("poly_router.module_logits").narrow(0, 0, 1)?;
    let logits = logits.reshape((splits, skills))?;
    let open = ((logits.neg()?.exp()? + 1.0)?.recip())?;
    let shares = open.broadcast_div(&open.sum_keepdim(1)?)?;
    let mut parts = Vec::new();
    for of in [
        a.reshape((splits, skills, d * r))?,
        b.reshape((splits, skills, r * e))?,
    ] {
        let mixed = of.broadcast_mul(&shares.reshape((splits, skills, 1))?)?;
        parts.push(mixed.sum(1)?);
    }
    let a = parts[0].reshape((splits * d, r))?;
    let b = parts[1].reshape((splits, r, e))?.transpose(0, 1)?;
    let product = a.matmul(&b.reshape((r, splits * e))?)?;
    product.t()? / config["r"].as_f64().expect("a rank")
}

/// `[ΔW | Δb]` of a module's clusters, which are found in its weight again.
fn adamss(
    all: &BTreeMap<String, Tensor>,
    module: &str,
    (config, weights): (&Value, &Weights),
) -> Result<Tensor> {
    let get = |suffix: String| &all[&format!("{module}.{suffix}")];
    let whole = |key: &str| config[key].as_u64().expect("a number");
    let weight = &weights[&format!("{module}.weight")];
    let (out, input) = weight.dims2()?;
    let mut numbers: Vec<f32> = weight.numbers().to_vec();
    let bias = weights.get(&format!("{module}.bias"));
    if let Some(bias) = bias {
        numbers.extend(bias.to_vec1()?);
    }
    let by = Subspaces {
        weight: BaseParam::weight(module, [out as u64, input as u64]),
        bias: bias.map(|_| BaseParam::new(String::new(), &[out as u64], ParamKind::Bias)),
        rank: whole("r"),
        count: whole("num_subspaces"),
        each: whole("subspace_rank"),
        seed: whole("random_seed"),
        sizes: None,
    };
    let parts = by.make(numbers).expect("finite numbers");
    let clusters = &parts[Subspaces::CLUSTERS];
    let right = get("adamss_newB".to_owned());
    let width = right.dims2()?.1;
    let mut rows = vec![Vec::new(); out];
    for i in 0..whole("num_subspaces") as usize {
        let (a, b) = (get(format!("adamss_A.{i}")), get(format!("adamss_B.{i}")));
        let change: Vec<Vec<f32>> = b.matmul(a)?.matmul(right)?.to_vec2()?;
        let own = clusters.iter().enumerate();
        let own = own.filter(|(_, of)| of.to_bits() as usize == i);
        for ((row, _), change) in own.zip(change) {
            rows[row] = change;
        }
    }
    Tensor::from_vec(rows.concat(), (out, width))
}

/// Adds to a weight what a tensor of one of these formats begins; whether the tensor is of one.
pub(super) fn mixes(
    config: &Value,
    all: &BTreeMap<String, Tensor>,
    name: &str,
    weights: &mut Weights,
) -> bool {
    let first = match config["peft_type"].as_str() {
        Some("POLY") => ".poly_lora_A",
        Some("ADAMSS") => ".adamss_newB",
        _ => return false,
    };
    let Some(module) = name.strip_suffix(first) else {
        return name.contains(".poly_") || name.contains(".adamss_");
    };
    let weight = format!("{module}.weight");
    if first == ".poly_lora_A" {
        let delta = poly(all, module, config);
        let sum = delta.and_then(|delta| &weights[&weight] + delta);
        weights.insert(weight, sum.expect("fits"));
        return true;
    }
    let delta = adamss(all, module, (config, weights)).expect("fits");
    let input = weights[&weight].dims()[1];
    let sum = delta
        .narrow(1, 0, input)
        .and_then(|d| &weights[&weight] + d);
    weights.insert(weight, sum.expect("fits"));
    let bias = format!("{module}.bias");
    if let Some(own) = weights.get(&bias) {
        let last = delta.narrow(1, input, 1).and_then(|d| d.squeeze(1));
        let sum = last.and_then(|last| own + last).expect("fits");
        weights.insert(bias, sum);
    }
    true
}
