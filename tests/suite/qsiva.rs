//! SiVA whose rest is stored in blocks, against PyTorch on what gguf rounds, and what comes of it.

use serde_json::Value;

use super::decoders::{losses, run, traces, write_model, write_texts};
use super::support::{json, program, stderr_of};

#[test]
fn siva_on_a_rest_in_blocks_learns_as_pytorch_does_and_merges() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (all, own) = (traces(), json("tests/reference/qsiva.json"));
    write_texts(dir.path(), &all);
    let mut cases = all["cases"].as_array().expect("cases").iter();
    let case = cases.find(|c| c["name"] == "llama").expect("a case");
    write_model(&dir.path().join("m"), case);
    let curves = own["curves"].as_array().expect("curves");
    let mut text =
        "peftc 1\nmodel m = local \"m\"\ndata d = local \".\" { text = text }\n".to_owned();
    for curve in curves {
        let tail = curve["tail"].as_str().expect("a format");
        text += &format!(
            "stage {tail} = train {{ model = m, data = d.train, objective = causal_lm, lr = {}, optimizer = sgd, batch = {}, steps = 20, \
             clip = 0, shuffle = false, adapter = siva {{ rank = {}, tail = {tail}, on = {{ attention.*, ffn.gate }} }} }}\n\
             stage e_{tail} = eval {{ from = {tail}, data = d.test, metrics = [loss] }}\n\
             stage w_{tail} = merge {{ from = {tail} }}\n\
             stage f_{tail} = eval {{ from = w_{tail}, data = d.test, metrics = [loss] }}\n",
            own["rate"], own["batch"], own["rank"]
        );
    }
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: String| stages.iter().find(|s| s["name"] == *name).expect("a stage");
    let mut firsts = Vec::new();
    for curve in curves {
        let tail = curve["tail"].as_str().expect("a format");
        let got = losses(dir.path(), "r", tail);
        let want: Vec<f64> = serde_json::from_value(curve["curve"].clone()).expect("losses");
        let far = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        assert!(
            got.len() == want.len() && far.fold(0.0, f64::max) < 1e-4,
            "{tail}: {got:?} for {want:?}"
        );
        firsts.push(got[0]);
        // The rest is made again, and rounded to the same blocks.
        let loss = |name: &str| {
            stage(format!("{name}_{tail}"))["metrics"]["loss"]
                .as_f64()
                .expect("a loss")
        };
        assert!(
            (loss("e") - loss("f")).abs() < 1e-5,
            "{tail}: {} merged to {}",
            loss("e"),
            loss("f")
        );
        for name in ["", "e_", "w_", "f_"] {
            let stage: &Value = stage(format!("{name}{tail}"));
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!(
                (0.98..=1.0).contains(&share),
                "{name}{tail}: {share} of the estimate"
            );
        }
    }
    assert!(
        firsts[0] != firsts[1] && firsts[1] != firsts[2],
        "{firsts:?}"
    );
    let refused = |method: &str, says: &str| {
        let text = format!(
            "peftc 1\nmodel m = local \"m\"\ndata d = local \".\" {{ text = text }}\n\
             stage s = train {{ model = m, data = d.train, objective = causal_lm, lr = 1e-3, epochs = 1, adapter = {method} }}\n"
        );
        std::fs::write(&path, text).expect("written");
        let output = program().arg("check").arg(&path).output().expect("starts");
        let said = stderr_of(&output).replace('\n', " ");
        assert!(!output.status.success() && said.contains(says), "{said}");
    };
    refused(
        "siva { rank = 2, tail = nf4, on = attention.query }",
        "has rows of 32 numbers",
    );
    refused(
        "siva { rank = 2, tail = q8_0, decomposition = 8, on = attention.query }",
        "`tail` rounds the rest",
    );
}
