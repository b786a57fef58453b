//! Answers as parts of a context: losses, best answers, exact match and F1 against transformers and SQuAD's script (`tests/reference`), the way to a
//! folder that answers, SQuAD's own files, and what is refused.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use serde_json::{Value, json};

use super::decoders::{losses, run, write_tokenizer, write_weights};
use super::support::{assert_exact, json, program, stage, stderr_of, stdout_of};

const TRACES: &str = "tests/reference/extract.json";

/// Rows as `make_extract_traces.py` makes them of reviews.
fn questions() -> Vec<Value> {
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let own: Vec<Vec<&str>> = (text.lines().skip(1))
        .filter_map(|line| Some(line.split('\t').next()?.split(' ').collect::<Vec<_>>()))
        .filter(|words| words.len() >= 12)
        .collect();
    let length = |words: &[&str]| words.join(" ").chars().count();
    let row = |i: usize| {
        let [a, b, c] = [0, 1, 2].map(|k| own[(i + k) % own.len()].as_slice());
        let start = length(a) + 1 + length(&b[..2]) + 1;
        let mut answers = vec![(b[2..3 + i % 3].join(" "), start)];
        if i.is_multiple_of(5) {
            answers.push((a[..2].join(" "), 0));
        }
        if i % 7 == 3 {
            answers.clear();
        }
        let (texts, starts): (Vec<String>, Vec<usize>) = answers.into_iter().unzip();
        let context = [a, b, c].concat().join(" ");
        json!({
            "question": format!(" {}", b[5..9].join(" ")), "context": context,
            "answers": { "text": texts, "answer_start": starts },
        })
    };
    (0..200).map(row).collect()
}

fn write_lines<'a>(path: &Path, rows: impl IntoIterator<Item = &'a Value>) {
    let lines: String = rows.into_iter().map(|row| row.to_string() + "\n").collect();
    std::fs::write(path, lines).expect("written");
}

/// The same rows as SQuAD's own files have them.
fn squad(rows: &[Value]) -> String {
    let paragraph = |row: &Value| {
        let list = |key: &str| row["answers"][key].as_array().expect("a list").clone();
        let answers = list("text").into_iter().zip(list("answer_start"));
        let answers: Vec<Value> = answers
            .map(|(text, at)| json!({ "text": text, "answer_start": at }))
            .collect();
        json!({
            "qas": [{ "question": row["question"], "id": "x", "is_impossible": answers.is_empty(), "answers": answers }], "context": row["context"],
        })
    };
    let all: Vec<Value> = rows.iter().map(paragraph).collect();
    json!({ "version": "v2.0", "data": [{ "title": "Reviews", "paragraphs": all }] }).to_string()
}

/// A number of a head at a place, as the script has it.
fn head(place: usize) -> f32 {
    (0.3 * (1.0 + 12.9898 * place as f64).sin()) as f32
}

/// A reference model with a head for answers.
fn write_model(name: &str, dir: &Path) {
    let from = Path::new("tests/reference").join(name);
    std::fs::create_dir_all(dir).expect("made");
    for file in std::fs::read_dir(&from).expect("a model") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), dir.join(file.file_name())).expect("copied");
    }
    let mut config = json(from.join("config.json"));
    let class = config["architectures"][0].as_str().expect("a class");
    let class = class.replace("SequenceClassification", "QuestionAnswering");
    config["architectures"] = json!([class]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("weights");
    let held = SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |at: usize, n: usize| -> Vec<u8> {
        (at..at + n).map(head).flat_map(f32::to_le_bytes).collect()
    };
    let (weight, bias) = (numbers(0, 128), numbers(1000, 2));
    let view =
        |shape: Vec<usize>, bytes| TensorView::new(Dtype::F32, shape, bytes).expect("a view");
    let mut tensors: Vec<(String, TensorView<'_>)> = held.tensors();
    tensors.retain(|(name, _)| !name.contains("classifier"));
    tensors.push(("qa_outputs.weight".to_owned(), view(vec![2, 64], &weight)));
    tensors.push(("qa_outputs.bias".to_owned(), view(vec![2], &bias)));
    serialize_to_file(tensors, None, &dir.join("model.safetensors")).expect("written");
}

fn close(is: &Value, want: &Value, within: f64, what: &str) {
    let (a, b) = (
        is.as_f64().expect("a number"),
        want.as_f64().expect("a number"),
    );
    assert!((a - b).abs() < within, "{what}: {a} for {b}");
}

/// The cells of an evaluation's table.
fn table(dir: &Path, stage: &str) -> Vec<Vec<String>> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.delimiter(b'\t').from_path(path).expect("a table");
    let rows = reader
        .records()
        .map(|row| row.expect("a row").iter().map(str::to_owned).collect());
    rows.collect()
}

