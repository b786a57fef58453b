//! Models read from GGUF files: losses of transformers, memory as announced, and files that are none.

use std::path::Path;
use std::process::Output;

use peftc::files::gguf::Gguf;
use serde_json::Value;

use super::support::{program, result, stderr_of};

const MODELS: [&str; 4] = ["llama", "gemma2", "gpt2", "gptneox"];

fn peftc(dir: &Path, command: &str, more: &[&str]) -> Output {
    let mut own = program();
    own.args([command, "--json", "--threads", "2"]).args(more);
    own.arg(dir.join("r.peft"));
    own.output().expect("starts")
}

fn reference() -> Value {
    let bytes =
        std::fs::read("tests/reference/gguf/expected.json").expect("the reference is there");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A folder with the texts of a model's reference, its file, and a recipe.
fn folder(model: &str, stage: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let data = dir.path().join("d");
    std::fs::create_dir(&data).expect("made");
    let texts = reference()[model]["texts"].clone();
    let lines: String = texts
        .as_array()
        .expect("texts")
        .iter()
        .map(|t| format!("{}\n", serde_json::json!({ "text": t })))
        .collect();
    for split in ["train", "test"] {
        std::fs::write(data.join(format!("{split}.jsonl")), &lines).expect("written");
    }
    let file = format!("tests/reference/gguf/{model}.gguf");
    std::fs::copy(file, dir.path().join("m.gguf")).expect("copied");
    let recipe = format!("data d = local \"d\" {{ text = text }}\n{stage}");
    std::fs::write(dir.path().join("r.peft"), recipe).expect("written");
    dir
}

const EVAL: &str = "stage e = eval { model = m, data = d.test, objective = causal_lm, metrics = [loss], batch = 2, max_length = 64 }\n";
const LORA: &str = "stage s = train { model = m, data = d.train, objective = causal_lm, adapter = lora { rank = 2 }, lr = 1e-2, steps = 6, \
                    batch = 3, max_length = 64 }\n";

/// The same recipe for a model: the maps of some families are one.
fn lora(model: &str) -> String {
    match model.starts_with("gpt") {
        true => LORA.replace("rank = 2", "rank = 2, on = {attention.*, ffn.*}"),
        false => LORA.to_owned(),
    }
}

/// A message without its frame and line breaks.
/// What was printed in lines, as one; words that are broken behind a hyphen are whole again.
fn unwrapped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('│', " ");
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.fold(String::new(), |all, line| {
        let between = if all.ends_with('-') { "" } else { " " };
        all + between + &line
    })
}

fn ratio(stage: &Value) -> f64 {
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    bytes("measured_peak_bytes") / bytes("estimated_peak_bytes")
}

#[test]
fn models_and_tokenizers_give_the_losses_of_transformers() {
    for model in MODELS {
        let dir = folder(model, &format!("model m = gguf \"m.gguf\"\n{EVAL}"));
        let stage = result(&peftc(dir.path(), "run", &["--quiet"]))["stages"][0].clone();
        let want = reference()[model]["loss"].as_f64().expect("a loss");
        let got = stage["metrics"]["loss"].as_f64().expect("a loss");
        assert!((got - want).abs() < 1e-5, "{model}: {got}, {want}");
        assert!(
            (0.98..=1.0).contains(&ratio(&stage)),
            "{model}: {}",
            ratio(&stage)
        );
    }
}

#[test]
fn matrices_stay_as_the_file_has_them_unless_a_type_is_written() {
    let frozen = |dtype: &str| {
        let dir = folder(
            "llama",
            &format!("model m = gguf \"m.gguf\" {{ {dtype} }}\n{LORA}"),
        );
        let plan = result(&peftc(dir.path(), "check", &[]));
        let bytes = plan["recipes"][0]["stages"][0]["memory"]["frozen_weights"].as_f64();
        let run = result(&peftc(dir.path(), "run", &["--quiet"]))["stages"][0].clone();
        assert!(
            (0.98..=1.0).contains(&ratio(&run)),
            "{dtype}: {}",
            ratio(&run)
        );
        let (first, last) = (run["loss_first"].as_f64(), run["loss_last"].as_f64());
        assert!(
            last.expect("a loss") < first.expect("a loss"),
            "{dtype} learns"
        );
        bytes.expect("bytes")
    };
    let own = frozen("");
    let wide = frozen("dtype = f32");
    // The matrices are in 16 bits, the norms in f32.
    assert!((0.5..0.52).contains(&(own / wide)), "{own} of {wide}");
    assert!((0.13..0.16).contains(&(frozen("dtype = q4_0") / wide)));
}

