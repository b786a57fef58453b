//! Side networks cut out of the backbone, against a plain transcription of the pruning
//! (`tests/reference/make_pruned_traces.py`): every entry of every side block.

use std::path::Path;
use std::time::Duration;

use peftc::files::weights::TensorFile;
use serde_json::Value;

use super::support::{here, printed, program, stderr_of};

fn tensor(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = file.tensor(name).expect("a tensor");
    let values = tensor.slice::<f32>().expect("f32").to_vec();
    (tensor.dims, values)
}

fn indices(value: &Value) -> Vec<usize> {
    let list = value.as_array().expect("indices");
    list.iter()
        .map(|i| i.as_u64().expect("an index") as usize)
        .collect()
}

/// The adapter as it is before training: after a step at a rate that changes nothing.
fn initial(model: &str, method: &str) -> (tempfile::TempDir, TensorFile) {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/{model}\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 64 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-30, steps = 1, max_length = 64, shuffle = false }}\n"
    );
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let output = program()
        .args(["run", "--json", "--quiet", "--threads", "2"])
        .arg(&path)
        .output()
        .expect("starts");
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{method}: {stderr}");
    let json: Value = printed(&output);
    let stage = &json["stages"][0];
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    assert!((0.99..=1.0).contains(&ratio), "{method}: {ratio}");
    let artifact = Path::new(stage["artifact"].as_str().expect("an artifact"))
        .join("adapter/peftc.safetensors");
    let file = TensorFile::open(&artifact).expect("an adapter");
    (dir, file)
}

const MATRICES: [&str; 6] = [
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.up",
    "ffn.down",
];

#[test]
fn side_blocks_are_the_rows_and_columns_that_the_transcription_keeps() {
    let text = std::fs::read_to_string("tests/reference/pruned.json").expect("the reference");
    let reference: Value = serde_json::from_str(&text).expect("JSON");
    for case in reference["cases"].as_array().expect("cases") {
        let name = |v: &Value| v.as_str().expect("a name").to_owned();
        let (model, method) = (name(&case["model"]), name(&case["method"]));
        let (_dir, adapter) = initial(&model, &method);
        let path = format!("tests/reference/{model}/model.safetensors");
        let base = TensorFile::open(Path::new(&path)).expect("weights");
        let mut columns = indices(&case["kept"][name(&case["word"])]);
        let mut seen = 0;
        for block in case["blocks"].as_array().expect("blocks") {
            let groups = block[1].as_array().expect("groups");
            let mut copies = MATRICES.iter();
            for group in groups {
                let mut rows = Vec::new();
                for matrix in group.as_array().expect("matrices") {
                    let (own, copy) = (name(matrix), copies.next().expect("a matrix"));
                    rows = indices(&case["kept"][&own]);
                    let copy = format!("side.block.{}.{copy}", block[0]);
                    let (dims, wide) = tensor(&base, &format!("{own}.weight"));
                    let width = dims[1];
                    let at = |r: &usize, c: &usize| wide[r * width + c];
                    let cut: Vec<f32> = rows
                        .iter()
                        .flat_map(|r| columns.iter().map(move |c| (r, c)))
                        .map(|(r, c)| at(r, c))
                        .collect();
                    let (dims, values) = tensor(&adapter, &format!("{copy}.weight"));
                    assert_eq!(dims, [rows.len(), columns.len()]);
                    assert!(values == cut, "{model} {method}: {copy}.weight");
                    let mut vectors = vec![(format!("{copy}.bias"), format!("{own}.bias"))];
                    let norm = match copy.rsplit_once("block.").map(|(_, c)| c.split_once('.')) {
                        Some(Some((_, "attention.output"))) => Some(("attention.norm", 0)),
                        Some(Some((_, "ffn.down"))) => Some(("ffn.norm", 1)),
                        _ => None,
                    };
                    if let Some((place, index)) = norm {
                        let norm = name(&block[2][index]);
                        for suffix in ["weight", "bias"] {
                            vectors.push((
                                format!("side.block.{}.{place}.{suffix}", block[0]),
                                format!("{norm}.{suffix}"),
                            ));
                        }
                    }
                    for (copy, own) in vectors {
                        let (_, wide) = tensor(&base, &own);
                        let cut: Vec<f32> = rows.iter().map(|&r| wide[r]).collect();
                        assert!(tensor(&adapter, &copy).1 == cut, "{model} {method}: {copy}");
                        seen += 1;
                    }
                    seen += 1;
                }
                columns = rows;
            }
        }
        assert_eq!(seen, 16 * case["blocks"].as_array().expect("blocks").len());
    }
}

#[test]
fn measured_pruning_has_the_same_bits_with_other_threads_and_after_kills() {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 400 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = lst {{ r = 4, init = fisher {{ samples = 100 }} }}, lr = 1e-3, epochs = 4 }}\n"
    );
    let (whole, killed) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let run = |dir: &Path, threads: &str| {
        let mut command = program();
        command
            .args([
                "run",
                "--quiet",
                "--checkpoint-every",
                "0",
                "--threads",
                threads,
            ])
            .arg(dir.join("r.peft"));
        command
    };
    for dir in [&whole, &killed] {
        std::fs::write(dir.path().join("r.peft"), &text).expect("written");
    }
    assert!(run(whole.path(), "1").status().expect("starts").success());
    let mut kills = 0;
    // While measuring, and later while training.
    for wait in [60, 250, 400] {
        let mut child = run(killed.path(), "2").spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(wait));
        if child.try_wait().expect("waits").is_none() {
            child.kill().expect("killed");
            kills += 1;
        }
        child.wait().expect("waits");
    }
    assert!(kills > 0, "the run was over before the first kill");
    assert!(run(killed.path(), "2").status().expect("starts").success());
    let adapter = |dir: &Path| {
        let json = std::fs::read(dir.join(".peftc/runs/r/result.json")).expect("a result");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        let artifact = json["stages"][0]["artifact"]
            .as_str()
            .expect("an artifact")
            .to_owned();
        std::fs::read(Path::new(&artifact).join("adapter/peftc.safetensors")).expect("an adapter")
    };
    assert!(
        adapter(whole.path()) == adapter(killed.path()),
        "the adapters differ"
    );
}

/// The fingerprint of a training with this method.
fn fingerprint(dir: &Path, method: &str) -> String {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 64 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-3, steps = 1 }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    let output = program()
        .args(["plan", "--json"])
        .arg(&path)
        .output()
        .expect("starts");
    let json: Value = printed(&output);
    json["stages"][0]["fingerprint"]
        .as_str()
        .expect("a fingerprint")
        .to_owned()
}

#[test]
fn what_a_side_network_begins_with_is_part_of_its_identity_and_random_is_the_default() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let of = |init: &str| fingerprint(dir.path(), &format!("lst {{ r = 4{init} }}"));
    let all = [
        "",
        ", init = magnitude",
        ", init = fisher",
        ", init = fisher { samples = 8 }",
    ]
    .map(of);
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one), "{i}");
    }
    assert_eq!(all[0], of(", init = random"));
    assert_eq!(all[2], of(", init = fisher { samples = 1024 }"));
}
