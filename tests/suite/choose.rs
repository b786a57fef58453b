//! A chosen prompt: the choice is what separate evaluations say, and the stage that takes it is the
//! stage that would have been written with it.

use std::path::Path;

use serde_json::Value;

use super::support::{here, program, stderr_of};

const TEMPLATES: [&str; 2] = [
    "{sentence} All in all, it was {mask}.",
    "{mask}: {sentence}",
];
const WORDS: [(&str, &str); 4] = [
    ("terrible", "great"),
    ("terrible", "good"),
    ("bad", "great"),
    ("bad", "good"),
];

fn recipe(dir: &Path, body: &str) -> std::path::PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 100 }}\n\
         stage pick = choose_prompt {{\n  model = m\n  data = d.dev\n  templates = [{:?}, {:?}]\n  \
         label_words = {{ negative: [\"terrible\", \"bad\"], positive: [\"great\", \"good\"] }}\n}}\n{body}",
        TEMPLATES[0], TEMPLATES[1]
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn peftc(args: &[&str], path: &Path) -> String {
    let output = program().args(args).arg(path).output().expect("starts");
    assert!(output.status.success(), "{args:?}: {}", stderr_of(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn stages(text: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(text).expect("JSON");
    json["stages"].as_array().expect("stages").clone()
}

fn prompt(name: &str, template: &str, (bad, good): (&str, &str)) -> String {
    format!(
        "prompt {name} {{ template = {template:?}, verbalizer = {{ negative: {bad:?}, positive: {good:?} }} }}\n"
    )
}

#[test]
fn the_choice_is_what_separate_evaluations_of_each_candidate_say() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut body = String::new();
    for (t, template) in TEMPLATES.iter().enumerate() {
        for (w, words) in WORDS.iter().enumerate() {
            let name = format!("p{t}{w}");
            body.push_str(&prompt(&name, template, *words));
            body.push_str(&format!(
                "stage e{t}{w} = eval {{ model = m, data = d.dev, prompt = {name}, objective = label_words, metrics = [accuracy, loss] }}\n"
            ));
        }
    }
    let path = recipe(dir.path(), &body);
    let ran = stages(&peftc(&["run", "--quiet", "--json"], &path));
    let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/pick/metrics.jsonl"))
        .expect("a table");
    let rows: Vec<Value> = table
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!((rows.len(), ran.len()), (8, 9));
    let number = |v: &Value| v.as_f64().expect("a number");
    for (row, eval) in rows.iter().zip(&ran[1..]) {
        assert_eq!(row["accuracy"], eval["metrics"]["accuracy"]);
        let apart = number(&row["loss"]) - number(&eval["metrics"]["loss"]);
        assert!(apart.abs() < 1e-5, "{row} {eval}");
    }
    let best = rows.iter().max_by(|a, b| {
        let by = |v: &Value| (number(&v["accuracy"]), -number(&v["loss"]));
        by(a).partial_cmp(&by(b)).expect("numbers")
    });
    assert_eq!(
        ran[0]["choice"]["candidate"],
        best.expect("one")["candidate"]
    );
    assert_eq!(ran[0]["choice"]["of"], 8);
}

#[test]
fn a_stage_that_takes_the_choice_is_the_one_written_with_it() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let learn = |name: &str, prompt: &str, seed: &str| {
        format!(
            "stage {name} = train {{ model = m, data = d.train, dev = d.dev, prompt = {prompt}, objective = label_words, adapter = lora {{ rank = 2 }}, lr = 1e-3, steps = 4, batch = 8, seed = {seed} }}\n"
        )
    };
    let body = format!(
        "let number = 1\nsweep seeds = grid {{ number = [1, 2] }}\n{}stage plain = merge {{ from = learn }}\nstage score = eval {{ from = plain, data = d.test }}\n",
        learn("learn", "pick", "number")
    );
    let path = recipe(dir.path(), &body);
    let announced = stages(&peftc(&["plan", "--quiet", "--json"], &path));
    assert_eq!(announced.len(), 7, "the choice is made once");
    let ran = stages(&peftc(&["run", "--quiet", "--json"], &path));
    for (before, after) in announced.iter().zip(&ran) {
        assert_eq!(before["fingerprint"], after["fingerprint"]);
        let bytes = |v: &Value| v.as_u64().expect("bytes") as f64;
        let (estimated, measured) = (
            bytes(&after["estimated_peak_bytes"]),
            bytes(&after["measured_peak_bytes"]),
        );
        assert!(bytes(&before["memory"]["peak"]) >= estimated);
        let ratio = measured / estimated;
        assert!((0.98..=1.0).contains(&ratio), "{}: {ratio}", after["name"]);
    }
    let open = |list: &[Value]| -> Vec<bool> {
        let prompts = list.iter().filter(|s| !s["prompt"].is_null());
        prompts.map(|s| s["prompt"]["decided"] == false).collect()
    };
    assert_eq!(open(&announced), [true; 6]);
    // Now that the choice is in the store, it is planned with.
    let known = stages(&peftc(&["plan", "--quiet", "--json"], &path));
    assert_eq!(open(&known), [false; 6]);
    let chosen = &ran[0]["choice"];
    assert_eq!(known[1]["prompt"]["template"], chosen["template"]);
    assert_eq!(known[1]["memory"]["peak"], ran[1]["estimated_peak_bytes"]);
    let again = stages(&peftc(&["run", "--quiet", "--json"], &path));
    assert!(again.iter().all(|s| s["cached"] == true));

    let text = |key: &Value| key.as_str().expect("a text").to_owned();
    let (bad, good) = (
        text(&chosen["words"]["negative"]),
        text(&chosen["words"]["positive"]),
    );
    let fixed = tempfile::tempdir().expect("a scratch directory");
    let body = prompt("written", &text(&chosen["template"]), (&bad, &good))
        + &learn("learn", "written", "1");
    let other = recipe(fixed.path(), &body);
    let fixed = stages(&peftc(
        &["run", "--quiet", "--json", "--stage", "learn"],
        &other,
    ));
    assert_eq!(fixed.len(), 1);
    assert_eq!(fixed[0]["loss_last"], ran[1]["loss_last"]);
    assert_eq!(fixed[0]["metrics"], ran[1]["metrics"]);

    let artifact = text(&ran[1]["artifact"]);
    let input = dir.path().join("new.tsv");
    std::fs::write(&input, "sentence\na great film\n").expect("written");
    let labelled = peftc(
        &[
            "predict",
            &artifact,
            "--input",
            input.to_str().expect("UTF-8"),
        ],
        Path::new("--threads=1"),
    );
    assert_eq!(labelled.lines().count(), 2, "{labelled}");
}
