//! Tests against adapters that the Python library wrote.

use super::*;
use proptest::prelude::*;
use std::path::PathBuf;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

#[test]
fn reads_what_peft_wrote() {
    for (name, query, head) in [
        (
            "bert-tiny-lora",
            "bert.encoder.layer.1.attention.self.query",
            "classifier.weight",
        ),
        (
            "bert-tiny-lora-trained",
            "bert.encoder.layer.1.attention.self.query",
            "bert.pooler.dense.bias",
        ),
        (
            "roberta-tiny-lora",
            "roberta.encoder.layer.1.attention.self.query",
            "classifier.out_proj.weight",
        ),
        (
            "distilbert-tiny-lora",
            "distilbert.transformer.layer.1.attention.q_lin",
            "pre_classifier.weight",
        ),
    ] {
        let adapter = read(&reference(name)).unwrap();
        assert_eq!(
            (
                adapter.rank,
                adapter.alpha,
                adapter.dropout,
                adapter.rs_lora
            ),
            (4, 8.0, 0.0, false)
        );
        assert!(name.starts_with(&adapter.base), "{}", adapter.base);
        assert!(adapter.modules_to_save.contains(&"classifier".to_owned()));
        assert!(adapter.targets.matches(query).unwrap());
        assert!(!adapter.targets.matches("classifier").unwrap());
        let (shape, a) = adapter
            .tensors
            .f32(&format!("{query}.lora_A.weight"))
            .unwrap()
            .unwrap();
        assert_eq!((shape, a.len()), (vec![4, 64], 256));
        let (_, b) = adapter
            .tensors
            .f32(&format!("{query}.lora_B.weight"))
            .unwrap()
            .unwrap();
        assert_eq!(b.iter().all(|x| *x == 0.0), !name.ends_with("trained"));
        assert!(adapter.tensors.get(head).is_some(), "{name}: {head}");
        // The targets are exactly the modules that have tensors.
        let modules: Vec<&str> = adapter
            .tensors
            .names()
            .filter_map(|n| n.strip_suffix(".lora_A.weight"))
            .collect();
        assert_eq!(modules.len(), 18);
        assert_eq!(
            adapter.targets.select(modules.iter().copied()).unwrap(),
            modules
        );
    }
}

#[test]
fn what_is_written_is_read_again_and_has_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let make = |dir: &Path| {
        let tensors = vec![
            ("m.query.lora_B.weight".to_owned(), vec![3, 2], vec![0.5; 6]),
            ("classifier.weight".to_owned(), vec![2, 3], vec![1.0; 6]),
            ("m.query.lora_A.weight".to_owned(), vec![2, 3], vec![2.0; 6]),
        ];
        let config = [
            ("r", json!(2)),
            ("lora_alpha", json!(16.0)),
            ("lora_dropout", json!(0.1)),
            ("use_rslora", json!(true)),
        ];
        write(
            dir,
            "org/base",
            &["value".into(), "query".into()],
            &["classifier".into()],
            &config,
            tensors,
        )
        .unwrap();
    };
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    make(&one);
    make(&two);
    for file in [CONFIG, TENSORS] {
        assert_eq!(
            fs::read(one.join(file)).unwrap(),
            fs::read(two.join(file)).unwrap()
        );
    }
    let text = fs::read_to_string(one.join(CONFIG)).unwrap();
    let keys: Vec<&str> = text.lines().filter(|l| l.starts_with("  \"")).collect();
    assert!(
        keys.is_sorted() && text.contains("\n  \"task_type\": \"SEQ_CLS\",\n"),
        "{text}"
    );
    let adapter = read(&one).unwrap();
    assert_eq!(
        (
            adapter.rank,
            adapter.alpha,
            adapter.dropout,
            adapter.rs_lora
        ),
        (2, 16.0, 0.1, true)
    );
    assert_eq!(
        adapter.targets,
        Targets::Names(vec!["query".into(), "value".into()])
    );
    assert_eq!(
        adapter.tensors.f32("m.query.lora_A.weight").unwrap(),
        Some((vec![2, 3], vec![2.0; 6]))
    );
    assert_eq!(adapter.tensors.f32("none").unwrap(), None);
    assert_eq!(adapter.base, "org/base");
    let bad = write(
        &one,
        "b",
        &[],
        &[],
        &[],
        vec![("x".into(), vec![2], vec![1.0])],
    );
    assert!(matches!(bad, Err(RunError::Bug(_))));
}

