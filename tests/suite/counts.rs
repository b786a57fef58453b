//! Trained parameters of methods are those that the papers count (`counted.rs`), and methods at the bounds of their keys are
//! planned or refused.

use peftc::library::schema::{Default, Kind};

use super::counted::{Model, models};
use super::support::{json as read, printed, program, result};

/// Asserts the counts of a model.
fn assert_counts(model: &Model) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("config.json", &model.config.to_string());
    write("r.peft", &model.recipe());
    let output = program()
        .args(["check", "--offline", "--json"])
        .arg(dir.join("r.peft"))
        .env("HF_HOME", dir.join("none"))
        .output()
        .expect("starts");
    let own = model.trained(&result(&output));
    assert_eq!(own.len(), model.counts.len());
    for ((method, want), own) in model.counts.iter().zip(own) {
        assert_eq!(own, *want, "{method} on {}", model.config["model_type"]);
    }
}

#[test]
fn methods_train_what_the_papers_count() {
    let all = models(read("recipes/report/roberta-large.json"));
    assert!(all.iter().map(|model| model.counts.len()).sum::<usize>() > 40);
    all.iter().for_each(assert_counts);
}

/// Stages whose method has one whole number as large as its key takes.
fn at_the_bounds() -> Vec<String> {
    let mut list = Vec::new();
    for method in peftc::library::method::METHODS {
        let schema = method.schema();
        for key in schema.keys {
            let Kind::Int(_, most) = key.kind else {
                continue;
            };
            let required = schema.keys.iter().filter(|other| {
                other.name != key.name && matches!(other.default, Default::Required)
            });
            let required = required.filter_map(|other| match other.kind {
                Kind::Int(least, _) => Some(format!(", {} = {least}", other.name)),
                _ => None,
            });
            let rest: String = required.collect();
            list.push(format!("{} {{ {} = {most}{rest} }}", schema.name, key.name));
        }
    }
    list
}

#[test]
fn methods_at_the_bounds_of_their_keys_are_planned_or_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("config.json", &super::counted::bert(128, 2).to_string());
    let methods = at_the_bounds();
    assert!(methods.len() > 80, "{}", methods.len());
    for (i, method) in methods.iter().enumerate() {
        let text = format!(
            "model m = hub \"some/model\" {{ config = \"config.json\" }}\n\
             data d = hub \"some/data\" {{ text = t, label = l, labels = [no, yes] }}\n\
             stage s = train {{ model = m, data = d.train, adapter = {method}, max_length = 16, batch = 2, steps = 1, lr = 1e-3 }}\n"
        );
        write(&format!("{i}.peft"), &text);
    }
    let files = (0..methods.len()).map(|i| dir.path().join(format!("{i}.peft")));
    let output = program()
        .args(["check", "--offline", "--json"])
        .args(files)
        .env("HF_HOME", dir.path().join("none"))
        .output()
        .expect("starts");
    let recipes = printed(&output)["recipes"].clone();
    let recipes = recipes.as_array().expect("recipes");
    assert_eq!(recipes.len(), methods.len());
    for (method, recipe) in methods.iter().zip(recipes) {
        let refused = recipe["diagnostics"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|d| d["severity"] == "error");
        let planned = recipe["stages"].as_array().expect("a list").len() == 1;
        assert!(refused != planned, "{method}: {recipe}");
    }
}
