//! Trained parameters of methods on models of their papers, planned from a `config.json` alone. The numbers follow from the
//! formulas and shapes; the papers print them, or their share of the model.

use std::path::Path;

use peftc::library::schema::{Default, Kind};
use serde_json::{Value, json};

use super::support::{json as read, printed, program, result};

/// A method as it is written, and how many parameters it trains beside a head.
type Count = (&'static str, u64);

/// The parameters that stages train on a model, in their order.
fn trained(dir: &Path, config: &Value, data: &str, objective: &str, methods: &[&str]) -> Vec<u64> {
    let mut text = format!("model m = hub \"some/model\" {{ config = \"config.json\" }}\n{data}\n");
    for (i, method) in methods.iter().enumerate() {
        text += &format!(
            "stage s{i} = train {{\n model = m\n data = d.train\n adapter = {method}\n {objective}\n max_length = 128\n batch = 16\n steps = 1\n lr = 1e-3\n}}\n"
        );
    }
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("config.json", &config.to_string());
    write("r.peft", &text);
    let output = program()
        .args(["check", "--offline", "--json"])
        .arg(dir.join("r.peft"))
        .env("HF_HOME", dir.join("none"))
        .output()
        .expect("starts");
    let stages = result(&output)["recipes"][0]["stages"]
        .as_array()
        .expect("stages")
        .clone();
    let own = |s: &Value| s["parameters"]["trainable"].as_u64().expect("a count");
    stages.iter().map(own).collect()
}

/// Asserts the counts of methods, less what a trained head alone has.
fn train(config: &Value, counts: &[Count]) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let decoder = config["model_type"] == "llama" || config["model_type"] == "gpt2";
    let (data, objective) = if decoder {
        (
            "data d = hub \"some/data\" { prompt = q, completion = a }",
            "objective = causal_lm",
        )
    } else {
        (
            "data d = hub \"some/data\" { text = t, label = l, labels = [no, yes] }",
            "",
        )
    };
    let mut methods: Vec<&str> = counts.iter().map(|(method, _)| *method).collect();
    if !decoder {
        methods.push("head_only");
    }
    let own = trained(dir.path(), config, data, objective, &methods);
    let head = if decoder { 0 } else { own[counts.len()] };
    for ((method, want), own) in counts.iter().zip(&own) {
        assert_eq!(own - head, *want, "{method} on {}", config["model_type"]);
    }
}

fn bert(hidden: u64, layers: u64) -> Value {
    json!({
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": hidden / 64, "intermediate_size": 4 * hidden, "vocab_size": 30522,
        "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "pad_token_id": 0,
    })
}

fn llama(hidden: u64, layers: u64, ffn: u64, heads: (u64, u64), vocabulary: u64) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads.0, "num_key_value_heads": heads.1, "intermediate_size": ffn, "vocab_size": vocabulary,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2,
    })
}

#[test]
fn encoders_train_what_the_papers_count() {
    train(
        &read("recipes/report/roberta-large.json"),
        &[
            ("full", 354_310_144),
            ("last_n { n = 3 }", 3 * 12_596_224),
            ("lora { rank = 8, on = attention.{query, value} }", 786_432),
            ("siva { rank = 4, on = attention.{query, key} }", 393_216),
            ("siva { rank = 4, on = { attention.*, ffn.* } }", 1_769_472),
            ("houlsby { size = 8, norms = false }", 835_968),
            ("pfeiffer { size = 16 }", 811_392),
            ("pfeiffer { size = 64 }", 3_171_840),
            ("lst { r = 8 }", 8_170_904),
            ("k_lst { k = 1, r = 8 }", 10_807_554 - 1_051_650),
            ("k_lst { k = 5, r = 8 }", 10_808_066 - 1_051_650),
            ("k_lst { k = 9, r = 8 }", 10_808_578 - 1_051_650),
            // A projection is 1024 · 128 + 128; a slot beyond the ends of the model has none.
            (
                "k_lst { k = 5, r = 8, down = per_slot }",
                23_403_266 - 1_051_650 - 6 * 131_200,
            ),
            (
                "k_lst { k = 9, r = 8, down = per_slot }",
                35_998_978 - 1_051_650 - 20 * 131_200,
            ),
        ],
    );
    // The bias of the pooler is the head's here, which is trained whole.
    train(
        &bert(768, 12),
        &[
            ("lora { rank = 8, on = attention.{query, value} }", 294_912),
            ("pfeiffer { size = 48 }", 894_528),
            ("houlsby { size = 24, norms = false }", 903_744),
            ("bitfit", 102_912 - 768),
            ("prefix_tuning { tokens = 10 }", 184_320),
        ],
    );
    train(
        &bert(1024, 24),
        &[
            ("bitfit", 272_384 - 1024),
            ("prefix_tuning { tokens = 20 }", 983_040),
            ("pasta { vectors = 2 }", 49_152),
            ("pasta { vectors = 3 }", 73_728),
        ],
    );
}

