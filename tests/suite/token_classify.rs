//! A class for each word: losses, tags and entities against transformers and seqeval (`tests/reference`), and the way from CoNLL
//! files and lists to a folder that labels words.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of};

/// Output of a command that succeeds.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{command:?}\n{said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a command says that fails.
fn refused(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    assert!(!output.status.success(), "{command:?}");
    stderr_of(&output)
}

/// Words and tags as `make_token_traces.py` takes them of a review.
fn tagged(sentence: &str) -> (Vec<&str>, Vec<String>) {
    let words: Vec<&str> = sentence.split(' ').take(12).collect();
    let mut last = None;
    let tags = words.iter().map(|word| {
        let kind = if word.ends_with(['y', 'e']) {
            Some("LY")
        } else {
            (word.chars().count() >= 6).then_some("LONG")
        };
        let begins = kind != std::mem::replace(&mut last, kind);
        kind.map_or("O".to_owned(), |kind| {
            format!("{}-{kind}", if begins { "B" } else { "I" })
        })
    });
    let tags = tags.collect();
    (words, tags)
}

/// A folder with reviews 0 to 319 as `train.jsonl`, and 320 to 383 as `test.jsonl` and as CoNLL.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows: Vec<_> = (text.lines().skip(1))
        .filter_map(|line| line.split('\t').next().map(tagged))
        .collect();
    for (name, part) in [("train", &rows[..320]), ("test", &rows[320..384])] {
        let (mut lines, mut conll) = (String::new(), "-DOCSTART- -X- O\n\n".to_owned());
        for (words, tags) in part {
            let _ = writeln!(lines, "{}", json!({ "words": words, "ner": tags }));
            for (word, tag) in words.iter().zip(tags) {
                let _ = writeln!(conll, "{word} _ {tag}");
            }
            conll.push('\n');
        }
        std::fs::write(dir.path().join(format!("{name}.jsonl")), lines).expect("written");
        std::fs::create_dir_all(dir.path().join("conll")).expect("made");
        std::fs::write(dir.path().join(format!("conll/{name}.conll")), conll).expect("written");
    }
    dir
}

/// The weight of a head at a place, as the script has it.
fn head(place: i32) -> f32 {
    (0.3 * (1.0 + 12.9898 * f64::from(place)).sin()) as f32
}

