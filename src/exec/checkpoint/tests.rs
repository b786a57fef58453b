//! Tests of checkpoints: damage, and death at any moment.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn put(dir: &Path, step: u64) {
    let x = Tensor::new(vec![step as f32; 64], &[8, 8]);
    let n = Tensor::new(vec![step as u32], &[1]);
    save(
        dir,
        &[("x", &x), ("n", &n)],
        &json!({ "step": step, "loss": 0.1 }),
    )
    .unwrap();
}

/// The step of the checkpoint, after a look whether tensors and state belong together.
fn get(dir: &Path) -> Option<u64> {
    let saved = load(dir).unwrap()?;
    let step = saved.state["step"].as_u64().unwrap();
    let x = saved.open().unwrap().tensor("x").unwrap();
    assert_eq!(x.slice::<f32>().unwrap(), vec![step as f32; 64]);
    Some(step)
}

#[test]
fn the_newest_comes_back_and_clear_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("checkpoint");
    assert_eq!(get(&dir), None);
    for step in 1..=5 {
        put(&dir, step);
        assert_eq!(get(&dir), Some(step));
    }
    assert_eq!(load(&dir).unwrap().unwrap().state["loss"], json!(0.1));
    clear(&dir).unwrap();
    assert!(!dir.exists());
    clear(&dir).unwrap();
}

#[test]
fn a_damaged_newest_slot_falls_back_to_the_spare() {
    for file in ["safetensors", "state"] {
        for damage in ["cut", "flip", "gone"] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path();
            put(dir, 1);
            put(dir, 2);
            let newest = pointer(dir).unwrap();
            let path = dir.join(format!("{}.{file}", newest.name()));
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "cut" => bytes.truncate(bytes.len() - 1),
                "flip" => *bytes.last_mut().unwrap() ^= 1,
                _ => bytes.clear(),
            }
            if damage == "gone" {
                fs::remove_file(&path).unwrap()
            } else {
                fs::write(&path, &bytes).unwrap()
            }
            assert_eq!(get(dir), Some(1), "{file} {damage}");
        }
    }
}

#[test]
fn without_a_pointer_the_later_whole_slot_counts_and_is_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    for step in 1..=4 {
        put(dir, step);
        fs::write(dir.join(LATEST), "?").unwrap();
        assert_eq!(get(dir), Some(step));
    }
    fs::remove_file(dir.join(LATEST)).unwrap();
    assert_eq!(get(dir), Some(4));
    let before = load(dir).unwrap().unwrap().tensors;
    put(dir, 5);
    assert_ne!(load(dir).unwrap().unwrap().tensors, before);
}

/// Runs in a child process that the next test kills.
#[test]
#[ignore = "run by `a_killed_process_leaves_a_whole_checkpoint`"]
fn save_for_ever() {
    let Some(dir) = std::env::var_os("PEFTC_TEST_CHECKPOINT") else {
        return;
    };
    for step in 1.. {
        put(Path::new(&dir), step);
    }
}

#[test]
fn a_killed_process_leaves_a_whole_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut last = None;
    for round in 0..8_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "exec::checkpoint::tests::save_for_ever",
            ])
            .env("PEFTC_TEST_CHECKPOINT", dir)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(120_000 + round * 7_123));
        child.kill().unwrap();
        child.wait().unwrap();
        let step = get(dir);
        assert!(step.is_some() || last.is_none());
        last = step;
    }
    assert!(last.is_some(), "no round saved anything");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn garbage_is_no_checkpoint(state in proptest::collection::vec(any::<u8>(), 0..120), tensors in proptest::collection::vec(any::<u8>(), 0..60)) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        fs::write(dir.join("a.state"), &state).unwrap();
        fs::write(dir.join("a.safetensors"), &tensors).unwrap();
        fs::write(dir.join(LATEST), "a").unwrap();
        prop_assert!(load(dir).unwrap().is_none());
    }
}