#[test]
fn what_is_no_whole_gguf_file_is_refused_by_name() {
    let file = std::fs::read("tests/reference/gguf/llama.gguf").expect("a file");
    let with = |at: usize, bytes: &[u8]| {
        let mut own = file.clone();
        own[at..at + bytes.len()].copy_from_slice(bytes);
        own
    };
    let place = |text: &str| {
        let found = file.windows(text.len()).position(|w| w == text.as_bytes());
        found.expect("there") + text.len()
    };
    let many = u64::MAX.to_le_bytes();
    let kind = place("blk.0.ffn_down.weight") + 4 + 16;
    for (bytes, said) in [
        (b"GGUF".to_vec(), "in the middle of its header"),
        (Vec::new(), "does not begin with `GGUF`"),
        (with(0, b"GGJT"), "does not begin with `GGUF`"),
        (with(4, &[9]), "version 9"),
        (with(4, &[0, 0, 0, 3]), "big-endian"),
        (with(8, &many), "announces 18446744073709551615 tensors"),
        (with(16, &many), "announces 18446744073709551615 keys"),
        (with(24, &many), "bytes of a key"),
        (file[..file.len() / 2].to_vec(), "the file is cut"),
        (file[..2000].to_vec(), "more than its 2000 bytes can hold"),
        (with(kind, &[16]), "IQ2_XXS"),
        (
            with(place("general.architecture") + 12, b"mamba"),
            "`mamba`",
        ),
        (
            with(
                place("llama.block_count"),
                &[8, 0, 0, 0, 255, 255, 255, 255, 255],
            ),
            "bytes of the value",
        ),
    ] {
        let dir = folder("llama", &format!("model m = gguf \"m.gguf\"\n{EVAL}"));
        std::fs::write(dir.path().join("m.gguf"), bytes).expect("written");
        let output = peftc(dir.path(), "run", &["--quiet"]);
        let told = unwrapped(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}: {told}");
        assert!(
            told.contains(said) && told.contains("m.gguf"),
            "{said}: {told}"
        );
    }
    let dir = folder("llama", &format!("model m = local \".\"\n{EVAL}"));
    let told = unwrapped(&peftc(dir.path(), "run", &["--quiet"]).stderr);
    assert!(told.contains("write `gguf \"m.gguf\"`"), "{told}");
}

#[test]
fn no_byte_of_the_front_makes_reading_panic() {
    let file = std::fs::read("tests/reference/gguf/llama.gguf").expect("a file");
    let front = file
        .windows(12)
        .rposition(|w| w.ends_with(b"norm.weight"))
        .expect("a tensor")
        + 60;
    let scratch = tempfile::NamedTempFile::new().expect("a scratch file");
    let mut read = 0;
    for at in (0..front).step_by(7) {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = file.clone();
            bytes[at] ^= flip;
            std::fs::write(scratch.path(), &bytes).expect("written");
            let open = std::fs::File::open(scratch.path()).expect("opened");
            if let Ok(own) = Gguf::open(&open, bytes.len() as u64) {
                read += 1;
                for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
                    let _either = own.side(name);
                }
            }
        }
    }
    // Most flips are in texts of tokens, which may be any.
    assert!(read > 100);
}

