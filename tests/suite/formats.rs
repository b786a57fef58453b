//! Frozen weights in blocks, for every format of the table: curves against PyTorch on the same dequantised weights, memory
//! as announced, the same numbers after a kill, and what is refused.

use std::path::Path;
use std::process::Output;

use peftc::program::format::{BlockFormat, FORMATS, Format};
use peftc::program::{Class, DType};
use serde_json::Value;

use super::support::{here, printed, program, result, stderr_of};

fn root() -> String {
    here().display().to_string()
}

/// The formats that a recipe may choose.
fn chosen() -> impl Iterator<Item = &'static &'static dyn BlockFormat> {
    FORMATS.iter().filter(|f| f.encode().is_some())
}

/// Those whose blocks fit into the rows of tiny models.
fn short() -> impl Iterator<Item = &'static &'static dyn BlockFormat> {
    chosen().filter(|f| f.numbers() <= 64)
}

fn reference() -> Value {
    let bytes = std::fs::read("tests/reference/formats.json").expect("the reference is there");
    serde_json::from_slice(&bytes).expect("the reference is JSON")
}

/// Writes a recipe of LoRA on a tiny model from the reference's start.
fn write(dir: &Path, model: &str, dtype: &str, steps: u32) {
    let at = root();
    let text = format!(
        "model m = local \"{at}/tests/reference/{model}\" {{ dtype = {dtype} }}\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 320 }}\n\
         stage s = train {{\n model = m\n data = d.train\n adapter = lora {{ start = \"{at}/tests/reference/{model}-lora\" }}\n\
         optimizer = adamw {{ weight_decay = 0.01 }}\n lr = 1e-3\n steps = {steps}\n batch = 16\n max_length = 64\n clip = 0\n\
         dropout = 0\n shuffle = false\n}}\n"
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
}

fn run(dir: &Path, more: &[&str]) -> Output {
    let mut command = program();
    command.args(["run", "--quiet", "--json", "--threads", "2"]);
    command.args(more).arg(dir.join("r.peft"));
    command.output().expect("starts")
}

fn losses(dir: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let loss = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["loss"].as_f64().expect("a loss")
    };
    log.lines().map(loss).collect()
}

