//! Methods one after the other and beside each other: ladders on tuned and on trained backbones, masks that are chosen anew,
//! prompts from texts and of one task among several.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde_json::Value;

use super::support::{done, here, json, program, stderr_of};

type Numbers = BTreeMap<String, Vec<f32>>;

fn write(dir: &Path, body: &str) -> std::path::PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 48, labels = [negative, positive] }}\n{body}"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

/// Runs a recipe; its stages' results by name. Estimates are those that are measured.
fn run(dir: &Path, body: &str) -> BTreeMap<String, Value> {
    let path = write(dir, body);
    done(program().args(["run", "--quiet"]).arg(&path));
    let result = json(dir.join(".peftc/runs/r/result.json"));
    let stages = result["stages"].as_array().expect("stages");
    for stage in stages {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
    let one = |s: &Value| (s["name"].as_str().expect("a name").to_owned(), s.clone());
    stages.iter().map(one).collect()
}

fn tensors(path: &Path) -> Numbers {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let of = |data: &[u8]| {
        let parts = data.as_chunks::<4>().0.iter();
        parts.map(|&x| f32::from_le_bytes(x)).collect()
    };
    let all = file.tensors().into_iter();
    all.map(|(name, t)| (name, of(t.data()))).collect()
}

fn left(dir: &Path, stage: &str, file: &str) -> Numbers {
    tensors(&dir.join(".peftc/runs/r").join(stage).join(file))
}

fn loss(stages: &BTreeMap<String, Value>, name: &str) -> f64 {
    stages[name]["metrics"]["loss"].as_f64().expect("a loss")
}

#[test]
fn ladders_stand_on_tuned_backbones_and_beside_trained_blocks() {
    let dir = tempfile::tempdir().expect("a directory");
    let train = "data = d.train, lr = 1e-3, steps = 3, batch = 8";
    let body = format!(
        "stage z = mezo {{ model = m, data = d.train, adapter = full, lr = 1e-6, steps = 2 }}\n\
         stage tuned = train {{ from = z, adapter = k_lst {{ k = 3 }}, {train} }}\n\
         stage last = train {{ model = m, adapters = [k_lst {{ k = 3 }}, last_n {{ n = 1 }}], {train}, micro_batch = 4 }}\n\
         stage both = train {{ model = m, adapters = [k_lst {{ k = 3 }}, siva {{ rank = 4, on = layers[-2..].{{attention.*, ffn.*}} }}], {train} }}\n\
         stage again = eval {{ from = both, data = d.dev, metrics = [loss] }}\n\
         stage s = train {{ model = m, adapter = siva {{ rank = 4 }}, {train} }}\n\
         stage f = merge {{ from = s }}\n\
         stage after = train {{ from = f, adapter = lst, {train} }}\n"
    );
    let stages = run(dir.path(), &body);
    assert!(loss(&stages, "again").is_finite());
    let file = "adapter/peftc.safetensors";
    let own = left(dir.path(), "last", file);
    let blocks: Vec<&String> = own
        .keys()
        .filter(|n| n.starts_with("bert.encoder"))
        .collect();
    assert!(
        !blocks.is_empty() && blocks.iter().all(|n| n.contains(".layer.2.")),
        "{blocks:?}"
    );
    let base = tensors(&here().join("tests/reference/bert-tiny/model.safetensors"));
    assert!(
        blocks.iter().all(|n| own[*n] != base[*n]),
        "each of them is trained"
    );
    let both = left(dir.path(), "both", file);
    let siva: Vec<&String> = both
        .keys()
        .filter(|n| n.starts_with("bert.encoder"))
        .collect();
    assert!(
        siva.iter().all(|n| !n.contains(".layer.0.")) && siva.len() >= 24,
        "{siva:?}"
    );
}

#[test]
fn masks_are_chosen_anew_from_what_a_round_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let round = |from: &str, name: &str| {
        format!(
            "stage {name} = train {{ {from}, data = d.train, adapter = fish {{ density = 0.02, samples = 8 }}, lr = 1e-2, steps = 3 }}\n\
             stage {name}_m = merge {{ from = {name} }}\n"
        )
    };
    let body = round("model = m", "one") + &round("from = one_m", "two");
    run(dir.path(), &body);
    let base = tensors(&here().join("tests/reference/bert-tiny/model.safetensors"));
    let changed = |stage: &str| -> Vec<(String, usize)> {
        let after = left(dir.path(), stage, "model/model.safetensors");
        let maps = base
            .iter()
            .filter(|(n, _)| n.contains(".layer.") && n.ends_with("dense.weight"));
        maps.flat_map(|(name, before)| {
            let pairs = before.iter().zip(&after[name]).enumerate();
            let moved = pairs.filter(|(_, (a, b))| a != b);
            moved.map(|(i, _)| (name.clone(), i)).collect::<Vec<_>>()
        })
        .collect()
    };
    let (one, two) = (changed("one_m"), changed("two_m"));
    assert!(
        one.iter().all(|place| two.contains(place)),
        "nothing is rewound"
    );
    assert!(two.len() > one.len(), "{} and {}", one.len(), two.len());
}

