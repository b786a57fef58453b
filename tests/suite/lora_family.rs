//! LoRA's family in a recipe: ranks by place, tables and heads, rows of tokens, starts that are gone on from.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::decoders::{run, traces, write_model, write_texts};
use super::support::{here, json as read, program, stderr_of};

/// What `check` says of a recipe that it refuses.
pub fn refused(dir: &Path, recipe: &str) -> String {
    let path = dir.join("refused.peft");
    std::fs::write(&path, recipe).expect("written");
    let output: Output = program().arg("check").arg(&path).output().expect("starts");
    assert_eq!(output.status.code(), Some(2), "{recipe}");
    let said = stderr_of(&output);
    // Without the bars that lines are broken at.
    let words = said.split_whitespace().filter(|w| *w != "│");
    words.collect::<Vec<_>>().join(" ")
}

fn stage<'a>(result: &'a Value, name: &str) -> &'a Value {
    let stages = result["stages"].as_array().expect("stages");
    let found = stages.iter().find(|s| s["name"] == name);
    found.unwrap_or_else(|| panic!("no stage {name}"))
}

pub fn loss(result: &Value, name: &str) -> f64 {
    stage(result, name)["metrics"]["loss"]
        .as_f64()
        .expect("a loss")
}

pub fn assert_counted(result: &Value, name: &str) {
    let bytes = |key: &str| stage(result, name)[key].as_f64().expect("bytes");
    let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    assert!(
        (0.98..=1.0).contains(&share),
        "{name}: {share} of the estimate"
    );
}

/// A folder with tiny decoders of these names and texts for them.
pub fn decoders(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_texts(dir.path(), &traces);
    for case in traces["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        if names.contains(&name) {
            write_model(&dir.path().join(name), case);
        }
    }
    dir
}

pub const TRAIN: &str =
    "data = d.train, objective = causal_lm, lr = 1e-2, steps = 4, batch = 4, optimizer = adamw";
