//! Sparse updates and masks: which numbers change, and that their bits repeat.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::support::{done, here, json, program, stderr_of};

type Numbers = BTreeMap<String, Vec<f32>>;

fn write(dir: &Path, body: &str) -> PathBuf {
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

/// Runs a recipe; the artifacts of its stages, by name.
fn run(dir: &Path, body: &str, more: &[&str]) -> BTreeMap<String, PathBuf> {
    let path = write(dir, body);
    done(program().args(["run", "--quiet"]).args(more).arg(&path));
    let result = json(dir.join(".peftc/runs/r/result.json"));
    let stages = result["stages"].as_array().expect("stages");
    let one = |s: &serde_json::Value| {
        let text = |key: &str| s[key].as_str().expect("a text").to_owned();
        (text("name"), PathBuf::from(text("artifact")))
    };
    stages.iter().map(one).collect()
}

/// A file's tensors; places as numbers with their bits.
fn tensors(path: &Path) -> Numbers {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let of = |data: &[u8]| {
        data.as_chunks::<4>()
            .0
            .iter()
            .map(|&x| f32::from_le_bytes(x))
            .collect()
    };
    let all = file.tensors().into_iter();
    all.map(|(name, t)| (name, of(t.data()))).collect()
}

fn base() -> Numbers {
    tensors(&here().join("tests/reference/bert-tiny/model.safetensors"))
}

fn places(own: &Numbers, name: &str) -> Vec<usize> {
    own[name].iter().map(|x| x.to_bits() as usize).collect()
}

#[test]
fn lt_sft_trains_what_moved_most_from_where_it_began() {
    let dir = tempfile::tempdir().expect("a directory");
    let body = "stage dense = train { model = m, data = d.train, adapter = full, lr = 1e-3, steps = 4 }\n\
                stage s = train { model = m, data = d.train, adapter = lt_sft { density = 0.05 }, tuned = dense, lr = 1e-2, steps = 3 }\n\
                stage f = merge { from = s }\n";
    let made = run(dir.path(), body, &[]);
    let (before, dense) = (
        base(),
        tensors(&made["dense"].join("model/model.safetensors")),
    );
    let own = tensors(&made["s"].join("adapter/peftc.safetensors"));
    let (list, bounds) = (places(&own, "sparse.places"), places(&own, "sparse.bounds"));
    let maps = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ];
    let names: Vec<String> = (0..(bounds.len() - 1) / 6)
        .flat_map(|i| maps.map(|m| format!("bert.encoder.layer.{i}.{m}.weight")))
        .collect();
    let mut moved: Vec<(f32, usize, usize)> = Vec::new();
    for (m, name) in names.iter().enumerate() {
        let pairs = before[name].iter().zip(&dense[name]);
        moved.extend(pairs.enumerate().map(|(i, (a, b))| ((b - a).abs(), m, i)));
    }
    let count = (moved.len() as f64 * 0.05).round() as usize;
    moved.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    moved.truncate(count);
    let mut wanted: Vec<(usize, usize)> = moved.into_iter().map(|(_, m, i)| (m, i)).collect();
    wanted.sort_unstable();
    let got: Vec<(usize, usize)> = (0..names.len())
        .flat_map(|m| list[bounds[m]..bounds[m + 1]].iter().map(move |&i| (m, i)))
        .collect();
    assert_eq!(got, wanted);
    // Merged, the model is the pretrained one elsewhere.
    let merged = tensors(&made["f"].join("model/model.safetensors"));
    for (m, name) in names.iter().enumerate() {
        for (i, (a, b)) in before[name].iter().zip(&merged[name]).enumerate() {
            let trained = wanted.binary_search(&(m, i)).is_ok();
            assert!(trained || a == b, "{name}[{i}]: {a} became {b}");
        }
    }
    assert!(own["sparse.values"].iter().all(|&x| x != 0.0));
}

#[test]
fn lt_sft_needs_a_dense_training_of_the_same_model() {
    let dir = tempfile::tempdir().expect("a directory");
    for (body, said) in [
        (
            "stage s = train { model = m, data = d.train, adapter = lt_sft, lr = 1e-2, steps = 3 }\n",
            "tuned = STAGE",
        ),
        (
            "stage a = train { model = m, data = d.train, adapter = lora, lr = 1e-3, steps = 4 }\n\
             stage s = train { model = m, data = d.train, adapter = lt_sft, tuned = a, lr = 1e-2, steps = 3 }\n",
            "leaves no weights of a whole model",
        ),
        (
            "stage a = train { model = m, data = d.train, adapter = full, lr = 1e-3, steps = 4 }\n\
             stage s = train { model = m, data = d.train, adapter = lora, tuned = a, lr = 1e-2, steps = 3 }\n",
            "`tuned` has no effect",
        ),
    ] {
        let path = write(dir.path(), body);
        let output = program().arg("check").arg(&path).output().expect("starts");
        assert!(
            stderr_of(&output).contains(said)
                || String::from_utf8_lossy(&output.stdout).contains(said),
            "{body}: {}",
            stderr_of(&output)
        );
        assert!(!output.status.success());
    }
}

