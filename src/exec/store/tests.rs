//! Tests of the store.

use super::manifest::Verified;
use super::*;
use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::json;

fn manifest(fingerprint: &str) -> Manifest {
    let mut m = Manifest::new(fingerprint, "warm", "train", "some cpu");
    m.parts = IndexMap::from([("model".into(), "aa".into()), ("data".into(), "bb".into())]);
    m.result = json!({ "metrics": { "accuracy": 0.5 } });
    m
}

fn begin(store: &Store, fingerprint: &str) -> Entry {
    store.begin(fingerprint).unwrap().unwrap()
}

/// A store with a finished entry.
fn finished(root: &Path) -> Store {
    let store = Store::open(root);
    let entry = begin(&store, "ab");
    fs::create_dir_all(entry.dir().join("adapter")).unwrap();
    fs::write(entry.dir().join("adapter/x"), [5; 3000]).unwrap();
    fs::write(entry.dir().join("metrics.jsonl"), "{}\n").unwrap();
    entry.finish(&manifest("ab")).unwrap();
    store
}

#[test]
fn an_entry_is_finished_by_its_manifest_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path().join("deep/store"));
    assert_eq!(store.look("ab12"), State::Nothing);
    let entry = begin(&store, "ab12");
    let about = About {
        recipe: "r.peft".into(),
        ..About::default()
    };
    entry.is_of(&about).unwrap();
    fs::create_dir_all(entry.dir().join("adapter")).unwrap();
    fs::write(entry.dir().join("adapter/x"), "x").unwrap();
    fs::create_dir_all(store.checkpoint("ab12")).unwrap();
    fs::write(entry.dir().join("adapter/.x.4194304999-0.tmp"), "half").unwrap();
    assert_eq!(store.look("ab12"), State::Unfinished);
    assert_eq!(store.about("ab12"), Some(about));
    drop(entry);

    let entry = begin(&store, "ab12");
    assert!(entry.dir().join("adapter/x").exists(), "leftovers are kept");
    assert!(matches!(
        begin(&store, "cd").finish(&manifest("ab12")),
        Err(RunError::Bug(_))
    ));
    let written = entry.finish(&manifest("ab12")).unwrap();
    assert_eq!(
        written.files.keys().collect::<Vec<_>>(),
        ["adapter/x"],
        "only the artifact has sums"
    );
    assert_eq!(store.finished("ab12"), Some(written));
    assert_eq!(
        fs::read_dir(store.path("ab12").join("adapter"))
            .unwrap()
            .count(),
        1
    );
    assert!(!store.checkpoint("ab12").exists());
    // A process that was killed before it could remove it.
    fs::create_dir_all(store.checkpoint("ab12")).unwrap();
    store.take("ab12");
    assert!(!store.checkpoint("ab12").exists());

    let entry = begin(&store, "ab12");
    entry.reset().unwrap();
    assert_eq!(entry.look(), State::Unfinished);
    assert_eq!(
        fs::read_dir(entry.dir()).unwrap().count(),
        1,
        "only the lock is left"
    );
}

#[test]
fn every_flipped_byte_of_a_finished_entry_is_known() {
    let root = tempfile::tempdir().unwrap();
    let store = finished(root.path());
    let dir = store.path("ab");
    let whole = store.finished("ab").unwrap();
    for name in ["adapter/x", "metrics.jsonl", MANIFEST] {
        let path = dir.join(name);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(97)) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << (at % 8);
            fs::write(&path, &wrong).unwrap();
            let State::Damaged(damage) = store.look("ab") else {
                panic!("byte {at} of {name} is believed");
            };
            assert_eq!(damage.path, path);
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.finished("ab").as_ref(), Some(&whole));
    }
    // What is remembered of the comparison is no result: damaged, it is made again.
    let path = dir.join(VERIFIED);
    for at in 0..fs::read(&path).unwrap().len() {
        let mut wrong = fs::read(&path).unwrap();
        wrong[at] ^= 1;
        fs::write(&path, &wrong).unwrap();
        assert_eq!(store.finished("ab").as_ref(), Some(&whole), "byte {at}");
    }
    fs::remove_file(dir.join("adapter/x")).unwrap();
    let entry = begin(&store, "ab");
    assert!(matches!(entry.look(), State::Damaged(d) if d.what == "it is gone"));
    let place = entry.set_aside().unwrap();
    assert!(place.join("metrics.jsonl").exists() && place.join(MANIFEST).exists());
    assert_eq!(entry.look(), State::Unfinished);
}

