//! Adapters of peft, and a reader of them that shares nothing with the compiler.

use super::*;

/// Numbers that look random and are the same everywhere.
fn numbers(seed: &str, count: usize, size: f32) -> Vec<f32> {
    let hash = blake3::hash(seed.as_bytes());
    let mut bytes = vec![0u8; count * 2];
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    let one = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0 * size;
    bytes.chunks(2).map(one).collect()
}

/// Writes adapters in peft's format on a base: one with several ranks and scales and with further modules saved whole,
/// and one on the head's maps.
pub(super) fn make_adapters(dir: &Path, base: &Path) {
    let weights = tensor::load(base.join("model.safetensors"));
    let shape = |name: &str| weights[name].dims().to_vec();
    let write = |name: &str, mut config: Value, linear: &[(String, usize)], whole: &[String]| {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        let mut put = |name: String, dims: &[usize], near: Option<&Tensor>| {
            let data = numbers(&name, dims.iter().product(), 0.1);
            let mut tensor = Tensor::from_vec(data, dims).expect("fits");
            if let Some(near) = near {
                tensor = (tensor + near).expect("fits");
            }
            tensors.insert(format!("base_model.model.{name}"), tensor);
        };
        for (module, rank) in linear {
            let dims = shape(&format!("{module}.weight"));
            put(format!("{module}.lora_A.weight"), &[*rank, dims[1]], None);
            put(format!("{module}.lora_B.weight"), &[dims[0], *rank], None);
        }
        for name in whole {
            put(name.clone(), &shape(name), Some(&weights[name]));
        }
        let to = dir.join(name);
        std::fs::create_dir_all(&to).expect("a folder");
        tensor::save(&tensors, to.join("adapter_model.safetensors"));
        config["peft_type"] = json!("LORA");
        config["base_model_name_or_path"] = json!("base");
        std::fs::write(to.join("adapter_config.json"), config.to_string()).expect("written");
    };
    let mut names: Vec<&String> = weights.keys().collect();
    names.sort();
    let ends = |ends: &[&str]| -> Vec<String> {
        let module = |n: &&String| n.strip_suffix(".weight").map(str::to_owned);
        let hit = |m: &String| ends.iter().any(|e| m.ends_with(e));
        names.iter().filter_map(module).filter(hit).collect()
    };
    let of = |modules: &[String]| -> Vec<String> {
        let inside = |n: &&&String| modules.iter().any(|m| n.starts_with(&format!("{m}.")));
        names.iter().filter(inside).map(|n| (*n).clone()).collect()
    };
    let query = ends(&["query", "q_lin"]);
    let (norm, down) = (
        ends(&["output.LayerNorm", "sa_layer_norm"]),
        ends(&["output.dense", "ffn.lin2"]),
    );
    let head = ends(&[
        "classifier",
        "pooler.dense",
        "classifier.dense",
        "classifier.out_proj",
    ]);
    let mixed: Vec<(String, usize)> = query
        .iter()
        .map(|m| (m.clone(), if m.contains("layer.1.") { 3 } else { 2 }))
        .chain(down.iter().map(|m| (m.clone(), 2)))
        .collect();
    let saved: Vec<String> = norm.iter().chain(&head).cloned().collect();
    write(
        "mixed",
        json!({
            "r": 2, "lora_alpha": 3.5, "use_rslora": true, "task_type": "SEQ_CLS",
            "target_modules": ["query", "q_lin", "output.dense", "ffn.lin2"],
            "rank_pattern": { "layer.1.*(query|q_lin)": 3 }, "alpha_pattern": { "query": 1.25, "lin2": 2 },
            "modules_to_save": ["output.LayerNorm", "sa_layer_norm", "pooler.dense", "classifier"],
        }),
        &mixed,
        &of(&saved),
    );
    let on_head: Vec<(String, usize)> = head.iter().map(|m| (m.clone(), 2)).collect();
    write(
        "head",
        json!({ "r": 2, "lora_alpha": 4, "target_modules": head.clone() }),
        &on_head,
        &[],
    );
}