#[test]
fn diff_pruning_goes_on_from_its_largest_differences() {
    let dir = tempfile::tempdir().expect("a directory");
    let body = "stage w = train { model = m, data = d.train, adapter = diff_pruning { gate_rate = 10 }, lr = 1e-3, steps = 3 }\n\
                stage f = merge { from = w }\n\
                stage s = train { model = m, data = d.train, adapter = lt_sft { density = 0.01, rewind = false }, tuned = f, lr = 1e-30, steps = 1 }\n\
                stage g = merge { from = s }\n";
    run(dir.path(), body);
    let base = tensors(&here().join("tests/reference/bert-tiny/model.safetensors"));
    let file = "model/model.safetensors";
    let (dense, kept) = (left(dir.path(), "f", file), left(dir.path(), "g", file));
    let (mut same, mut all) = (0_usize, 0_usize);
    for (name, before) in base
        .iter()
        .filter(|(n, _)| n.contains(".layer.") && n.ends_with("weight"))
    {
        for (i, before) in before.iter().enumerate() {
            all += 1;
            if kept[name][i] != *before {
                same += 1;
                assert!((kept[name][i] - dense[name][i]).abs() < 1e-6, "{name}[{i}]");
            }
        }
    }
    let share = same as f64 / all as f64;
    assert!((0.008..=0.0101).contains(&share), "{share}");
}

#[test]
fn a_prompt_starts_at_the_tokens_of_a_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let stage = |name: &str, method: &str| {
        format!(
            "stage {name} = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-30, steps = 1 }}\n"
        )
    };
    let body = stage("t", "prompt_tuning { tokens = 7, text = \"a good film\" }")
        + &stage("c", "cpt { text = \"a good film\" }")
        + &stage("v", "prompt_tuning { tokens = 2, init = vocabulary }");
    run(dir.path(), &body);
    let table = &tensors(&here().join("tests/reference/bert-tiny/model.safetensors"))["bert.embeddings.word_embeddings.weight"];
    let file = "adapter/peftc.safetensors";
    let name = "bert.embeddings.word_embeddings";
    let own = &left(dir.path(), "t", file)[&format!("{name}.prompt")];
    let context = &left(dir.path(), "c", file)[&format!("{name}.context")];
    let width = own.len() / 7;
    let ids: Vec<usize> = own
        .chunks(width)
        .map(|row| {
            table
                .chunks(width)
                .position(|known| known == row)
                .expect("a row of the table")
        })
        .collect();
    let count = context.len() / width;
    assert!(count >= 3 && context[..] == own[..count * width], "{ids:?}");
    // What an artifact says of them is read again.
    std::fs::write(dir.path().join("in.tsv"), "sentence\na fine film\n").expect("written");
    for stage in ["t", "c", "v"] {
        done(
            program()
                .arg("predict")
                .arg(dir.path().join(".peftc/runs/r"))
                .args(["--stage", stage, "--input"])
                .arg(dir.path().join("in.tsv")),
        );
    }
    let both = "prompt_tuning { token_ids = [5], init = uniform }";
    let path = write(dir.path(), &stage("s", both));
    let output = program().arg("check").arg(path).output().expect("starts");
    assert!(
        stderr_of(&output).contains("both say what"),
        "{}",
        stderr_of(&output)
    );
    let repeated = |i: usize| ids[i] == ids[i % count];
    assert!(
        (0..7).all(repeated),
        "{ids:?} from the first again after {count}"
    );
}