/// Trains LoRA on a model, exports it in several ways, and gives the folder.
fn exported(model: &str, exports: &str) -> (tempfile::TempDir, Value) {
    let dir = folder(
        model,
        &format!(
            "model m = gguf \"m.gguf\"\n{}stage e = eval {{ from = s, data = d.test, metrics = [loss], batch = 2 }}\n{exports}",
            lora(model)
        ),
    );
    let stages = result(&peftc(dir.path(), "run", &["--quiet"]));
    (dir, stages)
}

#[test]
fn a_tuned_model_is_exported_and_read_again_with_the_same_loss() {
    for model in MODELS {
        let (dir, all) = exported(
            model,
            "stage f = export { from = s, format = gguf { dtype = f32 }, to = \"out/wide.gguf\" }\n\
             stage q = export { from = s, format = gguf { dtype = q8_0 }, to = \"out/small.gguf\" }\n",
        );
        let stages = all["stages"].as_array().expect("stages");
        let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
        for name in ["f", "q"] {
            assert!(
                (0.98..=1.0).contains(&ratio(stage(name))),
                "{model} {name}: {}",
                ratio(stage(name))
            );
        }
        let want = stage("e")["metrics"]["loss"].as_f64().expect("a loss");
        for (file, most) in [("wide", 1e-5), ("small", 0.05)] {
            let text = format!(
                "data d = local \"d\" {{ text = text }}\nmodel m = gguf \"out/{file}.gguf\"\n{EVAL}"
            );
            std::fs::write(dir.path().join("r.peft"), text).expect("written");
            let again = result(&peftc(dir.path(), "run", &["--quiet"]));
            let got = again["stages"][0]["metrics"]["loss"]
                .as_f64()
                .expect("a loss");
            assert!((got - want).abs() < most, "{model} {file}: {got}, {want}");
            let said = std::fs::read_to_string(dir.path().join(format!("out/{file}.Modelfile")))
                .expect("a Modelfile");
            assert!(said.starts_with(&format!("FROM ./{file}.gguf\n")), "{said}");
        }
    }
}

