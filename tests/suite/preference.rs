//! Preference optimisation: curves and rewards against TRL's formulas over transformers, pairs of messages, what is kept
//! of the reference.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{losses, run, traces, write_model};
use super::support::{json, printed, program};

fn preference() -> Value {
    json("tests/reference/preference.json")
}

/// Writes a model of `decoders.json`.
fn model(dir: &Path, name: &str) {
    let traces = traces();
    let mut cases = traces["cases"].as_array().expect("cases").iter();
    let case = cases.find(|c| c["name"] == name).expect("a case");
    write_model(&dir.join(name), case);
}

fn words(list: &Value) -> String {
    let words = list.as_array().expect("words").iter();
    let words: Vec<String> = words.map(|w| format!("w{w}")).collect();
    words.join(" ")
}

/// Writes the pairs of the traces.
fn write_pairs(dir: &Path, traces: &Value) {
    let rows = traces["pairs"].as_array().expect("pairs").iter();
    let row = |row: &Value| {
        json!({ "prompt": words(&row["prompt"]) + " ", "chosen": words(&row["chosen"]), "rejected": words(&row["rejected"]) })
            .to_string()
            + "\n"
    };
    let rows: Vec<String> = rows.map(row).collect();
    // In another order, so that a reference that was computed of one is not found for the other.
    let turned: String = rows.iter().rev().map(String::as_str).collect();
    for (split, text) in [("train", rows.concat()), ("test", turned)] {
        std::fs::write(dir.join(format!("{split}.jsonl")), text).expect("written");
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one table of losses, and what is compared of each"
)]
fn every_loss_has_the_curve_and_the_rewards_of_trl() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = preference();
    write_pairs(dir.path(), &traces);
    let (beta, batch, alpha) = (&traces["beta"], &traces["batch"], &traces["alpha"]);
    let runs = traces["runs"].as_array().expect("runs");
    let mut text =
        "peftc 1\ndata d = local \".\" { prompt = prompt, chosen = chosen, rejected = rejected }\n"
            .to_owned();
    for case in runs {
        let (name, of) = (
            case["name"].as_str().expect("a name"),
            case["model"].as_str().expect("a model"),
        );
        model(dir.path(), of);
        let key = |key: &str| &case[key];
        let smoothing = key("label_smoothing").as_f64().filter(|x| *x > 0.0);
        let smoothing = smoothing.map_or(String::new(), |x| format!(", label_smoothing = {x}"));
        let loss = key("loss").as_str().expect("a loss");
        let (free, rate) = (key("reference_free"), key("rate"));
        let objective = match loss {
            "simpo" => format!(
                "simpo {{ beta = {beta}, gamma = {}{smoothing} }}",
                traces["gamma"]
            ),
            "orpo" => format!("orpo {{ beta = {beta} }}"),
            "cpo" => format!("cpo {{ beta = {beta}, alpha = {alpha}{smoothing} }}"),
            "cpo_simpo" => format!(
                "simpo {{ beta = {beta}, gamma = {}, alpha = {alpha} }}",
                traces["gamma"]
            ),
            _ => format!(
                "dpo {{ beta = {beta}, loss = {loss}, reference_free = {free}{smoothing} }}"
            ),
        };
        // Both texts of a pair are in one micro-batch, however small it is.
        let micro = if name == "sigmoid" {
            ""
        } else {
            ", micro_batch = 1"
        };
        text += &format!(
            "model m_{name} = local \"{of}\"\n\
             stage t_{name} = train {{ model = m_{name}, data = d.train, adapter = full, lr = {rate}, optimizer = sgd, \
             batch = {batch}{micro}, epochs = 5, clip = 0, dropout = 0, shuffle = false, \
             objective = {objective} }}\n\
             stage e_{name} = eval {{ from = t_{name}, data = d.test, batch = 3 }}\n"
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    let mut wrong = Vec::new();
    for case in runs {
        let name = case["name"].as_str().expect("a name");
        let own = losses(dir.path(), "all", &format!("t_{name}"));
        let want = case["curve"].as_array().expect("a curve").iter();
        let want: Vec<f64> = want.map(|x| x.as_f64().expect("a loss")).collect();
        let far = own.iter().zip(&want).map(|(a, b)| (a - b).abs());
        if own.len() != want.len() || far.fold(0.0, f64::max) > 1e-4 {
            wrong.push(format!("{name}: {own:?} for {want:?}"));
        }
        let scored = stage(&format!("e_{name}"));
        for (key, want) in case["after"].as_object().expect("values") {
            let (got, want) = (
                scored["metrics"][key].as_f64(),
                want.as_f64().expect("a number"),
            );
            if got.is_none_or(|got| (got - want).abs() > 2e-3 * (1.0 + want.abs())) {
                wrong.push(format!("{name}: {key} is {got:?} for {want}"));
            }
        }
        for of in [stage(&format!("t_{name}")), scored] {
            let bytes = |key: &str| of[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            if !(0.98..=1.0).contains(&share) {
                wrong.push(format!("{}: {share} of the estimate", of["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let table = dir.path().join(".peftc/runs/all/e_sigmoid/predictions.tsv");
    let table = std::fs::read_to_string(table).expect("a table");
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "index\tanswer\treward\tloss");
    assert!(rows[1].starts_with("0\tchosen\t") && rows[4].starts_with("1\trejected\t"));
    assert_eq!(rows.len(), 1 + 2 * 16);
}

/// A recipe that trains and scores with each of the runs on unpaired answers, and what it names.
fn unpaired(dir: &Path, traces: &Value) -> String {
    write_pairs(dir, traces);
    let answers = traces["answers"].as_array().expect("answers").iter();
    let row = |row: &Value| {
        json!({ "prompt": words(&row["prompt"]) + " ", "completion": words(&row["completion"]), "label": row["label"] })
            .to_string()
            + "\n"
    };
    let rows: String = answers.map(row).collect();
    std::fs::write(dir.join("answers.jsonl"), rows).expect("written");
    let (beta, batch) = (&traces["beta"], &traces["batch"]);
    let runs = traces["unpaired"].as_array().expect("runs");
    let mut text = "peftc 1\n\
        data pairs = local \"train.jsonl\" { prompt = prompt, chosen = chosen, rejected = rejected }\n\
        data single = local \"answers.jsonl\" { prompt = prompt, completion = completion, label = label }\n"
        .to_owned();
    for case in runs {
        let (name, of) = (
            case["name"].as_str().expect("a name"),
            case["model"].as_str().expect("a model"),
        );
        model(dir, of);
        let data = if case["paired"] == true {
            "pairs"
        } else {
            "single"
        };
        let (rate, good, bad) = (&case["rate"], &case["desirable"], &case["undesirable"]);
        text += &format!(
            "model m_{name} = local \"{of}\"\n\
             stage t_{name} = train {{ model = m_{name}, data = {data}.train, dev = {data}.train, adapter = full, lr = {rate}, \
             optimizer = sgd, batch = {batch}, steps = 20, clip = 0, dropout = 0, shuffle = false, \
             objective = kto {{ beta = {beta}, desirable_weight = {good}, undesirable_weight = {bad} }} }}\n\
             stage e_{name} = eval {{ from = t_{name}, data = {data}.train, batch = 3 }}\n"
        );
    }
    text
}

#[test]
fn answers_that_are_wanted_or_not_have_the_curve_and_the_rewards_of_trl() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = preference();
    let text = unpaired(dir.path(), &traces);
    let runs = traces["unpaired"].as_array().expect("runs");
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    let near = |got: Option<f64>, want: &Value, tolerance: f64| {
        let want = want.as_f64().expect("a number");
        got.is_some_and(|got| (got - want).abs() <= tolerance * (1.0 + want.abs()))
    };
    for case in runs {
        let name = case["name"].as_str().expect("a name");
        let own = losses(dir.path(), "all", &format!("t_{name}"));
        let want = case["curve"].as_array().expect("a curve");
        assert_eq!(own.len(), want.len(), "{name}");
        for (got, want) in own.iter().zip(want) {
            let far = (got - want.as_f64().expect("a loss")).abs();
            assert!(far < 1e-4, "{name}: {own:?} for {want:?}");
        }
        let scored = stage(&format!("e_{name}"));
        for (key, want) in case["after"].as_object().expect("values") {
            let got = &scored["metrics"][key];
            assert!(
                near(got.as_f64(), want, 2e-3),
                "{name}: {key} is {got} for {want}"
            );
        }
        assert!(near(scored["kl"].as_f64(), &case["kl"], 2e-3), "{scored}");
        for of in [stage(&format!("t_{name}")), scored] {
            let bytes = |key: &str| of[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            let of = &of["name"];
            assert!((0.98..=1.0).contains(&share), "{of}: {share}");
        }
    }
    let table = dir.path().join(".peftc/runs/all/e_kto/predictions.tsv");
    let table = std::fs::read_to_string(table).expect("a table");
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "index\tlabel\treward\tmismatched_reward\tloss");
    assert!(rows[1].starts_with("0\tfalse\t") && rows[2].starts_with("1\ttrue\t"));
    assert_eq!(rows.len(), 1 + 16);
    // What is learned is counted once, and a step is not made of parts.
    let output = program().args(["check", "--json"]).arg(&path).output();
    let plan = printed(&output.expect("starts")).to_string();
    let learned: usize = traces["answers"]
        .as_array()
        .expect("answers")
        .iter()
        .map(|row| row["completion"].as_array().map_or(0, Vec::len) + 1)
        .sum();
    assert!(
        plan.contains(&format!("\"learned_tokens\":{learned},")),
        "{plan}"
    );
    let text = std::fs::read_to_string(&path).expect("read");
    let parts = text.replacen("steps = 20", "steps = 20, micro_batch = 2", 1);
    std::fs::write(&path, parts).expect("written");
    let output = program().arg("check").arg(&path).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("`kto` compares the rows of a batch"),
        "{said}"
    );
}

#[test]
fn memory_is_as_announced_where_features_are_kept_and_a_reference_is_known_already() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = preference();
    write_pairs(dir.path(), &traces);
    let of = traces["runs"][0]["model"].as_str().expect("a model");
    model(dir.path(), of);
    let text = format!(
        "peftc 1\ndata d = local \".\" {{ prompt = prompt, chosen = chosen, rejected = rejected }}\nmodel m = local \"{of}\"\n\
         stage s = train {{ model = m, data = d.train, objective = dpo, adapter = lst {{ r = 2 }}, lr = 1e-3, batch = 4, epochs = 3 }}\n\
         stage e = eval {{ from = s, data = d.train, batch = 1 }}\nstage f = eval {{ from = s, data = d.test, batch = 2 }}\n"
    );
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    for stage in run(&path, &[])["stages"].as_array().expect("stages") {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        let name = &stage["name"];
        assert!(
            (0.98..=1.0).contains(&share),
            "{name}: {share} of the estimate"
        );
    }
}

/// A template whose turns end with a token.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role == 'user' and 'w2' or 'w3' }} {{ m.content }} <end> {% endfor %}{% if add_generation_prompt %}w3 {% endif %}";

#[test]
fn pairs_of_messages_are_learned_behind_their_prompt() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    model(dir.path(), "llama");
    std::fs::write(dir.path().join("llama/chat_template.jinja"), TEMPLATE).expect("written");
    let said = |role: &str, content: &str| json!({ "role": role, "content": content });
    let row = |explicit: bool, i: usize| {
        let prompt = vec![
            said("user", "w5 w6"),
            said("assistant", "w7"),
            said("user", &format!("w{}", 10 + i)),
        ];
        let (chosen, rejected) = (
            said("assistant", "w8 w9"),
            said("assistant", &format!("w{}", 20 + i)),
        );
        let whole = |answer: &Value| [prompt.clone(), vec![answer.clone()]].concat();
        match explicit {
            true => json!({ "prompt": prompt, "chosen": [chosen], "rejected": [rejected] }),
            false => json!({ "chosen": whole(&chosen), "rejected": whole(&rejected) }),
        }
    };
    for (name, explicit) in [("explicit", true), ("implicit", false)] {
        std::fs::create_dir(dir.path().join(name)).expect("created");
        let text: String = (0..8)
            .map(|i| row(explicit, i).to_string() + "\n")
            .collect();
        std::fs::write(dir.path().join(name).join("train.jsonl"), &text).expect("written");
    }
    let stage = |name: &str| {
        format!(
            "stage {name} = train {{ model = m, data = d_{name}.train, dev = d_{name}.train, adapter = lora {{ rank = 2 }}, lr = 0.02, \
             batch = 4, epochs = 6, objective = dpo {{ beta = 0.5 }} }}\n"
        )
    };
    let text = format!(
        "peftc 1\nmodel m = local \"llama\"\n\
         data d_explicit = local \"explicit\" {{ prompt = prompt, chosen = chosen, rejected = rejected }}\n\
         data d_implicit = local \"implicit\" {{ chosen = chosen, rejected = rejected }}\n{}{}\
         stage scored = eval {{ from = explicit, data = d_implicit.train }}\n\
         stage merged = merge {{ from = explicit }}\n\
         stage again = eval {{ from = merged, data = d_implicit.train }}\n",
        stage("explicit"),
        stage("implicit")
    );
    let path = dir.path().join("chat.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let of = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    let both = ["explicit", "implicit"].map(|name| losses(dir.path(), "chat", name));
    // The adapter changes nothing at first, so that the reference is the policy.
    assert!((both[0][0] - 2_f64.ln()).abs() < 1e-6, "{:?}", both[0]);
    assert_eq!(both[0], both[1], "the prompt is what both begin with");
    assert!(both[0].last() < Some(&0.5), "{:?}", both[0]);
    let metric = |name: &str, key: &str| of(name)["metrics"][key].as_f64().expect("a number");
    for key in ["loss", "reward_margin", "reward_accuracy"] {
        assert!(
            (metric("explicit", key) - metric("scored", key)).abs() < 1e-5,
            "{key}"
        );
        assert!(
            (metric("explicit", key) - metric("again", key)).abs() < 1e-4,
            "{key}"
        );
    }
    assert_eq!(metric("scored", "reward_accuracy"), 1.0);
    // What is learned: two words and the end, or a word and the end, of each of eight pairs.
    let output = program().args(["check", "--json"]).arg(&path).output();
    let plan = printed(&output.expect("starts"));
    let text = plan.to_string();
    assert!(
        text.contains("\"learned_tokens\":40") && text.contains("\"rejected_tokens\":16"),
        "{text}"
    );
}

#[test]
fn killed_runs_go_on_in_batches_of_tokens_of_pairs_and_while_text_is_generated() {
    let traces = preference();
    let recipe = "peftc 1\nmodel m = local \"llama\"\n\
        data d = local \".\" { prompt = prompt, chosen = chosen, rejected = rejected }\n\
        data t = local \".\" { prompt = prompt, completion = chosen }\n\
        stage p = train { model = m, data = d.train, objective = dpo, adapter = lora { rank = 2, dropout = 0.1 }, lr = 0.01, \
        batch = 90 tokens, micro_batch = 2, steps = 60 }\n\
        stage s = train { model = m, data = t.train, objective = causal_lm, adapter = lora { rank = 2, dropout = 0.1 }, lr = 0.01, \
        batch = 40 tokens, steps = 60 }\n\
        stage g = eval { from = s, data = t.test, metrics = [loss, exact_match], \
        generate = { max_new_tokens = 30, temperature = 0.8, seed = 3 } }\n";
    let folder = || {
        let dir = tempfile::tempdir().expect("a scratch directory");
        model(dir.path(), "llama");
        write_pairs(dir.path(), &traces);
        std::fs::write(dir.path().join("r.peft"), recipe).expect("written");
        dir
    };
    let (whole, killed) = (folder(), folder());
    let often = ["--checkpoint-every", "0", "--threads", "2"];
    let first = run(&whole.path().join("r.peft"), &often);
    let runs = killed.path().join(".peftc/runs/r");
    let lines = |stage: &str| {
        let log = std::fs::read_to_string(runs.join(stage).join("metrics.jsonl"));
        log.map_or(0, |text| text.lines().count())
    };
    // While pairs are learned, while texts are, and once these are done: while text is generated.
    let points: [&dyn Fn() -> bool; 3] = [&|| lines("p") >= 5, &|| lines("s") >= 5, &|| {
        runs.join("s/stage.json").exists()
    }];
    let mut kills = 0;
    for reached in points {
        let mut child = program()
            .args(["run", "--quiet"])
            .arg(killed.path().join("r.peft"))
            .args(often)
            .spawn()
            .expect("starts");
        while child.try_wait().expect("waited for").is_none() && !reached() {
            std::thread::yield_now();
        }
        kills += usize::from(child.try_wait().expect("waited for").is_none());
        child.kill().expect("killed");
        child.wait().expect("waited for");
    }
    assert!(kills >= 2, "the runs were over before they were killed");
    let last = run(&killed.path().join("r.peft"), &often);
    for stage in ["p", "s"] {
        let all = [whole.path(), killed.path()].map(|dir| losses(dir, "r", stage));
        assert_eq!(all[0].len(), 60);
        assert_eq!(all[0], all[1], "{stage}");
    }
    let metrics = |result: &Value| {
        let mut stages = result["stages"].as_array().expect("stages").iter();
        stages.find(|s| s["name"] == "g").expect("a stage")["metrics"].clone()
    };
    assert_eq!(metrics(&first), metrics(&last));
    let texts = [whole.path(), killed.path()]
        .map(|dir| std::fs::read(dir.join(".peftc/runs/r/g/predictions.jsonl")).expect("texts"));
    assert!(texts[0] == texts[1], "other texts were generated");
}