#[test]
fn a_folder_is_vouched_for_by_the_manifest_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let store = finished(root.path());
    let entry = store.path("ab");
    let folder = entry.join("adapter");
    vouch(&folder).unwrap();
    vouch(&entry).unwrap();
    let apart = root.path().join("apart");
    fs::create_dir_all(&apart).unwrap();
    fs::copy(folder.join("x"), apart.join("x")).unwrap();
    fs::write(folder.join("x"), [6; 3000]).unwrap();
    let why = vouch(&folder).unwrap_err();
    assert!(why.to_string().contains("adapter/x: damaged"), "{why}");
    assert_eq!(why.exit_code(), 1);
    vouch(&entry.join("metrics.jsonl")).unwrap();
    vouch(&apart).unwrap();
    // Begun, and never finished.
    let entry = begin(&store, "cd");
    entry.is_of(&About::default()).unwrap();
    fs::create_dir_all(entry.dir().join("adapter")).unwrap();
    let why = vouch(&entry.dir().join("adapter")).unwrap_err();
    assert!(why.to_string().contains("not finished"), "{why}");
}

#[test]
fn bytes_that_rot_under_the_same_times_are_found_by_a_comparison_of_all() {
    let root = tempfile::tempdir().unwrap();
    let store = finished(root.path());
    assert_eq!(store.verify().unwrap().compared, 1);
    let path = store.path("ab").join("adapter/x");
    fs::write(&path, [6; 3000]).unwrap();
    // As if the stamp were the same: what rots on a disk has no new time.
    let text = fs::read(store.path("ab").join(VERIFIED)).unwrap();
    let mut known: Verified = serde_json::from_slice(&text).unwrap();
    known
        .files
        .insert("adapter/x".into(), Stamp::of(&path).unwrap());
    let text = serde_json::to_vec(&known).unwrap();
    fs::write(store.path("ab").join(VERIFIED), text).unwrap();
    assert!(store.finished("ab").is_some());
    assert_eq!(store.verify().unwrap().damaged[0].path, path);
    assert!(matches!(store.look("ab"), State::Damaged(_)));
}

#[test]
fn room_is_made_by_what_was_used_longest_ago_and_nothing_goes_before_what_needs_it() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    let make = |name: &str, needs: &[&str], age: u64| {
        let entry = begin(&store, name);
        fs::write(entry.dir().join("x"), [1; 10_000]).unwrap();
        let needs = needs.iter().map(|n| (*n).to_owned()).collect();
        entry
            .finish(&Manifest {
                needs,
                ..manifest(name)
            })
            .unwrap();
        let then = SystemTime::now() - std::time::Duration::from_secs(age);
        for file in [USED, MANIFEST] {
            let file = File::options()
                .append(true)
                .open(store.path(name).join(file))
                .unwrap();
            file.set_times(fs::FileTimes::new().set_modified(then))
                .unwrap();
        }
    };
    make("base", &[], 50);
    make("adapter", &["base"], 10);
    make("old", &[], 40);
    make("running", &[], 60);
    let lock = begin(&store, "running");
    fs::create_dir_all(root.path().join(DAMAGED).join("x-1-0")).unwrap();
    let left = || -> Vec<String> {
        store
            .items()
            .unwrap()
            .into_iter()
            .map(|i| i.fingerprint)
            .collect()
    };
    assert_eq!(left(), ["running", "base", "old", "adapter"]);
    let would = store.collect(Some(40_000), false).unwrap();
    let would: Vec<_> = would.iter().map(|g| g.path.file_name().unwrap()).collect();
    assert_eq!(
        would,
        ["x-1-0", "old"],
        "what runs and what is needed stays"
    );
    assert_eq!(left().len(), 4, "nothing was removed");
    store.collect(Some(35_000), true).unwrap();
    assert_eq!(left(), ["running", "base", "adapter"]);
    assert!(!root.path().join(DAMAGED).join("x-1-0").exists());
    store.collect(Some(25_000), true).unwrap();
    assert_eq!(left(), ["running", "base"], "the adapter needs the base");
    drop(lock);
    store.collect(Some(0), true).unwrap();
    assert!(left().is_empty());
}

#[test]
fn a_live_lock_is_named_and_a_dead_one_is_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path());
    fs::create_dir_all(store.path("ab")).unwrap();
    fs::write(store.path("ab").join(LOCK), "4194304999").unwrap();
    let entry = begin(&store, "ab");
    let who = store.begin("ab").unwrap().unwrap_err();
    assert_eq!(who, format!("process {}", std::process::id()));
    drop(entry);
    begin(&store, "ab");
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
        let whole = sealed::bytes(&manifest("ab")).unwrap();
        let cut = cut.min(whole.len() - 1);
        fs::write(&path, &whole[..cut]).unwrap();
        prop_assert!(store.finished("ab").is_none());
        fs::create_dir_all(root.path().join(INDEX)).unwrap();
        fs::write(store.index("r", "s"), &bytes).unwrap();
        prop_assert!(store.latest("r", "s").is_none());
    }
}
