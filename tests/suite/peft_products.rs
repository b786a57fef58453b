//! What peft's formats of products say of plain weights: a few lines each.

use std::collections::{BTreeMap, HashMap};

use peftc::library::derive::spread::Spread;
use peftc::library::derive::{BaseParam, Derive, Truncated};
use serde_json::Value;

use super::tensor::{Result, Tensor};

type Weights = HashMap<String, Tensor>;

/// The tensors of one module.
struct Own<'a> {
    all: &'a BTreeMap<String, Tensor>,
    module: &'a str,
    config: &'a Value,
}

impl Own<'_> {
    fn get(&self, suffix: &str) -> &Tensor {
        &self.all[&format!("{}.{suffix}", self.module)]
    }

    fn find(&self, suffix: &str) -> Option<&Tensor> {
        self.all.get(&format!("{}.{suffix}", self.module))
    }

    fn number(&self, key: &str) -> f64 {
        self.config[key].as_f64().expect("a number")
    }

    /// A factor that may be a product itself.
    fn factor(&self, name: &str) -> Result<Tensor> {
        match self.find(name) {
            Some(whole) => Ok(whole.clone()),
            None => self
                .get(&format!("{name}_a"))
                .matmul(self.get(&format!("{name}_b"))),
        }
    }
}

fn adalora(own: &Own<'_>) -> Result<Tensor> {
    let a = own.get("lora_A").broadcast_mul(own.get("lora_E"))?;
    let scale = own.number("lora_alpha") / (own.number("init_r") + 1e-5);
    own.get("lora_B").matmul(&a)? * scale
}

fn loha(own: &Own<'_>) -> Result<Tensor> {
    let one = own.get("hada_w1_a").matmul(own.get("hada_w1_b"))?;
    let two = own.get("hada_w2_a").matmul(own.get("hada_w2_b"))?;
    (one * two)? * (own.number("alpha") / own.number("r"))
}

fn lokr(own: &Own<'_>) -> Result<Tensor> {
    let (one, two) = (own.factor("lokr_w1")?, own.factor("lokr_w2")?);
    let ((l, m), (k, n)) = (one.dims2()?, two.dims2()?);
    let all = one
        .reshape((l, 1, m, 1))?
        .broadcast_mul(&two.reshape((1, k, 1, n))?)?;
    all.reshape((l * k, m * n))? * (own.number("alpha") / own.number("r"))
}

fn hira(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    own.get("hira_B").matmul(own.get("hira_A"))? * weight
}

fn delora(own: &Own<'_>) -> Result<Tensor> {
    let (a, b) = (own.get("delora_A"), own.get("delora_B"));
    let norm = |x: &Tensor, over| x.sqr()?.sum(over)?.sqrt()?.maximum(1e-4);
    let norms = (norm(a, 1)? * norm(b, 0)?)?;
    let scale = (own.get("delora_lambda") / own.number("r"))?.broadcast_div(&norms)?;
    b.broadcast_mul(&scale)?
        .matmul(a)?
        .broadcast_mul(own.get("delora_w_norm"))
}

fn miss(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let block = own.get("miss_block");
    let r = own.number("r") as usize;
    if own.config["init_weights"] == "bat" {
        let parts = weight
            .reshape((out / r, r, input / r, r))?
            .permute(&[2, 0, 1, 3])?;
        let changed = parts.matmul(block)?.broadcast_add(block)?;
        return changed.permute(&[1, 2, 0, 3])?.reshape((out, input));
    }
    let block = match own.config["init_weights"] == "mini" {
        true => block.repeat((1, out / block.dim(1)?))?,
        false => block.clone(),
    };
    let all = block.repeat((input.div_ceil(r), 1))?;
    all.narrow(0, 0, input)?.t()
}

fn gralora(own: &Own<'_>) -> Result<Tensor> {
    let (a, b) = (own.get("gralora_A"), own.get("gralora_B"));
    let ((k, input, r), (_, _, output)) = (a.dims3()?, b.dims3()?);
    let piece = r / k;
    // Block (j, n): piece j of A_n and piece n of B_j.
    let block = |j: usize, n: usize| {
        let a = a.get(n)?.narrow(1, j * piece, piece)?;
        let b = b.get(j)?.narrow(0, n * piece, piece)?;
        a.matmul(&b)?.t()
    };
    let row = |j: usize| {
        let blocks: Result<Vec<Tensor>> = (0..k).map(|n| block(j, n)).collect();
        Tensor::cat(&blocks?, 1)
    };
    let rows: Result<Vec<Tensor>> = (0..k).map(row).collect();
    let mut delta = Tensor::cat(&rows?, 0)?;
    assert_eq!(delta.dims2()?, (output * k, input * k));
    if let Some(a) = own.find("gralora_A_general.weight") {
        delta = (delta + own.get("gralora_B_general.weight").matmul(a)?)?;
    }
    delta * (own.number("alpha") / (own.number("r") + own.number("hybrid_r")))
}