/// A reference model with a head on each token.
fn write_model(name: &str, dir: &Path, classes: &[Value]) {
    let from = Path::new("tests/reference").join(name);
    std::fs::create_dir_all(dir).expect("made");
    for file in std::fs::read_dir(&from).expect("a model") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), dir.join(file.file_name())).expect("copied");
    }
    let mut config = json(from.join("config.json"));
    let names = classes.iter().enumerate();
    config["id2label"] = names
        .clone()
        .map(|(i, c)| (i.to_string(), c.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    config["label2id"] = names
        .map(|(i, c)| (c.as_str().expect("a name").to_owned(), json!(i)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let class = config["architectures"][0].as_str().expect("a class");
    let class = class.replace("SequenceClassification", "TokenClassification");
    config["architectures"] = json!([class]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let bytes = std::fs::read(from.join("model.safetensors")).expect("weights");
    let held = SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats = |places: Vec<i32>| -> Vec<u8> {
        let all = places.into_iter().map(head);
        all.flat_map(f32::to_le_bytes).collect()
    };
    let n = classes.len();
    let weight = floats((0..64 * i32::try_from(n).expect("few")).collect());
    let bias = floats(
        (0..i32::try_from(n).expect("few"))
            .map(|i| -1 - i)
            .collect(),
    );
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data);
    let own = ["classifier", "pre_classifier", "bert.pooler"];
    let mut tensors: BTreeMap<String, TensorView<'_>> = held
        .tensors()
        .into_iter()
        .filter(|(name, _)| !own.iter().any(|head| name.starts_with(head)))
        .collect();
    tensors.insert(
        "classifier.weight".into(),
        view(&[n, 64], &weight).expect("a view"),
    );
    tensors.insert("classifier.bias".into(), view(&[n], &bias).expect("a view"));
    serialize_to_file(tensors, None, &dir.join("model.safetensors")).expect("written");
}

fn run(dir: &Path, recipe: &str) -> Value {
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    done(
        program()
            .args(["run", "--quiet", "--threads", "2"])
            .arg(&path),
    );
    json(dir.join(".peftc/runs/r/result.json"))
}

fn near(is: &Value, want: &Value, off: f64, of: &str) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{of}: {value}"));
    assert!(
        (number(is) - number(want)).abs() < off,
        "{of}: {is} against {want}"
    );
}

/// The rows that `predict` writes.
fn predicted(dir: &Path, more: &[&str]) -> Vec<Value> {
    let mut command = program();
    command.args(["predict", "--quiet"]).arg(dir).args(more);
    let shown = done(&mut command);
    let row = |line: &str| serde_json::from_str(line).expect("JSON");
    shown.lines().map(row).collect()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn losses_tags_and_entities_are_those_of_transformers_and_seqeval() {
    let reference = json(Path::new("tests/reference/token_classify.json"));
    let classes = reference["classes"].as_array().expect("classes");
    let curves = reference["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 3);
    for curve in curves {
        let (model, pieces) = (curve["model"].as_str().expect("a name"), &curve["pieces"]);
        let pieces = pieces.as_str().expect("a word");
        let dir = folder();
        write_model(model, &dir.path().join("m"), classes);
        let recipe = format!(
            "model m = local \"m\"\n\
             data d = local \".\" {{ tokens = words, label = ner }}\n\
             data c = local \"conll\" {{ tokens = tokens, label = tags }}\n\
             stage s = train {{ model = m, data = d.train, objective = token_classify {{ pieces = {pieces} }}, adapter = full, lr = {}, \
             optimizer = adamw {{ weight_decay = 0.01 }}, steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false }}\n\
             stage e = eval {{ from = s, data = c.test, objective = token_classify, metrics = [entity_f1, entity_precision, entity_recall, token_accuracy, loss] }}\n",
            curve["lr"]
        );
        let result = run(dir.path(), &recipe);
        let log = std::fs::read_to_string(dir.path().join(".peftc/runs/r/s/metrics.jsonl"));
        let log = log.expect("a log");
        let wanted = curve["loss"].as_array().expect("losses");
        assert_eq!(log.lines().count(), wanted.len());
        for (step, (line, want)) in log.lines().zip(wanted).enumerate() {
            let own: Value = serde_json::from_str(line).expect("JSON");
            near(&own["loss"], want, 1e-4, &format!("{model} step {step}"));
        }
        for stage in result["stages"].as_array().expect("stages") {
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!(
                (0.98..=1.0).contains(&share),
                "{model} {}: {share}",
                stage["name"]
            );
        }
        let (own, scored) = (&result["stages"][1], &curve["scored"]);
        for (name, want) in scored["metrics"].as_object().expect("metrics") {
            near(
                &own["metrics"][name],
                want,
                1e-9,
                &format!("{model} {name}"),
            );
        }
        near(&own["metrics"]["loss"], &scored["loss"], 1e-4, model);
        let kinds = scored["entities"].as_array().expect("types");
        assert_eq!(own["entities"].as_array().map(Vec::len), Some(kinds.len()));
        for (kind, want) in own["entities"].as_array().expect("types").iter().zip(kinds) {
            assert_eq!(
                (&kind["name"], &kind["support"]),
                (&want["name"], &want["support"])
            );
            for key in ["precision", "recall", "f1"] {
                near(&kind[key], &want[key], 1e-9, &format!("{model} {key}"));
            }
        }
        // The folder labels lists and CoNLL alike.
        let at = dir.path().join(".peftc/runs/r");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (lists, conll) = (path("test.jsonl"), path("conll/test.conll"));
        let rows = predicted(&at, &["--stage", "s", "--input", &lists]);
        let same = predicted(
            &at,
            &["--stage", "s", "--text", "tokens", "--input", &conll],
        );
        let tags = scored["tags"].as_array().expect("rows");
        assert_eq!((rows.len(), same.len(), tags.len()), (64, 64, 64));
        for ((row, other), want) in rows.iter().zip(&same).zip(tags) {
            assert_eq!(
                (&row["prediction"], &other["prediction"]),
                (want, want),
                "{model}"
            );
            assert_eq!(
                (&row["words"], &row["ner"]),
                (&other["tokens"], &other["tags"])
            );
        }
        let shares = rows[0]["probability"].as_array().expect("a list");
        let wanted = scored["probability"].as_array().expect("a list");
        assert_eq!(shares.len(), wanted.len());
        for (is, want) in shares.iter().zip(wanted) {
            near(is, want, 1e-4, model);
        }
    }
}

#[test]
fn long_rows_are_read_in_parts_and_every_way_labels_all_words() {
    let dir = folder();
    let at = here();
    let recipe = format!(
        "model m = local \"{}/tests/reference/roberta-tiny\"\n\
         data d = local \"conll\" {{ tokens = tokens, label = tags }}\n\
         stage s = train {{ model = m, data = d.train, dev = d.test, best = entity_f1, evaluate = 2 steps, objective = token_classify {{ pieces = all }}, \
         adapter = lora {{ rank = 4 }}, lr = 1e-3, steps = 4, batch = 8, micro_batch = 3, seed = 7, max_length = 12 }}\n\
         stage f = merge {{ from = s }}\n\
         stage e = eval {{ from = f, data = d.test }}\n\
         data p = local \"conll\" {{ tokens = tokens, label = \"1\", labels = [\"_\", \"x\"] }}\n\
         stage t = train {{ model = m, data = p.train, objective = token_classify, adapter = head_only, lr = 1e-3, steps = 1 }}\n\
         stage q = eval {{ from = t, data = p.test, metrics = [token_accuracy] }}\n",
        at.display()
    );
    let result = run(dir.path(), &recipe);
    for stage in result["stages"].as_array().expect("stages") {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
    let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/e/predictions.tsv"));
    let table = table.expect("a table");
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.delimiter(b'\t').from_reader(table.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.expect("a row")).collect();
    assert_eq!(rows.len(), 64);
    let text = std::fs::read_to_string(dir.path().join("test.jsonl")).expect("rows");
    let list = |cell: &str| serde_json::from_str::<Value>(cell).expect("a list");
    let run = dir.path().join(".peftc/runs/r");
    let lists = dir.path().join("test.jsonl").display().to_string();
    let of = |stage: &str| {
        predicted(
            &run,
            &["--stage", stage, "--text", "words", "--input", &lists],
        )
    };
    let (trained, merged) = (of("s"), of("f"));
    for ((row, line), place) in rows.iter().zip(text.lines()).zip(0..) {
        let data: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&row[0], list(&row[1])),
            (place.to_string().as_str(), data["ner"].clone())
        );
        let tags = list(&row[2]);
        assert_eq!(
            tags.as_array().map(Vec::len),
            data["words"].as_array().map(Vec::len)
        );
        assert_eq!(
            (&trained[place]["prediction"], &merged[place]["prediction"]),
            (&tags, &tags)
        );
    }
    // Classes that are no tags are warned about.
    let parts = &result["stages"][4];
    assert_eq!(parts["name"], "q");
    assert_eq!(parts["warnings"][0]["code"], "peftc::exec::strange_tags");
    assert_eq!(parts["classes"][0]["support"], 700);
    let model = json(dir.path().join(".peftc/runs/r/f/model/config.json"));
    assert_eq!(
        model["architectures"],
        json!(["RobertaForTokenClassification"])
    );
    assert_eq!(model["id2label"]["4"], "O");
}

#[test]
fn what_is_wrong_is_said_at_its_place() {
    let dir = folder();
    let at = here();
    let check = |data: &str, text: &str, objective: &str| {
        let recipe = format!(
            "model m = local \"{}/tests/reference/bert-tiny\"\n\
             data d = local {data} {{ {text} }}\n\
             stage s = train {{ model = m, data = d.train, objective = {objective}, adapter = head_only, lr = 1e-3, steps = 1 }}\n",
            at.display()
        );
        let path = dir.path().join("w.peft");
        std::fs::write(&path, recipe).expect("written");
        // Long lines are folded.
        let said = refused(program().arg("check").arg(&path));
        let words = said.split_whitespace().filter(|word| *word != "│");
        words.collect::<Vec<_>>().join(" ")
    };
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("few.jsonl", "{\"tokens\":[\"a\",\"b\"],\"tags\":[\"O\"]}\n");
    write("none.jsonl", "{\"tokens\":[],\"tags\":[]}\n");
    write("text.jsonl", "{\"tokens\":\"a b\",\"tags\":[\"O\"]}\n");
    write("ragged.conll", "a O\n\nb\n");
    let words = "tokens = tokens, label = tags";
    let said = |data: &str| check(&format!("\"{data}\""), words, "token_classify");
    assert!(
        said("few.jsonl").contains("few.jsonl:1: 1 labels for 2 words"),
        "{}",
        said("few.jsonl")
    );
    assert!(said("none.jsonl").contains("`tokens` has no word"));
    assert!(said("text.jsonl").contains("`tokens` is no list of words"));
    assert!(
        said("ragged.conll")
            .contains("ragged.conll:3: 1 columns where the file's first word has 2")
    );
    let texts = check("\"conll\"", words, "classify");
    assert!(
        texts.contains("these data have words with a label each"),
        "{texts}"
    );
    let plain = check("\".\"", "text = words, label = ner", "token_classify");
    assert!(
        plain.contains("`token_classify` labels words, and these data have texts"),
        "{plain}"
    );
}
