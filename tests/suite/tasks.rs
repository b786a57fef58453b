//! Methods that train several tasks at once: examples name theirs in a column of the data.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::support::{done, here, json, program, stderr_of};

/// Splits of the reviews with a column of tasks.
fn data(dir: &Path, task: impl Fn(usize) -> String) {
    std::fs::create_dir_all(dir).expect("a folder");
    for split in ["train", "test"] {
        let path = here().join(format!("recipes/reviews/{split}.tsv"));
        let text = std::fs::read_to_string(path).expect("the reviews");
        let mut lines = text.lines();
        let mut all = format!("{}\tkind\n", lines.next().expect("a header"));
        for (i, line) in lines.take(24).enumerate() {
            all += &format!("{line}\t{}\n", task(i));
        }
        std::fs::write(dir.join(format!("{split}.tsv")), all).expect("written");
    }
}

fn recipe(dir: &Path, body: &str) -> std::path::PathBuf {
    let at = here();
    let sets: String = ["zero", "one", "both"]
        .iter()
        .map(|name| {
            format!("data {name} = local \"{name}\" {{ text = sentence, label = label, task = kind, labels = [negative, positive] }}\n")
        })
        .collect();
    let model = format!(
        "model m = local \"{}/tests/reference/bert-tiny\"\n",
        at.display()
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, model + &sets + body).expect("written");
    path
}

/// Runs a recipe; the loss and the trained loss of each stage by name. Estimates are those that are measured.
fn run(dir: &Path, body: &str) -> BTreeMap<String, f64> {
    done(program().args(["run", "--quiet"]).arg(recipe(dir, body)));
    let result = json(dir.join(".peftc/runs/r/result.json"));
    let stages = result["stages"].as_array().expect("stages");
    let one = |stage: &Value| {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
        let name = stage["name"].as_str().expect("a name").to_owned();
        Some((name, stage["metrics"]["loss"].as_f64()?))
    };
    stages.iter().filter_map(one).collect()
}

const METHODS: [(&str, &str); 2] = [
    (
        "poly",
        "poly { rank = 2, tasks = 2, skills = 2, sample = false, TASK on = attention.{query, value} }",
    ),
    (
        "multitask_prompt",
        "multitask_prompt { tokens = 3, tasks = 2, TASK }",
    ),
];

#[test]
fn a_batch_of_one_task_is_that_task_and_a_batch_of_several_is_each_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    data(&dir.path().join("zero"), |_| "0".to_owned());
    data(&dir.path().join("one"), |_| "1".to_owned());
    data(&dir.path().join("both"), |i| (i % 2).to_string());
    let mut body = String::new();
    for (name, method) in METHODS {
        for (stage, task) in [("fixed", "task = 1,"), ("named", "mixed = true,")] {
            let own = method.replace("TASK", task);
            body += &format!(
                "stage {name}_{stage} = train {{ model = m, data = one.train, adapter = {own}, lr = 1e-2, steps = 4, batch = 6 }}\n\
                 stage {name}_{stage}_e = eval {{ from = {name}_{stage}, data = one.test, metrics = [loss] }}\n"
            );
        }
        let own = method.replace("TASK", "mixed = true,");
        body += &format!(
            "stage {name}_both = train {{ model = m, data = both.train, adapter = {own}, lr = 3e-2, steps = 6, batch = 6, micro_batch = 2 }}\n"
        );
        for of in ["zero", "one", "both"] {
            body += &format!(
                "stage {name}_both_{of} = eval {{ from = {name}_both, data = {of}.test, metrics = [loss] }}\n"
            );
        }
    }
    // What a text draws is its own, however the batch is divided.
    let drawn = METHODS[0]
        .1
        .replace("sample = false, TASK", "mixed = true,");
    for (stage, more) in [("whole", ""), ("parts", ", micro_batch = 2")] {
        body += &format!(
            "stage {stage} = train {{ model = m, data = both.train, adapter = {drawn}, lr = 3e-2, steps = 4, batch = 6{more} }}\n\
             stage {stage}_e = eval {{ from = {stage}, data = both.test, metrics = [loss] }}\n"
        );
    }
    let loss = run(dir.path(), &body);
    assert!((loss["whole_e"] - loss["parts_e"]).abs() < 1e-5);
    for (name, _) in METHODS {
        let of = |stage: &str| loss[&format!("{name}_{stage}")];
        assert!((of("fixed_e") - of("named_e")).abs() < 1e-5, "{name}");
        let (zero, one, both) = (of("both_zero"), of("both_one"), of("both_both"));
        assert!((zero - one).abs() > 1e-6, "{name}: tasks are alike");
        assert!(
            zero.min(one) - 0.2 < both && both < zero.max(one) + 0.2,
            "{name}: {zero} {one} {both}"
        );
    }
}

#[test]
fn tasks_that_are_not_there_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    data(&dir.path().join("zero"), |_| "0".to_owned());
    data(&dir.path().join("one"), |i| {
        if i == 3 {
            "two".to_owned()
        } else {
            "1".to_owned()
        }
    });
    data(&dir.path().join("both"), |i| (i % 3).to_string());
    let method = METHODS[0].1.replace("TASK", "mixed = true,");
    let says = |body: &str, words: &[&str]| {
        let path = recipe(dir.path(), body);
        let said = program().arg("check").arg(path).output().expect("it runs");
        let said = stderr_of(&said);
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
    };
    let train = |data: &str, method: &str| {
        format!(
            "stage s = train {{ model = m, data = {data}.train, adapter = {method}, lr = 1e-2, steps = 2, batch = 4 }}\n"
        )
    };
    says(&train("both", &method), &["examples of task 2", "2 tasks"]);
    says(&train("one", &method), &["`kind`", "no whole number"]);
    let unnamed = train("plain", &method)
        + &format!(
            "data plain = local \"{}/recipes/reviews\" {{ text = sentence, label = label }}\n",
            here().display()
        );
    says(&unnamed, &["`plain` names none", "task = COLUMN"]);
    let twice = METHODS[0].1.replace("TASK", "mixed = true, task = 1,");
    says(&train("zero", &twice), &["each example names its task"]);
    let merged = train("zero", &method) + "stage g = merge { from = s }\n";
    says(&merged, &["poly"]);
}
