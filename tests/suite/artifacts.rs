//! What a stage leaves is whole, names what it stands on, and is never believed when something is missing.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use super::oracle::reference;
use super::support::{printed, program, stderr_of, stdout_of};
use super::tensor::{self, Tensor};
fn peftc(args: &[&str], path: &Path) -> Output {
    program().args(args).arg(path).output().expect("starts")
}

/// A folder with a copy of a model, a little data and a recipe.
fn place(body: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path();
    std::fs::create_dir(dir.join("base")).expect("a folder");
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let from = reference("bert-tiny").join(file);
        std::fs::copy(from, dir.join("base").join(file)).expect("copied");
    }
    std::fs::create_dir(dir.join("data")).expect("a folder");
    let rows =
        "sentence\tlabel\na fine film\tgood\ndull\tbad\nwhat a mess\tbad\nthe best of all\tgood\n";
    for split in ["train", "test"] {
        std::fs::write(dir.join(format!("data/{split}.tsv")), rows).expect("written");
    }
    let recipe = dir.join("r.peft");
    let head =
        "model m = local \"base\"\ndata d = local \"data\" { text = sentence, label = label }\n";
    std::fs::write(&recipe, format!("{head}{body}")).expect("written");
    (place, recipe)
}

fn run(recipe: &Path) -> Value {
    let output = peftc(&["run", "--quiet", "--json"], recipe);
    assert!(output.status.success(), "{}", stderr_of(&output));
    printed(&output)
}

fn artifact(result: &Value, stage: usize) -> PathBuf {
    PathBuf::from(
        result["stages"][stage]["artifact"]
            .as_str()
            .expect("a path"),
    )
}

fn predict(artifact: &Path, dir: &Path) -> Output {
    let input = dir.join("in.tsv");
    std::fs::write(
        &input,
        "sentence\na fine film\ndull\nwhat a mess\nthe best of all\n",
    )
    .expect("written");
    let input = input.to_str().expect("a path");
    peftc(&["predict", "--input", input], artifact)
}

/// The tensors of a file, changed.
fn change(path: &Path, change: impl FnOnce(&mut std::collections::HashMap<String, Tensor>)) {
    let mut tensors = tensor::load(path);
    change(&mut tensors);
    tensor::save(&tensors, path);
}

const LORA: &str = "stage s = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-2, steps = 1 }\n";

#[test]
fn an_adapter_that_is_not_whole_labels_nothing() {
    let (place, recipe) = place(LORA);
    let dir = place.path();
    // A copy, outside of the store, whose sums nobody knows.
    let made = artifact(&run(&recipe), 0).join("adapter");
    let entry = dir.join("copy");
    std::fs::create_dir_all(entry.join("adapter")).expect("a folder");
    for part in std::fs::read_dir(&made).expect("an adapter") {
        let part = part.expect("a file");
        std::fs::copy(part.path(), entry.join("adapter").join(part.file_name())).expect("copied");
    }
    let file = entry.join("adapter/peftc.safetensors");
    let whole = std::fs::read(&file).expect("an adapter");
    let output = predict(&entry, dir);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert_eq!(stdout_of(&output).lines().count(), 5);

    let names: Vec<String> = tensor::load(&file).into_keys().collect();
    assert!(names.iter().any(|n| n == "classifier.weight"));
    for name in &names {
        // One tensor is gone, or has a name that nothing reads.
        change(&file, |tensors| {
            tensors.remove(name).expect("it is there");
        });
        let output = predict(&entry, dir);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            stderr_of(&output).contains(name.as_str()),
            "{name}: {}",
            stderr_of(&output)
        );
        std::fs::write(&file, &whole).expect("written");
        change(&file, |tensors| {
            let tensor = tensors.get(name).expect("it is there").clone();
            tensors.insert(format!("{name}.zebra"), tensor);
        });
        let output = predict(&entry, dir);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            stderr_of(&output).contains("zebra"),
            "{name}: {}",
            stderr_of(&output)
        );
        std::fs::write(&file, &whole).expect("written");
    }
    for part in ["peftc.safetensors", "peftc.json", "tokenizer.json"] {
        let path = entry.join("adapter").join(part);
        let bytes = std::fs::read(&path).expect("a part");
        std::fs::remove_file(&path).expect("removed");
        let output = predict(&entry, dir);
        assert_eq!(output.status.code(), Some(1), "{part}");
        assert!(
            !stderr_of(&output).is_empty() && output.stdout.is_empty(),
            "{part}"
        );
        std::fs::write(&path, bytes).expect("written");
    }
    // Methods that cannot be read are never others instead.
    let path = entry.join("adapter/peftc.json");
    let text = std::fs::read_to_string(&path).expect("a description");
    std::fs::write(&path, text.replace("attention.query", "attention.zebra")).expect("written");
    let output = predict(&entry, dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr_of(&output).contains("attention.zebra"),
        "{}",
        stderr_of(&output)
    );
}

