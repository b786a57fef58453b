//! What other stages score is learned: losses and gradients against torch's (`tests/reference`), the mean over the variants of a
//! sweep, words of a class together, labels that are never read, a kill, and what is refused.

use std::path::Path;

use serde_json::Value;

use super::support::{
    assert_exact, done, farthest, here, json, json_lines, numbers, program, run_with_a_kill, stage,
    stderr_of,
};

/// A folder whose `train` and `more` are reviews 0 to 319 and whose `test` are 320 to 383; `bare` is `train` without labels,
/// `wrong` the same with the label of each turned round.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows: Vec<Vec<&str>> = (text.lines().skip(1).take(384))
        .map(|line| line.split('\t').collect())
        .collect();
    let write = |name: &str, rows: &[Vec<&str>], label: &dyn Fn(&str) -> Option<String>| {
        let mut lines = String::new();
        for row in rows {
            let cells = [Some(row[0].to_owned()), label(row[1])];
            let cells: Vec<String> = cells.into_iter().flatten().collect();
            lines.push_str(&(cells.join("\t") + "\n"));
        }
        let head = if label("0").is_some() {
            "text\tlabel\n"
        } else {
            "text\n"
        };
        std::fs::create_dir_all(dir.path().join(name)).expect("made");
        let split = if name == "test" {
            "test.tsv"
        } else {
            "train.tsv"
        };
        std::fs::write(dir.path().join(name).join(split), head.to_owned() + &lines)
            .expect("written");
    };
    let own = |label: &str| Some(label.to_owned());
    write("train", &rows[..320], &own);
    write("test", &rows[320..], &own);
    write("bare", &rows[..320], &|_| None);
    write("wrong", &rows[..320], &|label| {
        Some(if label == "0" { "1" } else { "0" }.to_owned())
    });
    dir
}

/// Models and data; `a` and `b` are the models that teach.
fn head(model: &str, teachers: &[&str]) -> String {
    let at = here();
    let tiny = |name: &str| format!("local \"{}/tests/reference/{name}\"", at.display());
    let labels = "label = label, labels = [negative, positive]";
    let mut text = format!("model m = {}\n", tiny(model));
    for (name, teacher) in ["a", "b"].iter().zip(teachers) {
        text += &format!("model {name} = {}\n", tiny(teacher));
    }
    text += &format!(
        "data d = local \"train\" {{ text = text, {labels} }}\ndata test = local \"test\" {{ text = text, {labels} }}\n"
    );
    text + "data bare = local \"bare\" { text = text }\n"
}

fn run(dir: &Path, recipe: &str) -> Value {
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    done(
        program()
            .args(["run", "--quiet", "--threads", "2"])
            .arg(path),
    );
    json(dir.join(".peftc/runs/r/result.json"))
}

fn logged(dir: &Path, stage: &str, key: &str) -> Vec<f64> {
    let lines = json_lines(dir.join(format!(".peftc/runs/r/{stage}/metrics.jsonl")));
    lines
        .iter()
        .map(|l| l[key].as_f64().expect("a number"))
        .collect()
}

const LEARNS: &str = "optimizer = adamw { weight_decay = 0.01 }, steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false";

