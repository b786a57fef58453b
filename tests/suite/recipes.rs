//! The shipped recipes: each checks without a complaint and is formatted.

use std::sync::OnceLock;

use serde_json::Value;

use super::support::{printed, program, stderr_of, stdout_of};

/// What `check --json` says of all of them where nothing was run yet and the hub is out of reach. The book's tables of
/// methods and recipes are made of it.
pub fn checked() -> &'static Value {
    static CHECKED: OnceLock<Value> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let output = program()
            .args(["check", "--json", "--threads", "2", "--store"])
            .arg(scratch.path().join("store"))
            .args(recipes())
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", "/nonexistent")
            .output()
            .expect("starts");
        assert!(output.status.success(), "{}", stdout_of(&output));
        printed(&output)
    })
}

pub fn recipes() -> Vec<std::path::PathBuf> {
    let mut list = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("recipes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("recipes").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with(".peftc") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "peft") {
                list.push(path);
            }
        }
    }
    list.sort();
    list
}

#[test]
fn shipped_recipes_check_and_are_formatted() {
    let list = recipes();
    assert!(list.len() >= 5, "{list:?}");
    let format = program().args(["fmt", "--check"]).args(&list).output();
    let format = format.expect("starts");
    assert!(format.status.success(), "{}", stderr_of(&format));
    // The report's models and data are on the hub: what is not at hand is told, and nothing else.
    let told = [
        "assumed_lengths",
        "assumed_model",
        "bad_tokenizer",
        "unknown_identity",
    ];
    let checked = checked()["recipes"].as_array().expect("recipes");
    assert_eq!(checked.len(), list.len());
    for recipe in checked {
        let name = recipe["recipe"].as_str().expect("a path");
        let own =
            !name.starts_with("recipes/report") && !name.starts_with("recipes/peft_comparison");
        for diagnostic in recipe["diagnostics"].as_array().expect("a list") {
            let code = diagnostic["code"].as_str().expect("a code");
            assert!(told.iter().any(|t| code.ends_with(t)), "{name}: {code}");
            assert!(!own, "{name}: {code}");
        }
    }
}

#[test]
fn the_chat_recipe_trains_generates_and_exports() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let own = std::fs::canonicalize("recipes").expect("the recipes");
    let text = std::fs::read_to_string("recipes/chat.peft").expect("the recipe");
    let at = own.display();
    let text = text
        .replace("\"tales-mini\"", &format!("\"{at}/tales-mini\""))
        .replace(
            "\"places-mini\" {",
            &format!("\"{at}/places-mini\" {{ take = 12,"),
        )
        .replace("epochs = 3", "steps = 2")
        // Two steps change less than 8 bits keep.
        .replace("dtype = q8_0", "dtype = f16")
        .replace("max_new_tokens = 72", "max_new_tokens = 12");
    let text = text
        + &format!(
            "data all = local \"{at}/places-mini\" {{ messages = messages }}\n\
             stage before = eval {{ model = tales, data = all.test, objective = causal_lm, metrics = [loss, perplexity] }}\n"
        );
    let path = dir.path().join("chat.peft");
    std::fs::write(&path, text).expect("written");
    let result = super::decoders::run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let of = |stage: &str, metric: &str| {
        let stage = stages.iter().find(|s| s["name"] == stage);
        stage.expect("a stage")["metrics"][metric].as_f64()
    };
    // What PyTorch and transformers have of the untrained model on the whole test split.
    let loss = of("before", "loss").expect("a loss");
    assert!((loss - 5.083_129).abs() < 2e-5, "{loss}");
    assert_eq!(of("score", "exact_match"), Some(0.0));
    let rows = std::fs::read_to_string(dir.path().join(".peftc/runs/chat/score/predictions.jsonl"));
    assert_eq!(rows.expect("a table").lines().count(), 12);
    for (file, least) in [
        ("tales-places.gguf", 8_000_000),
        ("tales-places.Modelfile", 50),
    ] {
        let size = std::fs::metadata(dir.path().join(file))
            .expect("exported")
            .len();
        assert!(size > least, "{file}: {size}");
    }
}