/// An adapter of peft's for three tasks, or the prompt of one of them.
fn prompt_of(dir: &Path, task: Option<usize>) {
    std::fs::create_dir_all(dir).expect("a folder");
    let (tokens, rank, width, tasks) = (2, 1, 64, 3);
    let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
    let shared: Vec<f32> = (0..tokens * width).map(number).collect();
    let columns: Vec<f32> = (0..tasks * tokens * rank)
        .map(|i| 4.0 * number(i + 5))
        .collect();
    let rows: Vec<f32> = (0..tasks * rank * width)
        .map(|i| 4.0 * number(i + 9))
        .collect();
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut all: Vec<(&str, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut config = serde_json::json!({
        "peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": tokens, "num_layers": 3,
        "num_attention_heads": 4, "token_dim": width, "num_transformer_submodules": 1,
    });
    match task {
        Some(task) => {
            let at = |i: usize| {
                let (token, column) = (i / width, i % width);
                columns[task * tokens + token] * rows[task * width + column]
            };
            let own: Vec<f32> = shared.iter().enumerate().map(|(i, x)| x * at(i)).collect();
            all.push(("prompt_embeddings", vec![tokens, width], bytes(&own)));
        }
        None => {
            config["peft_type"] = "MULTITASK_PROMPT_TUNING".into();
            (config["num_tasks"], config["num_ranks"]) = (tasks.into(), rank.into());
            all.push(("prompt_embeddings", vec![tokens, width], bytes(&shared)));
            all.push((
                "prefix_task_cols",
                vec![tasks, tokens, rank],
                bytes(&columns),
            ));
            all.push(("prefix_task_rows", vec![tasks, rank, width], bytes(&rows)));
        }
    }
    let views = all.iter().map(|(name, shape, data)| {
        (
            *name,
            TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor"),
        )
    });
    serialize_to_file(views, None, &dir.join("adapter_model.safetensors")).expect("written");
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).expect("written");
}

#[test]
fn a_prompt_of_several_tasks_is_read_as_that_of_the_one_that_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    prompt_of(&dir.path().join("all"), None);
    let mut body = String::new();
    for task in 0..3 {
        prompt_of(&dir.path().join(format!("of{task}")), Some(task));
        for (name, adapter) in [
            ("own", format!("peft \"all\" {{ task = {task} }}")),
            ("plain", format!("peft \"of{task}\"")),
        ] {
            body += &format!(
                "stage {name}{task} = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-30, steps = 1 }}\n\
                 stage {name}{task}_e = eval {{ from = {name}{task}, data = d.dev, metrics = [loss] }}\n"
            );
        }
    }
    let stages = run(dir.path(), &body);
    for task in 0..3 {
        let (own, plain) = (
            loss(&stages, &format!("own{task}_e")),
            loss(&stages, &format!("plain{task}_e")),
        );
        assert!((own - plain).abs() < 1e-6, "{task}: {own} against {plain}");
    }
    assert!((loss(&stages, "own0_e") - loss(&stages, "own1_e")).abs() > 1e-6);
    for (adapter, said) in [
        ("peft \"all\"", "none of them is named"),
        ("peft \"all\" { task = 3 }", "none is 3"),
        ("peft \"of0\" { task = 0 }", "not one of several tasks"),
    ] {
        let stage = format!(
            "stage s = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-3, steps = 1 }}\n"
        );
        let output = program()
            .arg("check")
            .arg(write(dir.path(), &stage))
            .output()
            .expect("starts");
        let message = stderr_of(&output).replace(['\n', '│'], " ");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(message.contains(said), "{adapter}: {message}");
    }
}
