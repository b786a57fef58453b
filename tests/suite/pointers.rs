//! What a newcomer writes who knows other tools: each such mistake is answered with its place and with what to write
//! instead, in the newcomer's own names and values.

mod places;

use std::path::Path;

use serde_json::Value;

use super::support::{here, printed, program, stderr_of};

/// A recipe's items before the one that is tried.
fn head() -> String {
    let here = here();
    let at = here.display();
    format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n"
    )
}

/// A training stage with its adapter and further keys.
fn stage(adapter: &str, more: &str) -> String {
    format!(
        "stage l = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-3, steps = 2{more} }}\n"
    )
}

/// The diagnostics of `check`: code, line, help.
fn found(dir: &Path, text: &str, args: &[&str]) -> Vec<(String, u64, String)> {
    let file = dir.join("r.peft");
    std::fs::write(&file, text).expect("written");
    let output = program()
        .args(["check", "r.peft", "--json", "--no-data-report"])
        .args(args)
        .current_dir(dir)
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(2), "{text}");
    let json: Value = printed(&output);
    let list = json["recipes"][0]["diagnostics"]
        .as_array()
        .expect("diagnostics");
    list.iter()
        .map(|d| {
            let of = |key: &str| d[key].as_str().unwrap_or_default().to_owned();
            let line = d["line"].as_u64().unwrap_or(0);
            let code = of("code").trim_start_matches("peftc::").to_owned();
            (code, line, of("help"))
        })
        .collect()
}

/// Holds that one of the diagnostics at a line has a code, and help with these parts.
fn holds(dir: &Path, text: &str, args: &[&str], code: &str, parts: &[&str]) {
    let all = found(dir, text, args);
    let ok = all.iter().any(|(own, line, help)| {
        own == code && *line > 0 && parts.iter().all(|part| help.contains(part))
    });
    assert!(ok, "{text}\nwanted {code} {parts:?}\nfound {all:#?}");
}

#[test]
fn other_tools_words_are_answered_with_the_value_that_was_meant() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let lora = "lora { rank = 2 }";
    let cases: &[(&str, &str, &[&str])] = &[
        ("lora { r = 32 }", "", &["write `rank = 32`"]),
        (
            "lora { rank = 2, lora_alpha = 64 }",
            "",
            &["write `alpha = 64`"],
        ),
        (
            "lora { rank = 2, use_rslora = true }",
            "",
            &["write `rs_lora = true`"],
        ),
        (
            "lora { rank = 2, target_modules = [\"query\", \"value\"] }",
            "",
            &["write `on = [\"*.query\", \"*.value\"]`"],
        ),
        (
            "lora { rank = 2, target_modules = \"all-linear\" }",
            "",
            &["write `on = { attention.*, ffn.* }`"],
        ),
        (lora, ", lora_r = 24", &["`adapter = lora { rank = 24 }`"]),
        (
            lora,
            ", lora_dropout = 0.15",
            &["`adapter = lora { dropout = 0.15 }`"],
        ),
        (lora, ", learning_rate = 5e-5", &["write `lr = 5e-5`"]),
        (lora, ", num_train_epochs = 3.0", &["write `epochs = 3`"]),
        (lora, ", max_steps = 77", &["write `steps = 77`"]),
        (lora, ", max_seq_length = 96", &["write `max_length = 96`"]),
        (lora, ", max_grad_norm = 0.5", &["write `clip = 0.5`"]),
        (lora, ", warmup_ratio = 0.1", &["warmup = 0.1"]),
        (lora, ", warmup_steps = 1", &["warmup = 1 steps"]),
        (lora, ", eval_steps = 50", &["evaluate = 50 steps"]),
        (
            lora,
            ", gradient_checkpointing = true",
            &["write `recompute = true`"],
        ),
        (lora, ", early_stopping_patience = 7", &["patience = 7"]),
        (lora, ", random_state = 99", &["write `seed = 99`"]),
        (
            lora,
            ", task_type = \"SEQ_CLS\"",
            &["write `objective = classify`"],
        ),
        (
            lora,
            ", optim = \"adamw_torch\"",
            &["write `optimizer = adamw`"],
        ),
        (
            lora,
            ", lr_scheduler_type = \"linear\"",
            &["write `schedule = linear`"],
        ),
        (lora, ", adam_beta2 = 0.95", &["beta2 = 0.95"]),
        (lora, ", metric_for_best_model = \"f1\"", &["best = f1"]),
        (
            lora,
            ", fp16 = false",
            &["`fp16` is off here: leave it out"],
        ),
        (
            lora,
            ", bias = \"none\"",
            &["`bias` is off here: leave it out"],
        ),
        // A value that does not fit gives way to the usual one.
        (lora, ", learning_rate = -1", &["write `lr = 2e-4`"]),
    ];
    for (adapter, more, parts) in cases {
        let text = head() + &stage(adapter, more);
        holds(dir.path(), &text, &[], "resolve::unknown_key", parts);
    }
}