/// Plain weights with an adapter in peft's format applied: the format's rules in a few lines.
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
pub(super) fn with_peft(
    adapter: &Path,
    mut weights: HashMap<String, Tensor>,
) -> HashMap<String, Tensor> {
    let config: Value = json(adapter.join("adapter_config.json"));
    let tensors = tensor::load(adapter.join("adapter_model.safetensors"));
    let own: BTreeMap<String, Tensor> = tensors
        .into_iter()
        .map(|(name, t)| {
            let plain = name.strip_prefix("base_model.").expect("peft's prefix");
            (plain.strip_prefix("model.").unwrap_or(plain).to_owned(), t)
        })
        .collect();
    let pattern = |key: &str, module: &str, default: f64| -> f64 {
        let map = config[key].as_object().into_iter().flatten();
        let mut hits = map.filter(|(pattern, _)| {
            let whole = format!("^(.*\\.)?({pattern})$");
            regex::Regex::new(&whole)
                .expect("a pattern")
                .is_match(module)
        });
        hits.next()
            .map_or(default, |(_, v)| v.as_f64().expect("a number"))
    };
    for (name, tensor) in &own {
        if crate::peft_products::multiplies(&config, &own, name, &mut weights)
            || crate::peft_mixtures::mixes(&config, &own, name, &mut weights)
            || crate::peft_turned::turns(&config, &own, name, &mut weights)
            || crate::peft_spectra::applies(&config, &own, name, &mut weights)
        {
            continue;
        }
        if let Some(module) = name.strip_suffix(".vera_lambda_d") {
            let lambda_b = &own[&format!("{module}.vera_lambda_b")];
            add_vera(
                &mut weights,
                module,
                (&own["vera_A"], &own["vera_B"]),
                (tensor, lambda_b),
            );
            continue;
        }
        if let Some(module) = name.strip_suffix(".token_adapter.trainable_tokens_delta") {
            let rows = &config["trainable_token_indices"][module];
            put_rows(&mut weights, module, tensor, rows);
            continue;
        }
        if let Some(module) = name.strip_suffix(".shira_weight") {
            let places = &own[&format!("{module}.shira_indices")];
            add_shira(&mut weights, module, tensor, places);
            continue;
        }
        let Some(module) = name.strip_suffix(".lora_A.weight") else {
            if !name.contains(".lora_") && !name.contains("vera_") && !name.contains("shira_") {
                weights
                    .insert(name.clone(), tensor.clone())
                    .expect("a tensor of the base");
            }
            continue;
        };
        let rank = pattern(
            "rank_pattern",
            module,
            config["r"].as_f64().expect("a rank"),
        );
        let alpha = pattern(
            "alpha_pattern",
            module,
            config["lora_alpha"].as_f64().expect("alpha"),
        );
        assert_eq!(rank as usize, tensor.dims()[0], "{module}");
        let targets = config["target_modules"].as_array().expect("a list");
        let is = |t: &Value| {
            let t = t.as_str().expect("a name");
            module == t || module.ends_with(&format!(".{t}"))
        };
        assert!(targets.iter().any(is), "{module} is no target");
        let divisor = if config["use_rslora"] == true {
            rank.sqrt()
        } else {
            rank
        };
        let b = &own[&format!("{module}.lora_B.weight")];
        let (a, b) = in_blocks(&config["use_bdlora"], module, (tensor, b));
        let product = (b.matmul(&a).expect("fits") * (alpha / divisor)).expect("fits");
        let weight = format!("{module}.weight");
        let mut sum = (&weights[&weight] + product).expect("fits");
        if config["use_dora"] == true {
            let norms = sum.sqr().and_then(|s| s.sum(1)).and_then(|s| s.sqrt());
            let magnitude = &own[&format!("{module}.lora_magnitude_vector")];
            let factor = (magnitude / norms.expect("fits")).and_then(|f| f.unsqueeze(1));
            sum = sum.broadcast_mul(&factor.expect("fits")).expect("fits");
        }
        weights.insert(weight, sum);
    }
    weights
}