#[test]
fn an_adapter_knows_the_base_it_was_trained_on() {
    let (place, recipe) = place(LORA);
    let dir = place.path();
    let entry = artifact(&run(&recipe), 0);
    let weights = dir.join("base/model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    let mut other = bytes.clone();
    *other.last_mut().expect("bytes") ^= 1;
    std::fs::write(&weights, &other).expect("written");
    let output = predict(&entry, dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr_of(&output).contains("other weights"),
        "{}",
        stderr_of(&output)
    );
    std::fs::remove_file(&weights).expect("removed");
    assert_eq!(predict(&entry, dir).status.code(), Some(1));
    std::fs::write(&weights, &bytes).expect("written");
    assert!(predict(&entry, dir).status.success());
    // A relative path from the shell's folder leads nowhere else.
    let output = program()
        .current_dir(dir)
        .args(["run", "--quiet", "--json", "r.peft", "--store", "other"])
        .output()
        .expect("starts");
    let result: Value = printed(&output);
    let entry = artifact(&result, 0);
    assert!(entry.is_absolute() && predict(&entry, dir).status.success());
    let text = std::fs::read(entry.join("adapter/adapter_config.json")).expect("exported");
    let config: Value = serde_json::from_slice(&text).expect("JSON");
    let base = PathBuf::from(config["base_model_name_or_path"].as_str().expect("a path"));
    assert_eq!(base, dir.join("base").canonicalize().expect("a folder"));
    // What makes transformers look for weights beside the adapter is not there.
    assert!(!entry.join("adapter/config.json").exists());
}

#[test]
fn random_weights_are_made_again_and_named_as_no_base() {
    let (place, recipe) = place("");
    let dir = place.path();
    let text = std::fs::read_to_string(&recipe).expect("a recipe");
    let body = "stage e = eval { from = s, data = d.test }\n";
    let random = text.replace("\"base\"", "\"base\" { init = random, seed = 7 }");
    std::fs::write(&recipe, format!("{random}{LORA}{body}")).expect("written");
    let entry = artifact(&run(&recipe), 0);
    let output = predict(&entry, dir);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let table = std::fs::read_to_string(dir.join(".peftc/runs/r/e/predictions.tsv")).expect("rows");
    let own = stdout_of(&output);
    for (label, line) in own.lines().skip(1).zip(table.lines().skip(1)) {
        let prediction = label
            .split('\t')
            .find(|c| ["good", "bad"].contains(c))
            .expect("a class");
        assert!(line.split('\t').any(|c| c == prediction), "{label} {line}");
    }
    assert!(!entry.join("adapter/adapter_config.json").exists());
}

#[test]
fn a_merged_model_is_put_back_where_the_recipe_wants_it() {
    let (place, recipe) = place(&format!(
        "{LORA}stage p = merge {{ from = s, to = \"pub\" }}\n"
    ));
    let to = place.path().join("pub");
    let all = |dir: &Path| -> Vec<(String, Vec<u8>)> {
        let mut list: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
            .expect("a folder")
            .map(|e| e.expect("an entry"))
            .map(|e| {
                (
                    e.file_name().into_string().expect("text"),
                    std::fs::read(e.path()).expect("bytes"),
                )
            })
            .collect();
        list.sort();
        list
    };
    let model = artifact(&run(&recipe), 1).join("model");
    let made = all(&to);
    assert_eq!(made, all(&model));
    std::fs::remove_dir_all(&to).expect("removed");
    assert_eq!(run(&recipe)["stages"][1]["cached"], true);
    assert_eq!(all(&to), made);
    std::fs::write(to.join("model.safetensors"), "cut").expect("written");
    run(&recipe);
    assert_eq!(all(&to), made);
}

#[test]
fn a_merged_model_never_goes_over_what_the_recipe_reads() {
    for to in ["base", "./base/", "x/../base", "data", "adapter"] {
        let start = "stage q = train { model = m, data = d.train, adapter = lora { start = \"adapter\" }, lr = 1e-2, steps = 1 }\n";
        let (place, recipe) = place(&format!(
            "{LORA}{start}stage p = merge {{ from = s, to = \"{to}\" }}\n"
        ));
        let adapter = place.path().join("adapter");
        std::fs::create_dir(&adapter).expect("a folder");
        for entry in std::fs::read_dir(reference("bert-tiny-lora")).expect("an adapter") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), adapter.join(entry.file_name())).expect("copied");
        }
        let output = peftc(&["check"], &recipe);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{to}: {}",
            stderr_of(&output)
        );
        assert!(
            stderr_of(&output).contains("shared_target"),
            "{to}: {}",
            stderr_of(&output)
        );
    }
    // By a link, nobody can tell before looking.
    #[cfg(unix)]
    {
        let (place, recipe) = place(&format!(
            "{LORA}stage p = merge {{ from = s, to = \"link\" }}\n"
        ));
        let dir = place.path();
        std::os::unix::fs::symlink(dir.join("base"), dir.join("link")).expect("a link");
        let before = std::fs::read(dir.join("base/model.safetensors")).expect("weights");
        let output = peftc(&["run", "--quiet"], &recipe);
        assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
        assert!(
            stderr_of(&output).contains("reads from there"),
            "{}",
            stderr_of(&output)
        );
        assert_eq!(
            std::fs::read(dir.join("base/model.safetensors")).expect("weights"),
            before
        );
    }
}

