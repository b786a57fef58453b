//! Weights of classes and smoothed labels: losses against torch's (`tests/reference`), in micro-batches, without gradients,
//! after a kill, and what of them is refused.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of};

/// A folder with `train.jsonl` and `test.jsonl`: reviews 0 to 319, and 320 to 383, each with its label and with its classes:
/// 0 if it is liked, 1 from 101 characters on.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows: Vec<(&str, &str)> = (text.lines().skip(1))
        .filter_map(|line| {
            let mut cells = line.split('\t');
            Some((cells.next()?, cells.next()?))
        })
        .collect();
    for (name, part) in [("train", &rows[..320]), ("test", &rows[320..384])] {
        let mut lines = String::new();
        for (sentence, label) in part {
            let long = sentence.chars().count() > 100;
            let tags: Vec<u8> = (*label == "1")
                .then_some(0)
                .into_iter()
                .chain(long.then_some(1))
                .collect();
            let row = json!({ "text": sentence, "label": label.parse::<u8>().expect("a label"), "tags": tags });
            let _ = writeln!(lines, "{row}");
        }
        std::fs::write(dir.path().join(format!("{name}.jsonl")), lines).expect("written");
    }
    dir
}

/// The declarations of a model and of the folder's data.
fn head(model: &str, label: &str) -> String {
    let here = here();
    format!(
        "model m = local \"{}/tests/reference/{model}\"\ndata d = local \".\" {{ text = text, label = {label} }}\n",
        here.display()
    )
}

fn begin(dir: &Path, recipe: &str) -> Command {
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    let mut command = program();
    command.args(["run", "--quiet", "--threads", "2"]).arg(path);
    command
}

fn run(dir: &Path, recipe: &str) -> Value {
    let output = begin(dir, recipe).output().expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{recipe}\n{said}");
    json(dir.join(".peftc/runs/r/result.json"))
}

fn losses(dir: &Path, stage: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(dir.join(format!(".peftc/runs/r/{stage}/metrics.jsonl")));
    let line = |l: &str| serde_json::from_str::<Value>(l).expect("JSON")["loss"].as_f64();
    log.expect("a log")
        .lines()
        .map(|l| line(l).expect("a loss"))
        .collect()
}