/// The factors of a pair, the block-diagonal one of BD-LoRA with zeros beside its blocks.
fn in_blocks(config: &Value, module: &str, (a, b): (&Tensor, &Tensor)) -> (Tensor, Tensor) {
    let is = |key: &str| {
        let ends = config[key].as_array().into_iter().flatten();
        let mut ends = ends.filter_map(Value::as_str);
        ends.any(|end| module.ends_with(end))
    };
    let blocks = config["nblocks"].as_u64().unwrap_or(1) as usize;
    let spread = |matrix: &Tensor| {
        let rows: Vec<Vec<f32>> = matrix.to_vec2().expect("a matrix");
        let (each, width) = (rows.len() / blocks, rows[0].len());
        let whole = rows.iter().enumerate().map(|(i, row)| {
            let mut whole = vec![0.0; width * blocks];
            whole[i / each * width..][..width].copy_from_slice(row);
            whole
        });
        Tensor::new(whole.collect::<Vec<_>>()).expect("fits")
    };
    let (of_a, of_b) = (is("target_modules_bd_a"), is("target_modules_bd_b"));
    assert!(config.is_null() || of_a != of_b, "{module}");
    let a = if of_a { spread(a) } else { a.clone() };
    let b = if of_b { spread(b) } else { b.clone() };
    (a, b)
}

/// Puts rows into a table.
fn put_rows(weights: &mut HashMap<String, Tensor>, module: &str, rows: &Tensor, at: &Value) {
    let name = format!("{module}.weight");
    let mut all: Vec<Vec<f32>> = weights[&name].to_vec2().expect("a table");
    let rows: Vec<Vec<f32>> = rows.to_vec2().expect("rows");
    let at = at.as_array().expect("a list");
    assert_eq!(rows.len(), at.len(), "{module}");
    for (row, at) in rows.into_iter().zip(at) {
        all[at.as_u64().expect("a number") as usize] = row;
    }
    let table = Tensor::new(all).expect("fits");
    weights.insert(name, table);
}

/// Adds numbers at places: rows, then columns of them.
fn add_shira(weights: &mut HashMap<String, Tensor>, module: &str, values: &Tensor, at: &Tensor) {
    let name = format!("{module}.weight");
    let weight = &weights[&name];
    let [rows, columns] = weight.dims() else {
        panic!("{module} is no matrix");
    };
    assert_eq!(values.dims()[0] % (rows + columns), 0, "{module}");
    let mut all: Vec<f32> = weight.numbers().to_vec();
    let values: Vec<f32> = values.to_vec1().expect("f32");
    let at: Vec<Vec<f32>> = at.to_vec2().expect("places");
    for ((value, row), column) in values.iter().zip(&at[0]).zip(&at[1]) {
        all[*row as usize * columns + *column as usize] += value;
    }
    let sum = Tensor::from_vec(all, (*rows, *columns)).expect("fits");
    weights.insert(name, sum);
}

/// Adds `diag(λ_b) B diag(λ_d) A` to a module's weight, `A` and `B` being cut to its size.
fn add_vera(
    weights: &mut HashMap<String, Tensor>,
    module: &str,
    (a, b): (&Tensor, &Tensor),
    (lambda_d, lambda_b): (&Tensor, &Tensor),
) {
    let weight = format!("{module}.weight");
    let (out, input) = weights[&weight].dims2().expect("a matrix");
    let product = a
        .narrow(1, 0, input)
        .and_then(|a| a.broadcast_mul(&lambda_d.unsqueeze(1)?))
        .and_then(|a| b.narrow(0, 0, out)?.matmul(&a))
        .and_then(|ba| ba.broadcast_mul(&lambda_b.unsqueeze(1)?));
    let sum = (&weights[&weight] + product.expect("fits")).expect("fits");
    weights.insert(weight, sum);
}
