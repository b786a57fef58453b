//! Gradual unfreezing: what joins a training later stays as it was until then, and a killed run goes on across the edge of a
//! phase with the same bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use safetensors::SafeTensors;

use super::support::{done, here, json, program, stderr_of, stdout_of};

fn write(dir: &Path, stage: &str) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 96, labels = [negative, positive] }}\n\
         stage s = train {{ model = m, data = d.train, lr = 1e-3, batch = 8, max_length = 24, {stage} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

/// The bytes of each tensor.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let all = file.tensors().into_iter();
    all.map(|(name, t)| (name, t.data().to_vec())).collect()
}

fn model(dir: &Path) -> PathBuf {
    dir.join(".peftc/runs/r/s/model/model.safetensors")
}

fn trained(stage: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory");
    done(
        program()
            .args(["run", "--quiet"])
            .arg(write(dir.path(), stage)),
    );
    let result = json(dir.path().join(".peftc/runs/r/result.json"));
    let bytes = |key: &str| result["stages"][0][key].as_f64().expect("bytes");
    let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    assert!((0.98..=1.0).contains(&share), "{stage}: {share}");
    tensors(&model(dir.path()))
}

#[test]
fn what_joins_later_stays_as_it_was_until_then() {
    let base = tensors(&here().join("tests/reference/bert-tiny/model.safetensors"));
    let moved = |steps: u64| -> Vec<bool> {
        let stage = format!(
            "adapter = unfreeze {{ at = [0, 3, 5], last = 3 }}, steps = {steps}, micro_batch = 4"
        );
        let after = trained(&stage);
        let parts = [".layer.2.", ".layer.1.", ".layer.0.", "embeddings."];
        let part = |part: &&str| {
            let mut own = base.iter().filter(|(name, _)| name.contains(*part));
            own.any(|(name, before)| after[name] != *before)
        };
        parts.iter().map(part).collect()
    };
    assert_eq!(moved(6), [true, true, true, false]);
    // Without its last part the training would say what it does not do.
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(
        dir.path(),
        "adapter = unfreeze { at = [0, 3, 5], last = 3 }, steps = 5",
    );
    let output = program().arg("check").arg(&path).output().expect("starts");
    let said = stderr_of(&output);
    assert!(
        said.contains("the last of what is unfrozen joins before"),
        "{said}"
    );
}

#[test]
fn a_killed_run_goes_on_across_the_edge_of_a_phase() {
    let stage = "adapter = unfreeze { every = 6 steps, last = 3 }, steps = 30";
    let whole = trained(stage);
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(dir.path(), stage);
    for _ in 0..4 {
        let mut child = program()
            .args(["run", "--quiet", "--checkpoint-every", "0"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(120));
        child.kill().expect("killed or over");
        child.wait().expect("waits");
    }
    done(program().args(["run", "--quiet"]).arg(&path));
    assert!(whole == tensors(&model(dir.path())));
}

#[test]
fn the_plan_says_the_phases() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = write(
        dir.path(),
        "adapters = [lora, unfreeze { modules = [LayerNorm], at = [4] }], steps = 9",
    );
    let output = done(program().arg("plan").arg(&path));
    let said = stdout_of(&output);
    assert!(
        said.contains("2: more is trained from steps 0, 4 on"),
        "{said}"
    );
    let path = write(
        dir.path(),
        "adapter = unfreeze { modules = [nowhere] }, steps = 9",
    );
    let output = program().arg("check").arg(&path).output().expect("starts");
    assert!(stderr_of(&output).contains("no module `nowhere`"));
}