#[test]
fn losses_and_gradients_are_those_of_torch_with_one_teacher_or_several() {
    let reference = json("tests/reference/distil.json");
    for (place, curve) in reference["curves"]
        .as_array()
        .expect("curves")
        .iter()
        .enumerate()
    {
        let text = |key: &str| curve[key].as_str().expect("a text");
        let teachers: Vec<&str> = curve["teachers"]
            .as_array()
            .expect("names")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let adapter = match text("method") {
            "lora" => format!(
                "lora {{ start = \"{}/tests/reference/{}-lora\" }}",
                here().display(),
                text("model")
            ),
            other => other.to_owned(),
        };
        let several = teachers.len() > 1;
        let sweep = if several {
            "let teacher = a\nsweep class = grid { teacher = [a, b] }\n"
        } else {
            "let teacher = a\n"
        };
        let over = if several { ", over = class" } else { "" };
        let weighed = curve["weighed"] == true;
        let weights = if weighed {
            ", teacher_weights = judged"
        } else {
            ""
        };
        let judged = "stage judged = eval { model = teacher, data = test.test, max_length = 64 }\n";
        // One of the curves is followed in micro-batches.
        let micro = if place == 1 { ", micro_batch = 5" } else { "" };
        let recipe = format!(
            "{}{sweep}{}stage t = annotate {{ model = teacher, data = bare.train, max_length = 64 }}\n\
             stage s = train {{ model = m, data = bare.train, teachers = t{over}{weights}, objective = distil {{ temperature = {} }}, \
             adapter = {adapter}, lr = {}, {LEARNS}{micro} }}\nstage e = eval {{ from = s, data = test.test }}\n",
            head(text("model"), &teachers),
            if weighed { judged } else { "" },
            curve["temperature"],
            curve["lr"]
        );
        let dir = folder();
        let result = run(dir.path(), &recipe);
        let apart = farthest(&logged(dir.path(), "s", "loss"), &numbers(&curve["loss"]));
        assert!(apart < 2e-6, "{recipe}: {apart}");
        let wanted = numbers(&curve["grad_norm"]);
        for (own, want) in logged(dir.path(), "s", "grad_norm").iter().zip(&wanted) {
            assert!(
                (own / want - 1.0).abs() < 1e-3,
                "{recipe}: {own} against {want}"
            );
        }
        assert_exact(&result);
        // What it leaves tells classes as any classifier does, under the same scores.
        let output = done(
            program()
                .args(["predict", "--quiet", "--format", "jsonl"])
                .arg(dir.path().join(".peftc/runs/r/s"))
                .arg("--input")
                .arg(dir.path().join("test/test.tsv")),
        );
        let said = String::from_utf8(output.stdout).expect("text");
        let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/e/predictions.tsv"));
        for (row, line) in table.expect("a table").lines().skip(1).zip(said.lines()) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(row.split('\t').nth(2), line["prediction"].as_str());
        }
        assert!(stage(&result, "e")["metrics"]["accuracy"].is_number());
        let name = if several { "t@teacher=a" } else { "t" };
        assert!(
            stage(&result, name)["metrics"]
                .as_object()
                .expect("metrics")
                .is_empty()
        );
    }
}

#[test]
fn labels_of_the_texts_that_are_scored_and_learned_are_not_read() {
    let stages = |data: &str| {
        format!(
            "stage t = annotate {{ model = a, data = {data}.train, max_length = 64 }}\n\
             stage s = train {{ model = m, data = {data}.train, dev = test.test, teachers = t, objective = distil, adapter = full, lr = 1e-3, {LEARNS} }}\n"
        )
    };
    let wrong = "data wrong = local \"wrong\" { text = text, label = label, labels = [negative, positive] }\n";
    let curves = ["bare", "d", "wrong"].map(|data| {
        let dir = folder();
        let recipe = head("bert-tiny", &["roberta-tiny"]) + wrong + &stages(data);
        run(dir.path(), &recipe);
        let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/t/predictions.tsv"));
        (logged(dir.path(), "s", "loss"), table.expect("a table"))
    });
    assert_eq!(curves[0], curves[1]);
    assert_eq!(curves[0], curves[2]);
    let first = curves[0].1.lines().nth(1).expect("a row");
    assert!(first.starts_with("0\t\t"), "{first}");
}

