//! Data files as a recipe names them: where they are found, what their labels mean, and what is said of those that
//! cannot be read.

mod hostile;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{here, printed, program, stderr_of};

/// A folder with files, and a recipe over them with a tiny model.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
        self
    }

    /// A recipe whose second line is `data`.
    fn recipe(&self, data: &str, stages: &str) -> PathBuf {
        let here = here();
        let model = here.join("tests/reference/bert-tiny");
        let text = format!(
            "model m = local {:?}\n{data}\n{stages}\n",
            model.display().to_string()
        );
        let path = self.path("r.peft");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn peftc(&self, args: &[&str]) -> Output {
        program()
            .args(args)
            .arg(self.path("r.peft"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HF_HOME", self.path("hub"))
            .output()
            .expect("starts")
    }

    /// What `check` says of the data: its exit code and its errors.
    fn check(&self, data: &str, stages: &str) -> (i32, Vec<Value>) {
        self.recipe(data, stages);
        let output = self.peftc(&["check", "--json", "--quiet"]);
        let json: Value = printed(&output);
        let all = json["recipes"][0]["diagnostics"]
            .as_array()
            .expect("a list");
        let errors = all.iter().filter(|d| d["severity"] == "error");
        (
            output.status.code().expect("a code"),
            errors.cloned().collect(),
        )
    }

    /// The labels and predictions of an evaluation, by name.
    fn labels(&self, stage: &str) -> Vec<String> {
        let path = self.path(&format!(".peftc/runs/r/{stage}/predictions.tsv"));
        let text = std::fs::read_to_string(path).expect("predictions");
        let cell = |line: &str| line.split('\t').nth(1).unwrap_or_default().to_owned();
        text.lines().skip(1).map(cell).collect()
    }
}

impl Case {
    /// The prediction of each row by name, and the score of the class `good`.
    fn scores(&self, stage: &str) -> Vec<(String, f64)> {
        let path = self.path(&format!(".peftc/runs/r/{stage}/predictions.tsv"));
        let text = std::fs::read_to_string(path).expect("predictions");
        let header: Vec<&str> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split('\t')
            .collect();
        let good = header
            .iter()
            .position(|name| name.ends_with("good"))
            .expect("a column");
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            (cells[2].to_owned(), cells[good].parse().expect("a number"))
        };
        text.lines().skip(1).map(row).collect()
    }
}

const TRAIN: &str =
    "stage s = train { model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1 }";

const TABLE: &str = "text,label\nA fine film.,1\nA dull one.,0\nQuite good.,1\nSo bad.,0\n";

const LINES: &str =
    "{\"text\": \"A fine film.\", \"label\": 1}\n{\"text\": \"A dull one.\", \"label\": 0}\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("packed");
    packed.finish().expect("packed")
}

#[test]
fn data_are_a_folder_a_file_a_list_or_a_pattern() {
    let case = Case::new();
    case.file("reviews.csv", TABLE)
        .file("more.csv", TABLE)
        .file("lines/train.json", LINES)
        .file("array/train.json", format!("[{}]", LINES.trim().replace('\n', ",")))
        .file("gz/train.jsonl.gz", gzip(LINES.as_bytes()))
        .file("zst/train.csv.zst", zstd::encode_all(TABLE.as_bytes(), 1).expect("packed"))
        .file("shards/train-00000-of-00002.jsonl", LINES)
        .file("shards/train-00001-of-00002.jsonl", LINES)
        .file("parts/a.csv", TABLE)
        .file("parts/b.csv", TABLE)
        .file("deep/train.jsonl", "{\"data\": {\"the text\": \"x\"}, \"notes\": [{\"label\": \"p\"}]}\n{\"data\": {\"the text\": \"y\"}, \"notes\": [{\"label\": \"q\"}]}\n");
    let columns = "text = text, label = label";
    for data in [
        format!("local \"reviews.csv\" {{ {columns} }}"),
        format!("local [\"reviews.csv\", \"more.csv\"] {{ {columns} }}"),
        format!("local \"parts/*.csv\" {{ {columns} }}"),
        format!("local \"parts\" {{ {columns}, train = [\"*.csv\"] }}"),
        format!("local \"lines\" {{ {columns} }}"),
        format!("local \"array\" {{ {columns} }}"),
        format!("local \"gz\" {{ {columns} }}"),
        format!("local \"gz/train.jsonl.gz\" {{ {columns} }}"),
        format!("local \"zst\" {{ {columns} }}"),
        format!("local \"shards\" {{ {columns} }}"),
        "local \"deep\" { text = \"data.the text\", label = notes[0].label }".to_owned(),
        "local \"deep\" { text = [\"data.the text\"], label = \"notes.0.label\" }".to_owned(),
    ] {
        let (code, errors) = case.check(&format!("data d = {data}"), TRAIN);
        assert_eq!((code, errors.as_slice()), (0, [].as_slice()), "{data}");
    }
    let stages = format!(
        "{TRAIN}\nstage e = eval {{ from = s, data = d.test }}\nstage v = eval {{ from = s, data = d.dev }}"
    );
    case.file(
        "many.csv",
        format!("text,label\n{}", "a,1\nb,0\n".repeat(50)),
    );
    let split = "split = { dev = 10%, test = 20%, seed = 1, stratify = true }";
    for data in [
        format!("local \"many.csv\" {{ {columns}, {split} }}"),
        format!("local \"parts\" {{ {columns}, {split}, train = [\"../many.csv\"] }}"),
    ] {
        let (code, errors) = case.check(&format!("data d = {data}"), &stages);
        assert_eq!((code, errors.as_slice()), (0, [].as_slice()), "{data}");
    }
}

