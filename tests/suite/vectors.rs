//! Vectors of texts: losses, cosines and places against PyTorch (`tests/reference`), what `predict` writes, the way into folders of
//! sentence-transformers and peft, a killed training, and what is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{losses, run};
use super::support::{assert_exact, farthest, json, numbers, program, stage, stderr_of, stdout_of};

mod exports;
mod refusals;

const TRACES: &str = "tests/reference/embed.json";

/// Texts of rows as `make_embed_traces.py` takes them of reviews.
fn triples() -> Vec<[String; 3]> {
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let own: Vec<Vec<&str>> = (text.lines().skip(1))
        .filter_map(|line| Some(line.split('\t').next()?.split(' ').collect::<Vec<_>>()))
        .filter(|words| words.len() >= 12)
        .collect();
    let part = |i: usize, at: usize| own[i][at..at + 6].join(" ");
    (0..368)
        .map(|i| [part(i, 0), part(i, 6), part(i + 1, 6)])
        .collect()
}

fn rows(traces: &Value) -> Vec<Value> {
    let scores = traces["scores"].as_array().expect("scores");
    let own = triples().into_iter().enumerate();
    let row = |(i, [a, b, c]): (usize, [String; 3])| {
        let other = if i % 2 == 1 { &b } else { &c };
        json!({ "a": a, "other": other, "score": scores[i % scores.len()], "b": b, "c": c })
    };
    own.map(row).collect()
}

fn write_lines<'a>(path: &Path, rows: impl IntoIterator<Item = &'a Value>) {
    let lines: String = rows.into_iter().map(|row| row.to_string() + "\n").collect();
    std::fs::write(path, lines).expect("written");
}

/// A column of an evaluation's table.
fn column(dir: &Path, stage: &str, name: &str) -> Vec<f64> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let text = std::fs::read_to_string(path).expect("a table");
    let mut lines = text.lines().map(|line| line.split('\t'));
    let at = lines.next().expect("a head").position(|own| own == name);
    let at = at.expect("a column");
    lines
        .map(|mut cells| cells.nth(at).expect("a cell").parse().expect("a number"))
        .collect()
}

/// The data of a curve and its objective, by a recipe's words.
fn words(curve: &Value) -> (String, String) {
    let pooling = curve["pooling"].as_str().expect("a name");
    if curve["kind"] == "cosine_similarity" {
        let own = "loss = cosine_similarity, top_score = 5";
        return (
            "scored".to_owned(),
            format!("embed {{ {own}, pooling = {pooling} }}"),
        );
    }
    let scale = match curve["scale"].as_f64() {
        Some(scale) if (scale - 20.0).abs() > 1e-9 => format!("scale = {scale}, "),
        _ => String::new(),
    };
    let data = match curve["negatives"].as_u64() {
        Some(0) => "pairs",
        _ => "triples",
    };
    (
        data.to_owned(),
        format!("embed {{ {scale}pooling = {pooling} }}"),
    )
}

const DATA: &str = "peftc 1\n\
     data scored = local \".\" { text = [a, other], label = score }\n\
     data pairs = local \".\" { anchor = a, positive = b }\n\
     data triples = local \".\" { anchor = a, positive = b, negative = c }\n";

#[test]
fn losses_cosines_and_places_are_those_of_pytorch() {
    let traces = json(TRACES);
    let rows = rows(&traces);
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_lines(&dir.path().join("train.jsonl"), &rows[..320]);
    write_lines(&dir.path().join("test.jsonl"), &rows[320..]);
    let curves = traces["curves"].as_array().expect("curves");
    let mut text = DATA.to_owned();
    let here = super::support::here();
    for (i, curve) in curves.iter().enumerate() {
        let model = curve["model"].as_str().expect("a name");
        let (data, objective) = words(curve);
        text += &format!(
            "model m{i} = local \"{}/tests/reference/{model}\"\n\
             stage s{i} = train {{ model = m{i}, data = {data}.train, objective = {objective}, adapter = full, lr = {}, \
             optimizer = adamw {{ weight_decay = 0.01, epsilon = 1e-5 }}, steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false }}\n\
             stage e{i} = eval {{ from = s{i}, data = {data}.test, batch = 48, metrics = [{}loss] }}\n\
             stage f{i} = eval {{ from = s{i}, data = {data}.test, batch = 7, metrics = [{}loss] }}\n",
            here.display(),
            curve["lr"],
            metrics(curve),
            metrics(curve),
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    assert_exact(&result);
    for (i, curve) in curves.iter().enumerate() {
        let own = losses(dir.path(), "r", &format!("s{i}"));
        let far = farthest(&own, &numbers(&curve["loss"]));
        assert!(far < 1e-4, "{i}: losses are off by {far}");
        let eval = format!("e{i}");
        let found = stage(&result, &eval)["metrics"]
            .as_object()
            .expect("metrics");
        for (key, is) in found
            .iter()
            .filter(|(key, _)| !curve["scored"][*key].is_null())
        {
            let want = curve["scored"][key].as_f64().expect("a number");
            let apart = is.as_f64().expect("a number") - want;
            assert!(apart.abs() < 1e-4, "{i}: {key} is {is} for {want}");
        }
        // Whatever is scored at once.
        assert_eq!(
            stage(&result, &eval)["metrics"],
            stage(&result, &format!("f{i}"))["metrics"]
        );
        let far = farthest(
            &column(dir.path(), &eval, "cosine"),
            &numbers(&curve["scored"]["cosines"]),
        );
        assert!(far < 1e-4, "{i}: cosines are off by {far}");
    }
    let scored = stage(&result, "e3");
    let pairs = column(dir.path(), "e3", "cosine");
    let labels = column(dir.path(), "e3", "label");
    let (spearman, pearson) = (
        &scored["metrics"]["spearman"],
        &scored["metrics"]["pearson"],
    );
    assert!((pearson.as_f64().expect("a number") - correlation(&labels, &pairs)).abs() < 1e-6);
    assert!(spearman.is_number());
    predicts(dir.path(), curves);
}

fn metrics(curve: &Value) -> &'static str {
    match curve["kind"].as_str() {
        Some("cosine_similarity") => "spearman, pearson, ",
        _ => "accuracy_at_1, recall_at_10, mrr_at_10, ndcg_at_10, ",
    }
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let (a, b) = (mean(x), mean(y));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| of(x - a, y - b)).sum()
    };
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

