//! What a run promises: the estimate is met, bits repeat, a killed run goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::support::{here, json, method_curves, printed, program, stderr_of};

fn recipe(dir: &Path, body: &str) -> std::path::PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 400 }}\n{body}"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn log(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    text.lines()
        .map(|l| {
            let v: Value = serde_json::from_str(l).expect("JSON");
            format!(
                "{} {} {} {} {}",
                v["step"], v["epoch"], v["loss"], v["lr"], v["grad_norm"]
            )
        })
        .collect()
}

fn result(dir: &Path) -> Value {
    json(dir.join(".peftc/runs/r/result.json"))
}

fn weights(dir: &Path) -> Vec<u8> {
    let result = result(dir);
    let artifact = result["stages"][0]["artifact"]
        .as_str()
        .expect("an artifact")
        .to_owned();
    std::fs::read(Path::new(&artifact).join("model/model.safetensors")).expect("weights")
}

const FULL: &str = "stage s = train { model = m, data = d.train, adapter = full, lr = 1e-3, epochs = 3, batch = 16, dev = d.dev, best = accuracy }\n";

/// Methods that `tests/reference/methods` has curves of, with the values they have there.
fn newer_methods() -> Vec<String> {
    let curves = method_curves();
    let methods: std::collections::BTreeSet<&str> = curves
        .iter()
        .map(|c| c["method"].as_str().expect("a method"))
        .collect();
    methods.into_iter().map(str::to_owned).collect()
}

/// Whether a method, as a recipe writes it, folds into plain weights.
fn folds(written: &str) -> bool {
    let name = written.split(' ').next().unwrap_or_default();
    peftc::library::method::method(name).is_some_and(|method| method.folds())
}