/// One cause, one error, at what of the declaration is to blame, with what to do.
#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn what_is_wrong_with_data_is_said_once_and_where() {
    let case = Case::new();
    let rows = |label: &str| format!("text,label\n{}", format!("a,{label}\nb,0\n").repeat(30));
    case.file(
        "open/train.csv",
        format!(
            "text,label\n{}\"never closed,1\n{}",
            "a,1\nb,0\n".repeat(5),
            "c,1\n".repeat(30)
        ),
    )
    .file("nan/train.csv", rows("nan") + "c,1\n")
    .file("joined/train.csv", rows("a|b") + "c,a\nc,b\n")
    .file("one/train.csv", "text,label\na,x\nb,x\n")
    .file("from_one/train.csv", rows("1").replace(",0", ",2"))
    .file("names/train.csv", rows("good"))
    .file(
        "null/train.jsonl",
        "{\"text\": null, \"label\": 1}\n{\"text\": \"x\", \"label\": 0}\n",
    )
    .file(
        "no_label/train.jsonl",
        "{\"text\": \"x\", \"label\": null}\n",
    )
    .file("two/train.csv", TABLE)
    .file("two/dev.csv", TABLE)
    .file("nothing/readme.txt", "x")
    .file("plain.csv", TABLE);
    let twice = format!(
        "{TRAIN}\nstage t = train {{ model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 1 }}"
    );
    let columns = "text = text, label = label";
    for (data, line, at, message, help) in [
        (
            format!("local \"open\" {{ {columns} }}"),
            2,
            "\"open\"",
            "open/train.csv:12: the quote that opens a cell here is never closed",
            "written twice",
        ),
        (
            format!("local \"nan\" {{ {columns} }}"),
            2,
            "label }",
            "`nan` stands among numbers",
            "remove such rows",
        ),
        (
            format!("local \"joined\" {{ {columns} }}"),
            2,
            "label }",
            "`a|b` is made of other labels",
            "`labels = […]`",
        ),
        (
            format!("local \"one\" {{ {columns} }}"),
            2,
            "label }",
            "at least two classes",
            "check `label`",
        ),
        (
            format!("local \"from_one\" {{ {columns}, labels = [negative, positive] }}"),
            2,
            "[neg",
            "numbers from 1 to 2",
            "labels = { 1: \"negative\", 2: \"positive\" }",
        ),
        (
            format!("local \"names\" {{ {columns}, labels = [bad, goood] }}"),
            2,
            "label,",
            "`good` is none of the classes; 29 more like it",
            "did you mean `goood`",
        ),
        (
            format!("local \"names\" {{ {columns}, labels = [bad, bad] }}"),
            2,
            "[bad",
            "names the class `bad` twice",
            "one name",
        ),
        (
            format!("local \"null\" {{ {columns} }}"),
            2,
            "text,",
            "train.jsonl:1: the text `text` is missing",
            "an empty one",
        ),
        (
            format!("local \"no_label\" {{ {columns} }}"),
            2,
            "label }",
            "train.jsonl:1: the label is missing",
            "in every row",
        ),
        (
            "local \"two\" { text = txt, label = label }".to_owned(),
            2,
            "txt",
            "there is no column `txt`",
            "did you mean `text`",
        ),
        (
            format!("local \"two\" {{ {columns}, split = {{ dev = 10% }} }}"),
            2,
            "{ dev",
            "there are files of the split `dev`",
            "remove",
        ),
        (
            format!("local \"plain.csv\" {{ {columns}, split = {{ dev = 60%, test = 50% }} }}"),
            2,
            "{ dev",
            "leave nothing for `train`",
            "below 100%",
        ),
        (
            format!("local \"plain.csv\" {{ {columns}, split = {{ seed = 3 }} }}"),
            2,
            "{ seed",
            "neither `dev` nor `test`",
            "dev = 10%",
        ),
        (
            format!("local \"absent.csv\" {{ {columns} }}"),
            2,
            "\"absent",
            "no such file",
            "",
        ),
        (
            format!("local \"*.tsv\" {{ {columns} }}"),
            2,
            "\"*.tsv",
            "no file matches the pattern",
            "relative to the recipe",
        ),
        (
            format!("local \"nothing\" {{ {columns} }}"),
            3,
            "d.train",
            "there is no split `train`",
            "what is there: `readme.txt`",
        ),
    ] {
        let data = format!("data d = {data}");
        let (code, errors) = case.check(&data, &twice);
        assert_eq!(code, 2, "{data}");
        let stages = if line == 3 { 2 } else { 1 };
        assert!(
            errors.len() <= stages && !errors.is_empty(),
            "{data}: {errors:#?}"
        );
        let error = &errors[0];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|m| m.contains(message)),
            "{data}: {error}"
        );
        assert!(
            error["help"].as_str().unwrap_or_default().contains(help),
            "{data}: {error}"
        );
        assert_eq!(error["line"], line, "{data}: {error}");
        if line == 2 && !at.is_empty() {
            let column = error["column"].as_u64().expect("a column") as usize - 1;
            assert!(
                data.get(column..).is_some_and(|rest| rest.starts_with(at)),
                "{data}: {error}"
            );
        }
    }
}

