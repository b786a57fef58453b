//! Tests of the store.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn manifest(fingerprint: &str) -> Manifest {
    let mut m = Manifest::new(fingerprint, "warm", "train", "some cpu");
    m.parts = IndexMap::from([("model".into(), "aa".into()), ("data".into(), "bb".into())]);
    m.result = json!({ "metrics": { "accuracy": 0.5 } });
    m
}

#[test]
fn an_entry_is_finished_by_its_manifest_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("deep/store"));
    assert!(store.finished("ab12").is_none());
    let entry = store.begin("ab12").unwrap();
    fs::create_dir_all(entry.dir().join("adapter")).unwrap();
    fs::write(entry.dir().join("adapter/x"), "x").unwrap();
    fs::create_dir_all(entry.checkpoint()).unwrap();
    assert!(store.finished("ab12").is_none());
    drop(entry);

    let entry = store.begin("ab12").unwrap();
    assert!(entry.dir().join("adapter/x").exists(), "leftovers are kept");
    assert!(matches!(
        store.begin("cd").unwrap().finish(&manifest("ab12")),
        Err(RunError::Bug(_))
    ));
    entry.finish(&manifest("ab12")).unwrap();
    assert_eq!(store.finished("ab12"), Some(manifest("ab12")));
    assert!(!store.path("ab12").join(CHECKPOINT).exists());

    let entry = store.begin("ab12").unwrap();
    assert!(entry.finished().is_some());
    entry.reset().unwrap();
    assert!(entry.finished().is_none());
    assert_eq!(
        fs::read_dir(entry.dir()).unwrap().count(),
        1,
        "only the lock is left"
    );
}

#[test]
fn a_live_lock_is_named_and_a_dead_one_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    fs::create_dir_all(store.path("ab")).unwrap();
    fs::write(store.path("ab").join(LOCK), "4194304999").unwrap();
    let entry = store.begin("ab").unwrap();
    let error = store.begin("ab").unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {} is working", std::process::id())),
        "{error}"
    );
    drop(entry);
    store.begin("ab").unwrap();
}

#[test]
fn fingerprints_are_never_paths() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    for name in ["", "..", "a/b", "index", "."] {
        assert!(matches!(store.begin(name), Err(RunError::Bug(_))), "{name}");
        assert!(store.finished(name).is_none());
    }
}

#[test]
fn the_index_remembers_the_last_entry_of_a_stage() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    let parts = manifest("ab").parts;
    assert!(store.latest("r.peft", "warm").is_none());
    store.note_latest("r.peft", "warm", "ab", &parts).unwrap();
    store.note_latest("r.peft", "warm", "cd", &parts).unwrap();
    store
        .note_latest("r.peft", "../ladder", "ef", &parts)
        .unwrap();
    assert_eq!(
        store.latest("r.peft", "warm"),
        Some(("cd".into(), parts.clone()))
    );
    assert_eq!(
        store.latest("r.peft", "../ladder"),
        Some(("ef".into(), parts))
    );
    assert!(store.latest("s.peft", "warm").is_none());
    let (fp, parts) = store.latest("r.peft", "warm").unwrap();
    assert_eq!(
        (fp.as_str(), parts.keys().next().unwrap().as_str()),
        ("cd", "model")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn garbage_is_not_finished(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..260) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path());
        fs::create_dir_all(store.path("ab")).unwrap();
        let path = store.path("ab").join(MANIFEST);
        fs::write(&path, &bytes).unwrap();
        prop_assert!(store.finished("ab").is_none());
        let whole = serde_json::to_vec(&manifest("ab")).unwrap();
        let cut = cut.min(whole.len() - 1);
        fs::write(&path, &whole[..cut]).unwrap();
        prop_assert!(store.finished("ab").is_none());
        fs::create_dir_all(root.path().join(INDEX)).unwrap();
        fs::write(store.index("r", "s"), &bytes).unwrap();
        prop_assert!(store.latest("r", "s").is_none());
    }
}
