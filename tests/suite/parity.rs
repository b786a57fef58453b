//! Loss curves, scores and adapters against PyTorch: `tests/reference` holds the traces and the
//! script that made them.

use std::path::Path;

use serde_json::Value;

use super::support::{here, json, json_lines, method_curves, program, stderr_of};

/// Runs a recipe text in a scratch directory; gives the directory.
fn run(recipe: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    let output = program()
        .args(["run", "--quiet"])
        .arg(&path)
        .args(["--threads", "2"])
        .output()
        .expect("starts");
    assert!(output.status.success(), "{recipe}\n{}", stderr_of(&output));
    dir
}

fn recipe(model: &str, adapter: &str, lr: f64) -> String {
    let here = here();
    let at = here.display();
    format!(
        "model m = local \"{at}/tests/reference/{model}\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 320 }}\n\
         stage s = train {{\n model = m\n data = d.train\n adapter = {adapter}\n optimizer = adamw {{ weight_decay = 0.01 }}\n\
         lr = {lr}\n steps = 20\n batch = 16\n max_length = 64\n clip = 0\n dropout = 0\n shuffle = false\n}}\n"
    )
}

/// Asserts that a run's losses are the curve's, step by step.
fn follows(dir: &Path, curve: &Value, name: &str) {
    let log = json_lines(dir.join(".peftc/runs/r/s/metrics.jsonl"));
    let wanted = curve["loss"].as_array().expect("losses");
    assert_eq!(log.len(), wanted.len());
    for (step, (line, want)) in log.iter().zip(wanted).enumerate() {
        let (loss, want) = (
            line["loss"].as_f64().expect("a loss"),
            want.as_f64().expect("a loss"),
        );
        assert!(
            (loss - want).abs() < 1e-4,
            "{name} step {step}: {loss} against {want}"
        );
    }
}

