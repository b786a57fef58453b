//! Labels told from demonstrations in the context, without training: against a transcription over transformers (`tests/reference`), and what
//! is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{run, write_tokenizer, write_weights};
use super::support::{json, program, stderr_of, stdout_of};

const CLASSES: [&str; 3] = ["a", "b", "c"];

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("words").iter();
    list.map(|w| format!("w{w}")).collect()
}

/// Writes both models, the rows, and a split whose texts have the same words in each class, told apart by spaces.
fn write(dir: &Path, traces: &Value) {
    for (kind, special) in [
        ("decoder", ("<end>", "eos_token")),
        ("encoder", ("<mask>", "mask_token")),
    ] {
        let model = &traces["models"][kind];
        write_weights(&dir.join(kind), &model["config"], &model["tensors"]);
        write_tokenizer(&dir.join(kind), special);
    }
    let line = |text: String, class: usize| {
        json!({ "text": text, "label": CLASSES[class] }).to_string() + "\n"
    };
    let rows = traces["texts"].as_array().expect("texts").iter();
    let rows: String = rows
        .map(|row| {
            line(
                words(&row[0]).join(" "),
                row[1].as_u64().expect("a class") as usize,
            )
        })
        .collect();
    std::fs::write(dir.join("test.jsonl"), rows).expect("written");
    let pool = traces["pool"].as_array().expect("texts").iter().enumerate();
    let pool: String = pool
        .flat_map(|(class, text)| {
            (1..5).map(move |spaces| line(words(text).join(&" ".repeat(spaces)), class))
        })
        .collect();
    std::fs::write(dir.join("train.jsonl"), pool).expect("written");
}

fn prompt(name: &str, traces: &Value, kind: &str, more: &str) -> String {
    let labels = traces["labels"][kind].as_array().expect("labels").iter();
    let labels: Vec<String> = labels
        .zip(CLASSES)
        .map(|(label, class)| format!("{class}: \"{}\"", words(label).join(" ")))
        .collect();
    format!(
        "prompt {name} = prompt {{ template = \"{{text}} w5 {{mask}}\", verbalizer = {{ {} }}, demonstrations = 2, demonstrations_from = d.train, \
         demonstration_place = before, demonstration_separator = \" w6 \"{more} }}\n",
        labels.join(", ")
    )
}

const HEAD: &str = "peftc 1\nmodel decoder = local \"decoder\"\nmodel encoder = local \"encoder\"\n\
                    data d = local \".\" { text = text, label = label, labels = [a, b, c] }\n";

#[test]
fn predictions_are_those_of_a_transcription() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json("tests/reference/context.json");
    write(dir.path(), &traces);
    let cases = traces["cases"].as_array().expect("cases");
    let mut text = HEAD.to_owned();
    for (i, case) in cases.iter().enumerate() {
        let kind = case["model"].as_str().expect("a kind");
        let order = case["order"].as_str().expect("an order");
        let draw = ["text", "once"][i % 2];
        let more = format!(", demonstration_order = {order}, demonstration_draw = {draw}");
        text += &prompt(&format!("p{i}"), &traces, kind, &more);
        let mut keys = Vec::new();
        if kind == "decoder" {
            keys.push(format!("by = {}", case["by"].as_str().expect("a word")));
        }
        if case["calibrate"] == true {
            keys.push("calibrate = [\"w40\"]".to_owned());
        }
        let objective = if kind == "decoder" {
            "label_likelihood"
        } else {
            "label_words"
        };
        let keys = if keys.is_empty() {
            String::new()
        } else {
            format!(" {{ {} }}", keys.join(", "))
        };
        for draws in [1, 3] {
            text += &format!(
                "stage e{i}_{draws} = eval {{ model = {kind}, data = d.test, prompt = p{i}, objective = {objective}{keys}, batch = 5, \
                 draws = {draws}, metrics = [accuracy, loss] }}\n"
            );
        }
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    for (i, case) in cases.iter().enumerate() {
        for draws in [1, 3] {
            let name = format!("e{i}_{draws}");
            assert_same(dir.path(), &name, case, &result);
        }
    }
}