#[test]
fn a_masked_update_leaves_the_rest_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let stage = |method: &str, steps: u64| {
        format!(
            "stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-3, steps = {steps}, batch = 8,\n \
             dropout = 0, optimizer = adamw {{ weight_decay = 0.1 }} }}\n"
        )
    };
    let file = |body: &str, more: &[&str]| {
        let made = run(dir.path(), body, more);
        tensors(&made["s"].join("model/model.safetensors"))
    };
    let before = base();
    let changed = |after: &Numbers, of: &dyn Fn(&str) -> bool| {
        let (mut all, mut own) = (0_usize, 0_usize);
        for (name, a) in before
            .iter()
            .filter(|(n, _)| of(n) && after.contains_key(*n))
        {
            all += a.len();
            own += a.iter().zip(&after[name]).filter(|(a, b)| a != b).count();
        }
        own as f64 / all as f64
    };
    let block = |name: &str| name.contains(".layer.");
    let fixed = file(
        &stage("child_tuning { mode = task_driven, samples = 8 }", 3),
        &[],
    );
    let share = changed(&fixed, &block);
    assert!((0.28..=0.3005).contains(&share), "{share}");
    let drawn = file(&stage("child_tuning { keep = 0.3 }", 1), &[]);
    let share = changed(&drawn, &|n| {
        n.contains(".layer.") && n.contains("intermediate.dense.weight")
    });
    assert!((share - 0.3).abs() < 0.02, "{share}");
    // Where the mask lets all through, it is a plain training; its bits do not depend on threads.
    let all = file(&stage("child_tuning { keep = 1 }", 3), &[]);
    assert_eq!(all, file(&stage("full", 3), &[]));
    let one = file(&stage("child_tuning", 3), &["--fresh", "--threads", "1"]);
    let two = file(&stage("child_tuning", 3), &["--fresh", "--threads", "2"]);
    assert_eq!(one, two);
    // As in the authors' program the decay reaches every number.
    let leaks = file(
        &stage(
            "child_tuning { mode = task_driven, samples = 8, mask_weight_decay = false }",
            3,
        ),
        &[],
    );
    assert!(changed(&leaks, &|n| n.contains("dense.weight")) > 0.95);
}

#[test]
fn what_is_written_for_peft_is_read_again_with_the_same_scores() {
    let dir = tempfile::tempdir().expect("a directory");
    for method in ["shira { rank = 2 }", "fish { samples = 8, density = 0.02 }"] {
        let train = format!(
            "stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-2, steps = 3 }}\n\
             stage e = eval {{ from = s, data = d.dev, metrics = [loss] }}\n"
        );
        let made = run(dir.path(), &train, &[]);
        let adapter = made["s"].join("adapter");
        let body = format!(
            "{train}stage again = eval {{ model = m, adapter = peft \"{}\", data = d.dev, metrics = [loss] }}\n",
            adapter.display()
        );
        run(dir.path(), &body, &[]);
        let result = json(dir.path().join(".peftc/runs/r/result.json"));
        let loss = |name: &str| {
            let stages = result["stages"].as_array().expect("stages");
            let stage = stages.iter().find(|s| s["name"] == name).expect("a stage");
            stage["metrics"]["loss"].as_f64().expect("a loss")
        };
        assert!((loss("e") - loss("again")).abs() < 1e-6, "{method}");
    }
}

#[test]
fn candidates_of_a_step_are_the_same_in_micro_batches() {
    let dir = tempfile::tempdir().expect("a directory");
    let adapter = |method: &str, more: &str| {
        let body = format!(
            "stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-2, steps = 7, batch = 12, shuffle = false, dropout = 0{more} }}\n"
        );
        let made = run(dir.path(), &body, &["--fresh"]);
        tensors(&made["s"].join("adapter/peftc.safetensors"))
    };
    let spiel = "spiel { density = 0.02, period = 4, accumulate = 2 }";
    let (whole, parts) = (adapter(spiel, ""), adapter(spiel, ", micro_batch = 2"));
    let lists: Vec<&String> = whole.keys().filter(|n| n.ends_with("indices")).collect();
    assert!(lists.len() > 10);
    for name in &lists {
        assert_eq!(places(&whole, name), places(&parts, name), "{name}");
    }
    for (name, numbers) in whole.iter().filter(|(n, _)| n.ends_with("shira_weight")) {
        for (a, b) in numbers.iter().zip(&parts[name]) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} against {b}");
        }
    }
    // As in the authors' program, the first micro-batch decides alone.
    let first =
        "spiel { density = 0.02, period = 4, accumulate = 2, candidates = first_micro_batch }";
    let first = adapter(first, ", micro_batch = 2");
    assert!(lists.iter().any(|n| places(&whole, n) != places(&first, n)));
}

#[test]
fn spiel_on_weights_in_blocks_is_merged_with_the_same_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    for grow in ["gradients", "sm3"] {
        let here = here();
        let body = format!(
            "model q = local \"{}/tests/reference/bert-tiny\" {{ dtype = nf4 }}\n\
             stage s = train {{ model = q, data = d.train, adapter = spiel {{ density = 0.05, period = 4, accumulate = 2, grow = {grow} }}, lr = 1e-2, steps = 7 }}\n\
             stage e = eval {{ from = s, data = d.dev, metrics = [loss] }}\n\
             stage f = merge {{ from = s }}\n\
             stage g = eval {{ from = f, data = d.dev, metrics = [loss] }}\n",
            here.display()
        );
        run(dir.path(), &body, &["--fresh"]);
        let result = json(dir.path().join(".peftc/runs/r/result.json"));
        let stages = result["stages"].as_array().expect("stages");
        let of = |name: &str, key: &str| {
            let stage = stages.iter().find(|s| s["name"] == name).expect("a stage");
            stage["metrics"][key]
                .as_f64()
                .or(stage[key].as_f64())
                .expect("a number")
        };
        assert!((of("e", "loss") - of("g", "loss")).abs() < 1e-5, "{grow}");
        let share = of("s", "measured_peak_bytes") / of("s", "estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{grow}: {share}");
    }
}