/// The vectors of the first texts, of each trained model.
fn predicts(dir: &Path, curves: &[Value]) {
    for (i, curve) in curves.iter().enumerate() {
        let mut command = program();
        command.args(["predict", "--quiet"]);
        command.arg(dir.join(format!(".peftc/runs/r/s{i}/model")));
        let output = command.arg("--input").arg(dir.join("test.jsonl")).output();
        let output = output.expect("starts");
        assert!(output.status.success(), "{}", stderr_of(&output));
        let said = stdout_of(&output);
        assert_eq!(said.lines().count(), 48);
        let want = curve["scored"]["vectors"].as_array().expect("vectors");
        for (line, want) in said.lines().zip(want) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let far = farthest(&numbers(&line["embedding"]), &numbers(want));
            assert!(far < 1e-3, "{i}: a vector is off by {far}");
        }
    }
}

/// A scratch folder with a few rows.
fn folder() -> tempfile::TempDir {
    let rows = rows(&json(TRACES));
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_lines(&dir.path().join("train.jsonl"), &rows[..64]);
    write_lines(&dir.path().join("dev.jsonl"), &rows[64..96]);
    dir
}

fn recipe(model: &str, stages: &str) -> String {
    let here = super::support::here();
    format!(
        "{DATA}model m = local \"{}/tests/reference/{model}\"\n{stages}\n",
        here.display()
    )
}

fn written(dir: &Path, recipe: &str) -> std::path::PathBuf {
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    path
}

#[test]
fn scored_pairs_are_learned_in_parts_and_methods_of_all_kinds_stand_with_vectors() {
    let dir = folder();
    let scored = "model = m, data = scored.train, dev = scored.dev, objective = embed { loss = cosine_similarity, top_score = 5 }, batch = 16, steps = 6, dropout = 0";
    let pairs = "model = m, data = triples.train, dev = triples.dev, objective = embed, batch = 8, steps = 4";
    let methods = [
        ("lst", "lst { r = 4 }"),
        ("bitfit", "bitfit"),
        ("prompt", "prompt_tuning { tokens = 3 }"),
        ("prefix", "prefix_tuning { tokens = 3 }"),
        ("siva", "siva { rank = 4 }"),
        ("houlsby", "houlsby"),
    ];
    let mut text = format!(
        "stage whole = train {{ {scored}, adapter = lora {{ rank = 4 }}, lr = 1e-3 }}\n\
         stage parts = train {{ {scored}, adapter = lora {{ rank = 4 }}, lr = 1e-3, micro_batch = 5 }}\n\
         stage zo = mezo {{ {pairs}, lr = 1e-6 }}\n\
         stage tokens = train {{ model = m, data = pairs.train, objective = embed, adapter = lora, lr = 1e-3, epochs = 1, batch = 200 tokens }}\n"
    );
    for (name, method) in methods {
        text += &format!(
            "stage {name} = train {{ {pairs}, adapter = {method}, lr = 1e-3 }}\nstage e_{name} = eval {{ from = {name}, data = triples.dev }}\n"
        );
    }
    let result = run(&written(dir.path(), &recipe("bert-tiny", &text)), &[]);
    assert_exact(&result);
    let [whole, parts] = ["whole", "parts"].map(|name| losses(dir.path(), "r", name));
    assert!(farthest(&whole, &parts) < 1e-5, "{whole:?} {parts:?}");
    for (name, _) in methods {
        let trained = &stage(&result, name)["metrics"];
        assert_eq!(
            trained,
            &stage(&result, &format!("e_{name}"))["metrics"],
            "{name}"
        );
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let text = recipe(
        "bert-tiny",
        "stage s = train { model = m, data = triples.train, dev = triples.dev, objective = embed, adapter = lora { rank = 4 }, lr = 1e-3, steps = 40, batch = 8, evaluate = 10 steps }\n",
    );
    let (whole, killed) = (folder(), folder());
    run(&written(whole.path(), &text), &[]);
    let path = written(killed.path(), &text);
    let start = || {
        let mut command = program();
        command.args(["run", "--quiet"]).arg(&path);
        command.args(["--checkpoint-every", "0"]);
        command
    };
    let log = killed.path().join(".peftc/runs/r/s/metrics.jsonl");
    let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = start().spawn().expect("starts");
    while child.try_wait().expect("waited for").is_none() && steps() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(steps() < 40, "the run was over before it was killed");
    assert!(start().status().expect("starts").success());
    assert_eq!(
        losses(whole.path(), "r", "s"),
        losses(killed.path(), "r", "s")
    );
    let adapter = |dir: &Path| {
        let path = dir.join(".peftc/runs/r/s/adapter/peftc.safetensors");
        std::fs::read(path).expect("an adapter")
    };
    assert!(adapter(whole.path()) == adapter(killed.path()));
}
