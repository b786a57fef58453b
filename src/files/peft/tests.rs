//! Tests against adapters that the Python library wrote.

mod keys;

use keys::with;

use super::*;
use crate::library::peft::{Fate, Targets};
use crate::library::schema::Checked;
use crate::library::stage::network::anatomy;
use proptest::prelude::*;
use std::path::PathBuf;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

fn fit_to(adapter: &PeftAdapter, name: &str) -> Result<Fitted, Misfit> {
    let config = fs::read(reference(name).join("config.json")).unwrap();
    let model = crate::library::model::parse(&serde_json::from_slice(&config).unwrap()).unwrap();
    adapter.fit(model.as_ref(), &anatomy(model.as_ref()))
}

/// A number among the values of a group.
fn number(group: &peft::Group, key: &str) -> f64 {
    match group.values.iter().find(|(own, _)| *own == key) {
        Some((_, Checked::Int(n))) => *n as f64,
        Some((_, Checked::Float(x))) => *x,
        Some((_, Checked::Bool(truth))) => f64::from(u8::from(*truth)),
        other => panic!("{key}: {other:?}"),
    }
}

fn sizes(group: &peft::Group) -> [f64; 4] {
    ["rank", "alpha", "dropout", "rs_lora"].map(|key| number(group, key))
}

#[test]
fn what_peft_wrote_fits_its_model_and_no_other() {
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
        let config = &adapter.config;
        assert!(name.starts_with(&config.base), "{}", config.base);
        assert!(config.saves("classifier"));
        assert_eq!(config.places(query), Some(true));
        assert_eq!(config.places("classifier"), Some(false));
        let (shape, a) = adapter
            .tensors
            .numbers(&format!("{query}.lora_A.weight"))
            .unwrap();
        assert_eq!((shape, a.len()), (vec![4, 64], 256));
        let (_, b) = adapter
            .tensors
            .numbers(&format!("{query}.lora_B.weight"))
            .unwrap();
        assert_eq!(b.iter().all(|x| *x == 0.0), !name.ends_with("trained"));
        let own = name.split("-lora").next().unwrap();
        let fitted = fit_to(&adapter, own).unwrap();
        assert_eq!(fitted.groups.len(), 1);
        assert_eq!(fitted.groups[0].modules.len(), 18);
        assert_eq!(sizes(&fitted.groups[0]), [4.0, 8.0, 0.0, 0.0]);
        assert!(
            fitted.tensors.iter().any(|t| t.own == head),
            "{name}: {head}"
        );
        assert_eq!(fitted.tensors.len(), adapter.tensors.names().len());
        assert_eq!(adapter.is_idle(&fitted), Ok(!name.ends_with("trained")));
        assert!(fitted.head.is_empty() && fitted.whole.is_empty());
        for other in ["bert-tiny", "roberta-tiny", "distilbert-tiny"] {
            if other == own {
                continue;
            }
            let misfit = fit_to(&adapter, other).unwrap_err();
            assert!(misfit.message.contains("of this model"), "{misfit:?}");
            assert!(misfit.help.contains(own), "{misfit:?}");
        }
    }
}

/// The reference adapter with its tensors renamed or left out, and its config changed.
fn changed(
    rename: &dyn Fn(&str) -> Option<String>,
    change: &dyn Fn(&mut Json),
) -> Result<Fitted, String> {
    let dir = tempfile::tempdir().unwrap();
    let from = reference("bert-tiny-lora");
    let mut config: Json = serde_json::from_slice(&fs::read(from.join(CONFIG)).unwrap()).unwrap();
    change(&mut config);
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    let file = TensorFile::open(&from.join(TENSORS)).unwrap();
    let kept: Vec<(String, String)> = file
        .names()
        .into_iter()
        .filter_map(|name| Some((rename(&name)?, name)))
        .collect();
    let specs: Vec<TensorSpec> = kept
        .iter()
        .map(|(new, old)| TensorSpec::of(new, &file.tensor(old).unwrap()))
        .collect();
    tensorfile::write_tensors(&dir.path().join(TENSORS), &specs, None, &mut |i, out| {
        let tensor = file.tensor(&kept[i].1).unwrap();
        out.write_all(tensorfile::bytes_of(&tensor)).unwrap();
        Ok(())
    })
    .unwrap();
    let adapter = read(dir.path()).map_err(|e| e.to_string())?;
    fit_to(&adapter, "bert-tiny").map_err(|m| format!("{}; {}", m.message, m.help))
}

#[test]
fn every_tensor_is_used_or_refused_by_name_and_none_is_missing() {
    let same = |name: &str| Some(name.to_owned());
    let nothing = |_: &mut Json| {};
    assert!(changed(&same, &nothing).is_ok());
    let file = TensorFile::open(&reference("bert-tiny-lora").join(TENSORS)).unwrap();
    for name in file.names() {
        let short = plain_name(&name).unwrap();
        // Without it: an error that names it, or its module.
        let error = changed(&|n| (n != name).then(|| n.to_owned()), &nothing).unwrap_err();
        let module = short.split(".lora_").next().unwrap();
        assert!(error.contains(module), "{short}: {error}");
        // Under a name that the model does not have.
        let error = changed(
            &|n| {
                Some(if n == name {
                    format!("{PREFIX}zebra.{short}")
                } else {
                    n.to_owned()
                })
            },
            &nothing,
        )
        .unwrap_err();
        assert!(error.contains("zebra"), "{short}: {error}");
    }
    for (end, what) in [
        ("lora_zebra_A", "not built yet"),
        ("lora_magnitude_vector", "not built yet"),
        ("lora_B.bias", "not built yet"),
        ("lora_A.bias", "not built yet"),
    ] {
        let rename = |n: &str| {
            Some(
                match n.strip_suffix("layer.0.attention.self.query.lora_A.weight") {
                    Some(stem) => format!("{stem}layer.0.attention.self.query.{end}"),
                    None => n.to_owned(),
                },
            )
        };
        let error = changed(&rename, &nothing).unwrap_err();
        assert!(
            error.contains(end) && error.contains(what) && error.contains("merge_and_unload"),
            "{error}"
        );
    }
}

