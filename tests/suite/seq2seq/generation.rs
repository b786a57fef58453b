//! What encoders with a decoder make of sources, against transformers: greedily and by beam search.

use super::*;

/// What transformers makes.
fn made() -> Value {
    super::super::support::json("tests/reference/seq2seq_generation.json")
}

fn words(ids: &Value) -> String {
    let ids = ids.as_array().expect("tokens").iter();
    // Special tokens are no part of a text.
    let ids = ids.filter_map(Value::as_u64).filter(|id| *id > 1);
    ids.map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ")
}

/// The model of a case, which ends texts as the traces do.
fn write_ending(dir: &Path, case: &Value, made: &Value) {
    let mut case = case.clone();
    let all = made["cases"].as_array().expect("cases").iter();
    let own = all.clone().find(|c| c["name"] == case["name"]);
    let own = own.expect("a case");
    case["config"]["architectures"] = json!([own["class"]]);
    write(dir, &case);
    let mut said = own["rules"].clone();
    said["eos_token_id"] = made["ends"].clone();
    std::fs::write(dir.join("generation_config.json"), said.to_string()).expect("written");
}

/// The settings of a search as a recipe writes them.
fn settings(search: &Value, new: &Value) -> String {
    let early = match &search[2] {
        Value::String(never) => never.as_str(),
        early if *early == true => "on",
        _ => "off",
    };
    match search[0].as_u64() {
        Some(1) => format!("max_new_tokens = {new}"),
        beams => format!(
            "max_new_tokens = {new}, num_beams = {}, length_penalty = {}, early_stopping = {early}",
            beams.unwrap_or(0),
            search[1]
        ),
    }
}

/// The texts that an evaluation left.
fn texts(dir: &Path, stage: &str) -> Vec<String> {
    let file = dir
        .join(".peftc/runs/all")
        .join(stage)
        .join("predictions.jsonl");
    let text = std::fs::read_to_string(file).expect("texts");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| row["generated"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn sources_become_what_transformers_makes_of_them() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (traces, made) = (traces(), made());
    let few = made["sources"].as_array().expect("sources").iter();
    let rows = few.map(|ids| json!({ "source": words(ids), "target": "w7 w8" }).to_string() + "\n");
    let folder = dir.path().join("few");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("test.jsonl"), rows.collect::<String>()).expect("written");
    let searches = made["searches"].as_array().expect("searches");
    let mut text =
        "peftc 1\ndata d = local \"few\" { prompt = source, completion = target }\n".to_owned();
    for case in made["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let all = traces["cases"].as_array().expect("cases").iter();
        let own = all.clone().find(|c| c["name"] == case["name"]);
        write_ending(&dir.path().join(name), own.expect("a case"), &made);
        text += &format!("model m_{name} = local \"{name}\"\n");
        for (i, search) in searches.iter().enumerate() {
            text += &format!(
                "stage s{i}_{name} = eval {{ model = m_{name}, data = d.test, objective = seq2seq, metrics = [loss, bleu, exact_match], \
                 batch = 3, generate = {{ {} }} }}\n",
                settings(search, &made["new"])
            );
        }
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let mut wrong = Vec::new();
    for case in made["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        for (i, want) in case["made"]
            .as_array()
            .expect("searches")
            .iter()
            .enumerate()
        {
            let want = want.as_array().expect("texts").iter().map(words);
            let (got, want) = (
                texts(dir.path(), &format!("s{i}_{name}")),
                want.collect::<Vec<_>>(),
            );
            if got != want {
                wrong.push(format!("{name}, {}: {got:?} for {want:?}", searches[i]));
            }
        }
    }
    for stage in result["stages"].as_array().expect("stages") {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        if !(0.98..=1.0).contains(&share) {
            wrong.push(format!("{}: {share} of the estimate", stage["name"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_model_predicts_targets_however_its_rows_are_grouped() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (traces, made) = (traces(), made());
    write_ending(&dir.path().join("m"), &traces["cases"][0], &made);
    let few = made["sources"].as_array().expect("sources").iter();
    let rows = few.map(|ids| json!({ "prompt": words(ids) }).to_string() + "\n");
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, rows.collect::<String>()).expect("written");
    let new = made["new"].to_string();
    for (i, beams) in [(0, "1"), (1, "4")] {
        for batch in ["1", "4"] {
            let mut command = program();
            command
                .args(["predict", "--quiet"])
                .arg(dir.path().join("m"));
            command
                .arg("--input")
                .arg(&input)
                .args(["--max-new-tokens", &new]);
            let output = command
                .args(["--num-beams", beams, "--batch", batch])
                .output();
            let output = output.expect("starts");
            assert!(output.status.success(), "{}", stderr_of(&output));
            let out = stdout_of(&output);
            let rows = out
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let got: Vec<Value> = rows.map(|row| row["generated"].clone()).collect();
            let want = made["cases"][0]["made"][i].as_array().expect("texts");
            let want: Vec<Value> = want.iter().map(|ids| json!(words(ids))).collect();
            assert_eq!(got, want, "{beams} beams, {batch} at once");
        }
    }
}