fn randlora(own: &Own<'_>, (out, input): (usize, usize)) -> Result<Tensor> {
    let (lambda, gamma) = (own.get("randlora_lambda"), own.get("randlora_gamma"));
    let ((r, bases), (min, max)) = (lambda.dims2()?, (out.min(input), out.max(input)));
    let a = own.all["randlora_A"].narrow(2, 0, min)?;
    let b = own.all["randlora_B"]
        .narrow(0, 0, max)?
        .narrow(1, 0, bases)?;
    let a = lambda
        .unsqueeze(2)?
        .broadcast_mul(&a)?
        .broadcast_mul(&gamma.unsqueeze(0)?)?
        .reshape((r * bases, min))?;
    let product = b.reshape((max, bases * r))?.matmul(&a)?;
    let delta = match input <= out {
        true => product,
        false => product.t()?,
    };
    delta * (own.number("randlora_alpha") / own.number("r"))
}

/// Mixtures of the bank's vectors, by the largest logits.
fn mixed(own: &Own<'_>, logits: &Tensor) -> Result<Tensor> {
    let bank = &own.all["vblora_vector_bank"];
    let k = own.number("topk") as usize;
    let rows: Vec<Vec<f32>> = logits.flatten(0, 1)?.to_vec2()?;
    let weights: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let sum: f32 = order[..k].iter().map(|&i| row[i].exp()).sum();
            let mut weights = vec![0.0; row.len()];
            order[..k]
                .iter()
                .for_each(|&i| weights[i] = row[i].exp() / sum);
            weights
        })
        .collect();
    let (a, b, n) = logits.dims3()?;
    let weights = Tensor::from_vec(weights, (a * b, n))?;
    weights.matmul(bank)?.reshape((a, b, bank.dim(1)?))
}

fn vblora(own: &Own<'_>) -> Result<Tensor> {
    let a = mixed(own, own.get("vblora_logits_A"))?.flatten(1, 2)?;
    let b = mixed(own, own.get("vblora_logits_B"))?;
    let b = b.transpose(1, 2)?.flatten(0, 1)?;
    b.matmul(&a)
}

/// Each map has a vector of its own, by the map's number among all.
fn tinylora(own: &Own<'_>) -> Result<Tensor> {
    assert_eq!(own.number("weight_tying"), 0.0, "shared vectors");
    let maps = own.all.keys().filter(|k| k.ends_with(".tinylora_A"));
    let first = format!("{}.tinylora_A", own.module);
    let number = maps.take_while(|k| **k != first).count();
    let v = &own.all[&format!("tinylora_v.{number}")];
    let p = own.get("tinylora_P");
    let (u, r, _) = p.dims3()?;
    let mixed = v.reshape((1, u))?.matmul(&p.reshape((u, r * r))?)?;
    let inner = mixed.reshape((r, r))?.matmul(own.get("tinylora_A"))?;
    own.get("tinylora_B").matmul(&inner)
}

/// The mean: the first half of A and of the vector behind it.
fn pvera(own: &Own<'_>, (out, input): (usize, usize)) -> Result<Tensor> {
    let (a, b) = (&own.all["pvera_A"], &own.all["pvera_B"]);
    let (d, behind) = (own.get("pvera_lambda_d"), own.get("pvera_lambda_b"));
    let rank = d.dims1()? / 2;
    let a = a.narrow(0, 0, rank)?.narrow(1, 0, input)?;
    let a = a.broadcast_mul(&d.narrow(0, 0, rank)?.unsqueeze(1)?)?;
    let product = b.narrow(0, 0, out)?.matmul(&a)?;
    product.broadcast_mul(&behind.unsqueeze(1)?)
}

