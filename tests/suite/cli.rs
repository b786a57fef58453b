//! The command line as a newcomer meets it: everything fits the terminal, a full disk is a failure, and `predict` takes
//! what there is and gives back as many rows as it got.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{done, here, printed, program, stderr_of, stdout_of};

fn peftc(dir: &Path, args: &[&str]) -> Command {
    let mut command = program();
    command.args(args).current_dir(dir);
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

fn told(command: &mut Command) -> String {
    String::from_utf8(done(command).stdout).expect("UTF-8")
}

fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("starts");
    let said = stderr_of(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    said
}

const STAGES: &str = "stage learn = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, steps = 2, batch = 4 }\n\
                      stage fused = merge { from = learn, to = \"fused\" }\n\
                      stage score = eval { from = learn, data = d.dev }\n";

/// A folder with a recipe.
fn folder(stages: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n{stages}"
    );
    std::fs::write(dir.path().join("r.peft"), text).expect("written");
    dir
}

/// The widest line of an output.
fn widest(text: &str) -> (usize, &str) {
    let lines = text.lines().map(|line| (line.chars().count(), line));
    lines.max().unwrap_or((0, ""))
}

#[test]
fn everything_fits_the_terminal() {
    let stages = format!(
        "let rate = 1e-3\n{}sweep s = grid {{ rate = [1e-3, 2e-3] }}\n",
        STAGES
            .replace("1e-3", "rate")
            .replace(", to = \"fused\"", "")
    );
    let dir = folder(&stages);
    let calls: &[&[&str]] = &[
        &["run", "r.peft", "--checkpoint-every", "1000"],
        &["run", "r.peft", "--profile"],
        &["run", "r.peft", "--dry-run", "--fresh"],
        &["check", "r.peft"],
        &["check", "r.peft", "--budget", "1GiB"],
        &["check", "r.peft", "--device", "rtx3070-8gb"],
        &["list"],
        &["list", "devices"],
        &["explain", "train"],
        &["explain", "lora"],
        &["explain", "sweep"],
        &["explain", "placement"],
        &["explain", "seed"],
        &["explain", "unknown_key"],
        &["explain", "learning_rate"],
        &["explain", "rtx3070-8gb"],
        &["doctor", "--offline"],
        &["report", ".peftc/runs/r"],
        &["store", "ls"],
        &["store", "gc", "--dry-run"],
        &["store", "verify"],
    ];
    for width in [60, 80, 120, 200] {
        for args in calls {
            let mut command = peftc(dir.path(), args);
            let output = done(command.env("COLUMNS", width.to_string()));
            for text in [&output.stdout, &output.stderr] {
                let text = String::from_utf8_lossy(text);
                // A path is not broken.
                let whole = |line: &&str| !line.contains(".peftc/store/");
                let text: Vec<&str> = text.lines().filter(whole).collect();
                let text = text.join("\n");
                let (most, line) = widest(&text);
                assert!(most <= width, "{width} {args:?}: {most}: {line}\n{text}");
            }
        }
    }
    // Nothing is left out on the way.
    let narrow = told(peftc(dir.path(), &["check", "r.peft"]).env("COLUMNS", "60"));
    let wide = told(peftc(dir.path(), &["check", "r.peft"]).env("COLUMNS", "200"));
    for word in wide.split_whitespace().filter(|word| *word != "–") {
        assert!(narrow.contains(word), "`{word}` is missing in\n{narrow}");
    }
}

