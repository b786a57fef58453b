//! The crate inside another program: what `examples/embed.rs` does, and how mistakes come back.

use std::path::{Path, PathBuf};

use peftc::{Error, Job, Model, Row, Silent};
use serde_json::json;

use super::support::{done, here, program};

#[path = "../../examples/embed.rs"]
mod example;

fn recipe(dir: &Path) -> PathBuf {
    let at = here();
    let text = format!(
        "let rank = 2\nmodel m = local \"{0}/tests/reference/bert-tiny\"\n\
         data d = local \"{0}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n\
         stage learn = train {{ model = m, data = d.train, adapter = lora {{ rank = rank }}, lr = 1e-3, steps = 3, batch = 4 }}\n\
         stage score = eval {{ from = learn, data = d.dev }}\n",
        at.display()
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn rows(texts: &[&str]) -> Vec<Row> {
    let row = |text: &&str| Row::from_iter([("sentence".to_owned(), json!(text))]);
    texts.iter().map(row).collect()
}

#[test]
fn a_program_checks_runs_and_asks() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (path, out) = (recipe(dir.path()), dir.path().join("out"));
    let job = Job::new(&path).out(&out).offline().threads(2);
    let texts = ["a warm and funny film", "a dull plot"];
    let said = example::embed(&job, &out, "learn", &texts).expect("it runs");
    for (line, wanted) in said.iter().zip([
        "learn (train) takes ",
        "score (eval) takes ",
        "learn: 3 to do",
    ]) {
        assert!(line.starts_with(wanted), "{said:#?}");
    }
    assert!(
        said.last()
            .is_some_and(|line| line.starts_with("\"a dull plot\": \"")),
        "{said:#?}"
    );

    // What it says of rows is what `predict` says, bit for bit.
    let mut model = Model::open_with(out.join("learn"), 2, true).expect("a model");
    assert_eq!(model.classes(), ["negative", "positive"]);
    let answers = model.predict(&rows(&texts)).expect("answers");
    let input = dir.path().join("texts.jsonl");
    let lines: Vec<String> = rows(&texts)
        .iter()
        .map(|row| json!(row).to_string())
        .collect();
    std::fs::write(&input, lines.join("\n")).expect("written");
    let command = ["predict", "--all", "--quiet", "--threads", "2", "--input"];
    let said = done(program().args(command).arg(&input).arg(out.join("learn")));
    let printed = String::from_utf8(said.stdout).expect("text");
    let told: Vec<Row> = printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert_eq!(answers, told);

    // Columns are asked for by name, and nothing is there without one.
    let other = Row::from_iter([("review".to_owned(), json!("a dull plot"))]);
    let why = model
        .predict(std::slice::from_ref(&other))
        .expect_err("no column");
    assert!(why.to_string().contains("row 1 has no `sentence`"), "{why}");
    let mut model = model.reading(["review"]);
    assert_eq!(
        model.predict(&[other]).expect("answers")[0]["prediction"],
        told[1]["prediction"]
    );

    // A second run takes all from the store.
    let result = peftc::run(&job, &mut Silent).expect("it runs");
    assert_eq!(result["stages"][0]["cached"], true);
    let plan = peftc::plan(&job).expect("a plan");
    assert_eq!(plan["stages"][1]["name"], "score");
}

#[test]
fn what_is_wrong_comes_back_as_values() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path());
    let job = Job::new(&path).offline().threads(1);
    let checked = peftc::check(&job.clone().budget(1 << 20)).expect("a recipe");
    assert_eq!((checked.fits, checked.stages.len()), (Some(false), 2));
    match peftc::run(&job.clone().budget(1 << 20), &mut Silent) {
        Err(why @ Error::TooLarge { .. }) => assert_eq!(why.exit_code(), 3),
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join(".peftc").exists(), "nothing has run");
    let wide = job.clone().set("rank", "4");
    let trained = |job: &Job| peftc::check(job).expect("a recipe").stages[0].trainable;
    assert!(trained(&wide) > trained(&job));
    for (wrong, said) in [
        (job.clone().device("h1000"), "there is no device `h1000`"),
        (
            job.clone().device("h100-80gb"),
            "nothing runs on `h100-80gb`",
        ),
        (job.clone().stage("learm"), "there is no stage `learm`"),
    ] {
        let why = peftc::run(&wrong, &mut Silent).expect_err("wrong");
        assert!(why.to_string().contains(said), "{why}");
        assert_eq!(why.exit_code(), 2);
    }
    let text = std::fs::read_to_string(&path).expect("a recipe");
    std::fs::write(&path, text.replace("steps", "stepps")).expect("written");
    let Err(Error::Rejected(messages)) = peftc::check(&job) else {
        panic!("it is wrong")
    };
    let first = &messages[0];
    assert_eq!(
        (first.code.as_str(), first.line),
        ("peftc::resolve::unknown_key", 4)
    );
    assert!(
        first.to_string().contains("r.peft:4:")
            && first.to_string().contains("did you mean `steps`"),
        "{first}"
    );
    let why = Model::open(dir.path().join("nothing")).expect_err("nothing");
    assert_eq!(why.exit_code(), 1);
}