#[test]
fn lora_on_blocks_learns_as_pytorch_does_on_the_dequantised_weights() {
    let reference = reference();
    let curves = reference["curves"].as_array().expect("curves");
    for format in short() {
        let own: Vec<&Value> = curves
            .iter()
            .filter(|c| c["dtype"] == format.name())
            .collect();
        assert_eq!(own.len(), 3, "{}", format.name());
        for curve in own {
            let model = curve["model"].as_str().expect("a name");
            let dir = tempfile::tempdir().expect("a scratch directory");
            write(dir.path(), model, format.name(), 20);
            let stage = result(&run(dir.path(), &[]))["stages"][0].clone();
            let (got, want) = (
                losses(dir.path()),
                curve["loss"].as_array().expect("losses"),
            );
            assert_eq!(got.len(), want.len());
            for (step, (got, want)) in got.iter().zip(want).enumerate() {
                let off = (got - want.as_f64().expect("a loss")).abs();
                // bitsandbytes looks the code of a scale up in a coarse table: of some thousand, one is a step beside.
                let most = if format.name() == "nf4" { 5e-4 } else { 1e-4 };
                assert!(off < most, "{} {model} step {step}: {off}", format.name());
            }
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!(
                (0.98..=1.0).contains(&ratio),
                "{} {model}: {ratio}",
                format.name()
            );
        }
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_losses() {
    for format in short() {
        let (whole, killed) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        for dir in [&whole, &killed] {
            write(dir.path(), "bert-tiny", format.name(), 40);
        }
        result(&run(whole.path(), &[]));
        let log = killed.path().join(".peftc/runs/r/s/metrics.jsonl");
        let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let mut child = program()
            .args([
                "run",
                "--quiet",
                "--threads",
                "2",
                "--checkpoint-every",
                "0",
            ])
            .arg(killed.path().join("r.peft"))
            .spawn()
            .expect("starts");
        while child.try_wait().expect("waited for").is_none() && steps() < 5 {
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(steps() < 40, "the run was over before it was killed");
        result(&run(killed.path(), &["--checkpoint-every", "0"]));
        assert_eq!(
            losses(whole.path()),
            losses(killed.path()),
            "{}",
            format.name()
        );
    }
}

/// RoBERTa-large from its config alone.
#[test]
fn frozen_weights_take_the_formats_bytes() {
    let frozen = |dtype: &str| -> f64 {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let at = root();
        std::fs::create_dir_all(dir.path().join("model")).expect("a folder");
        let config = format!("{at}/recipes/report/roberta-large.json");
        std::fs::copy(config, dir.path().join("model/config.json")).expect("copied");
        let text = format!(
            "model m = local \"model\" {{ init = random, dtype = {dtype}, tokenizer = \"{at}/tests/reference/roberta-tiny\" }}\n\
             data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 32 }}\n\
             stage s = train {{ model = m, data = d.train, adapter = lora {{ rank = 8 }}, lr = 1e-3, steps = 2, batch = 4 }}\n"
        );
        std::fs::write(dir.path().join("r.peft"), text).expect("written");
        let output = program()
            .args(["check", "--json"])
            .arg(dir.path().join("r.peft"))
            .output()
            .expect("starts");
        let said = stderr_of(&output);
        assert!(output.status.success(), "{said}");
        let plan: Value = printed(&output);
        plan["recipes"][0]["stages"][0]["memory"]["frozen_weights"]
            .as_f64()
            .expect("bytes")
    };
    let wide = frozen("f32");
    for format in chosen() {
        // Vectors and the head stay in f32.
        let expected = format.bytes() as f64 / (4 * format.numbers()) as f64;
        let ratio = frozen(format.name()) / wide;
        assert!(
            (expected..expected + 0.01).contains(&ratio),
            "{}: {ratio}",
            format.name()
        );
    }
}

/// Which tensors are in blocks: the model's own matrices that nothing trains, whose rows are whole blocks.
#[test]
fn only_the_models_own_frozen_matrices_are_in_blocks() {
    let at = root();
    for format in short() {
        let own = Format::named(format.name()).expect("a format");
        for (adapter, trained) in [
            ("lora { rank = 4 }", vec![]),
            ("siva { rank = 4 }", vec![]),
            ("last_n { n = 1 }", vec!["encoder.layer.2."]),
        ] {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let text = format!(
                "model m = local \"{at}/tests/reference/bert-tiny\" {{ dtype = {} }}\n\
                 data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 32 }}\n\
                 stage s = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-3, steps = 2 }}\n\
                 stage e = eval {{ from = s, data = d.dev }}\n",
                format.name()
            );
            let path = dir.path().join("r.peft");
            std::fs::write(&path, text).expect("written");
            let world = peftc::cli::world::RealWorld::new(true);
            let machine = peftc::program::op::Machine::cpu(2);
            let plan = peftc::driver::compile(&path, &[], &world, &machine)
                .plan
                .expect("a plan");
            let mut seen = 0;
            for (i, stage) in plan.stages.iter().enumerate() {
                for resident in stage
                    .job
                    .programs()
                    .iter()
                    .flat_map(|p| &p.program().residents)
                {
                    let param = stage.job.params.iter().find(|p| p.name == resident.name);
                    let Some(param) = param else { continue };
                    let name = &param.name;
                    let base = name.starts_with("bert.") && !name.contains("pooler");
                    let base = base && !name.contains("lora_") && !name.contains("siva_");
                    let is_trained = trained.iter().any(|t| name.contains(t));
                    // What `last_n` leaves is a model of its own, which is stored as it was written.
                    let blocks = base
                        && param.shape.len() == 2
                        && !is_trained
                        && (i == 0 || trained.is_empty());
                    let want = if blocks {
                        own
                    } else {
                        Format::Plain(DType::F32)
                    };
                    if !name.starts_with("bert.") || base {
                        assert_eq!(
                            resident.ty.stored, want,
                            "{adapter} {}: {name}",
                            stage.name.value
                        );
                        seen += usize::from(blocks);
                    }
                    assert!(resident.class != Class::Trainable || resident.ty.stored == DType::F32);
                }
            }
            assert!(seen > 5, "{adapter}: {seen}");
        }
    }
}

#[test]
fn numbers_that_blocks_cannot_hold_are_named_with_the_remedy() {
    for format in short() {
        for bad in [f32::NAN, f32::INFINITY] {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let model = dir.path().join("model");
            std::fs::create_dir_all(&model).expect("a folder");
            for entry in std::fs::read_dir("tests/reference/bert-tiny").expect("a model") {
                let entry = entry.expect("a file");
                std::fs::copy(entry.path(), model.join(entry.file_name())).expect("copied");
            }
            let file = model.join("model.safetensors");
            let mut bytes = std::fs::read(&file).expect("weights");
            let name = "bert.encoder.layer.1.intermediate.dense.weight";
            let at = {
                let all = safetensors::SafeTensors::deserialize(&bytes).expect("weights");
                let data = all.tensor(name).expect("a tensor").data().as_ptr();
                data as usize - bytes.as_ptr() as usize + 4 * 77
            };
            bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes());
            std::fs::write(&file, bytes).expect("written");
            let text = format!(
                "model m = local \"model\" {{ dtype = {} }}\n\
                 data d = local \"{}/recipes/reviews\" {{ text = sentence, label = label, take = 32 }}\n\
                 stage s = train {{ model = m, data = d.train, adapter = lora, lr = 1e-3, steps = 2 }}\n",
                format.name(),
                root()
            );
            std::fs::write(dir.path().join("r.peft"), text).expect("written");
            let output = run(dir.path(), &[]);
            let said = stderr_of(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains(name) && said.contains("not finite") && said.contains("dtype = bf16"),
                "{said}"
            );
        }
    }
}
