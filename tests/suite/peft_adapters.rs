//! Adapters that the Python library peft wrote, taken by `adapter = peft "DIR"`: scored, merged, trained on, and refused
//! with what of them is not read.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::tensor::{self, Tensor};

fn peftc(dir: &Path, command: &str, recipe: &str) -> Output {
    std::fs::write(dir.join("r.peft"), recipe).expect("written");
    Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args([command, "--quiet", "--offline"])
        .arg(dir.join("r.peft"))
        .args(if command == "run" {
            &["--threads", "2"][..]
        } else {
            &[]
        })
        .output()
        .expect("starts")
}

fn run(dir: &Path, recipe: &str) {
    let output = peftc(dir, "run", recipe);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{recipe}\n{said}");
}

/// What is said of a recipe that `check` refuses.
fn refused(dir: &Path, recipe: &str) -> String {
    let output = peftc(dir, "check", recipe);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The scores of a stage, by row.
fn scores(dir: &Path, stage: &str) -> Vec<Vec<f64>> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let text = std::fs::read_to_string(path).expect("predictions");
    let rows = text.lines().skip(1).map(|line| {
        let numbers = line.split('\t').skip(3);
        numbers.map(|x| x.parse().expect("a number")).collect()
    });
    rows.collect()
}

fn assert_near(own: &[Vec<f64>], wanted: &[Vec<f64>], most: f64, name: &str) {
    assert_eq!(own.len(), wanted.len(), "{name}");
    for (own, wanted) in own.iter().zip(wanted) {
        for (a, b) in own.iter().zip(wanted) {
            assert!((a - b).abs() < most, "{name}: {own:?} against {wanted:?}");
        }
    }
}

/// The model and the texts of `forward.json` in a scratch directory, and peft's scores of a trained LoRA.
fn trained() -> (tempfile::TempDir, String, Vec<Vec<f64>>) {
    let bytes = std::fs::read("tests/reference/forward.json").expect("the reference");
    let forward: Value = serde_json::from_slice(&bytes).expect("JSON");
    let cases = forward["lora_trained"]["cases"].as_array().expect("cases");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{}\t{}", c["text"].as_str().expect("text"), i % 2))
        .collect();
    let table = format!("sentence\tlabel\n{}\n", rows.join("\n"));
    std::fs::write(dir.path().join("t.tsv"), table).expect("written");
    let wanted = cases.iter().map(|case| {
        let logits = case["logits"].as_array().expect("logits").iter();
        logits.map(|x| x.as_f64().expect("a number")).collect()
    });
    let here = std::env::current_dir().expect("a working directory");
    let at = here.join("tests/reference");
    let at = at.display();
    let head = format!(
        "model m = local \"{at}/bert-tiny\"\n\
         data d = local \".\" {{ text = sentence, label = label, test = [\"t.tsv\"], labels = [negative, positive] }}\n\
         let lora = peft \"{at}/bert-tiny-lora-trained\"\n"
    );
    (dir, head, wanted.collect())
}

#[test]
fn an_adapter_is_scored_merged_and_trained_on_as_it_is() {
    let (dir, head, wanted) = trained();
    let recipe = format!(
        "{head}stage e = eval {{ model = m, adapter = lora, data = d.test, max_length = 64 }}\n\
         stage f = merge {{ model = m, adapter = lora }}\n\
         stage g = eval {{ from = f, data = d.test, max_length = 64 }}\n\
         stage s = train {{ model = m, data = d.test, adapter = lora, lr = 1e-30, steps = 1, dropout = 0, max_length = 64 }}\n\
         stage h = eval {{ from = s, data = d.test }}\n"
    );
    run(dir.path(), &recipe);
    for stage in ["e", "g", "h"] {
        assert_near(&scores(dir.path(), stage), &wanted, 1e-4, stage);
    }
}