/// Compares what a stage came to with a case.
fn assert_same(dir: &Path, name: &str, case: &Value, result: &Value) {
    let mut stages = result["stages"].as_array().expect("stages").iter();
    let stage = stages.find(|s| s["name"] == name).expect("a stage");
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    assert!((0.98..=1.0).contains(&share), "{name}: {share}");
    for key in ["accuracy", "loss"] {
        let (is, want) = (&stage["metrics"][key], &case[key]);
        let apart = is.as_f64().expect("a number") - want.as_f64().expect("a number");
        assert!(apart.abs() < 1e-4, "{name}: {key} is {is} for {want}");
    }
    let table = dir.join(format!(".peftc/runs/r/{name}/predictions.tsv"));
    let table = std::fs::read_to_string(table).expect("a table");
    let mut lines = table.lines();
    assert_eq!(
        lines.next(),
        Some("index\tlabel\tprediction\tscore_a\tscore_b\tscore_c")
    );
    let want = case["predictions"].as_array().expect("classes");
    let shares = case["shares"].as_array().expect("rows");
    assert_eq!(lines.clone().count(), want.len());
    for ((line, want), shares) in lines.zip(want).zip(shares) {
        let cells: Vec<&str> = line.split('\t').collect();
        let class = want.as_u64().expect("a class") as usize;
        assert_eq!(cells[2], CLASSES[class], "{name}: {line}");
        let powers = cells[3..]
            .iter()
            .map(|x| x.parse::<f64>().expect("a number").exp());
        let powers: Vec<f64> = powers.collect();
        let sum: f64 = powers.iter().sum();
        for (power, share) in powers.iter().zip(shares.as_array().expect("a row")) {
            let share = share.as_f64().expect("a number");
            assert!(
                (power / sum - share).abs() < 1e-4,
                "{name}: {line} {shares}"
            );
        }
    }
}

#[test]
fn what_has_no_context_is_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json("tests/reference/context.json");
    write(dir.path(), &traces);
    let recipe = dir.path().join("r.peft");
    let check = |text: &str| {
        std::fs::write(&recipe, format!("{HEAD}{text}\n")).expect("written");
        let output = program().arg("check").arg(&recipe).output();
        let output = output.expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let eval = |more: &str| {
        format!(
            "stage s = eval {{ model = decoder, data = d.test, objective = label_likelihood, prompt = p{more} }}"
        )
    };
    let own = |more: &str| prompt("p", &traces, "decoder", more);
    let said =
        check("stage s = eval { model = decoder, data = d.test, objective = label_likelihood }");
    assert!(said.contains("needs a prompt"), "{said}");
    let said = check(&(own("").replace("before", "behind") + &eval("")));
    assert!(said.contains("demonstration_place = before"), "{said}");
    let said = check(&(own("").replace("w3 w4", "w2") + &eval("")));
    assert!(said.contains("cannot be told apart"), "{said}");
    let said = check(&(own("").replace("b: ", "d: ") + &eval("")));
    assert!(said.contains("no class `d`"), "{said}");
    let said = check(&(own("") + &eval(", max_length = 20")));
    assert!(
        said.contains("the template and its demonstrations take"),
        "{said}"
    );
    let said = check(
        &(own(", demonstration_draw = once").replace("demonstrations = 2", "demonstrations = 3")
            + &eval("").replace("d.test", "d.train")),
    );
    assert!(said.contains("itself one of the demonstrations"), "{said}");
    let said = check(
        &(own("").replace("demonstrations = 2, demonstrations_from = d.train, ", "") + &eval("")),
    );
    assert!(
        said.contains("no effect without `demonstrations`"),
        "{said}"
    );
    let said = check(
        &(prompt("p", &traces, "encoder", "")
            + "stage s = train { model = encoder, data = d.train, objective = label_words { calibrate = [\"w40\"] }, prompt = p, adapter = full, lr = 1e-3, epochs = 1 }"),
    );
    assert!(said.contains("`calibrate` has no effect"), "{said}");
    let said = check(
        &(own("")
            + &eval("").replace(
                "eval { model = decoder",
                "train { adapter = full, lr = 1e-3, epochs = 1, model = decoder",
            )),
    );
    assert!(said.contains("nothing is trained by it"), "{said}");
}
