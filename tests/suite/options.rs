//! One of several options by a head: losses and probabilities against transformers (`tests/reference`), the way to a folder that
//! chooses, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use serde_json::{Value, json};

use super::decoders::{losses, run, write_tokenizer, write_weights};
use super::support::{assert_exact, farthest, json, numbers, program, stage, stderr_of, stdout_of};

const TRACES: &str = "tests/reference/choose.json";

/// Rows as `make_choose_traces.py` takes them of reviews.
fn questions() -> Vec<Value> {
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let own: Vec<Vec<&str>> = (text.lines().skip(1))
        .filter_map(|line| Some(line.split('\t').next()?.split(' ').collect::<Vec<_>>()))
        .filter(|words| words.len() >= 12)
        .collect();
    let row = |i: usize| {
        let right = i / 2 % 3;
        let mut options = vec![String::new(); 3];
        for k in 0..3 {
            options[(right + k) % 3] = own[(i + k) % own.len()][6..12].join(" ");
        }
        json!({ "start": own[i][..6].join(" "), "ends": options, "right": right })
    };
    (0..368).map(row).collect()
}

fn write_lines<'a>(path: &Path, rows: impl IntoIterator<Item = &'a Value>) {
    let lines: String = rows.into_iter().map(|row| row.to_string() + "\n").collect();
    std::fs::write(path, lines).expect("written");
}

/// A number of a head at a place, as the script has it.
fn head(place: usize) -> f32 {
    (0.3 * (1.0 + 12.9898 * place as f64).sin()) as f32
}

/// A reference model with a head that scores options.
fn write_model(name: &str, dir: &Path) {
    let from = Path::new("tests/reference").join(name);
    std::fs::create_dir_all(dir).expect("made");
    for file in std::fs::read_dir(&from).expect("a model") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), dir.join(file.file_name())).expect("copied");
    }
    let mut config = json(from.join("config.json"));
    let class = config["architectures"][0].as_str().expect("a class");
    let class = class.replace("SequenceClassification", "MultipleChoice");
    config["architectures"] = json!([class]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("weights");
    let held = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut own = vec![
        ("classifier.weight", vec![1, 64], 0),
        ("classifier.bias", vec![1], 100),
    ];
    if name.starts_with("roberta") {
        own.push(("roberta.pooler.dense.weight", vec![64, 64], 1000));
        own.push(("roberta.pooler.dense.bias", vec![64], 200));
    }
    let made: Vec<(&str, Vec<usize>, Vec<u8>)> = own
        .into_iter()
        .map(|(name, shape, at)| {
            let all = (at..at + shape.iter().product::<usize>()).map(head);
            (name, shape, all.flat_map(f32::to_le_bytes).collect())
        })
        .collect();
    let mut tensors: BTreeMap<String, TensorView<'_>> = held
        .tensors()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("classifier"))
        .collect();
    for (name, shape, bytes) in &made {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view");
        tensors.insert((*name).to_owned(), view);
    }
    serialize_to_file(tensors, None, &dir.join("model.safetensors")).expect("written");
}

/// The probabilities in the table of an evaluation.
fn table(dir: &Path, run: &str, stage: &str) -> Vec<Vec<f64>> {
    let path = dir.join(format!(".peftc/runs/{run}/{stage}/predictions.tsv"));
    let text = std::fs::read_to_string(path).expect("a table");
    let mut lines = text.lines();
    let head = "index\tanswer\tchoice\tprobability\tprobabilities";
    assert_eq!(lines.next(), Some(head));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let list: Vec<f64> = serde_json::from_str(cells[4]).expect("a list");
        let chosen: usize = cells[2].parse().expect("a place");
        let most = list.iter().copied().fold(0.0, f64::max);
        assert!(
            (list[chosen] - most).abs() < 1e-9 && cells[3] == list[chosen].to_string(),
            "{line}"
        );
        list
    };
    lines.map(row).collect()
}