/// A stage's classes stay what they are when it goes on to data that number them otherwise.
#[test]
fn labels_go_by_name_from_stage_to_stage() {
    let case = Case::new();
    let rows = |labels: [&str; 2]| -> String {
        let row = |i: usize| format!("text {i},{}\n", labels[i % 2]);
        let rows: String = (0..8).map(row).collect();
        format!("text,label\n{rows}")
    };
    case.file("names.csv", rows(["bad", "good"]))
        .file("numbers.csv", rows(["0", "1"]))
        .file("floats.csv", rows(["0.0", "1.0"]))
        .file("turned.csv", rows(["1", "0"]))
        .file(
            "flags.jsonl",
            (0..8)
                .map(|i| format!("{{\"text\": \"text {i}\", \"label\": {}}}\n", i % 2 == 1))
                .collect::<String>(),
        );
    let columns = "text = text, label = label";
    let data = format!("data d = local \"names.csv\" {{ {columns}, labels = [good, bad] }}");
    let mut stages = format!("{TRAIN}\n");
    let sets = [
        ("names", "names.csv", ""),
        ("numbers", "numbers.csv", ", labels = [bad, good]"),
        ("floats", "floats.csv", ", labels = [bad, good]"),
        ("turned", "turned.csv", ", labels = [good, bad]"),
        ("mapped", "turned.csv", ", labels = { 1: bad, 0: good }"),
        ("flags", "flags.jsonl", ", labels = [bad, good]"),
    ];
    for (name, file, labels) in sets {
        stages += &format!(
            "data {name} = local \"{file}\" {{ {columns}{labels} }}\nstage e_{name} = eval {{ from = s, data = {name}.train }}\n"
        );
    }
    case.recipe(&data, &stages);
    let output = case.peftc(&["run", "--quiet"]);
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let wanted: Vec<String> = (0..8).map(|i| ["bad", "good"][i % 2].to_owned()).collect();
    for (name, ..) in sets {
        assert_eq!(case.labels(&format!("e_{name}")), wanted, "{name}");
    }
    // Numbers without a list say nothing of names.
    let bare = "data bare = local \"numbers.csv\" { text = text, label = label }\nstage e = eval { from = s, data = bare.train }";
    let (code, errors) = case.check(&data, &format!("{TRAIN}\n{bare}"));
    assert_eq!((code, errors.len()), (2, 1), "{errors:#?}");
    assert!(
        errors[0]["help"]
            .as_str()
            .is_some_and(|h| h.contains("`labels = […]`")),
        "{errors:#?}"
    );
}

/// A head that is trained on goes on by the names of its classes, whatever order the data give them.
#[test]
fn a_trained_head_is_attached_by_name() {
    let case = Case::new();
    let rows: String = (0..8)
        .map(|i| {
            format!(
                "text {i} {},{}\n",
                ["dull", "fine"][i % 2],
                ["bad", "good"][i % 2]
            )
        })
        .collect();
    case.file("names.csv", format!("text,label\n{rows}"));
    let columns = "text = text, label = label";
    let data = format!("data d = local \"names.csv\" {{ {columns}, labels = [good, bad] }}");
    let stages = "stage s = train { model = m, data = d.train, adapter = lora { rank = 2, on = { attention.* } }, lr = 1e-2, epochs = 6, batch = 4 }\n\
                  stage p = merge { from = s, to = \"published\" }\nstage e = eval { from = p, data = d.train }";
    case.recipe(&data, stages);
    let output = case.peftc(&["run", "--quiet"]);
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let wanted = case.scores("e");
    assert_eq!(wanted.len(), 8);
    // So small a rate changes nothing.
    let stages = format!(
        "model published = local {:?}\nstage s = train {{ model = published, data = d.train, adapter = head_only, lr = 1e-12, steps = 1 }}\n\
         stage e = eval {{ from = s, data = d.train }}",
        case.path("published").display().to_string()
    );
    for labels in [", labels = [bad, good]", ", labels = [good, bad]", ""] {
        let data = format!("data d = local \"names.csv\" {{ {columns}{labels} }}");
        case.recipe(&data, &stages);
        let output = case.peftc(&["run", "--quiet"]);
        let said = stderr_of(&output);
        assert!(output.status.success(), "{said}");
        let found = case.scores("e");
        for ((of, wanted), (name, score)) in wanted.iter().zip(&found) {
            assert_eq!(of, name, "{labels}");
            assert!(
                (wanted - score).abs() < 1e-4,
                "{labels}: {wanted} and {score}"
            );
        }
    }
}