#[test]
fn decoders_train_what_the_papers_count() {
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16,
        "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    });
    train(
        &gpt2,
        &[
            ("last_n { n = 2 }", 25_192_448),
            // One matrix makes query, key and value: 1024 + 3072 is twice the sum of one map's sides.
            ("lora { rank = 4, on = attention.qkv }", 393_216),
            ("pfeiffer { size = 8 }", 417_984),
        ],
    );
    let methods = [
        "lora { rank = 32, on = { attention.{query, key, value}, ffn.{up, down} } }",
        "dora { rank = 32, on = { attention.{query, key, value}, ffn.{up, down} } }",
        "dora { rank = 16, on = { attention.{query, key, value}, ffn.{up, down} } }",
        "series_adapter { size = 256, bias = false }",
        "parallel_adapter { size = 256, bias = false, on = ffn.{up, down} }",
        "prefix_tuning { tokens = 30 }",
        "lora { rank = 1, on = { attention.*, ffn.* } }",
    ];
    let counted = |counts: [u64; 7]| -> Vec<Count> { methods.into_iter().zip(counts).collect() };
    let prefix = |tokens: u64, width: u64, layers: u64| 2 * tokens * width * layers;
    train(
        &llama(4096, 32, 11_008, (32, 32), 32_000),
        &counted([
            56_098_816,
            56_098_816 + 876_544,
            28_049_408 + 876_544,
            67_108_864,
            247_463_936,
            prefix(30, 4096, 32),
            2_498_560,
        ]),
    );
    train(
        &llama(5120, 40, 13_824, (40, 40), 32_000),
        &counted([
            87_818_240,
            87_818_240 + 1_372_160,
            43_909_120 + 1_372_160,
            104_857_600,
            387_973_120,
            prefix(30, 5120, 40),
            3_911_680,
        ]),
    );
    train(
        &llama(4096, 32, 14_336, (32, 8), 128_256),
        &counted([
            56_623_104,
            56_623_104 + 786_432,
            28_311_552 + 786_432,
            67_108_864,
            // (4096 + 14336) · 256 · 2 a block.
            301_989_888,
            prefix(30, 1024, 32),
            2_621_440,
        ]),
    );
}

/// Stages whose method has one whole number as large as its key takes.
fn at_the_bounds() -> Vec<String> {
    let mut list = Vec::new();
    for method in peftc::library::method::METHODS {
        let schema = method.schema();
        for key in schema.keys {
            let Kind::Int(_, most) = key.kind else {
                continue;
            };
            let required = schema.keys.iter().filter(|other| {
                other.name != key.name && matches!(other.default, Default::Required)
            });
            let required = required.filter_map(|other| match other.kind {
                Kind::Int(least, _) => Some(format!(", {} = {least}", other.name)),
                _ => None,
            });
            let rest: String = required.collect();
            list.push(format!("{} {{ {} = {most}{rest} }}", schema.name, key.name));
        }
    }
    list
}

#[test]
fn methods_at_the_bounds_of_their_keys_are_planned_or_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("config.json", &bert(128, 2).to_string());
    let methods = at_the_bounds();
    assert!(methods.len() > 80, "{}", methods.len());
    for (i, method) in methods.iter().enumerate() {
        let text = format!(
            "model m = hub \"some/model\" {{ config = \"config.json\" }}\n\
             data d = hub \"some/data\" {{ text = t, label = l, labels = [no, yes] }}\n\
             stage s = train {{ model = m, data = d.train, adapter = {method}, max_length = 16, batch = 2, steps = 1, lr = 1e-3 }}\n"
        );
        write(&format!("{i}.peft"), &text);
    }
    let files = (0..methods.len()).map(|i| dir.path().join(format!("{i}.peft")));
    let output = program()
        .args(["check", "--offline", "--json"])
        .args(files)
        .env("HF_HOME", dir.path().join("none"))
        .output()
        .expect("starts");
    let recipes = printed(&output)["recipes"].clone();
    let recipes = recipes.as_array().expect("recipes");
    assert_eq!(recipes.len(), methods.len());
    for (method, recipe) in methods.iter().zip(recipes) {
        let refused = recipe["diagnostics"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|d| d["severity"] == "error");
        let planned = recipe["stages"].as_array().expect("a list").len() == 1;
        assert!(refused != planned, "{method}: {recipe}");
    }
}