#[test]
fn a_class_with_several_words_has_the_mean_of_their_scores() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = here();
    let at = at.display();
    let mut recipe = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 40 }}\n"
    );
    let words = [
        ("one", "\"terrible\"", "\"great\""),
        ("two", "\"bad\"", "\"good\""),
        ("three", "\"awful\"", "\"great\""),
        ("both", "[\"terrible\", \"bad\"]", "[\"great\", \"good\"]"),
        (
            "odd",
            "[\"terrible\", \"bad\", \"awful\"]",
            "[\"great\", \"good\"]",
        ),
    ];
    for (name, bad, good) in words {
        recipe += &format!(
            "prompt p_{name} {{ template = \"{{sentence}} It was {{mask}}.\", verbalizer = {{ negative: {bad}, positive: {good} }} }}\n\
             stage {name} = eval {{ model = m, data = d.dev, prompt = p_{name}, objective = label_words }}\n"
        );
    }
    recipe += "stage learn = train { model = m, data = d.train, prompt = p_odd, objective = label_words, adapter = full, lr = 1e-4, epochs = 1 }\n\
               stage again = annotate { from = learn, data = d.dev }\n";
    recipe += "stage zero = annotate { model = m, data = d.dev, prompt = p_both, objective = label_words }\n";
    let result = run(dir.path(), &recipe);
    assert_exact(&result);
    let scores = |name: &str| -> Vec<[f64; 2]> {
        let table = std::fs::read_to_string(
            dir.path()
                .join(format!(".peftc/runs/r/{name}/predictions.tsv")),
        );
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            [3, 4].map(|i: usize| cells[i].parse::<f64>().expect("a score"))
        };
        table.expect("a table").lines().skip(1).map(row).collect()
    };
    let all = words.map(|(name, ..)| scores(name));
    let [one, two, three, both, odd] = &all;
    let singles = one.iter().zip(two).zip(three);
    for (((one, two), three), (both, odd)) in singles.zip(both.iter().zip(odd)) {
        let good = f64::midpoint(one[1], two[1]);
        assert!((both[0] - f64::midpoint(one[0], two[0])).abs() < 1e-5);
        assert!((odd[0] - (one[0] + two[0] + three[0]) / 3.0).abs() < 1e-5);
        assert!((both[1] - good).abs() < 1e-5 && (odd[1] - good).abs() < 1e-5);
    }
    // Without labels the classes are those of the words.
    assert_eq!(scores("zero"), scores("both"));
    // The artifact scores as the evaluation did.
    let rows = dir.path().join("rows.tsv");
    let text = std::fs::read_to_string("recipes/reviews/dev.tsv").expect("reviews");
    let some: Vec<&str> = text.lines().take(41).collect();
    std::fs::write(&rows, some.join("\n") + "\n").expect("written");
    let output = done(
        program()
            .args(["predict", "--quiet", "--format", "jsonl", "--all"])
            .arg(dir.path().join(".peftc/runs/r/learn"))
            .arg("--input")
            .arg(&rows),
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let own = scores("again");
    assert_eq!(text.lines().count(), own.len());
    for (line, [bad, good]) in text.lines().zip(own) {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let share = 1.0 / (1.0 + (bad - good).exp());
        let said = row["probabilities"]["positive"].as_f64().expect("a number");
        assert!((said - share).abs() < 1e-5, "{row} {share}");
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn what_does_not_go_together_is_refused() {
    let common = head("bert-tiny", &["roberta-tiny", "distilbert-tiny"])
        + "data other = local \"test\" { text = text }\n\
           let teacher = a\nlet rate = 1e-3\nsweep class = grid { teacher = [a, b] }\nsweep rates = grid { rate = [1e-3, 2e-3] }\n\
           stage t = annotate { model = teacher, data = bare.train }\nstage o = annotate { model = teacher, data = other.test }\n\
           stage e = eval { model = teacher, data = test.test }\nstage n = eval { model = teacher, data = test.test, metrics = [f1] }\n";
    let learns = "adapter = full, lr = rate, epochs = 1";
    let cases = [
        (
            "data = bare.train, objective = distil, teachers = e",
            "is a stage of the kind `eval`, and leaves no scores",
        ),
        (
            "data = bare.train, objective = distil, teachers = o",
            "scores other texts",
        ),
        (
            "data = bare.train, objective = distil",
            "learns scores that other stages give",
        ),
        (
            "data = d.train, teachers = t",
            "`classify` learns labels, and `teachers` gives scores",
        ),
        (
            "data = d.train, over = class",
            "`over` has no effect without `teachers`",
        ),
        (
            "data = bare.train, objective = distil, teachers = t, over = clas",
            "no sweep is called `clas`",
        ),
        (
            "data = bare.train, objective = distil, teachers = t, over = rates",
            "is the same at all of their points",
        ),
        (
            "data = bare.train, objective = distil, teachers = t, teacher_weights = n",
            "says no accuracy",
        ),
        (
            "data = bare.train, objective = distil, teachers = t, teacher_weights = t",
            "says no accuracy",
        ),
        (
            "data = bare.train, objective = distil, teachers = t, teacher_weights = e",
            "`teacher_weights` has no effect: there is one teacher",
        ),
    ];
    let dir = folder();
    for (keys, says) in cases {
        let path = dir.path().join("r.peft");
        std::fs::write(
            &path,
            format!("{common}stage s = train {{ model = m, {keys}, {learns} }}\n"),
        )
        .expect("written");
        let output = program()
            .args(["check"])
            .arg(&path)
            .env("COLUMNS", "400")
            .output()
            .expect("starts");
        let said = stderr_of(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{keys}: {said}");
        assert!(said.replace("\n", " ").contains(says), "{keys}: {said}");
    }
    let others = [
        (
            "mezo { model = m, data = bare.train, objective = distil, adapter = full",
            "learns scores",
        ),
        (
            "train { model = m, data = bare.train, objective = distil, teachers = t, adapter = fish",
            "is a loss of labels",
        ),
    ];
    for (stage, says) in others {
        let path = dir.path().join("r.peft");
        let stage = format!("{common}stage s = {stage}, lr = rate, epochs = 1 }}\n");
        std::fs::write(&path, stage).expect("written");
        let output = program()
            .args(["check"])
            .arg(&path)
            .env("COLUMNS", "400")
            .output()
            .expect("starts");
        assert!(!output.status.success(), "{says}");
        assert!(
            stderr_of(&output).contains(says),
            "{says}: {}",
            stderr_of(&output)
        );
    }
}

#[test]
fn the_variants_of_a_sweep_teach_once_and_other_axes_stay_apart() {
    let dir = folder();
    let recipe = head("bert-tiny", &["roberta-tiny", "distilbert-tiny"])
        + "let teacher = a\nlet rate = 1e-3\nsweep class = grid { teacher = [a, b] }\nsweep rates = grid { rate = [1e-3, 2e-3] }\n\
           stage t = annotate { model = teacher, data = bare.train }\n\
           stage s = train { model = m, data = bare.train, teachers = t, over = class, objective = distil, adapter = full, lr = rate, steps = 3 }\n\
           stage e = eval { from = s, data = test.test }\n";
    let path = dir.path().join("r.peft");
    std::fs::write(&path, &recipe).expect("written");
    let output = done(program().args(["plan", "--json"]).arg(&path));
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> = plan["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .filter_map(|s| s["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "t@teacher=a",
            "t@teacher=b",
            "s@rate=1e-3",
            "e@rate=1e-3",
            "s@rate=2e-3",
            "e@rate=2e-3"
        ]
    );
    let edges = plan["edges"].as_array().expect("edges");
    let scores = edges.iter().filter(|e| e["port"] == "scores").count();
    assert_eq!(scores, 4);
    // With the axis fixed, what is left teaches alone.
    let output = done(
        program()
            .args(["plan", "--json", "--set", "teacher=b"])
            .arg(&path),
    );
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(plan["stages"].as_array().expect("stages").len(), 5);
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let recipe = head("bert-tiny", &["roberta-tiny", "distilbert-tiny"])
        + "let teacher = a\nsweep class = grid { teacher = [a, b] }\nstage t = annotate { model = teacher, data = bare.train }\n\
           stage s = train { model = m, data = bare.train, teachers = t, over = class, objective = distil, \
           adapter = lora { rank = 4 }, lr = 1e-3, steps = 40, batch = 8, micro_batch = 3 }\n";
    let (whole, killed) = (folder(), folder());
    run(whole.path(), &recipe);
    let path = killed.path().join("r.peft");
    std::fs::write(&path, &recipe).expect("written");
    run_with_a_kill(&path, "s", 40);
    let losses = |dir: &Path| logged(dir, "s", "loss");
    assert_eq!(losses(whole.path()), losses(killed.path()));
}

#[test]
fn a_student_that_goes_on_with_a_head_keeps_its_classes() {
    let dir = folder();
    let head = head("bert-tiny", &["bert-tiny"]);
    let begins = "adapter = bitfit, lr = 1e-3, steps = 3, batch = 16, max_length = 64";
    let own = |labels: &str| {
        format!(
            "{head}data own = local \"train\" {{ text = text, label = label, labels = {labels} }}\n\
             stage first = train {{ model = m, data = own.train, {begins} }}\n\
             stage other = train {{ model = m, data = d.train, {begins}, seed = 5 }}\n\
             stage t = annotate {{ from = other, data = bare.train }}\n\
             stage s = train {{ from = first, data = bare.train, objective = distil, teachers = t, adapter = bitfit, {LEARNS}, lr = 1e-30 }}\n"
        )
    };
    // The head's own order, which is not the teachers'.
    let turned = own("{ 1: positive, 0: negative }")
        + "stage before = eval { from = first, data = test.test, metrics = [accuracy, loss] }\n\
           stage after = eval { from = s, data = test.test, objective = classify, metrics = [accuracy, loss] }\n";
    let result = run(dir.path(), &turned);
    for key in ["accuracy", "loss"] {
        let of = |name: &str| {
            stage(&result, name)["metrics"][key]
                .as_f64()
                .expect("a number")
        };
        assert!(
            (of("before") - of("after")).abs() < 1e-6,
            "{key}: {} {}",
            of("before"),
            of("after")
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, own("[ham, spam]")).expect("written");
    let output = program().arg("check").arg(&path).output().expect("starts");
    let said = stderr_of(&output);
    let words: Vec<&str> = said.split_whitespace().filter(|w| *w != "│").collect();
    assert!(
        !output.status.success()
            && words
                .join(" ")
                .contains("tells other classes than its teachers"),
        "{said}"
    );
}