#[test]
fn placements_of_peft_are_followed() {
    let layer = |keep: &'static [u64]| {
        move |name: &str| {
            let inside = |i: &u64| name.contains(&format!("layer.{i}."));
            let other = !name.contains("lora_") || keep.iter().any(inside);
            other.then(|| name.to_owned())
        }
    };
    let places = |fitted: Fitted| -> usize { fitted.groups.iter().map(|g| g.modules.len()).sum() };
    let set = |key: &'static str, value: Json| move |config: &mut Json| config[key] = value.clone();
    let all = |name: &str| Some(name.to_owned());
    // Some blocks, by number, and by a pattern before it.
    for value in [json!([0, 2]), json!([2, 0, 7])] {
        let found = changed(&layer(&[0, 2]), &set("layers_to_transform", value));
        assert_eq!(places(found.unwrap()), 12);
    }
    let found = changed(&layer(&[1]), &set("layers_to_transform", json!(1)));
    assert_eq!(places(found.unwrap()), 6);
    assert!(changed(&layer(&[0]), &set("layers_to_transform", json!([0, 1]))).is_err());
    assert!(changed(&all, &set("layers_to_transform", json!([0, 1]))).is_err());
    // Left out.
    for value in [json!(["layer.1"]), json!(r".*layer\.1\..*")] {
        let found = changed(&layer(&[0, 2]), &set("exclude_modules", value.clone()));
        assert_eq!(
            found.is_ok(),
            value.is_string(),
            "an end of a path, or all of it"
        );
    }
    // Regular expressions, of Python's kind too.
    let pattern = json!(r"bert\.encoder\.layer\.\d\..*(query|key|value|dense)");
    assert_eq!(
        places(changed(&all, &set("target_modules", pattern)).unwrap()),
        18
    );
    let ahead = json!(r"bert(?!x)\.encoder.*");
    assert_eq!(
        places(changed(&all, &set("target_modules", ahead)).unwrap()),
        18
    );
    let linear = set("target_modules", json!("all-linear"));
    assert_eq!(places(changed(&all, &linear).unwrap()), 18);
    assert!(changed(&layer(&[0, 1]), &linear).is_err());
    // Ranks and scales that differ.
    let fitted = changed(
        &all,
        &set(
            "alpha_pattern",
            json!({ "layer.1.*query": 3, "query": 5.5, "^x": 1 }),
        ),
    )
    .unwrap();
    let mut found: Vec<(f64, usize)> = fitted
        .groups
        .iter()
        .map(|g| (number(g, "alpha"), g.modules.len()))
        .collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(found, [(3.0, 1), (5.5, 2), (8.0, 15)]);
    let error = changed(&all, &set("rank_pattern", json!({ "query": 2 }))).unwrap_err();
    assert!(
        error.contains("[4, 64]") && error.contains("[2, 64]"),
        "{error}"
    );
}

#[test]
fn what_is_written_is_read_again_and_has_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let make = |dir: &Path| {
        let tensors = vec![
            (
                "model.m.query.lora_B.weight".to_owned(),
                vec![3, 2],
                vec![0.5; 6],
            ),
            (
                "model.classifier.weight".to_owned(),
                vec![2, 3],
                vec![1.0; 6],
            ),
            (
                "model.m.query.lora_A.weight".to_owned(),
                vec![2, 3],
                vec![2.0; 6],
            ),
        ];
        let config = [
            ("peft_type", json!("LORA")),
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
    let config = &adapter.config;
    let alpha = config.number("lora_alpha", 8.0).unwrap();
    assert_eq!((config.whole("r", 8), alpha), (Ok(2), 16.0));
    assert_eq!(
        config.targets,
        Targets::Names(vec!["query".into(), "value".into()])
    );
    assert_eq!(
        adapter.tensors.numbers("m.query.lora_A.weight"),
        Ok((vec![2, 3], vec![2.0; 6]))
    );
    assert!(adapter.tensors.numbers("none").is_err());
    assert_eq!(config.base, "org/base");
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
        assert_eq!(names.matches(path), Some(hit), "{path}");
    }
    let targets = |value: Json| with("target_modules", value).unwrap().config.targets;
    let regex = targets(json!(r".*\.[01]\..*(query|value)"));
    for (path, hit) in [
        ("x.0.query", true),
        ("x.2.query", false),
        ("x.1.value", true),
        ("x.1.value.y", false),
    ] {
        assert_eq!(regex.matches(path), Some(hit), "{path}");
    }
    assert_eq!(Targets::Regex("a|bc".into()).matches("bc"), Some(true));
    assert_eq!(Targets::Regex("a|bc".into()).matches("ac"), Some(false));
    assert_eq!(targets(json!("All-Linear")), Targets::AllLinear);
    assert_eq!(targets(Json::Null), Targets::Present);
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
            let _ = (adapter.config.places("a.b"), fit_to(&adapter, "bert-tiny"));
        }
    }
}