#[test]
fn a_long_line_of_a_recipe_is_cut_with_a_sign_around_what_is_wrong() {
    let dir = folder("");
    let many = "accuracy, ".repeat(30);
    let stage =
        format!("stage s = train {{ metrics = [{many}], epocs = 3, adapters = [{many}] }}\n");
    std::fs::write(dir.path().join("long.peft"), stage).expect("written");
    for width in [60, 80, 120, 200] {
        let mut command = peftc(dir.path(), &["check", "long.peft"]);
        let output = command.env("COLUMNS", width.to_string()).output();
        let output = output.expect("starts");
        assert_eq!(output.status.code(), Some(2));
        let text = stderr_of(&output);
        let (most, line) = widest(&text);
        assert!(most <= width, "{width}: {most}: {line}\n{text}");
        let cut = |l: &str| l.contains("1 │ …") && l.contains("epocs = 3") && l.ends_with('…');
        assert!(text.lines().any(cut), "{width}: {text}");
        // The place is that in the file.
        assert!(text.contains("long.peft:1:333"), "{text}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_who_asks() {
    let dir = folder(STAGES);
    let esc = '\u{1b}';
    let check = ["check", "r.peft", "--budget", "1MiB", "--color", "always"];
    let output = peftc(dir.path(), &check).output().expect("starts");
    let text = stdout_of(&output);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text.contains(&format!("{esc}[1m{esc}[31mdoes not fit"))
            || text.contains("31mdoes not fit"),
        "{text:?}"
    );
    let first = text
        .lines()
        .find(|l| l.contains("fit"))
        .map(|l| text.find(l));
    let table = text.find("stage");
    assert!(first.flatten() < table, "the verdict comes first");
    let output = peftc(dir.path(), &check[..4]).output().expect("starts");
    assert!(!stdout_of(&output).contains(esc));
}

#[test]
fn a_full_disk_is_a_failure() {
    let dir = folder(STAGES);
    done(&mut peftc(dir.path(), &["run", "--quiet", "r.peft"]));
    std::fs::write(dir.path().join("new.tsv"), "sentence\na good film\n").expect("written");
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let calls: &[&[&str]] = &[
        &["predict", "r.peft", "--input", "new.tsv"],
        &["check", "r.peft"],
        &["check", "r.peft", "--json"],
        &["plan", "r.peft"],
        &["run", "r.peft"],
        &["run", "r.peft", "--json"],
        &["run", "r.peft", "--dry-run", "--fresh"],
        &["report", ".peftc/runs/r"],
        &["list"],
        &["explain", "lora"],
        &["doctor"],
        &["--help"],
        &["--version"],
    ];
    for args in calls {
        let mut command = peftc(dir.path(), args);
        command.stdout(Stdio::from(
            File::options().write(true).open(full).expect("opens"),
        ));
        let said = refused(&mut command, 1);
        assert!(said.contains("standard output"), "{args:?}: {said}");
    }
}

/// Rows of JSONL.
fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn predict_takes_every_form_of_a_model_and_gives_the_same() {
    let dir = folder(STAGES);
    let at = dir.path();
    done(&mut peftc(at, &["run", "--quiet", "r.peft"]));
    let rows =
        "{\"sentence\":\"a good film\",\"id\":7}\n{\"sentence\":\"a bad film\",\"id\":1.50}\n";
    std::fs::write(at.join("new.jsonl"), rows).expect("written");
    let result = std::fs::read(at.join(".peftc/runs/r/result.json")).expect("a result");
    let result: Value = serde_json::from_slice(&result).expect("JSON");
    let artifact = |i: usize| {
        result["stages"][i]["artifact"]
            .as_str()
            .expect("a path")
            .to_owned()
    };
    let predict = |model: &str, more: &[&str]| {
        let args = [
            &["predict", model, "--input", "new.jsonl", "--all", "--quiet"],
            more,
        ]
        .concat();
        told(&mut peftc(at, &args))
    };
    let by_recipe = predict("r.peft", &[]);
    let list = objects(&by_recipe);
    assert_eq!(list.len(), 2);
    assert!(
        by_recipe.starts_with("{\"sentence\":\"a good film\",\"id\":7,\"prediction\":"),
        "{by_recipe}"
    );
    assert!(by_recipe.contains("\"id\":1.50,"));
    for row in &list {
        let p = &row["probabilities"];
        let sum =
            p["negative"].as_f64().expect("a number") + p["positive"].as_f64().expect("a number");
        assert!((sum - 1.0).abs() < 1e-6);
        let class = row["prediction"].as_str().expect("a class");
        assert_eq!(row["probability"], p[class]);
    }
    let close = |other: &str| {
        for (a, b) in list.iter().zip(objects(other)) {
            assert_eq!(a["prediction"], b["prediction"]);
            let (a, b) = (a["probability"].as_f64(), b["probability"].as_f64());
            assert!((a.expect("a number") - b.expect("a number")).abs() < 1e-5);
        }
    };
    for model in [
        ".peftc/runs/r",
        ".peftc/runs/r/learn",
        ".peftc/runs/r/fused",
        &artifact(0),
        &artifact(1),
        "fused",
    ] {
        close(&predict(model, &[]));
    }
    assert_eq!(
        predict("r.peft", &["--stage", "learn"]),
        predict(&artifact(0), &[])
    );
    // A recipe that has changed is not what was run.
    let text = std::fs::read_to_string(at.join("r.peft")).expect("read");
    std::fs::write(at.join("r.peft"), text.replace("1e-3", "2e-3")).expect("written");
    let input = ["--input", "new.jsonl"];
    let said = refused(
        &mut peftc(at, &[&["predict", "r.peft"], &input[..]].concat()),
        1,
    );
    assert!(
        said.contains("is not finished") && said.contains("peftc run r.peft"),
        "{said}"
    );
    // What is none of them says what would be.
    for (model, code, part) in [
        ("new.jsonl", 2, "this is no recipe"),
        ("nowhere", 1, "no such file or folder"),
        (".peftc", 1, "there is no model here"),
        (".peftc/runs/r/score", 2, "leaves no model"),
    ] {
        let said = refused(
            &mut peftc(at, &[&["predict", model], &input[..]].concat()),
            code,
        );
        assert!(said.contains(part), "{model}: {said}");
    }
    for (flags, part) in [
        (["--stage", "lern"], "did you mean"),
        (["--text", "senence"], "--text COLUMN"),
        (["--text", "sentence,id"], "reads 1 column"),
        (["--best", "matthews"], "no stage is scored by"),
    ] {
        let out = ".peftc/runs/r";
        let output = peftc(at, &[&["predict", out], &input[..], &flags[..]].concat())
            .output()
            .expect("starts");
        let said = stderr_of(&output);
        assert!(
            !output.status.success() && said.contains(part),
            "{flags:?}: {said}"
        );
    }
    // A base model has no head to label with.
    let here = here();
    let base = at.join("base");
    std::fs::create_dir(&base).expect("made");
    for file in std::fs::read_dir(here.join("tests/reference/bert-tiny")).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), base.join(file.file_name())).expect("copied");
    }
    let config = std::fs::read_to_string(base.join("config.json")).expect("read");
    let config = config.replace("BertForSequenceClassification", "BertForMaskedLM");
    std::fs::write(base.join("config.json"), config).expect("written");
    let said = refused(
        &mut peftc(at, &["predict", "base", "--input", "new.jsonl"]),
        1,
    );
    assert!(said.contains("head"), "{said}");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn as_many_rows_come_out_as_go_in() {
    let dir = folder(STAGES);
    let at = dir.path();
    done(&mut peftc(
        at,
        &["run", "--quiet", "r.peft", "--stage", "learn"],
    ));
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("written");
    // One column: a blank line is a row.
    write(
        "one.tsv",
        "sentence\nA splendid warm film.\n\nDull and lifeless.\n\n\nGreat fun.\n",
    );
    let run = |args: &[&str]| {
        told(&mut peftc(
            at,
            &[&["predict", ".peftc/runs/r", "--quiet"], args].concat(),
        ))
    };
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    let one = lines(&run(&["--input", "one.tsv"]));
    assert_eq!(one.len(), 7);
    assert_eq!(one[0], "sentence\tprediction\tprobability");
    assert!(one[1].starts_with("A splendid warm film.\t") && one[2].starts_with('\t'));
    // Other columns stay, in their order; more rows than are held at a time.
    let many: String = (0..1500)
        .map(|i| format!("{i},\"film, {i}\",x\n"))
        .collect();
    write("many.csv", &format!("id,sentence,note\n{many}"));
    let csv = lines(&run(&["--input", "many.csv", "--all", "--batch", "256"]));
    assert_eq!(csv.len(), 1501);
    assert_eq!(
        csv[0],
        "id,sentence,note,prediction,probability,probability_negative,probability_positive"
    );
    for (i, line) in csv.iter().skip(1).enumerate() {
        assert!(line.starts_with(&format!("{i},\"film, {i}\",x,")), "{line}");
    }
    // A null has no prediction, and is told.
    write(
        "null.jsonl",
        "{\"sentence\":null}\n{\"sentence\":\"fine\"}\n{\"other\":1}\n",
    );
    let mut command = peftc(at, &["predict", ".peftc/runs/r", "--input", "null.jsonl"]);
    let output = done(&mut command);
    let rows = objects(&stdout_of(&output));
    assert_eq!(rows.len(), 3);
    assert!(rows[0]["prediction"].is_null() && rows[1]["prediction"].is_string());
    let said = stderr_of(&output);
    let said = said.replace('\n', " ");
    assert!(
        said.contains("2 rows have no text") && said.contains("row 1"),
        "{said}"
    );
    // Standard input, and from one format into another.
    let mut child = peftc(
        at,
        &[
            "predict",
            ".peftc/runs/r",
            "--quiet",
            "--input",
            "-",
            "--format",
            "jsonl",
        ],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .expect("starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(b"id,sentence\n1,fine\n2,\n")
        .expect("written");
    drop(pipe);
    let output = child.wait_with_output().expect("ends");
    let rows = objects(&stdout_of(&output));
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["id"], &rows[1]["sentence"]),
        (&"1".into(), &"".into())
    );
    // Through Parquet and back.
    let made = done(&mut peftc(
        at,
        &[
            "predict",
            ".peftc/runs/r",
            "--quiet",
            "--input",
            "many.csv",
            "--format",
            "parquet",
        ],
    ));
    std::fs::write(at.join("renamed.parquet"), made.stdout).expect("written");
    let said = refused(
        &mut peftc(
            at,
            &["predict", ".peftc/runs/r", "--input", "renamed.parquet"],
        ),
        1,
    );
    assert!(said.contains("`prediction` already"), "{said}");
    // What is damaged stops with its place, and is no success.
    write("open.csv", "id,sentence\n1,fine\n2,\"open\n3,lost\n");
    let said = refused(
        &mut peftc(at, &["predict", ".peftc/runs/r", "--input", "open.csv"]),
        1,
    );
    assert!(said.contains("line 3") && said.contains("quote"), "{said}");
}

