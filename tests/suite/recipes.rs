//! The shipped recipes: each checks without a complaint and is formatted.

use super::support::{program, stderr_of, stdout_of};

fn recipes() -> Vec<std::path::PathBuf> {
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
    for command in [vec!["check"], vec!["fmt", "--check"]] {
        let output = program()
            .args(command)
            .args(&list)
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", "/nonexistent")
            .output()
            .expect("starts");
        assert!(
            output.status.success(),
            "{}{}",
            stdout_of(&output),
            stderr_of(&output)
        );
        // The report's models and data are on the hub: what is not at hand is told, and nothing else.
        let stderr = stderr_of(&output);
        let told = [
            "assumed_lengths",
            "assumed_model",
            "bad_tokenizer",
            "unknown_identity",
        ];
        for code in stderr.lines().filter(|l| l.starts_with("peftc::")) {
            assert!(told.iter().any(|t| code.ends_with(t)), "{code}");
        }
        assert!(
            !stderr.contains("recipes/reviews") && !stderr.contains("quickstart"),
            "{stderr}"
        );
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