#[test]
fn losses_and_probabilities_are_those_of_transformers() {
    let traces = json(TRACES);
    let rows = questions();
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_lines(&dir.path().join("train.jsonl"), &rows[..320]);
    write_lines(&dir.path().join("test.jsonl"), &rows[320..]);
    let mut text =
        "peftc 1\ndata d = local \".\" { prompt = start, choices = ends, answer = right }\n"
            .to_owned();
    let curves = traces["curves"].as_array().expect("curves");
    for curve in curves {
        let model = curve["model"].as_str().expect("a name");
        let name = model.replace('-', "_");
        write_model(model, &dir.path().join(model));
        text += &format!(
            "model m_{name} = local \"{model}\"\n\
             stage s_{name} = train {{ model = m_{name}, data = d.train, objective = choose, adapter = full, lr = {}, \
             optimizer = adamw {{ weight_decay = 0.01, epsilon = 1e-5 }}, steps = 20, batch = 16, micro_batch = 6, max_length = 64, clip = 0, dropout = 0, shuffle = false }}\n\
             stage e_{name} = eval {{ from = s_{name}, data = d.test, batch = 7 }}\n",
            curve["lr"]
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    assert_exact(&result);
    for curve in curves {
        let name = curve["model"].as_str().expect("a name").replace('-', "_");
        let own = losses(dir.path(), "r", &format!("s_{name}"));
        let far = farthest(&own, &numbers(&curve["loss"]));
        assert!(far < 1e-4, "{name}: losses are off by {far}");
        let eval = format!("e_{name}");
        let metrics = &stage(&result, &eval)["metrics"];
        for key in ["accuracy", "loss"] {
            let (is, want) = (&metrics[key], &curve["scored"][key]);
            let apart = is.as_f64().expect("a number") - want.as_f64().expect("a number");
            assert!(apart.abs() < 1e-4, "{name}: {key} is {is} for {want}");
        }
        let want = curve["scored"]["probabilities"].as_array().expect("rows");
        for (is, want) in table(dir.path(), "r", &eval).iter().zip(want) {
            assert!(
                farthest(is, &numbers(want)) < 1e-4,
                "{name}: {is:?} for {want}"
            );
        }
    }
    predicts(
        dir.path(),
        &rows[320..],
        &curves[1]["scored"]["probabilities"],
    );
}

/// The trained RoBERTa chooses from its run and as a folder that nobody described.
fn predicts(dir: &Path, rows: &[Value], want: &Value) {
    let input = dir.join("test.jsonl");
    let own = dir.join(".peftc/runs/r/s_roberta_tiny/model");
    let bare = dir.join("bare");
    std::fs::create_dir_all(&bare).expect("made");
    for file in std::fs::read_dir(&own).expect("a folder") {
        let file = file.expect("a file");
        if file.file_name() != "peftc.json" {
            std::fs::copy(file.path(), bare.join(file.file_name())).expect("copied");
        }
    }
    let config = json(own.join("config.json"));
    assert_eq!(config["architectures"], json!(["RobertaForMultipleChoice"]));
    for (model, more) in [(&own, &[][..]), (&bare, &["--text", "start"][..])] {
        let mut command = program();
        command.args(["predict", "--quiet"]).arg(model);
        command
            .arg("--input")
            .arg(&input)
            .args(["--choices", "ends"]);
        let output = command.args(more).output().expect("starts");
        assert!(output.status.success(), "{}", stderr_of(&output));
        let said = stdout_of(&output);
        assert_eq!(said.lines().count(), rows.len());
        for (line, want) in said.lines().zip(want.as_array().expect("rows")) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let (is, want) = (numbers(&line["probabilities"]), numbers(want));
            assert!(farthest(&is, &want) < 1e-4, "{line}");
            let chosen = line["choice"].as_u64().expect("a place") as usize;
            let most = want.iter().copied().fold(0.0, f64::max);
            assert!((want[chosen] - most).abs() < 1e-9, "{line}");
        }
    }
    let refused = |more: &[&str]| {
        let mut command = program();
        command.args(["predict", "--quiet"]).arg(&own);
        let output = command.arg("--input").arg(&input).args(more).output();
        let output = output.expect("starts");
        assert!(!output.status.success());
        stderr_of(&output)
    };
    assert!(refused(&[]).contains("--choices COLUMN"));
    assert!(refused(&["--choices", "ends", "--all"]).contains("no effect"));
}

#[test]
fn other_families_have_the_probabilities_of_transformers() {
    let traces = json(TRACES);
    let dir = tempfile::tempdir().expect("a scratch directory");
    let words = |list: &Value| {
        let list = list.as_array().expect("words").iter();
        list.map(|w| format!("w{w}")).collect::<Vec<_>>().join(" ")
    };
    // A column for each option, with the answer as a letter.
    let rows = traces["words"].as_array().expect("rows").iter();
    let line = |row: &Value| {
        let options = row[1].as_array().expect("options").iter().map(words);
        let letter = ["A", "B", "c", "d"][row[2].as_u64().expect("a place") as usize];
        let cells: Vec<String> = std::iter::once(words(&row[0])).chain(options).collect();
        format!("{}\t{letter}\n", cells.join("\t"))
    };
    let text: String = rows.map(line).collect();
    std::fs::write(
        dir.path().join("test.tsv"),
        format!("q\ta\tb\tc\td\tkey\n{text}"),
    )
    .expect("written");
    let mut text =
        "peftc 1\ndata d = local \".\" { prompt = q, choices = [a, b, c, d], answer = key }\n"
            .to_owned();
    let models = traces["models"].as_array().expect("models");
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let folder = dir.path().join(name);
        write_weights(&folder, &own["config"], &own["tensors"]);
        write_tokenizer(&folder, ("<mask>", "mask_token"));
        let path = folder.join("tokenizer.json");
        let mut tokenizer = json(&path);
        let piece =
            |id: &str, segment: u32| json!({ "Sequence": { "id": id, "type_id": segment } });
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing", "single": [piece("A", 0)], "pair": [piece("A", 0), piece("B", 1)], "special_tokens": {},
        });
        std::fs::write(path, tokenizer.to_string()).expect("written");
        let path = folder.join("tokenizer_config.json");
        let mut config = json(&path);
        let segments = (!["modernbert", "mpnet"]
            .iter()
            .any(|own| name.starts_with(own)))
        .then_some("token_type_ids");
        let inputs: Vec<&str> = ["input_ids", "attention_mask"]
            .into_iter()
            .chain(segments)
            .collect();
        config["model_input_names"] = json!(inputs);
        std::fs::write(path, config.to_string()).expect("written");
        text += &format!(
            "model m_{name} = local \"{name}\"\nstage {name} = eval {{ model = m_{name}, data = d.test }}\n"
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    assert_exact(&result);
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let loss = stage(&result, name)["metrics"]["loss"].as_f64();
        let want = own["loss"].as_f64().expect("a loss");
        assert!(
            (loss.expect("a loss") - want).abs() < 2e-5,
            "{name}: {loss:?}"
        );
        let want = own["probabilities"].as_array().expect("rows");
        for (is, want) in table(dir.path(), "r", name).iter().zip(want) {
            assert!(farthest(is, &numbers(want)) < 1e-5, "{name}: {is:?} {want}");
        }
    }
}