#[test]
fn the_words_of_other_tools_are_understood() {
    let dir = folder(
        "stage s = train { model = m, data = d.train, learning_rate = 1e-3, gradient_accumulation_steps = 2, fp16 = true, weight_decay = 0.1, adapter = xlora { rank = 4 } }\n",
    );
    let output = peftc(dir.path(), &["check", "r.peft", "--json"])
        .output()
        .expect("starts");
    let json: Value = printed(&output);
    let help: Vec<String> = json["recipes"][0]["diagnostics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|d| Some(d["help"].as_str()?.to_owned()))
        .collect();
    for part in [
        "`learning_rate` is called `lr` here",
        "write `batch = 16, micro_batch = 8`",
        "`fp16` is known, but not built; the nearest that is: `precision = bf16`",
        "`weight_decay` is written `optimizer = adamw { weight_decay = 0.1 }`",
        "`xlora` is known, but not built; the nearest that is: `lora`",
    ] {
        assert!(help.iter().any(|h| h.contains(part)), "{part}: {help:#?}");
    }
    for (name, part) in [
        ("seed", "key of train"),
        ("train.batch", "examples of one optimizer step"),
        ("unknown_key", "peftc::resolve::unknown_key"),
        ("cpu", "cpu (device)"),
        ("cuda", "cuda (device)"),
        ("lora_alpha", "alpha (key of lora"),
        ("qlora", "not built"),
        ("data.text", "column with the text"),
    ] {
        let text = told(&mut peftc(dir.path(), &["explain", name]));
        assert!(text.contains(part), "{name}: {text}");
    }
}

#[test]
fn the_version_names_number_commit_target_and_features() {
    let said = |flag: &str| stdout_of(&program().arg(flag).output().expect("starts"));
    let number = env!("CARGO_PKG_VERSION");
    assert_eq!(said("-V"), format!("peftc {number}\n"));
    let long = said("--version");
    let inside = long
        .strip_prefix(&format!("peftc {number} ("))
        .and_then(|rest| rest.strip_suffix(")\n"));
    let parts: Vec<&str> = inside
        .unwrap_or_else(|| panic!("{long}"))
        .split("; ")
        .collect();
    let [commit, target, features] = parts.as_slice() else {
        panic!("{long}");
    };
    assert!(
        !commit.is_empty() && target.contains(std::env::consts::ARCH),
        "{long}"
    );
    assert_eq!(*features, "cuda", "{long}");
}