#[test]
fn what_an_adapter_cannot_be_is_said() {
    let (dir, head, _) = trained();
    let dir = dir.path();
    let said = refused(
        dir,
        &format!("{head}stage f = merge {{ model = m }}\nstage g = merge {{ dtype = f32 }}\n"),
    );
    assert!(said.contains("no adapter to fold in"), "{said}");
    assert!(said.contains("neither `from` nor `model`"), "{said}");
    let said = refused(
        dir,
        &format!(
            "{head}stage e = eval {{ model = m, adapter = peft \"nowhere\", data = d.test }}\n"
        ),
    );
    assert!(said.contains("there is no directory"), "{said}");
    let other = head.replace("/bert-tiny\"", "/roberta-tiny\"");
    let said = refused(
        dir,
        &format!("{other}stage e = eval {{ model = m, adapter = lora, data = d.test }}\n"),
    );
    assert!(said.contains("is no tensor"), "{said}");
    for (kind, reason) in [
        ("PSOFT", "whose signs are those of the library"),
        ("XLORA", "mixes several LoRAs token by token"),
        ("SHADOW", "runs beside the base's blocks"),
        ("NOVEL", "which is not built yet"),
    ] {
        std::fs::create_dir_all(dir.join(kind)).expect("made");
        let config = format!("{{ \"peft_type\": \"{kind}\" }}");
        std::fs::write(dir.join(kind).join("adapter_config.json"), config).expect("written");
        let said = refused(
            dir,
            &format!(
                "{head}stage e = eval {{ model = m, adapter = peft \"{kind}\", data = d.test }}\n"
            ),
        );
        // Lines end where the folder's name makes them.
        let said = said.replace("│ ", "");
        assert!(said.contains(kind) && said.contains(reason), "{said}");
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn adapters_are_converted_to_loras_and_made_one() {
    let (dir, head, wanted) = trained();
    let dir = dir.path();
    let recipe = format!(
        "{head}stage s = train {{ model = m, data = d.test, adapter = lora, lr = 1e-30, steps = 1, dropout = 0, max_length = 64 }}\n\
         stage a = convert {{ from = s, rank = 4, to = \"a\" }}\n\
         stage b = convert {{ model = m, adapter = lora, energy = 99.99999%, to = \"b\" }}\n\
         stage c = convert {{ from = s, rank = 1, to = \"c\" }}\n"
    );
    run(dir, &recipe);
    let bytes = std::fs::read(dir.join(".peftc/runs/r/result.json")).expect("a result");
    let result: Value = serde_json::from_slice(&bytes).expect("JSON");
    let converted = |name: &str| {
        let mut stages = result["stages"].as_array().expect("stages").iter();
        let stage = stages.find(|s| s["name"] == name).expect("the stage");
        stage["converted"].as_array().expect("matrices").clone()
    };
    assert_eq!(converted("a").len(), 18);
    for name in ["a", "b"] {
        for matrix in converted(name) {
            assert_eq!(matrix["rank"], 4, "{matrix}");
            assert!(
                matrix["error"].as_f64().expect("an error") < 1e-3,
                "{matrix}"
            );
        }
    }
    let lost = converted("c");
    assert!(
        lost.iter()
            .all(|m| m["rank"] == 1 && m["error"].as_f64().expect("an error") > 0.1)
    );
    // One adapter twice is that adapter, whatever rule adds up its halves. (Both are of the same head, so one is without.)
    let bare = dir.join("bare");
    let here = Path::new("tests/reference/bert-tiny-lora-trained");
    std::fs::create_dir_all(&bare).expect("made");
    let config = std::fs::read(here.join("adapter_config.json")).expect("a config");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["modules_to_save"] = Value::Null;
    config["task_type"] = Value::Null;
    std::fs::write(bare.join("adapter_config.json"), config.to_string()).expect("written");
    let mut pairs = tensor::load(here.join("adapter_model.safetensors"));
    pairs.retain(|name, _| name.contains("lora_"));
    tensor::save(&pairs, bare.join("adapter_model.safetensors"));
    let two = format!(
        "adapters = [peft \"{}/{}\" {{ weight = 0.25 }}, peft \"bare\" {{ weight = 0.75 }}]",
        std::env::current_dir()
            .expect("a working directory")
            .display(),
        here.display()
    );
    let rules = [
        ("x", "combine = svd"),
        ("y", "combine = cat"),
        ("z", "combine = linear"),
        ("w", "combine = ties_svd, density = 1.0"),
    ];
    let mut recipe = head.clone();
    for (name, rule) in rules {
        recipe +=
            &format!("stage {name} = convert {{ model = m, {two}, {rule}, to = \"{name}\" }}\n");
    }
    run(dir, &recipe);
    for name in ["a", "b", "x", "y"] {
        let recipe = format!(
            "{head}stage e = eval {{ model = m, adapter = peft \"{name}\", data = d.test, max_length = 64 }}\n"
        );
        run(dir, &recipe);
        assert_near(&scores(dir, "e"), &wanted, 1e-4, name);
    }
    for (text, says) in [
        ("adapters = [lora, lora]", "how much this adapter counts"),
        (
            "adapters = [peft \"a\" { weight = 1 }, peft \"b\" { weight = 1 }]",
            "such modules are not made one",
        ),
        ("adapter = lora", "neither `rank` nor `energy`"),
        (
            "adapter = lora, rank = 2, density = 0.5",
            "`density` is for several adapters",
        ),
    ] {
        let said = refused(
            dir,
            &format!("{head}stage q = convert {{ model = m, {text}, to = \"q\" }}\n"),
        );
        assert!(said.contains(says), "{text}: {said}");
    }
}

type Tensors = std::collections::HashMap<String, Tensor>;

/// The reference adapter in a folder, its tensors and its config changed.
fn changed(to: &Path, change: impl FnOnce(&mut Tensors, &mut Value)) {
    let from = Path::new("tests/reference/bert-tiny-lora-trained");
    std::fs::create_dir_all(to).expect("made");
    let mut tensors = tensor::load(from.join("adapter_model.safetensors"));
    let config = std::fs::read(from.join("adapter_config.json")).expect("a config");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    change(&mut tensors, &mut config);
    tensor::save(&tensors, to.join("adapter_model.safetensors"));
    std::fs::write(to.join("adapter_config.json"), config.to_string()).expect("written");
}

/// Numbers without a pattern.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn what_an_adapter_changes_of_the_model_itself_is_applied_and_not_trained_on() {
    let (dir, head, _) = trained();
    let dir = dir.path();
    let (table, rows) = (
        "bert.embeddings.word_embeddings",
        "bert.embeddings.position_embeddings",
    );
    let (map, rank, scale) = ("bert.encoder.layer.1.output.dense", 4, 2.0);
    let (a, b) = (noise(rank * 900, 1), noise(64 * rank, 2));
    let (delta, bias, norm) = (noise(2 * 64, 3), noise(64, 4), noise(64, 5));
    let norm_bias = "bert.encoder.layer.0.output.LayerNorm.bias";
    changed(&dir.join("more"), |tensors, config| {
        let mut put = |name: &str, shape: &[usize], data: &[f32]| {
            let name = format!("base_model.model.{name}");
            let own = Tensor::from_vec(data.to_vec(), shape);
            tensors.insert(name, own.expect("fits"));
        };
        put(&format!("{table}.lora_embedding_A"), &[rank, 900], &a);
        put(&format!("{table}.lora_embedding_B"), &[64, rank], &b);
        let name = format!("{rows}.token_adapter.trainable_tokens_delta");
        put(&name, &[2, 64], &delta);
        put(&format!("{map}.base_layer.bias"), &[64], &bias);
        put(norm_bias, &[64], &norm);
        let targets = config["target_modules"].as_array_mut().expect("a list");
        targets.push("word_embeddings".into());
        config["trainable_token_indices"] = serde_json::json!({ "position_embeddings": [3, 1] });
        config["bias"] = "all".into();
        // Two entries of one file: what it changes is changed once.
        let module = "encoder.layer.0.attention.self.query";
        let half = format!("base_model.model.bert.{module}.lora_B.weight");
        let half = tensors.get_mut(&half).expect("a half");
        half.numbers_mut().iter_mut().for_each(|x| *x *= 2.0);
        config["alpha_pattern"] = serde_json::json!({ module: 4.0 });
    });
    // The same in the model's own files.
    let model = dir.join("m");
    std::fs::create_dir_all(&model).expect("made");
    for entry in std::fs::read_dir("tests/reference/bert-tiny")
        .expect("a folder")
        .flatten()
    {
        std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
    }
    let mut own = tensor::load(model.join("model.safetensors"));
    let weight = |name: &str| format!("{name}.weight");
    let words = own.get_mut(&weight(table)).expect("a table");
    for (i, row) in words.numbers_mut().chunks_exact_mut(64).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            let product = (0..rank).map(|k| a[k * 900 + i] * b[j * rank + k]);
            *x += scale * product.sum::<f32>();
        }
    }
    let positions = own.get_mut(&weight(rows)).expect("a table").numbers_mut();
    positions[3 * 64..4 * 64].copy_from_slice(&delta[..64]);
    positions[64..2 * 64].copy_from_slice(&delta[64..]);
    for (name, data) in [(format!("{map}.bias"), bias), (norm_bias.to_owned(), norm)] {
        own.insert(name, Tensor::from_vec(data, 64).expect("fits"));
    }
    tensor::save(&own, model.join("model.safetensors"));
    let recipe = format!(
        "{head}model n = local \"m\"\n\
         stage e = eval {{ model = m, adapter = peft \"more\", data = d.test, max_length = 64 }}\n\
         stage f = merge {{ model = m, adapter = peft \"more\" }}\n\
         stage g = eval {{ from = f, data = d.test, max_length = 64 }}\n\
         stage h = eval {{ model = n, adapter = lora, data = d.test, max_length = 64 }}\n"
    );
    run(dir, &recipe);
    let wanted = scores(dir, "h");
    for stage in ["e", "g"] {
        assert_near(&scores(dir, stage), &wanted, 1e-5, stage);
    }
    let said = refused(
        dir,
        &format!(
            "{head}stage s = train {{ model = m, data = d.test, adapter = peft \"more\", lr = 1e-3, steps = 1 }}\n"
        ),
    );
    assert!(said.contains("which `eval` and `merge` apply"), "{said}");
}