#[test]
fn numbers_out_of_range_are_named_and_never_infinite() {
    let name = "bert.encoder.layer.2.output.dense.weight";
    let merge = |dtype: &str| format!("{LORA}stage p = merge {{ from = s, dtype = {dtype} }}\n");
    for (dtype, code) in [("f16", 1), ("bf16", 0), ("f32", 0)] {
        let (place, recipe) = place(&merge(dtype));
        change(&place.path().join("base/model.safetensors"), |tensors| {
            let tensor = tensors.get_mut(name).expect("a tensor");
            tensor.numbers_mut()[0] = -8.0e4;
        });
        let output = peftc(&["run", "--quiet"], &recipe);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{dtype}: {}",
            stderr_of(&output)
        );
        if code == 1 {
            let said = stderr_of(&output);
            assert!(
                said.contains(name) && said.contains("-80000") && said.contains("bf16"),
                "{said}"
            );
        }
        // Held in 16 bits it is the same.
        let text = std::fs::read_to_string(&recipe).expect("a recipe");
        let text = text.replace("\"base\"", &format!("\"base\" {{ dtype = {dtype} }}"));
        std::fs::write(
            &recipe,
            text.replace(&format!(", dtype = {dtype} }}\n"), " }\n"),
        )
        .expect("written");
        let output = peftc(&["run", "--quiet"], &recipe);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{dtype}: {}",
            stderr_of(&output)
        );
        assert!(
            code == 0 || stderr_of(&output).contains(name),
            "{}",
            stderr_of(&output)
        );
    }
}

#[test]
fn weights_that_nothing_reads_are_refused_unless_they_have_no_effect() {
    let one = || Tensor::zeros(3);
    for (name, harmless) in [
        ("bert.embeddings.position_ids", true),
        ("cls.seq_relationship.weight", true),
        ("qa_outputs.bias", true),
        ("bert.encoder.layer.3.output.dense.bias", false),
        (
            "bert.encoder.layer.0.attention.self.query.lora_A.weight",
            false,
        ),
        ("encoder.layer.9.output.dense.bias", false),
        ("roberta.embeddings.word_embeddings.weight", false),
        ("adapters.x", false),
        ("bert.encoder.layer.0.output.LayerNorm.gamma", false),
    ] {
        let (place, recipe) = place(LORA);
        change(&place.path().join("base/model.safetensors"), |tensors| {
            tensors.insert(name.into(), one());
        });
        let output = peftc(&["run", "--quiet"], &recipe);
        assert_eq!(
            output.status.success(),
            harmless,
            "{name}: {}",
            stderr_of(&output)
        );
        assert!(
            harmless || stderr_of(&output).contains(name),
            "{name}: {}",
            stderr_of(&output)
        );
    }
}

#[test]
fn a_changed_adapter_is_another_start() {
    let body = "stage s = train { model = m, data = d.train, adapter = lora { start = \"a\" }, lr = 1e-2, steps = 1 }\n";
    let (place, recipe) = place(body);
    let adapter = place.path().join("a");
    std::fs::create_dir(&adapter).expect("a folder");
    for entry in std::fs::read_dir(reference("bert-tiny-lora")).expect("an adapter") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), adapter.join(entry.file_name())).expect("copied");
    }
    let one = run(&recipe);
    assert_eq!(run(&recipe)["stages"][0]["cached"], true);
    change(&adapter.join("adapter_model.safetensors"), |tensors| {
        let name = "base_model.model.classifier.bias";
        let other = (tensors[name].clone() + 1.0).expect("fits");
        tensors.insert(name.into(), other);
    });
    let two = run(&recipe);
    assert_eq!(two["stages"][0]["cached"], false);
    assert_ne!(
        one["stages"][0]["fingerprint"],
        two["stages"][0]["fingerprint"]
    );
}