#[test]
fn losses_are_those_of_torch_with_any_cut_into_micro_batches() {
    let reference = json(Path::new("tests/reference/weighted.json"));
    let curves = reference["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 8);
    let here = here();
    for (place, curve) in curves.iter().enumerate() {
        let text = |key: &str| curve[key].as_str().expect("a text");
        let (objective, model, method) = (text("objective"), text("model"), text("method"));
        let adapter = match method {
            "lora" => format!(
                "lora {{ start = \"{}/tests/reference/{model}-lora\" }}",
                here.display()
            ),
            other => other.to_owned(),
        };
        let label = if objective.starts_with("classify") {
            "label"
        } else {
            "tags"
        };
        let common = format!(
            "train {{ model = m, data = d.train, objective = {objective}, adapter = {adapter}, lr = {}, optimizer = adamw {{ weight_decay = 0.01 }}, \
             steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false",
            curve["lr"]
        );
        // Every other curve is followed in micro-batches of unequal weights.
        let micro = if place % 2 == 1 {
            ", micro_batch = 5"
        } else {
            ""
        };
        let recipe = format!(
            "{}stage s = {common}{micro} }}\nstage e = eval {{ from = s, data = d.test, metrics = [loss] }}\n",
            head(model, label)
        );
        let dir = folder();
        let result = run(dir.path(), &recipe);
        let wanted = curve["loss"].as_array().expect("losses");
        let own = losses(dir.path(), "s");
        assert_eq!(own.len(), wanted.len());
        for (step, (loss, want)) in own.iter().zip(wanted).enumerate() {
            let want = want.as_f64().expect("a loss");
            assert!(
                (loss - want).abs() < 1e-4,
                "{model} {objective} step {step}: {loss} against {want}"
            );
        }
        let stages = result["stages"].as_array().expect("stages");
        // Evaluations report the plain loss.
        let loss = stages[1]["metrics"]["loss"].as_f64().expect("a loss");
        let want = curve["plain_loss"].as_f64().expect("a loss");
        assert!(
            (loss - want).abs() < 1e-4,
            "{model} {objective}: {loss} against {want}"
        );
        for stage in stages {
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!(
                (0.99..=1.0).contains(&share),
                "{objective} {}: {share}",
                stage["name"]
            );
        }
    }
}

const WEIGHTED: &str =
    "objective = classify { class_weights = { 0: 0.5, 1: 3 }, label_smoothing = 0.1 }";

#[test]
fn a_training_without_gradients_and_one_that_goes_on_have_the_same_loss() {
    let dir = folder();
    let stage = |kind: &str, more: &str| {
        format!(
            "{kind} {{ data = d.train, batch = 8, steps = 2, seed = 7, max_length = 64, shuffle = false, {more} }}\n"
        )
    };
    let recipe = [
        head("bert-tiny", "label"),
        "stage a = ".to_owned() + &stage("mezo", &format!("model = m, lr = 1e-12, epsilon = 1e-9, {WEIGHTED}")),
        "stage b = ".to_owned() + &stage("mezo", &format!("model = m, lr = 1e-12, epsilon = 1e-9, {WEIGHTED}, micro_batch = 3")),
        "stage c = ".to_owned() + &stage("train", &format!("model = m, lr = 1e-12, adapter = head_only, dropout = 0, {WEIGHTED}")),
        // What is learned is handed on with its weights.
        "stage f = ".to_owned() + &stage("train", "from = c, lr = 1e-12, adapter = head_only, dropout = 0"),
        "stage p = ".to_owned() + &stage("train", "from = c, lr = 1e-12, adapter = head_only, dropout = 0, objective = classify"),
        // Words at a mask weigh the same way.
        head("bert-tiny", "label").lines().next().expect("a model").replace("model m", "model r") + " { init = random }\n",
        "prompt w { template = \"{text} It was {mask}.\", verbalizer = { 0: \"bad\", 1: \"good\" } }\n".to_owned(),
        "stage l = ".to_owned() + &stage("train", "model = r, lr = 1e-12, adapter = full, dropout = 0, prompt = w, objective = label_words { class_weights = balanced }"),
    ]
    .concat();
    run(dir.path(), &recipe);
    let [a, b, c, f, p] = ["a", "b", "c", "f", "p"].map(|name| losses(dir.path(), name));
    for step in 0..2 {
        for other in [&b, &c, &f] {
            assert!((a[step] - other[step]).abs() < 1e-5, "{a:?} {other:?}");
        }
        assert!((a[step] - p[step]).abs() > 1e-3, "{a:?} {p:?}");
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let recipe = format!(
        "{}stage s = train {{ model = m, data = d.train, {WEIGHTED}, adapter = lora {{ rank = 4 }}, lr = 1e-3, steps = 40, batch = 8, micro_batch = 3 }}\n",
        head("bert-tiny", "label")
    );
    let (whole, killed) = (folder(), folder());
    run(whole.path(), &recipe);
    let start = || {
        let mut command = begin(killed.path(), &recipe);
        command.args(["--checkpoint-every", "0"]);
        command
    };
    let log = killed.path().join(".peftc/runs/r/s/metrics.jsonl");
    let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = start().spawn().expect("starts");
    while child.try_wait().expect("waited for").is_none() && steps() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(steps() < 40, "the run was over before it was killed");
    assert!(start().status().expect("starts").success());
    assert_eq!(losses(whole.path(), "s"), losses(killed.path(), "s"));
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn weights_that_do_not_fit_the_classes_or_the_task_are_refused() {
    let dir = folder();
    let said = |label: &str, stage: &str| {
        let path = dir.path().join("wrong.peft");
        let common = "model = m, data = d.train";
        let recipe = format!(
            "{}stage s = {}\n",
            head("bert-tiny", label),
            stage.replace("COMMON", common)
        );
        std::fs::write(&path, recipe).expect("written");
        let output = program().arg("check").arg(&path).output().expect("starts");
        assert!(!output.status.success(), "{stage}");
        stderr_of(&output)
    };
    let train = |objective: &str| {
        format!(
            "train {{ COMMON, adapter = bitfit, lr = 1e-3, steps = 1, objective = {objective} }}"
        )
    };
    for (label, stage, wants) in [
        (
            "label",
            train("classify { class_weights = { 0: 1, 1: 2, other: 3 } }"),
            "names `other`, which is none of the classes",
        ),
        (
            "label",
            train("classify { class_weights = { 0: 1 } }"),
            "has no weight for `1`",
        ),
        (
            "label",
            train("classify { class_weights = { 0: 1, 1: 2, 1.0: 3 } }"),
            "gives the class `1.0` two weights",
        ),
        (
            "label, labels = [a, b, c]",
            train("classify { class_weights = balanced }"),
            "has no weight for `c`: no row",
        ),
        (
            "tags, labels = [a, b, c]",
            train("multi_label { positive_weights = balanced }"),
            "has no weight for `c`: no row",
        ),
        (
            "label",
            train("classify { class_weights = { 0: 0, 1: 1 } }"),
            "the weight of `0` is a number, at least",
        ),
        (
            "label",
            train("classify { class_weights = { 0: 1e9, 1: 1 } }"),
            "the weight of `0` is a number, at least",
        ),
        (
            "label",
            train("classify { class_weights = equal }"),
            "`class_weights` takes `balanced`, or a map",
        ),
        (
            "label",
            train("classify { class_weights = { good = 1, bad = 3 } }"),
            "`class_weights` takes `balanced`, or a map",
        ),
        (
            "label",
            train("classify { label_smoothing = 1 }"),
            "`label_smoothing` takes a number, at least 0, below 1",
        ),
        (
            "label",
            train("regress { label_smoothing = 0.1 }"),
            "`regress` has no key `label_smoothing`",
        ),
        (
            "label",
            train("masked_lm { class_weights = balanced }"),
            "`masked_lm` has no key `class_weights`",
        ),
        (
            "tags",
            train("multi_label { label_smoothing = 0.1 }"),
            "`multi_label` has no key `label_smoothing`",
        ),
        (
            "label",
            train("classify, label_smoothing = 0.1"),
            "objective = classify { label_smoothing = 0.1 }",
        ),
        (
            "label",
            train("classify, label_smoothing_factor = 0.1"),
            "objective = classify { label_smoothing = 0.1 }",
        ),
        (
            "label, labels = [negative, positive]",
            "eval { COMMON, objective = classify { label_smoothing = 0.1 } }".to_owned(),
            "`label_smoothing` has no effect: `eval` trains nothing",
        ),
    ] {
        let message = said(label, &stage);
        // Help is wrapped to the terminal.
        let message: Vec<&str> = message.split_whitespace().collect();
        let message = message.join(" ");
        assert!(message.contains(wants), "{stage}: {message}");
    }
}

#[test]
fn r_drop_has_the_loss_of_two_readings_and_takes_the_memory_that_was_planned() {
    let reference = json(Path::new("tests/reference/r_drop.json"));
    let dir = folder();
    let here = here();
    let at = here.join("tests/reference");
    // Dropout acts in front of the classifier alone.
    for model in ["bert-tiny", "distilbert-tiny"] {
        let folder = dir.path().join(model);
        std::fs::create_dir(&folder).expect("made");
        for file in std::fs::read_dir(at.join(model)).expect("a folder") {
            let file = file.expect("a file").path();
            let to = folder.join(file.file_name().expect("a name"));
            std::fs::copy(&file, to).expect("copied");
        }
        let path = folder.join("config.json");
        let mut config = json(&path);
        for key in [
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "dropout",
            "attention_dropout",
        ] {
            if config.get(key).is_some() {
                config[key] = json!(0.0);
            }
        }
        for key in ["classifier_dropout", "seq_classif_dropout"] {
            if config.get(key).is_some() {
                config[key] = reference["rate"].clone();
            }
        }
        std::fs::write(&path, config.to_string()).expect("written");
    }
    let curves = reference["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 3);
    for (place, curve) in curves.iter().enumerate() {
        let text = |key: &str| curve[key].as_str().expect("a text");
        let (model, method, alpha) = (text("model"), text("method"), &curve["alpha"]);
        let adapter = match method {
            "lora" => format!("lora {{ start = \"{}/{model}-lora\" }}", at.display()),
            other => other.to_owned(),
        };
        let micro = if place == 1 { ", micro_batch = 5" } else { "" };
        let recipe = format!(
            "model m = local \"{model}\"\ndata d = local \".\" {{ text = text, label = label }}\n\
             stage s = train {{ model = m, data = d.train, objective = classify {{ r_drop = {alpha} }}, adapter = {adapter}, lr = {}, \
             optimizer = adamw {{ weight_decay = 0.01 }}, steps = 20, batch = 16, max_length = 64, clip = 0, shuffle = false{micro} }}\n",
            curve["lr"]
        );
        let result = run(dir.path(), &recipe);
        let wanted = curve["loss"].as_array().expect("losses");
        let own = losses(dir.path(), "s");
        assert_eq!(own.len(), wanted.len());
        for (step, (loss, want)) in own.iter().zip(wanted).enumerate() {
            let want = want.as_f64().expect("a loss");
            assert!(
                (loss - want).abs() < 1e-4,
                "{model} {method} step {step}: {loss} against {want}"
            );
        }
        let bytes = |key: &str| result["stages"][0][key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.99..=1.0).contains(&share), "{model} {method}: {share}");
    }
}

#[test]
fn r_drop_is_refused_where_it_would_say_nothing() {
    let dir = folder();
    let common = "data = d.train, lr = 1e-3, steps = 2, batch = 8";
    for (stage, why) in [
        (
            format!(
                "train {{ model = m, {common}, adapter = full, dropout = 0, objective = classify {{ r_drop = 1 }} }}"
            ),
            "no dropout acts in this stage",
        ),
        (
            format!(
                "train {{ model = m, {common}, adapter = full, objective = classify {{ r_drop = 1, class_weights = balanced }} }}"
            ),
            "with weights of classes its mean is not that of the loss",
        ),
        (
            format!(
                "train {{ model = m, {common}, adapter = adamix, objective = classify {{ r_drop = 1 }} }}"
            ),
            "and there is one",
        ),
        (
            format!("mezo {{ model = m, {common}, objective = classify {{ r_drop = 1 }} }}"),
            "`mezo` reads without dropout",
        ),
        (
            "eval { model = m, data = d.test, objective = classify { r_drop = 1 } }".to_owned(),
            "r_drop",
        ),
    ] {
        let recipe = format!("{}stage s = {stage}\n", head("bert-tiny", "label"));
        let output = begin(dir.path(), &recipe).output().expect("starts");
        assert!(!output.status.success(), "{stage}");
        let said = stderr_of(&output);
        let words: Vec<&str> = said.split_whitespace().filter(|w| *w != "│").collect();
        assert!(words.join(" ").contains(why), "{stage}: {said}");
    }
}

#[test]
fn r_drop_stands_beside_smoothed_labels_and_the_focal_loss() {
    let dir = folder();
    let stage = |name: &str, more: &str| {
        format!(
            "stage {name} = train {{ model = m, data = d.train, adapter = full, lr = 1e-4, steps = 2, batch = 8, max_length = 32, shuffle = false, \
             objective = classify {{ r_drop = 1{more} }} }}\n"
        )
    };
    let recipe = [
        head("bert-tiny", "label"),
        stage("plain", ""),
        stage("smooth", ", label_smoothing = 0.2"),
        stage("focal", ", focal = 2"),
    ];
    run(dir.path(), &recipe.concat());
    let [plain, smooth, focal] =
        ["plain", "smooth", "focal"].map(|name| losses(dir.path(), name)[0]);
    assert!(focal < plain && smooth != plain, "{plain} {smooth} {focal}");
}