#[test]
fn passes_and_examples_of_a_pass_become_the_right_pair() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for (more, pair) in [
        (
            "gradient_accumulation_steps = 2, per_device_train_batch_size = 8",
            "batch = 16, micro_batch = 8",
        ),
        (
            "gradient_accumulation_steps = 4, batch_size = 3",
            "batch = 12, micro_batch = 3",
        ),
        (
            "gradient_accumulation_steps = 4, batch = 8",
            "batch = 32, micro_batch = 8",
        ),
        (
            "gradient_accumulation_steps = 4, micro_batch_size = 2",
            "batch = 8, micro_batch = 2",
        ),
        (
            "gradient_accumulation_steps = 4",
            "batch = 16, micro_batch = 4",
        ),
        ("per_device_train_batch_size = 8", "write `batch = 8`"),
    ] {
        let text = head() + &stage("lora { rank = 2 }", &format!(", {more}"));
        let all = found(dir.path(), &text, &[]);
        let words: Vec<_> = all
            .iter()
            .filter(|(code, ..)| code == "resolve::unknown_key")
            .collect();
        assert!(!words.is_empty(), "{text}");
        for (_, _, help) in words {
            assert!(help.contains(pair), "{more}: {help}");
        }
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn values_of_a_wrong_shape_are_answered_with_the_right_one() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let lora = "lora { rank = 2 }";
    let wrong = "resolve::wrong_type";
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            lora,
            ", seed = [1, 2]",
            wrong,
            &["`seed = seed`", "`let seed = 1`", "grid { seed = [1, 2] }"],
        ),
        (
            lora,
            ", dropout = [0.1, 0.2]",
            wrong,
            &["grid { dropout = [0.1, 0.2] }"],
        ),
        (lora, ", seed = [7]", wrong, &["write `seed = 7`"]),
        (
            lora,
            ", recompute = True",
            wrong,
            &["write `recompute = true`"],
        ),
        (
            lora,
            ", recompute = 0",
            wrong,
            &["write `recompute = false`"],
        ),
        (lora, ", clip = None", wrong, &["leave `clip` out"]),
        (
            "lora { rank = \"8\" }",
            "",
            wrong,
            &["without quotes: `rank = 8`"],
        ),
        (lora, ", seed = sed", wrong, &["no `let` is called `sed`"]),
        (
            lora,
            ", prompt = \"It was {mask}\"",
            wrong,
            &["`prompt p { template = \"It was {mask}\" }`"],
        ),
        (
            "{ rank = 2, alpha = 4 }",
            "",
            "resolve::unknown_entry",
            &["`lora { … }`"],
        ),
        (
            "lora { rank = 2, on = \"all-linear\" }",
            "",
            "plan::empty_placement",
            &["`on = { attention.*, ffn.* }`"],
        ),
        (
            "lora { rank = 2, on = [\"query\"] }",
            "",
            "plan::empty_placement",
            &["`on = [\"*.query\"]`"],
        ),
    ];
    for (adapter, more, code, parts) in cases {
        holds(
            dir.path(),
            &(head() + &stage(adapter, more)),
            &[],
            code,
            parts,
        );
    }
    for (item, code, parts) in [
        (
            "stage s = eval { model = \"bert-base-uncased\", data = d.test }",
            wrong,
            "`model m = hub \"bert-base-uncased\"`",
        ),
        (
            "stage s = eval { model = m, data = \"a/b.csv\" }",
            wrong,
            "`data d = local \"a/b.csv\"",
        ),
        (
            "stage s = eval { model = \"m\", data = d.test }",
            wrong,
            "without quotes: `model = m`",
        ),
        (
            "data p = csv \"a.csv\" { text = t, label = l }",
            "resolve::unknown_entry",
            "`data p = local \"a.csv\" { … }`",
        ),
        (
            "data p = json \"a.txt\" { text = t, label = l }",
            "resolve::unknown_entry",
            "`data p = local \"a.txt\" { format = json, … }`",
        ),
        (
            "model p = from_pretrained \"a/b\"",
            "resolve::unknown_entry",
            "`model p = hub \"a/b\"`",
        ),
        (
            "train s = train { model = m }",
            "resolve::unknown_declaration",
            "`stage s = train { … }`",
        ),
    ] {
        holds(
            dir.path(),
            &format!("{}{item}\n", head()),
            &[],
            code,
            &[parts],
        );
    }
}