#[test]
fn every_method_meets_its_estimate() {
    let on = "{attention.*, ffn.*}";
    let methods = [
        "full",
        "head_only",
        "last_n { n = 1 }",
        "bitfit",
        &format!("lora {{ rank = 4, on = {on} }}"),
        &format!("siva {{ on = {on} }}"),
        &format!("side_lora {{ on = {on} }}"),
        "lst { r = 4 }",
        "lst { r = 4, init = fisher { samples = 9 } }",
        "k_lst { k = 3, r = 4, dropout = 0.2, init = magnitude }",
        "mezo",
    ];
    let whole = ["", ", micro_batch = 5"];
    let methods = methods.map(|m| (m.to_owned(), &whole[..])).into_iter();
    // How a step is taken in parts does not depend on the method, so the others are dealt among both.
    let newer = newer_methods().into_iter().zip(whole.chunks(1).cycle());
    for (method, ways) in methods.chain(newer) {
        for micro in ways {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let path = recipe(
                dir.path(),
                &format!(
                    "stage s = {}, lr = 1e-3, epochs = 1{micro} }}\nstage e = eval {{ from = s, data = d.dev }}\n{}",
                    if method == "mezo" {
                        "mezo { model = m, data = d.train".to_owned()
                    } else {
                        format!("train {{ model = m, data = d.train, adapter = {method}")
                    },
                    if folds(&method) {
                        "stage f = merge { from = s }\n"
                    } else {
                        ""
                    }
                ),
            );
            let output = program()
                .args(["run", "--quiet", "--json"])
                .arg(&path)
                .output()
                .expect("starts");
            assert!(output.status.success(), "{method}: {}", stderr_of(&output));
            for stage in result(dir.path())["stages"].as_array().expect("stages") {
                let bytes = |key: &str| stage[key].as_u64().expect("bytes") as f64;
                let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
                assert!(
                    (0.98..=1.0).contains(&ratio),
                    "{method}{micro} {}: {ratio}",
                    stage["name"]
                );
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_and_a_killed_run_goes_on_with_the_same() {
    let whole = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(whole.path(), FULL);
    assert!(
        program()
            .args(["run", "--quiet", "--threads", "1"])
            .arg(&path)
            .status()
            .expect("starts")
            .success()
    );
    let killed = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(killed.path(), FULL);
    let mut kills = 0;
    // Killed at ever later moments, then left alone.
    for wait in [300, 450, 600, 750] {
        let mut child = program()
            .args([
                "run",
                "--quiet",
                "--threads",
                "2",
                "--checkpoint-every",
                "0",
            ])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(wait));
        if child.try_wait().expect("waits").is_none() {
            child.kill().expect("killed");
            kills += 1;
        }
        child.wait().expect("waits");
    }
    assert!(kills > 0, "the run was over before the first kill");
    assert!(
        program()
            .args(["run", "--quiet"])
            .arg(&path)
            .status()
            .expect("starts")
            .success()
    );
    assert_eq!(log(whole.path()), log(killed.path()));
    assert!(
        weights(whole.path()) == weights(killed.path()),
        "the weights differ"
    );
}

#[test]
fn finished_stages_are_not_run_again_and_a_dry_run_says_why() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "let rate = 1e-3\nstage s = train { model = m, data = d.train, adapter = head_only, lr = rate, steps = 2 }\n";
    let path = recipe(dir.path(), body);
    let dry = |args: &[&str]| {
        let output = program()
            .args(["run", "--dry-run"])
            .args(args)
            .arg(&path)
            .output()
            .expect("starts");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(dry(&[]).contains("new"));
    assert!(
        program()
            .args(["run", "--quiet"])
            .arg(&path)
            .status()
            .expect("starts")
            .success()
    );
    assert!(dry(&[]).contains("nothing would run"));
    std::fs::write(
        &path,
        format!(
            "# a comment\n{}",
            std::fs::read_to_string(&path).expect("text")
        ),
    )
    .expect("written");
    assert!(
        dry(&[]).contains("nothing would run"),
        "a comment changes nothing"
    );
    assert!(dry(&["--set", "rate=2e-3"]).contains("changed: `lr`"));
    assert!(dry(&["--fresh"]).contains("forced"));
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let losses = |more: &str| -> Vec<f64> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = recipe(
            dir.path(),
            &format!(
                "stage s = train {{ model = m, data = d.train, adapter = full, lr = 1e-4, steps = 26, batch = 16{more} }}\n"
            ),
        );
        assert!(
            program()
                .args(["run", "--quiet"])
                .arg(&path)
                .status()
                .expect("starts")
                .success()
        );
        let text = std::fs::read_to_string(dir.path().join(".peftc/runs/r/s/metrics.jsonl"))
            .expect("a log");
        text.lines()
            .map(|l| {
                serde_json::from_str::<Value>(l).expect("JSON")["loss"]
                    .as_f64()
                    .expect("a loss")
            })
            .collect()
    };
    for (a, b) in losses("").iter().zip(losses(", micro_batch = 5")) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn budgets_and_solutions_answer_with_their_exit_codes() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(
        dir.path(),
        "stage s = train { model = m, data = d.train, adapter = full, lr = 1e-4, steps = 2 }\n",
    );
    let code = |args: &[&str]| {
        program()
            .args(args)
            .arg(&path)
            .output()
            .expect("starts")
            .status
            .code()
    };
    assert_eq!(code(&["check", "--budget", "1GiB"]), Some(0));
    assert_eq!(code(&["check", "--budget", "10MiB"]), Some(3));
    assert_eq!(code(&["run", "--budget", "10MiB"]), Some(3));
    assert_eq!(
        code(&["check", "--budget", "100MiB", "--solve", "batch"]),
        Some(0)
    );
    assert_eq!(code(&["run", "--device", "cuda"]), Some(2));
}

#[test]
fn predict_labels_new_text() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(
        dir.path(),
        "stage s = train { model = m, data = d.train, adapter = lora, lr = 1e-3, steps = 3 }\n",
    );
    assert!(
        program()
            .args(["run", "--quiet"])
            .arg(&path)
            .status()
            .expect("starts")
            .success()
    );
    std::fs::write(
        dir.path().join("new.jsonl"),
        "{\"sentence\": \"a good film\"}\n{\"sentence\": \"a bad film\"}\n",
    )
    .expect("written");
    let output = program()
        .arg("predict")
        .arg(dir.path().join(".peftc/runs/r"))
        .arg("--input")
        .arg(dir.path().join("new.jsonl"))
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.lines()
            .all(|l| serde_json::from_str::<Value>(l).expect("JSON")["prediction"].is_string())
    );
}

#[test]
fn a_mezo_training_is_rebuilt_from_its_log() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(
        dir.path(),
        "stage s = mezo { model = m, data = d.train, lr = 1e-4, weight_decay = 0.01, steps = 12, max_length = 32 }\n\
         stage t = mezo { from = s, data = d.train, adapter = lora, lr = 1e-3, epsilon = 1e-2, perturbations = 3, steps = 5, max_length = 32 }\n",
    );
    let status = program()
        .args(["run", "--quiet", "--checkpoint-every", "0"])
        .arg(&path)
        .status()
        .expect("starts");
    assert!(status.success());
    for (stage, steps) in [("s", 12), ("t", 5)] {
        let output = program()
            .args(["replay", "--json", "--threads", "1", "--stage", stage])
            .arg(&path)
            .output()
            .expect("starts");
        assert!(output.status.success(), "{}", stderr_of(&output));
        let json: Value = printed(&output);
        assert_eq!(json["steps"], steps);
        assert!(json["compared_tensors"].as_u64().expect("a number") >= 12);
        assert_eq!(json["equal_tensors"], json["compared_tensors"]);
    }
    // A damaged log is told, not believed.
    let log = dir.path().join("log.jsonl");
    std::fs::write(&log, "{\"step\":2,\"projected_grad\":[0.5]}\n").expect("written");
    let output = program()
        .args(["replay", "--stage", "s", "--trajectory"])
        .arg(&log)
        .arg(&path)
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr_of(&output).contains("line 1"));
}
