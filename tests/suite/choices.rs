//! Multiple choice by likelihood against lm-evaluation-harness' rules over transformers.

use serde_json::{Value, json};

use super::decoders::{run, traces, write_model};
use super::support::{json, program, stderr_of, stdout_of};

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn options_have_the_likelihoods_and_accuracies_of_the_harness() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let made = json("tests/reference/choices.json");
    let rows = made["rows"].as_array().expect("rows");
    // The right option by its place, by its letter, and by its text where that is unlike the others.
    let answer = |i: usize, row: &Value| {
        let right = row["answer"].as_u64().expect("a place") as usize;
        let all = row["choices"].as_array().expect("options");
        let text = &all[right];
        match i % 3 {
            0 if all.iter().filter(|other| *other == text).count() == 1 => text.clone(),
            1 => json!(["A", "b", "C", "d"][right]),
            2 => json!(right.to_string()),
            _ => json!(right),
        }
    };
    let line = |(i, row): (usize, &Value)| {
        json!({ "q": row["prompt"], "c": { "text": row["choices"] }, "a": answer(i, row) })
            .to_string()
            + "\n"
    };
    let text: String = rows.iter().enumerate().map(line).collect();
    std::fs::write(dir.path().join("test.jsonl"), text).expect("written");
    let cases = traces();
    let mut text =
        "peftc 1\ndata d = local \".\" { prompt = q, choices = c.text, answer = a }\n".to_owned();
    let models = made["models"].as_array().expect("models");
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let mut all = cases["cases"].as_array().expect("cases").iter();
        write_model(
            &dir.path().join(name),
            all.find(|c| c["name"] == name).expect("a case"),
        );
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage {name} = eval {{ model = m_{name}, data = d.test, objective = multiple_choice, batch = 7, max_length = {} }}\n",
            made["max_length"]
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let stages = result["stages"].as_array().expect("stages").iter();
        let stage = stages.clone().find(|s| s["name"] == name).expect("a stage");
        for key in ["acc", "acc_norm", "acc_token", "loss"] {
            let (got, want) = (
                stage["metrics"][key].as_f64(),
                own[key].as_f64().expect("a number"),
            );
            assert!(
                got.is_some_and(|got| (got - want).abs() < 1e-4),
                "{name}: {key} is {got:?} for {want}"
            );
        }
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!(
            (0.98..=1.0).contains(&share),
            "{name}: {share} of the estimate"
        );
        let table = dir
            .path()
            .join(format!(".peftc/runs/all/{name}/predictions.tsv"));
        let table = std::fs::read_to_string(table).expect("a table");
        let mut lines = table.lines();
        assert_eq!(
            lines.next(),
            Some("index\tanswer\tchoice\tchoice_norm\tchoice_token\tloglikelihoods")
        );
        for ((line, want), row) in lines.zip(own["sums"].as_array().expect("sums")).zip(rows) {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells[1], row["answer"].to_string(), "{line}");
            let got: Vec<f64> = serde_json::from_str(cells[5]).expect("a list");
            let want: Vec<f64> = serde_json::from_value(want.clone()).expect("a list");
            let far = got
                .iter()
                .zip(&want)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(
                got.len() == want.len() && far < 2e-4,
                "{name}: {got:?} for {want:?}"
            );
        }
    }
}