/// The reference adapter with one key changed.
fn with(key: &str, value: Json) -> Result<PeftAdapter, RunError> {
    let dir = tempfile::tempdir().unwrap();
    let from = reference("bert-tiny-lora");
    let mut config: Json = serde_json::from_slice(&fs::read(from.join(CONFIG)).unwrap()).unwrap();
    config[key] = value;
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    fs::copy(from.join(TENSORS), dir.path().join(TENSORS)).unwrap();
    read(dir.path())
}

#[test]
fn what_is_not_built_is_refused_by_its_key() {
    for (key, value) in [
        ("rank_pattern", json!({ "query": 8 })),
        ("alpha_pattern", json!({ "query": 8 })),
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("peft_type", json!("IA3")),
        ("peft_type", Json::Null),
        ("layers_to_transform", json!([0, 1])),
        ("layers_to_transform", json!(1)),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("r", json!("x")),
        ("lora_alpha", json!([])),
        ("lora_dropout", json!(1.0)),
        ("target_modules", json!(3)),
        ("target_modules", json!(")(")),
    ] {
        let error = with(key, value.clone()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{key}`")),
            "{key} {value}: {error}"
        );
    }
    assert!(with("init_lora_weights", json!("gaussian")).is_ok());
    assert_eq!(with("r", Json::Null).unwrap().rank, 8);
}

#[test]
fn targets_are_suffixes_of_whole_components_or_full_matches() {
    let names = Targets::Names(vec!["output.dense".into(), "query".into()]);
    for (path, hit) in [
        ("a.output.dense", true),
        ("output.dense", true),
        ("a.myoutput.dense", false),
        ("a.query", true),
        ("a.query.x", false),
        ("subquery", false),
    ] {
        assert_eq!(names.matches(path).unwrap(), hit, "{path}");
    }
    let regex = with("target_modules", json!(r".*\.[01]\..*(query|value)"))
        .unwrap()
        .targets;
    assert_eq!(
        regex
            .select(["x.0.query", "x.2.query", "x.1.value", "x.1.value.y"])
            .unwrap(),
        ["x.0.query", "x.1.value"]
    );
    assert!(Targets::Regex("a|bc".into()).matches("bc").unwrap());
    assert!(!Targets::Regex("a|bc".into()).matches("ac").unwrap());
    assert_eq!(
        with("target_modules", json!("All-Linear")).unwrap().targets,
        Targets::AllLinear
    );
    let Targets::Names(found) = with("target_modules", Json::Null).unwrap().targets else {
        panic!()
    };
    assert_eq!(found.len(), 18);
}

#[test]
fn names_of_wrapped_modules_become_plain() {
    let plain = |name: &str| plain_name(name);
    assert_eq!(
        plain("base_model.model.classifier.modules_to_save.default.weight"),
        Some("classifier.weight".into())
    );
    assert_eq!(
        plain("base_model.model.classifier.modules_to_save.weight"),
        Some("classifier.weight".into())
    );
    assert_eq!(
        plain("base_model.model.a.lora_A.default.weight"),
        Some("a.lora_A.weight".into())
    );
    assert_eq!(
        plain("base_model.model.classifier.original_module.weight"),
        None
    );
}

#[test]
fn pickles_get_a_remedy_and_missing_files_a_name() {
    let dir = tempfile::tempdir().unwrap();
    assert!(read(dir.path()).unwrap_err().to_string().contains(CONFIG));
    fs::copy(
        reference("bert-tiny-lora").join(CONFIG),
        dir.path().join(CONFIG),
    )
    .unwrap();
    assert!(read(dir.path()).unwrap_err().to_string().contains(TENSORS));
    fs::write(dir.path().join("adapter_model.bin"), "x").unwrap();
    assert!(
        read(dir.path())
            .unwrap_err()
            .to_string()
            .contains("safe_serialization=True")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_never_panics(config in proptest::collection::vec(any::<u8>(), 0..100), value in "[\\[\\]{}():,\"a-z0-9.*\\\\|+?]{0,20}", key in 0_usize..8) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), &config).unwrap();
        prop_assert!(read(dir.path()).is_err());
        let keys = ["r", "lora_alpha", "target_modules", "bias", "modules_to_save", "rank_pattern", "use_rslora", "peft_type"];
        let parsed = serde_json::from_str(&value).unwrap_or(Json::String(value));
        if let Ok(adapter) = with(keys[key], parsed) {
            let _ = adapter.targets.matches("a.b");
        }
    }
}