pub const EVAL: &str = "data = d.test, objective = causal_lm, metrics = [loss]";

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn ranks_and_scales_are_those_of_the_first_placement_that_matches() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = here();
    let at = at.display();
    let head = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 32 }}\n"
    );
    let with = |method: &str| {
        format!(
            "{head}stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-2, steps = 3, batch = 8, max_length = 32 }}\n"
        )
    };
    let maps = "ranks = { \"layers[0].attention.query\": 6, \"*.output.dense\": 2, \"attention.query\": 3 }, \
                alphas = { \"attention.key\": 4 }";
    let eval = "stage e = eval { from = s, data = d.test, max_length = 32, metrics = [loss] }\n\
                stage f = merge { from = s }\n\
                stage fe = eval { from = f, data = d.test, max_length = 32, metrics = [loss] }\n\
                stage p = eval { model = m, adapter = peft \"run/adapter\", data = d.test, max_length = 32, metrics = [loss] }\n";
    for method in ["lora", "dora", "side_lora"] {
        let text = with(&format!(
            "{method} {{ rank = 4, alpha = 8, {maps}, on = {{attention.{{query, key}}, ffn.*}} }}"
        ));
        let path = dir.path().join("r.peft");
        std::fs::write(&path, &text).expect("written");
        let result = run(&path, &[]);
        assert_counted(&result, "s");
        let run_dir = dir.path().join(".peftc/runs/r/s");
        let link = dir.path().join("run");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&run_dir, &link).expect("linked");
        let config = read(run_dir.join("adapter/adapter_config.json"));
        let of =
            |layer: usize, module: &str| format!("bert\\.encoder\\.layer\\.{layer}\\.{module}");
        let first = config["r"].as_u64().expect("a rank");
        let rank = |layer: usize, module: &str| {
            config["rank_pattern"][of(layer, module)]
                .as_u64()
                .unwrap_or(first)
        };
        assert_eq!(rank(0, "attention\\.self\\.query"), 6, "{config}");
        assert_eq!(rank(1, "attention\\.self\\.query"), 3);
        assert_eq!(rank(1, "attention\\.self\\.key"), 4);
        assert_eq!(rank(0, "output\\.dense"), 2);
        let alpha = |layer: usize, module: &str| {
            let own = config["alpha_pattern"][of(layer, module)].as_f64();
            own.or(config["lora_alpha"].as_f64()).expect("alpha")
        };
        assert_eq!(alpha(0, "attention\\.self\\.key"), 4.0);
        assert_eq!(alpha(0, "attention\\.self\\.query"), 8.0);
        // One entry is one method, whatever its ranks.
        assert_eq!(stage(&result, "s")["methods"], json!([method]));
        std::fs::write(&path, text + eval).expect("written");
        let result = run(&path, &[]);
        let all = ["e", "fe", "p"].map(|name| stage(&result, name)["metrics"]["loss"].as_f64());
        let [Some(own), Some(merged), Some(peft)] = all else {
            panic!("{all:?}")
        };
        assert!(
            (own - merged).abs() < 1e-5 && (own - peft).abs() < 1e-5,
            "{all:?}"
        );
    }
    let said = refused(dir.path(), &with("lora { ranks = { \"ffn.up\": 2 } }"));
    assert!(
        said.contains("\"ffn.up\" in `ranks` matches no place"),
        "{said}"
    );
    let said = refused(
        dir.path(),
        &with("lora { ranks = { \"attention.*\": 2, \"attention.query\": 3 } }"),
    );
    assert!(said.contains("match all its places"), "{said}");
    let said = refused(
        dir.path(),
        &with("lora { ranks = { \"attention.query\": 0 } }"),
    );
    assert!(said.contains("the value of `attention.query` is"), "{said}");
    let said = refused(
        dir.path(),
        &with("lora { ranks = { \"attention.query\": 6000 } }"),
    );
    assert!(said.contains("`rank` is 6000"), "{said}");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn tables_and_heads_of_decoders_are_adapted_merged_and_read_back() {
    let names = ["llama", "llama_tied", "granite", "gpt2", "gpt2_unscaled"];
    let dir = decoders(&names);
    let dir = dir.path();
    let mut text = "peftc 1\ndata d = local \".\" { text = text }\n".to_owned();
    let mut more = String::new();
    let tied = |name: &str| !matches!(name, "llama" | "gpt2_unscaled");
    for name in names {
        let own = if name.starts_with("gpt2") {
            ", embeddings.position"
        } else {
            ""
        };
        let maps = if name.starts_with("gpt2") {
            "attention.qkv"
        } else {
            "attention.query"
        };
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage t_{name} = train {{ model = m_{name}, {TRAIN}, adapter = lora {{ rank = 3, alpha = 6, \
             on = {{embeddings.word, lm_head.decoder, {maps}{own}}} }} }}\n\
             stage te_{name} = eval {{ from = t_{name}, {EVAL} }}\n\
             stage n_{name} = train {{ from = t_{name}, {TRAIN} }}\n\
             stage r_{name} = train {{ model = m_{name}, {TRAIN}, adapters = [lora {{ rank = 2, on = {maps} }}, \
             trainable_tokens {{ tokens = [\"w9\", \"w4\", \"w31\"] }}] }}\n\
             stage re_{name} = eval {{ from = r_{name}, {EVAL} }}\n\
             stage a_{name} = train {{ model = m_{name}, {TRAIN}, adapter = trainable_tokens {{ token_ids = [9, 4] }} }}\n\
             stage ae_{name} = eval {{ from = a_{name}, {EVAL} }}\n\
             stage af_{name} = merge {{ from = a_{name} }}\n\
             stage afe_{name} = eval {{ from = af_{name}, {EVAL} }}\n"
        );
        if !tied(name) {
            text += &format!(
                "stage f_{name} = merge {{ from = t_{name} }}\nstage fe_{name} = eval {{ from = f_{name}, {EVAL} }}\n"
            );
        }
        for kind in ["t", "r", "a"] {
            let adapter = format!(".peftc/runs/all/{kind}_{name}/adapter");
            more += &format!(
                "stage p{kind}_{name} = eval {{ model = m_{name}, adapter = peft \"{adapter}\", {EVAL} }}\n"
            );
            more += &format!(
                "stage g{kind}_{name} = train {{ model = m_{name}, adapter = peft \"{adapter}\", {TRAIN} }}\n"
            );
        }
    }
    let path = dir.join("all.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    for name in names {
        for kind in ["t", "n", "r", "a"] {
            assert_counted(&result, &format!("{kind}_{name}"));
        }
        let trained = stage(&result, &format!("a_{name}"))["trainable_parameters"].as_u64();
        assert_eq!(trained, Some(2 * 32), "{name}");
        let config = |kind: &str| {
            read(dir.join(format!(
                ".peftc/runs/all/{kind}_{name}/adapter/adapter_config.json"
            )))
        };
        let (lone, beside) = (config("a"), config("r"));
        assert_eq!(lone["peft_type"], "TRAINABLE_TOKENS");
        assert_eq!(lone["token_indices"], json!([9, 4]));
        let rows: Vec<&Value> = beside["trainable_token_indices"]
            .as_object()
            .expect("a map")
            .values()
            .collect();
        assert_eq!(rows, [&json!([9, 4, 31])]);
        let merged =
            (loss(&result, &format!("ae_{name}")) - loss(&result, &format!("afe_{name}"))).abs();
        assert!(merged < 1e-5, "{name}: rows merged {merged}");
        if !tied(name) {
            let merged =
                (loss(&result, &format!("te_{name}")) - loss(&result, &format!("fe_{name}"))).abs();
            assert!(merged < 1e-5, "{name}: merged {merged}");
        }
    }
    let first = result;
    let path = dir.join("again.peft");
    let models = text
        .lines()
        .filter(|l| !l.starts_with("stage") && !l.starts_with("             "));
    let models: Vec<&str> = models.collect();
    std::fs::write(&path, models.join("\n") + "\n" + &more).expect("written");
    let result = run(&path, &[]);
    for name in names {
        for kind in ["t", "r", "a"] {
            let own = loss(&first, &format!("{kind}e_{name}"));
            let again = loss(&result, &format!("p{kind}_{name}"));
            assert!(
                (own - again).abs() < 1e-5,
                "{kind} {name}: {own} and {again}"
            );
        }
    }
    // Head and table are one matrix.
    let models = models.join("\n");
    let said = refused(
        dir,
        &format!(
            "{models}\nstage s = train {{ model = m_llama_tied, {TRAIN}, adapter = lora {{ on = embeddings.word }} }}\nstage f = merge {{ from = s }}\n"
        ),
    );
    assert!(said.contains("are one matrix of this model"), "{said}");
    let trained = |adapter: &str| {
        format!("{models}\nstage s = train {{ model = m_llama, {TRAIN}, adapter = {adapter} }}\n")
    };
    for (adapter, why) in [
        (
            "lora { dropout = 0.1, on = lm_head.decoder }",
            "is added to its matrix",
        ),
        (
            "lora { init = pissa, on = embeddings.word }",
            "takes a linear map of the blocks apart",
        ),
        ("dora { on = embeddings.word }", "matches no linear map"),
        ("trainable_tokens { tokens = [\"w9 w4\"] }", "is 2 tokens"),
        (
            "trainable_tokens { tokens = [\"nothing\"] }",
            "the vocabulary does not hold",
        ),
        (
            "trainable_tokens { token_ids = [50] }",
            "has 50 rows, and none is 50",
        ),
        (
            "trainable_tokens { token_ids = [5, 5] }",
            "the token 5 is named twice",
        ),
        ("trainable_tokens", "no token is named"),
        (
            "trainable_tokens { token_ids = [5], tokens = [\"w5\"] }",
            "both say which tokens",
        ),
    ] {
        let said = refused(dir, &trained(adapter));
        assert!(said.contains(why), "{adapter}: {said}");
    }
}

/// The names of an adapter's tensors.
fn names(path: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(path).expect("an adapter");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("an adapter");
    tensors
        .names()
        .into_iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn block_diagonal_pairs_are_merged_and_read_back() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let text = format!(
        "peftc 1\ndata d = local \".\" {{ text = text }}\nmodel m = local \"llama\"\n\
         stage t = train {{ model = m, {TRAIN}, adapter = bdlora {{ rank = 4, on = {{attention.*, ffn.*}} }} }}\n\
         stage te = eval {{ from = t, {EVAL} }}\nstage f = merge {{ from = t }}\nstage fe = eval {{ from = f, {EVAL} }}\n"
    );
    let path = dir.join("b.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    assert_counted(&result, "t");
    let adapter = dir.join(".peftc/runs/b/t/adapter");
    let config = read(adapter.join("adapter_config.json"));
    assert_eq!(
        config["use_bdlora"]["target_modules_bd_a"],
        json!(["down_proj", "o_proj"]),
        "{config}"
    );
    assert_eq!(config["use_bdlora"]["nblocks"], 2);
    assert_eq!(
        names(&adapter.join("adapter_model.safetensors")).len(),
        2 * 3 * 7
    );
    let more = format!(
        "stage p = eval {{ model = m, adapter = peft \"{}\", {EVAL} }}\n",
        adapter.display()
    );
    let again = dir.join("again.peft");
    std::fs::write(&again, text + &more).expect("written");
    let result = run(&again, &[]);
    let [own, merged, peft] = ["te", "fe", "p"].map(|name| loss(&result, name));
    assert!(
        (own - merged).abs() < 1e-5 && (own - peft).abs() < 1e-5,
        "{own} {merged} {peft}"
    );
}

#[test]
fn starts_that_take_something_out_of_the_weight_are_gone_on_from() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let head = "peftc 1\ndata d = local \".\" { text = text }\nmodel m = local \"llama\"\n";
    // What was trained from a start is told by peft as the start and the pair; here the pair is the start's own.
    let text = format!(
        "{head}stage t = train {{ model = m, {TRAIN}, adapter = lora {{ rank = 3, alpha = 6, on = attention.{{query, value}} }} }}\n"
    );
    let path = dir.join("s.peft");
    std::fs::write(&path, text).expect("written");
    run(&path, &[]);
    let adapter = dir.join(".peftc/runs/s/t/adapter");
    for start in ["pissa", "olora"] {
        let to = dir.join(start);
        std::fs::create_dir_all(&to).expect("made");
        let tensors = "adapter_model.safetensors";
        std::fs::copy(adapter.join(tensors), to.join(tensors)).expect("copied");
        let mut config = read(adapter.join("adapter_config.json"));
        config["init_lora_weights"] = json!(start);
        std::fs::write(to.join("adapter_config.json"), config.to_string()).expect("written");
        let text = format!(
            "{head}stage e = eval {{ model = m, adapter = peft \"{start}\", {EVAL} }}\n\
             stage t = train {{ model = m, adapter = peft \"{start}\", {TRAIN} }}\n\
             stage te = eval {{ from = t, {EVAL} }}\n\
             stage f = merge {{ from = t }}\nstage fe = eval {{ from = f, {EVAL} }}\n\
             stage n = train {{ from = t, {TRAIN} }}\nstage ne = eval {{ from = n, {EVAL} }}\n"
        );
        let path = dir.join(format!("{start}.peft"));
        std::fs::write(&path, &text).expect("written");
        let result = run(&path, &[]);
        assert_counted(&result, "t");
        assert_counted(&result, "n");
        let (own, merged) = (loss(&result, "te"), loss(&result, "fe"));
        assert!((own - merged).abs() < 1e-5, "{start}: {own} {merged}");
        // It is written as a LoRA of twice the rank on the model's own weights.
        let made = dir.join(format!(".peftc/runs/{start}/t/adapter"));
        let config = read(made.join("adapter_config.json"));
        assert_eq!(
            (&config["r"], &config["init_lora_weights"]),
            (&json!(6), &json!(true))
        );
        let more = format!(
            "stage p = eval {{ model = m, adapter = peft \"{}\", {EVAL} }}\n",
            made.display()
        );
        let path = dir.join(format!("{start}_again.peft"));
        std::fs::write(&path, format!("{head}{more}")).expect("written");
        let again = loss(&run(&path, &[]), "p");
        assert!((own - again).abs() < 1e-5, "{start}: {own} {again}");
    }
}

#[test]
fn loftq_begins_nearer_to_the_model_than_rounding() {
    let dir = decoders(&["llama"]);
    let dir = dir.path();
    let with = |name: &str, more: &str| {
        format!(
            "stage {name} = train {{ model = m, {TRAIN}, adapter = lora {{ rank = 8, alpha = 16, init = loftq, loftq_format = q4_0{more}, on = {{attention.*}} }} }}\n\
             stage {name}e = eval {{ from = {name}, {EVAL} }}\nstage {name}f = merge {{ from = {name} }}\n\
             stage {name}fe = eval {{ from = {name}f, {EVAL} }}\nstage {name}n = train {{ from = {name}, {TRAIN} }}\n"
        )
    };
    let text = format!(
        "peftc 1\ndata d = local \".\" {{ text = text }}\nmodel m = local \"llama\"\n{}{}",
        with("one", ""),
        with("five", ", loftq_iterations = 5")
    );
    let path = dir.join("l.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    for name in ["one", "five"] {
        assert_counted(&result, name);
        assert_counted(&result, &format!("{name}n"));
        let (own, merged) = (
            loss(&result, &format!("{name}e")),
            loss(&result, &format!("{name}fe")),
        );
        assert!((own - merged).abs() < 1e-5, "{name}: {own} {merged}");
        let adapter = dir.join(format!(".peftc/runs/l/{name}/adapter/adapter_config.json"));
        assert!(
            !adapter.exists(),
            "no adapter of peft's stands on these blocks"
        );
    }
    let said = refused(
        dir,
        &text.replace(
            "init = loftq, loftq_format = q4_0",
            "init = loftq, loftq_format = q4_k",
        ),
    );
    assert!(said.contains("no whole blocks of q4_k"), "{said}");
    let said = refused(dir, &text.replace("init = loftq", "init = gaussian"));
    assert!(
        said.contains("has no effect without `init = loftq`"),
        "{said}"
    );
}