#[test]
fn a_bias_behind_b_is_trained_kept_and_written() {
    let (dir, head, _) = trained();
    let dir = dir.path();
    let recipe = format!(
        "{head}stage s = train {{ model = m, data = d.test, adapter = lora {{ lora_bias = true, rank = 2 }}, lr = 1e-2, steps = 4, max_length = 64 }}\n\
         stage e = eval {{ from = s, data = d.test }}\n"
    );
    run(dir, &recipe);
    let adapter = dir.join(".peftc/runs/r/s/adapter");
    let written = tensor::load(adapter.join("adapter_model.safetensors"));
    let biases: Vec<_> = written
        .iter()
        .filter(|(n, _)| n.ends_with("lora_B.bias"))
        .collect();
    assert_eq!(biases.len(), 6);
    let some = |tensor: &Tensor| tensor.numbers().iter().any(|x| *x != 0.0);
    assert!(biases.iter().all(|(_, tensor)| some(tensor)));
    let wanted = scores(dir, "e");
    let recipe = format!(
        "{head}stage e = eval {{ model = m, adapter = peft \"{}\", data = d.test, max_length = 64 }}\n",
        adapter.display()
    );
    run(dir, &recipe);
    assert_near(&scores(dir, "e"), &wanted, 1e-5, "read again");
    let said = refused(
        dir,
        &format!(
            "{head}stage s = train {{ model = m, data = d.test, adapter = lora {{ lora_bias = true }}, lr = 1e-2, steps = 1 }}\nstage f = merge {{ from = s }}\n"
        ),
    );
    assert!(said.contains("cannot be folded"), "{said}");
}