#[test]
fn losses_and_answers_are_those_of_transformers() {
    let traces = json(TRACES);
    let rows = questions();
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_lines(&dir.path().join("train.jsonl"), &rows[..160]);
    std::fs::create_dir_all(dir.path().join("own")).expect("made");
    std::fs::write(dir.path().join("own/test.json"), squad(&rows[160..])).expect("written");
    let mut text = "peftc 1\ndata d = local \"train.jsonl\" { question = question, context = context, answers = answers }\n\
         data t = local \"own\" { question = question, context = context, answers = answers, format = squad }\n"
        .to_owned();
    let curves = traces["curves"].as_array().expect("curves");
    let limits = "stride = 8, max_answer_length = 6, n_best = 20";
    for curve in curves {
        let model = curve["model"].as_str().expect("a name");
        let name = model.replace('-', "_");
        write_model(model, &dir.path().join(model));
        text += &format!(
            "model m_{name} = local \"{model}\"\n\
             stage s_{name} = train {{ model = m_{name}, data = d.train, objective = extract {{ {limits}, null_threshold = {} }}, adapter = full, lr = {}, \
             optimizer = adamw {{ weight_decay = 0.01, epsilon = 1e-5 }}, steps = 20, batch = 16, micro_batch = 6, max_length = 40, clip = 0, dropout = 0, shuffle = false }}\n\
             stage null_{name} = eval {{ from = s_{name}, data = t.test, batch = 7 }}\n\
             stage plain_{name} = eval {{ from = s_{name}, data = answered.test, batch = 7, objective = extract {{ {limits} }} }}\n",
            traces["threshold"], curve["lr"]
        );
    }
    let answered: Vec<Value> = rows[160..]
        .iter()
        .filter(|row| row["answers"]["text"][0].is_string())
        .cloned()
        .collect();
    std::fs::create_dir_all(dir.path().join("answered")).expect("made");
    write_lines(&dir.path().join("answered/test.jsonl"), &answered);
    text += "data answered = local \"answered\" { question = question, context = context, answers = answers }\n";
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    assert_exact(&result);
    for curve in curves {
        let name = curve["model"].as_str().expect("a name").replace('-', "_");
        let own = losses(dir.path(), "r", &format!("s_{name}"));
        let want = curve["loss"].as_array().expect("losses");
        assert_eq!(own.len(), want.len());
        for (step, (is, want)) in own.iter().zip(want).enumerate() {
            close(&json!(is), want, 1e-4, &format!("{name}, loss {step}"));
        }
        answers_agree((dir.path(), &result), &rows[160..], curve, &name);
    }
    predicts(dir.path(), &rows[160..], &curves[1]["scored"]);
}

/// Whether both evaluations of a model answer as transformers does, of rows of which some have no answer.
fn answers_agree((dir, result): (&Path, &Value), rows: &[Value], curve: &Value, name: &str) {
    let answered = rows
        .iter()
        .filter(|row| row["answers"]["text"][0].is_string())
        .count();
    let scored = &curve["scored"];
    let eval = format!("null_{name}");
    let metrics = &stage(result, &eval)["metrics"];
    close(&metrics["loss"], &scored["loss"], 1e-4, name);
    close(
        &metrics["answer_match"],
        &scored["null"]["exact"],
        1e-9,
        name,
    );
    close(&metrics["token_f1"], &scored["null"]["f1"], 1e-9, name);
    let own = table(dir, &eval);
    let want = scored["null"]["answers"].as_array().expect("answers");
    assert_eq!(own.len(), want.len());
    for (is, want) in own.iter().zip(want) {
        assert_eq!(json!(is[2]), want[0], "{is:?}");
        let number = |cell: &str| json!(cell.parse::<f64>().expect("a number"));
        close(&number(&is[4]), &want[1], 1e-4, name);
        close(&number(&is[5]), &want[2], 1e-4, name);
    }
    let said = stage(result, &eval);
    let sum =
        ["answerable", "unanswerable"].map(|key| said[key]["rows"].as_u64().expect("a count"));
    assert_eq!(sum, [answered as u64, (rows.len() - answered) as u64]);
    let plain = table(dir, &format!("plain_{name}"));
    let want = scored["plain"]["answers"]
        .as_array()
        .expect("answers")
        .iter();
    let want = want
        .zip(rows)
        .filter(|(_, row)| row["answers"]["text"][0].is_string());
    assert_eq!(plain.len(), answered);
    for (is, (want, _)) in plain.iter().zip(want) {
        assert_eq!(json!(is[2]), want[0], "{is:?}");
        close(
            &json!(is[4].parse::<f64>().expect("a share")),
            &want[1],
            1e-4,
            name,
        );
    }
}