#[test]
fn what_a_head_cannot_choose_among_is_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_model("bert-tiny", &dir.path().join("bert"));
    let encoders = json("tests/reference/encoders.json");
    let electra = &encoders["cases"][0];
    assert_eq!(electra["name"], "electra");
    let folder = dir.path().join("electra");
    let mut config = electra["config"].clone();
    config["summary_type"] = json!("mean");
    write_weights(&folder, &config, &electra["classes"]["tensors"]);
    write_tokenizer(&folder, ("<mask>", "mask_token"));
    let recipe = dir.path().join("r.peft");
    let check = |rows: &[Value], keys: &str, stage: &str| {
        write_lines(&dir.path().join("train.jsonl"), rows);
        let text = format!(
            "peftc 1\nmodel m = local \"bert\"\nmodel other = local \"electra\"\ndata d = local \".\" {{ {keys} }}\n{stage}\n"
        );
        std::fs::write(&recipe, text).expect("written");
        let output = program().arg("check").arg(&recipe).output();
        let output = output.expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let keys = "prompt = q, choices = c, answer = a";
    let train = |how: &str| {
        format!(
            "stage s = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, epochs = 1{how} }}"
        )
    };
    let row = |options: &[&str], answer: Value| json!({ "q": "one", "c": options, "a": answer });
    let good = [
        row(&["two", "six"], json!(0)),
        row(&["two", "six"], json!(1)),
    ];
    let choose = train(", objective = choose");
    let unequal = [good[0].clone(), row(&["two", "six", "ten"], json!(2))];
    let said = check(&unequal, keys, &choose);
    assert!(
        said.contains("row 1 of `d.train` (counted from 0) has 3 options")
            && said.contains("equally many"),
        "{said}"
    );
    let said = check(&[row(&["two", "six"], json!(2))], keys, &choose);
    assert!(
        said.contains("no option 2 among 2") && said.contains("train.jsonl:1"),
        "{said}"
    );
    let from_1 = format!("{keys}, first_answer = 1");
    let said = check(&good, &from_1, &choose);
    assert!(said.contains("no option 0 among 2, counted from 1"));
    let said = check(&good, "text = q, label = a, first_answer = 1", &choose);
    assert!(said.contains("no effect without `choices`"), "{said}");
    let said = check(&good, "text = q, label = a", &choose);
    assert!(said.contains("choices = COLUMN"), "{said}");
    let said = check(&good, keys, &train(""));
    assert!(said.contains("`classify` reads texts"), "{said}");
    let said = check(&good, keys, &choose.replace("model = m", "model = other"));
    assert!(
        said.contains("ForMultipleChoice") && said.contains("`electra`"),
        "{said}"
    );
    let by_likelihood = "stage s = eval { model = m, data = d.train, objective = multiple_choice }";
    assert!(check(&good, keys, by_likelihood).contains("objective = choose"));
    let said = check(
        &good,
        keys,
        &(choose.clone() + "\nprompt p = prompt { template = \"{q} {mask}\" }")
            .replace("objective = choose", "objective = choose, prompt = p"),
    );
    assert!(said.contains("prompt"), "{said}");
    let said = check(
        &good,
        keys,
        &choose.replace(" }", ", dev = d.train, metrics = [f1] }"),
    );
    assert!(said.contains("f1"), "{said}");
}