#[test]
fn predict_chooses_as_an_evaluation_does() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let made = json("tests/reference/choices.json");
    let own = &made["models"][0];
    let cases = traces();
    let mut all = cases["cases"].as_array().expect("cases").iter();
    let mut case = all
        .find(|c| c["name"] == own["name"])
        .expect("a case")
        .clone();
    case["config"]["architectures"] = json!(["SomeForCausalLM"]);
    let model = dir.path().join("m");
    write_model(&model, &case);
    let input = dir.path().join("rows.jsonl");
    let predict = |rows: &[Value], more: &[&str]| {
        let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
        std::fs::write(&input, lines).expect("written");
        let mut command = program();
        command
            .args(["predict", "--quiet"])
            .arg(&model)
            .arg("--input")
            .arg(&input);
        command.args(more).output().expect("starts")
    };
    // The evaluation cuts prompts at 12 tokens; those that are longer are left out here.
    let rows = made["rows"].as_array().expect("rows").iter();
    let rows = rows.zip(own["sums"].as_array().expect("sums"));
    let short = |row: &Value| {
        row["prompt"]
            .as_str()
            .is_some_and(|p| p.split(' ').count() < 8)
    };
    let rows: Vec<(&Value, &Value)> = rows.filter(|(row, _)| short(row)).collect();
    let asked: Vec<Value> = rows.iter().map(|(row, _)| (*row).clone()).collect();
    let output = predict(&asked, &["--choices", "choices"]);
    let said = stdout_of(&output);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert_eq!(said.lines().count(), rows.len());
    for (line, (row, sums)) in said.lines().zip(&rows) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let of =
            |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).expect("numbers") };
        let (got, want) = (of(&line["loglikelihoods"]), of(sums));
        let far = got
            .iter()
            .zip(&want)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(
            got.len() == want.len() && far < 2e-4,
            "{got:?} for {want:?}"
        );
        let options = row["choices"].as_array().expect("options");
        let bytes = |i: usize| options[i].as_str().map_or(1, str::len) as f64;
        let best = |by: &dyn Fn(usize) -> f64| {
            (0..want.len()).fold(0, |best, i| {
                if want[i] / by(i) > want[best] / by(best) {
                    i
                } else {
                    best
                }
            })
        };
        assert_eq!(line["choice"], best(&|_| 1.0), "{line}");
        assert_eq!(line["choice_norm"], best(&bytes), "{line}");
    }
    let one = |more: &[&str]| stderr_of(&predict(&asked[..1], more));
    assert!(one(&["--choices", "options"]).contains("there is no `options`"));
    assert!(
        one(&["--choices", "choices", "--temperature", "1"])
            .contains("has no effect with `--choices`")
    );
    assert!(one(&["--choices", "prompt"]).contains("fewer than two options"));
}

#[test]
fn rows_whose_answer_is_none_of_the_options_are_refused_by_their_place() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let cases = traces();
    let mut all = cases["cases"].as_array().expect("cases").iter();
    write_model(
        &dir.path().join("llama"),
        all.find(|c| c["name"] == "llama").expect("a case"),
    );
    let recipe = dir.path().join("r.peft");
    let check = |rows: &[Value], keys: &str, stage: &str| {
        let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
        for split in ["train", "test"] {
            std::fs::write(dir.path().join(format!("{split}.jsonl")), &lines).expect("written");
        }
        let text = format!(
            "peftc 1\nmodel m = local \"llama\"\ndata d = local \".\" {{ {keys} }}\n{stage}\n"
        );
        std::fs::write(&recipe, text).expect("written");
        let output = program().arg("check").arg(&recipe).output();
        let output = output.expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        // Messages are wrapped at the width of a terminal.
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let keys = "prompt = q, choices = c, answer = a";
    let eval = "stage s = eval { model = m, data = d.test, objective = multiple_choice }";
    let row = |choices: Value, answer: Value| json!({ "q": "w2", "c": choices, "a": answer });
    for (choices, answer, says) in [
        (json!(["w3", "w4"]), json!(2), "no option 2"),
        (json!(["w3", "w4"]), json!("E"), "no option E"),
        (json!(["w3", "w4"]), json!("w9"), "none of the options"),
        (json!(["w3", "w3"]), json!("w3"), "the text of one option"),
        (
            json!(["0", "w3", "1"]),
            json!("1"),
            "is the text of one option",
        ),
        (json!(["w3"]), json!(0), "1 options"),
        (json!(["w3", ""]), json!(0), "is empty"),
        (json!(["w3", ["w4"]]), json!(0), "no text among its options"),
    ] {
        let said = check(
            &[row(json!(["w3", "w4"]), json!(0)), row(choices, answer)],
            keys,
            eval,
        );
        assert!(
            said.contains(says) && said.contains("test.jsonl:2"),
            "{says}: {said}"
        );
    }
    let good = [row(json!(["w3", "w4"]), json!(0))];
    let train = "stage s = train { model = m, data = d.train, objective = multiple_choice, adapter = full, lr = 1e-3, epochs = 1 }";
    assert!(check(&good, keys, train).contains("nothing is trained by it"));
    let causal = "stage s = eval { model = m, data = d.test, objective = causal_lm }";
    assert!(check(&good, keys, causal).contains("objective = multiple_choice"));
    assert!(check(&good, "choices = c, answer = a", eval).contains("`prompt` is missing"));
    assert!(check(&good, "text = q", eval).contains("choices = COLUMN"));
}