#[test]
fn what_is_exported_is_read_again() {
    let (dir, head, _) = trained();
    let dir = dir.path();
    let values = peftc::library::schema::Values::default();
    let methods = || {
        let all = peftc::library::method::METHODS.iter();
        all.filter(|m| m.adapts() && m.peft(&values).is_some())
    };
    let mut recipe = format!(
        "{head}stage warm = train {{ model = m, data = d.test, adapter = full, lr = 1e-3, steps = 1, max_length = 64 }}\n"
    );
    for method in methods() {
        let (name, own) = (method.schema().name, super::ways::written(*method));
        recipe += &format!(
            "stage s_{name} = train {{ model = m, data = d.test, adapter = {own}, {}lr = 1e-2, steps = 3, max_length = 64 }}\n\
             stage {name}_e = eval {{ from = s_{name}, data = d.test }}\n",
            super::ways::beside(name)
        );
    }
    run(dir, &recipe);
    let (mut recipe, mut wanted) = (head, Vec::new());
    for method in methods() {
        let name = method.schema().name;
        let adapter = dir.join(format!(".peftc/runs/r/s_{name}/adapter"));
        let Ok(text) = std::fs::read(adapter.join("adapter_config.json")) else {
            continue;
        };
        let config: Value = serde_json::from_slice(&text).expect("JSON");
        let config = config.as_object().expect("keys");
        let kind = config["peft_type"].as_str().expect("a type");
        let mut readers = peftc::library::method::METHODS.iter();
        if readers.any(|m| m.peft_keys(kind, config).is_some()) {
            recipe += &format!(
                "stage {name}_e = eval {{ model = m, adapter = peft \"{}\", data = d.test, max_length = 64 }}\n",
                adapter.canonicalize().expect("a folder").display()
            );
            wanted.push((name, scores(dir, &format!("{name}_e"))));
        }
    }
    run(dir, &recipe);
    for (name, wanted) in &wanted {
        assert_near(&scores(dir, &format!("{name}_e")), wanted, 1e-5, name);
    }
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    for name in ["lora", "dora", "vera"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn predict_takes_an_adapter_beside_its_base() {
    let (dir, _, wanted) = trained();
    let dir = dir.path();
    let base = std::env::current_dir().expect("a working directory");
    changed(&dir.join("a"), |_, config| {
        let base = base.join("tests/reference/bert-tiny").display().to_string();
        config["base_model_name_or_path"] = base.into();
    });
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args([
            "predict", "--quiet", "--all", "--format", "jsonl", "--text", "sentence",
        ])
        .arg(dir.join("a"))
        .arg("--input")
        .arg(dir.join("t.tsv"))
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), wanted.len(), "{text}");
    for (line, logits) in text.lines().zip(&wanted) {
        let row: Value = serde_json::from_str(line).expect("JSON");
        // The scores are of texts that were cut after 64 tokens.
        if row["sentence"].as_str().is_none_or(|text| text.len() > 100) {
            continue;
        }
        let own = row["probabilities"]["positive"].as_f64().expect("a share");
        let [a, b] = logits.as_slice() else {
            panic!("two scores");
        };
        let share = 1.0 / (1.0 + (a - b).exp());
        assert!((own - share).abs() < 1e-5, "{row} {logits:?}");
    }
    changed(&dir.join("b"), |_, config| {
        config["base_model_name_or_path"] = "org/nowhere".into();
    });
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("predict")
        .arg(dir.join("b"))
        .arg("--input")
        .arg(dir.join("t.tsv"))
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("org/nowhere"),
        "{said}"
    );
}