#[test]
fn adapters_are_exported_for_llama_cpp_and_mlx() {
    let (dir, _) = exported(
        "llama",
        "stage a = export { from = s, format = gguf_adapter, to = \"out/lora.gguf\" }\n\
         stage x = export { from = s, format = mlx, to = \"mlx\" }\n",
    );
    let file = std::fs::File::open(dir.path().join("out/lora.gguf")).expect("a file");
    let size = file.metadata().expect("a size").len();
    let header = peftc::files::gguf::header::Header::read(&file, size).expect("an adapter");
    assert_eq!(header.text("general.type"), Ok(Some("adapter")));
    assert_eq!(header.text("adapter.type"), Ok(Some("lora")));
    let tensor = |name: &str| header.tensor(name).expect(name).shape.clone();
    assert_eq!(tensor("blk.1.attn_v.weight.lora_a"), [2, 32]);
    assert_eq!(tensor("blk.1.attn_v.weight.lora_b"), [16, 2]);
    let text =
        std::fs::read_to_string(dir.path().join("mlx/adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["num_layers"], 2);
    assert_eq!(config["lora_parameters"]["rank"], 2);
    let bytes = std::fs::read(dir.path().join("mlx/adapters.safetensors")).expect("tensors");
    let all = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let b = all
        .tensor("model.layers.1.self_attn.v_proj.lora_b")
        .expect("a tensor");
    assert_eq!(b.shape(), [2, 16]);
}

/// A tensor of a GGUF file, its shape and its numbers.
fn numbers(path: &Path, name: &str) -> (Vec<u64>, Vec<f32>) {
    let file = std::fs::File::open(path).expect("a file");
    let size = file.metadata().expect("a size").len();
    let header = peftc::files::gguf::header::Header::read(&file, size).expect("a header");
    let tensor = header.tensor(name).expect(name);
    let bytes = std::fs::read(path).expect("read");
    let bytes = &bytes[tensor.start as usize..tensor.end as usize];
    let count: u64 = tensor.shape.iter().product();
    let wide = match bytes.len() as u64 / count {
        4 => bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("four")))
            .collect(),
        _ => bytes
            .chunks(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
    };
    (tensor.shape.clone(), wide)
}

/// The alpha of an adapter.
fn alpha(path: &Path) -> f32 {
    let file = std::fs::File::open(path).expect("a file");
    let size = file.metadata().expect("a size").len();
    let header = peftc::files::gguf::header::Header::read(&file, size).expect("a header");
    let alpha = header.number("adapter.lora.alpha").expect("a number");
    alpha.expect("an alpha") as f32
}

#[test]
fn adapters_of_fused_maps_are_what_was_learned_in_the_order_of_the_file() {
    for model in ["gpt2", "gptneox"] {
        let (dir, _) = exported(
            model,
            "stage f = export { from = s, format = gguf { dtype = f32 }, to = \"wide.gguf\" }\n\
             stage a = export { from = s, format = gguf_adapter, to = \"lora.gguf\" }\n",
        );
        let of = |file: &str, name: &str| numbers(&dir.path().join(file), name);
        let scale = alpha(&dir.path().join("lora.gguf")) / 2.0;
        for map in ["attn_qkv", "attn_output", "ffn_up", "ffn_down"] {
            let name = format!("blk.1.{map}.weight");
            let (shape, before) = of("m.gguf", &name);
            let (_, merged) = of("wide.gguf", &name);
            let (_, a) = of("lora.gguf", &format!("{name}.lora_a"));
            let (_, b) = of("lora.gguf", &format!("{name}.lora_b"));
            let [out, input] = [shape[0] as usize, shape[1] as usize];
            let update = |i: usize, j: usize| b[2 * i] * a[j] + b[2 * i + 1] * a[input + j];
            let mut largest = 0.0_f32;
            for (i, j) in (0..out).flat_map(|i| (0..input).map(move |j| (i, j))) {
                let learned = merged[i * input + j] - before[i * input + j];
                largest = largest.max(learned.abs());
                let off = learned - scale * update(i, j);
                assert!(off.abs() < 1e-5, "{model} {map} [{i}, {j}]: {off}");
            }
            assert!(largest > 1e-4, "{model} {map} has learned");
        }
    }
}

#[test]
fn what_has_no_name_in_the_target_is_an_error_at_its_line() {
    for (adapter, format, said) in [
        ("dora { rank = 2 }", "gguf_adapter", "`dora` is no LoRA"),
        ("dora { rank = 2 }", "mlx", "`dora` is no LoRA"),
        (
            "lora { rank = 2, on = layers[0].ffn.* }",
            "mlx",
            "not the same in each of the last blocks",
        ),
        ("full", "gguf_adapter", "leaves no adapter"),
    ] {
        let train = LORA.replace("lora { rank = 2 }", adapter);
        let dir = folder(
            "llama",
            &format!(
                "model m = gguf \"m.gguf\"\n{train}stage x = export {{ from = s, format = {format}, to = \"o.gguf\" }}\n"
            ),
        );
        let output = peftc(dir.path(), "run", &["--quiet"]);
        let told = unwrapped(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{adapter} {format}: {told}");
        assert!(told.contains(said), "{adapter} {format}: {told}");
    }
}

#[test]
fn rounding_that_loses_what_was_learned_is_refused_unless_forced() {
    // An update so small that 4 bits cannot hold it.
    let train = LORA.replace("lr = 1e-2, steps = 6", "lr = 1e-6, steps = 1");
    for force in ["", ", force = true"] {
        let dir = folder(
            "llama",
            &format!(
                "model m = gguf \"m.gguf\"\n{train}stage x = export {{ from = s, format = gguf {{ dtype = q4_0 }}, to = \"o.gguf\"{force} }}\n"
            ),
        );
        let output = peftc(dir.path(), "run", &["--quiet"]);
        let told = stderr_of(&output);
        assert_eq!(output.status.success(), !force.is_empty(), "{told}");
        assert!(
            !force.is_empty() || told.contains("more than the adapter did"),
            "{told}"
        );
        assert_eq!(dir.path().join("o.gguf").exists(), !force.is_empty());
    }
}