#[test]
fn loss_curves_equal_pytorch() {
    let curves = json("tests/reference/curves.json");
    let here = here();
    let mut seen = 0;
    for curve in curves["curves"].as_array().expect("curves") {
        let (model, method) = (
            curve["model"].as_str().expect("a name"),
            curve["method"].as_str().expect("a name"),
        );
        let all = "{attention.{query, key, value, output}, ffn.{up, down}}";
        let adapter = match method {
            "last_n" => "last_n { n = 1 }".to_owned(),
            "lora" => format!(
                "lora {{ start = \"{}/tests/reference/{model}-lora\" }}",
                here.display()
            ),
            "siva" => format!("siva {{ rank = 4, on = {all} }}"),
            other => other.to_owned(),
        };
        let dir = run(&recipe(
            model,
            &adapter,
            curve["lr"].as_f64().expect("a rate"),
        ));
        follows(dir.path(), curve, &format!("{model} {method}"));
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn a_trained_lora_gives_pytorchs_scores_plain_and_merged() {
    let forward = json("tests/reference/forward.json");
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \".\" {{ text = sentence, label = label, test = [\"t.tsv\"], labels = [\"0\", \"1\"] }}\n\
         stage s = train {{ model = m, data = d.test, adapter = lora {{ start = \"{at}/tests/reference/bert-tiny-lora-trained\" }}, lr = 1e-30, steps = 1, dropout = 0, max_length = 64 }}\n\
         stage e = eval {{ from = s, data = d.test }}\n\
         stage m2 = merge {{ from = s }}\n\
         stage e2 = eval {{ from = m2, data = d.test }}\n"
    );
    let dir = tempfile::tempdir().expect("a scratch directory");
    let cases = forward["lora_trained"]["cases"].as_array().expect("cases");
    let rows: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{}\t{}", c["text"].as_str().expect("text"), i % 2))
        .collect();
    std::fs::write(
        dir.path().join("t.tsv"),
        format!("sentence\tlabel\n{}\n", rows.join("\n")),
    )
    .expect("written");
    std::fs::write(dir.path().join("r.peft"), text).expect("written");
    let output = program()
        .args(["run", "--quiet"])
        .arg(dir.path().join("r.peft"))
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", stderr_of(&output));
    for stage in ["e", "e2"] {
        let table = std::fs::read_to_string(
            dir.path()
                .join(format!(".peftc/runs/r/{stage}/predictions.tsv")),
        )
        .expect("predictions");
        for (line, case) in table.lines().skip(1).zip(cases) {
            let scores: Vec<f64> = line
                .split('\t')
                .skip(3)
                .map(|x| x.parse().expect("a number"))
                .collect();
            for (own, want) in scores
                .iter()
                .zip(case["logits"].as_array().expect("logits"))
            {
                assert!(
                    (own - want.as_f64().expect("a number")).abs() < 1e-4,
                    "{stage}: {line} against {want}"
                );
            }
        }
    }
}

#[test]
fn merging_siva_changes_no_score() {
    let all = "{attention.{query, key, value, output}, ffn.{up, down}}";
    for more in ["", ", decomposition = 40"] {
        let mut text = recipe(
            "roberta-tiny",
            &format!("siva {{ rank = 4, on = {all}{more} }}"),
            1e-3,
        );
        text.push_str("stage e = eval { from = s, data = d.test }\nstage f = merge { from = s }\nstage g = eval { from = f, data = d.test }\n");
        let dir = run(&text);
        let table = |stage: &str| {
            std::fs::read_to_string(
                dir.path()
                    .join(format!(".peftc/runs/r/{stage}/predictions.tsv")),
            )
            .expect("predictions")
        };
        let (adapted, merged) = (table("e"), table("g"));
        let mut seen = 0;
        for (a, b) in adapted.lines().skip(1).zip(merged.lines().skip(1)) {
            for (x, y) in a.split('\t').skip(3).zip(b.split('\t').skip(3)) {
                let (x, y): (f64, f64) =
                    (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((x - y).abs() < 1e-5, "{a} against {b}");
                seen += 1;
            }
        }
        assert_eq!(seen, 640);
    }
}

#[test]
fn side_networks_and_label_words_equal_their_pytorch_transcriptions() {
    let curves = json("tests/reference/side.json");
    let mut seen = 0;
    for curve in curves["curves"].as_array().expect("curves") {
        let name = curve["name"].as_str().expect("a name");
        let method = curve["method"].as_str().expect("a method");
        let lr = curve["lr"].as_f64().expect("a rate");
        let here = here();
        let text = if name == "label_words" {
            recipe("bert-tiny", "full", lr)
                .replace("tests/reference/bert-tiny", "recipes/reviews-mini")
                .replace(
                    "label = label, take",
                    "label = label, labels = [negative, positive], take",
                )
                .replace(
                    "max_length = 64",
                    "max_length = 128\n prompt = p\n objective = label_words",
                )
                + "prompt p { template = \"{sentence} It was {mask}.\", verbalizer = { negative: \"terrible\", positive: \"great\" } }\n"
        } else {
            recipe("bert-tiny", "@", lr).replace("adapter = @", method)
        };
        assert!(here.join("recipes").exists());
        let dir = run(&text);
        follows(dir.path(), curve, name);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn methods_equal_peft_and_transcriptions_from_the_same_start() {
    for curve in &method_curves() {
        let text = |key: &str| curve[key].as_str().expect("a text");
        let (model, lr) = (text("model"), curve["lr"].as_f64().expect("a rate"));
        let dir = run(&recipe(model, text("method"), lr));
        follows(dir.path(), curve, &format!("{} {model}", text("name")));
    }
}

#[test]
fn masked_lm_curves_equal_pytorch_with_masks_drawn_anew() {
    let curves = json("tests/reference/masked.json");
    let curves = curves["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 2);
    for curve in curves {
        let method = curve["method"].as_str().expect("a method");
        let text = recipe("bert-tiny", "@", curve["lr"].as_f64().expect("a rate"))
            .replace("tests/reference/bert-tiny", "recipes/reviews-mini")
            .replace(", label = label", "")
            .replace("adapter = @", method);
        let dir = run(&text);
        follows(dir.path(), curve, curve["name"].as_str().expect("a name"));
    }
}

#[test]
fn the_projected_gradient_of_a_mezo_step_is_that_in_f64() {
    let mezo = &json("tests/reference/side.json")["mezo"];
    let text = recipe("bert-tiny", "full", 1.0)
        .replace("= train {", "= mezo {")
        .replace(" optimizer = adamw { weight_decay = 0.01 }\n", "")
        .replace(" clip = 0\n dropout = 0\n", "")
        .replace("steps = 20", "steps = 1");
    let dir = run(&text);
    let line = &json_lines(dir.path().join(".peftc/runs/r/s/metrics.jsonl"))[0];
    let (own, want) = (&line["projected_grad"][0], &mezo["projected_grad_f64"]);
    let (own, want) = (
        own.as_f64().expect("a number"),
        want.as_f64().expect("a number"),
    );
    // Two f32 losses, each exact to about 1e-7, are divided by 2e-3.
    assert!((own - want).abs() < 3e-4, "{own} against {want}");
}

#[test]
fn label_words_have_the_masked_lms_logits() {
    let forward = json("tests/reference/forward.json");
    let here = here();
    let at = here.display();
    let words: Vec<&str> = forward["mlm"]["tokens"]
        .as_array()
        .expect("words")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let cases = forward["mlm"]["cases"].as_array().expect("cases");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows: Vec<String> = cases
        .iter()
        .zip(&words)
        .map(|(c, w)| format!("{}\t{w}", c["sentence"].as_str().expect("text")))
        .collect();
    std::fs::write(
        dir.path().join("test.tsv"),
        format!("sentence\tlabel\n{}\n", rows.join("\n")),
    )
    .expect("written");
    let map: Vec<String> = words.iter().map(|w| format!("{w}: \"{w}\"")).collect();
    let text = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\n\
         data d = local \".\" {{ text = sentence, label = label, labels = [{}] }}\n\
         prompt p {{ template = \"{{sentence}} It was {{mask}}.\", verbalizer = {{ {} }} }}\n\
         stage e = eval {{ model = m, data = d.test, prompt = p, objective = label_words }}\n",
        words.join(", "),
        map.join(", ")
    );
    std::fs::write(dir.path().join("r.peft"), text).expect("written");
    let output = program()
        .args(["run", "--quiet"])
        .arg(dir.path().join("r.peft"))
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/e/predictions.tsv"))
        .expect("predictions");
    for (line, case) in table.lines().skip(1).zip(cases) {
        let scores: Vec<f64> = line
            .split('\t')
            .skip(3)
            .map(|x| x.parse().expect("a number"))
            .collect();
        for (score, want) in scores
            .iter()
            .zip(case["logits"].as_array().expect("logits"))
        {
            assert!(
                (score - want.as_f64().expect("a number")).abs() < 1e-4,
                "{line} against {want}"
            );
        }
    }
}