/// Deals the numbers of one vector to the factors of all targets, in the order of their names.
fn unilora(config: &Value, theta: &Tensor, weights: &mut Weights) -> Result<()> {
    let number = |key: &str| config[key].as_u64().expect("a number");
    let targets = config["target_modules"].as_array().expect("a list");
    let named = |module: &str| {
        let mut ends = targets.iter().map(|t| t.as_str().expect("a name"));
        ends.any(|t| module == t || module.ends_with(&format!(".{t}")))
    };
    let modules = weights.keys().filter_map(|k| k.strip_suffix(".weight"));
    let mut modules: Vec<String> = modules.filter(|m| named(m)).map(str::to_owned).collect();
    modules.sort();
    let sides = |weights: &Weights, m: &str| weights[&format!("{m}.weight")].dims2();
    let rank = number("r") as usize;
    let mut total = 0;
    for module in &modules {
        let (out, input) = sides(weights, module)?;
        total += rank * (out + input);
    }
    let by = Spread {
        length: number("theta_d_length"),
        total: total as u64,
        seed: number("proj_seed"),
    };
    let places = by.indices();
    let factors = by.factors(&places);
    let theta: Vec<f32> = theta.to_vec1()?;
    let mut values = places
        .iter()
        .map(|&i| theta[i as usize] * factors[i as usize]);
    for module in &modules {
        let (out, input) = sides(weights, module)?;
        let mut factor = |rows: usize, width: usize| {
            let own: Vec<f32> = values.by_ref().take(rows * width).collect();
            Tensor::from_vec(own, (rows, width))
        };
        let a = factor(rank, input)?;
        let b = factor(out, rank)?;
        let name = format!("{module}.weight");
        let sum = (&weights[&name] + b.matmul(&a)?)?;
        weights.insert(name, sum);
    }
    Ok(())
}

/// The product, less what the format takes out of the weight: its smallest singular triplets, as many as the rank.
fn kasa(own: &Own<'_>, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let a = own.get("lora_A.weight");
    let rank = a.dim(0)?;
    let by = Truncated {
        weight: BaseParam::weight("w", [out as u64, input as u64]),
        dropped: rank as u64,
    };
    let plain: Vec<f32> = weight.numbers().to_vec();
    let left = by.make(plain).expect("finite numbers").remove(0);
    let left = Tensor::from_vec(left, (out, input))?;
    let a = a.broadcast_mul(&own.get("lora_diag").unsqueeze(1)?)?;
    let product = own.get("lora_B.weight").matmul(&a)?;
    let scale = own.number("lora_alpha") / own.number("r");
    (left - weight)? + (product * scale)?
}

/// Adds to a weight what a tensor of one of these formats begins; whether the tensor is of one.
pub(super) fn multiplies(
    config: &Value,
    all: &BTreeMap<String, Tensor>,
    name: &str,
    weights: &mut Weights,
) -> bool {
    if name == "unilora_theta_d" {
        unilora(config, &all[name], weights).expect("fits");
        return true;
    }
    let (first, prefix) = match config["peft_type"].as_str() {
        Some("ADALORA") => ("lora_A", "lora_"),
        Some("LOHA") => ("hada_w1_a", "hada_"),
        Some("LOKR") => ("lokr_w1", "lokr_"),
        Some("HIRA") => ("hira_A", "hira_"),
        Some("DELORA") => ("delora_A", "delora_"),
        Some("MISS") => ("miss_block", "miss_"),
        Some("GRALORA") => ("gralora_A", "gralora_"),
        Some("RANDLORA") => ("randlora_lambda", "randlora_"),
        Some("VBLORA") => ("vblora_logits_A", "vblora_"),
        Some("TINYLORA") => ("tinylora_A", "tinylora_"),
        Some("PVERA") => ("pvera_lambda_d", "pvera_"),
        Some("LORA") if !config["kasa_config"].is_null() => ("lora_diag", "lora_"),
        _ => return false,
    };
    let (module, suffix) = name.rsplit_once('.').unwrap_or(("", name));
    if !suffix.starts_with(prefix) {
        return name.starts_with(prefix) || name.contains(&format!(".{prefix}"));
    }
    if suffix != first && suffix != format!("{first}_a") {
        return true;
    }
    let own = Own {
        all,
        module,
        config,
    };
    let weight = &weights[&format!("{module}.weight")];
    let sides = weight.dims2().expect("a matrix");
    let delta = match prefix {
        "tinylora_" => tinylora(&own),
        "pvera_" => pvera(&own, sides),
        "lora_" if first == "lora_diag" => kasa(&own, weight),
        "lora_" => adalora(&own),
        "hada_" => loha(&own),
        "lokr_" => lokr(&own),
        "hira_" => hira(&own, weight),
        "delora_" => delora(&own),
        "miss_" => miss(&own, weight),
        "gralora_" => gralora(&own),
        "randlora_" => randlora(&own, sides),
        _ => vblora(&own),
    };
    let sum = delta.and_then(|delta| weight + delta).expect("fits");
    weights.insert(format!("{module}.weight"), sum);
    true
}