/// The trained RoBERTa answers from its run, and as a folder that nobody described.
fn predicts(dir: &Path, rows: &[Value], scored: &Value) {
    let input = dir.join("asked.jsonl");
    write_lines(&input, rows);
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
    assert_eq!(
        config["architectures"],
        json!(["RobertaForQuestionAnswering"])
    );
    assert!(config.get("id2label").is_none());
    let predict = |model: &Path, more: &[&str]| {
        let mut command = program();
        command.args(["predict", "--quiet"]).arg(model);
        command.arg("--input").arg(&input).args(more);
        command.output().expect("starts")
    };
    let output = predict(&own, &["--all"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let said = stdout_of(&output);
    let want = scored["null"]["answers"].as_array().expect("answers");
    assert_eq!(said.lines().count(), want.len());
    for ((line, want), row) in said.lines().zip(want).zip(rows) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["answer"], want[0], "{line}");
        close(&line["probability"], &want[1], 1e-4, "a share");
        close(&line["null_score"], &want[2], 1e-4, "no answer");
        let all = line["candidates"].as_array().expect("answers");
        let sum: f64 = all
            .iter()
            .map(|own| own["probability"].as_f64().expect("a share"))
            .sum();
        assert!((sum - 1.0).abs() < 1e-4 && all.len() <= 21, "{line}");
        if let Some(start) = line["start"].as_u64() {
            let context = row["context"]
                .as_str()
                .expect("a text")
                .chars()
                .skip(start as usize);
            let answer = line["answer"].as_str().expect("a text");
            assert_eq!(
                context.take(answer.chars().count()).collect::<String>(),
                answer
            );
        } else {
            assert_eq!(line["answer"], "");
        }
    }
    // A folder says neither columns nor strides: windows share the usual 128 tokens, for which contexts here are too short.
    let short = json!({ "question": "what is it", "context": "it is a film of much charm" });
    write_lines(&input, [&short]);
    let output = predict(&bare, &["--text", "question,context"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    let first: Value =
        serde_json::from_str(stdout_of(&output).lines().next().expect("a row")).expect("JSON");
    assert!(
        first["answer"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
            && first.get("null_score").is_none(),
        "{first}"
    );
    let mut command = program();
    let output = command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .arg(&own)
        .output()
        .expect("starts");
    assert!(
        !output.status.success() && stderr_of(&output).contains("parts of their contexts"),
        "{}",
        stderr_of(&output)
    );
}

#[test]
fn other_families_have_the_answers_of_transformers() {
    let traces = json(TRACES);
    let dir = tempfile::tempdir().expect("a scratch directory");
    let words = |list: &Value| {
        let list = list.as_array().expect("words").iter();
        list.map(|w| format!("w{w}")).collect::<Vec<_>>()
    };
    let rows = traces["words"].as_array().expect("rows").iter().map(|row| {
        let context = words(&row[1]);
        let [from, to] = [2, 3].map(|at| row[at].as_u64().expect("a place") as usize);
        let before = context[..from]
            .iter()
            .map(|word| word.len() + 1)
            .sum::<usize>();
        json!({
            "q": words(&row[0]).join(" "), "c": context.join(" "),
            "a": { "text": [context[from..=to].join(" ")], "answer_start": [before] },
        })
    });
    let rows: Vec<Value> = rows.collect();
    write_lines(&dir.path().join("test.jsonl"), &rows);
    let mut text =
        "peftc 1\ndata d = local \".\" { question = q, context = c, answers = a }\n".to_owned();
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
            "model m_{name} = local \"{name}\"\n\
             stage {name} = eval {{ model = m_{name}, data = d.test, objective = extract {{ n_best = 60 }} }}\n"
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    assert_exact(&result);
    for own in models {
        let name = own["name"].as_str().expect("a name");
        close(
            &stage(&result, name)["metrics"]["loss"],
            &own["loss"],
            2e-5,
            name,
        );
        let want = own["answers"].as_array().expect("answers");
        let is = table(dir.path(), name);
        assert_eq!(is.len(), want.len());
        for ((is, want), row) in is.iter().zip(want).zip(&rows) {
            let [from, to] = [0, 1].map(|at| want[at].as_u64().expect("a place") as usize);
            let context: Vec<&str> = row["c"].as_str().expect("a text").split(' ').collect();
            assert_eq!(is[2], context[from..=to].join(" "), "{name}");
        }
    }
}

#[test]
fn what_answers_no_question_is_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    write_model("bert-tiny", &dir.path().join("bert"));
    let recipe = dir.path().join("r.peft");
    let check = |row: &Value, keys: &str, how: &str| {
        write_lines(&dir.path().join("train.jsonl"), [row]);
        let text = format!(
            "peftc 1\nmodel m = local \"bert\"\ndata d = local \".\" {{ {keys} }}\n\
             stage s = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, epochs = 1{how} }}\n"
        );
        std::fs::write(&recipe, text).expect("written");
        let output = program()
            .arg("check")
            .arg(&recipe)
            .output()
            .expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let keys = "question = q, context = c, answers = a";
    let asked = ", objective = extract";
    let row = |answers: Value| json!({ "q": "who", "c": "größe is all", "a": answers });
    let good = row(json!({ "text": ["is"], "answer_start": [6] }));
    let late = row(json!({ "text": ["is"], "answer_start": [7] }));
    let said = check(&late, keys, asked);
    assert!(
        said.contains("train.jsonl:1")
            && said.contains("does not begin at character 7")
            && said.contains("\"s \""),
        "{said}"
    );
    let one = row(json!({ "text": ["is"], "answer_start": [] }));
    let said = check(&one, keys, asked);
    assert!(said.contains("has 1 answers"), "{said}");
    let said = check(&row(json!({ "text": [], "answer_start": [] })), keys, asked);
    assert!(
        said.contains("row 0") && said.contains("null_threshold"),
        "{said}"
    );
    let said = check(&good, "question = q, context = c", asked);
    assert!(said.contains("write `answers = COLUMN`"), "{said}");
    let said = check(&good, keys, "");
    assert!(
        said.contains("`classify` reads texts") && said.contains("questions with contexts"),
        "{said}"
    );
    let said = check(&good, "text = q, label = c", asked);
    assert!(said.contains("question = COLUMN"), "{said}");
    let said = check(&good, keys, ", objective = extract, max_length = 4");
    assert!(said.contains("leaves 0 for a window"), "{said}");
    let long = json!({ "q": "who", "c": "one two three four five six seven eight nine", "a": { "text": ["one"], "answer_start": [0] } });
    let said = check(&long, keys, ", objective = extract, max_length = 10");
    assert!(said.contains("lower `stride`"), "{said}");
    let said = check(
        &good,
        keys,
        ", objective = extract, dev = d.train, metrics = [f1]",
    );
    assert!(said.contains("f1"), "{said}");
    std::fs::create_dir_all(dir.path().join("own")).expect("made");
    std::fs::write(dir.path().join("own/train.json"), squad(&[json!({ "question": "q", "context": "c", "answers": { "text": [], "answer_start": [] } })])).expect("written");
    let text = "peftc 1\nmodel m = local \"bert\"\ndata d = local \"own\" { question = question, context = context, answers = answers }\n\
         stage s = train { model = m, data = d.train, adapter = head_only, lr = 1e-3, epochs = 1, objective = extract }\n";
    std::fs::write(&recipe, text).expect("written");
    let output = program()
        .arg("check")
        .arg(&recipe)
        .output()
        .expect("starts");
    assert!(
        stderr_of(&output).contains("format = squad")
            || stdout_of(&output).contains("format = squad"),
        "{}",
        stderr_of(&output)
    );
}
