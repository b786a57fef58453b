//! LongRoPE: texts that are long, and those that come to be long while they are generated.

use serde_json::{Value, json};

use super::chats::chat;
use super::{predict, setting, texts, words};

/// Its texts are long from 13 tokens on.
const MODEL: &str = "phi3_longrope_long";

#[test]
fn a_cache_is_used_only_for_texts_that_are_turned_alike() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let first: Vec<u64> = vec![5, 6, 7, 8];
    let long: Vec<u64> = (5..25).collect();
    let prompts = json!([first, long, [5, 6, 7, 9], long]);
    let (model, input) = setting(dir.path(), MODEL, &prompts);
    let lines: String = prompts
        .as_array()
        .expect("prompts")
        .iter()
        .map(|p| words(p) + "\n")
        .collect();
    for new in ["4", "14"] {
        let flags = ["--max-new-tokens", new];
        let alone = texts(&predict(
            &model,
            &input,
            &[&flags[..], &["--batch", "1"]].concat(),
        ));
        // Each line begins as the one before it, and what is cached of that is turned otherwise.
        let (said, _) = chat(&model, &lines, &flags);
        assert_eq!(said.lines().collect::<Vec<_>>(), alone, "{new}");
        let together = texts(&predict(
            &model,
            &input,
            &[&flags[..], &["--batch", "4"]].concat(),
        ));
        assert_eq!(together, alone, "{new}");
    }
}

#[test]
fn what_is_read_again_is_in_the_estimate() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (_, _) = setting(dir.path(), MODEL, &json!([[5]]));
    std::fs::create_dir_all(dir.path().join("rows")).expect("created");
    let row = |q: &Value| json!({ "q": words(q), "a": " w7" }).to_string() + "\n";
    let rows = row(&json!([5, 6, 8])) + &row(&json!([9, 6, 8])) + &row(&json!([30]));
    std::fs::write(dir.path().join("rows/test.jsonl"), rows).expect("written");
    let path = dir.path().join("score.peft");
    let text = format!(
        "peftc 1\nmodel m = local \"{MODEL}\"\ndata d = local \"rows\" {{ prompt = q, completion = a }}\n\
         stage score = eval {{ model = m, data = d.test, objective = causal_lm, batch = 3, metrics = [rouge_l], \
         generate = {{ max_new_tokens = 16 }} }}\n"
    );
    std::fs::write(&path, text).expect("written");
    let result = crate::decoders::run(&path, &[]);
    let stage = &result["stages"][0];
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    assert!(
        (0.98..=1.0).contains(&ratio),
        "measured ÷ estimated is {ratio}"
    );
}
