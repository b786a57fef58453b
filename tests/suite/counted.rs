//! The table of trained parameters of methods on models of their papers, planned from a `config.json` alone. The numbers follow from the
//! formulas and shapes; the papers print them, or their share of the model.

//! The suite and the bench of methods read it.

use serde_json::{Value, json};

/// A method as it is written, and how many parameters it trains beside a head.
pub type Count = (&'static str, u64);

/// A model by its configuration, with counts of methods on it.
#[derive(Debug)]
pub struct Model {
    /// Its `config.json`.
    pub config: Value,
    /// The counts.
    pub counts: Vec<Count>,
}

impl Model {
    fn is_decoder(&self) -> bool {
        self.config["model_type"] == "llama" || self.config["model_type"] == "gpt2"
    }

    /// A recipe beside the model's configuration that trains each method in a stage of its own; where there is a head, behind
    /// them the head alone.
    pub fn recipe(&self) -> String {
        let (data, objective) = match self.is_decoder() {
            true => ("prompt = q, completion = a", "objective = causal_lm"),
            false => ("text = t, label = l, labels = [no, yes]", ""),
        };
        let mut methods: Vec<&str> = self.counts.iter().map(|(method, _)| *method).collect();
        if !self.is_decoder() {
            methods.push("head_only");
        }
        let mut text = format!(
            "model m = hub \"some/model\" {{ config = \"config.json\" }}\ndata d = hub \"some/data\" {{ {data} }}\n"
        );
        for (i, method) in methods.iter().enumerate() {
            text += &format!(
                "stage s{i} = train {{\n model = m\n data = d.train\n adapter = {method}\n {objective}\n max_length = 128\n batch = 16\n steps = 1\n lr = 1e-3\n}}\n"
            );
        }
        text
    }

    /// What `check` of the recipe says that each method trains, less what a trained head alone has.
    pub fn trained(&self, checked: &Value) -> Vec<u64> {
        let stages = checked["recipes"][0]["stages"].as_array().into_iter();
        let own = |s: &Value| s["parameters"]["trainable"].as_u64().unwrap_or(0);
        let mut all: Vec<u64> = stages.flatten().map(own).collect();
        if !self.is_decoder() {
            let head = all.pop().unwrap_or(0);
            all.iter_mut().for_each(|n| *n = n.saturating_sub(head));
        }
        all
    }
}

/// The configuration of a BERT.
pub fn bert(hidden: u64, layers: u64) -> Value {
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

/// Encoders; the configuration of RoBERTa-large is in a file.
fn encoders(roberta_large: Value) -> Vec<Model> {
    let mut models = Vec::new();
    let mut add = |config: Value, counts: &[Count]| {
        let counts = counts.to_vec();
        models.push(Model { config, counts });
    };
    add(
        roberta_large,
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
    add(
        bert(768, 12),
        &[
            ("lora { rank = 8, on = attention.{query, value} }", 294_912),
            ("pfeiffer { size = 48 }", 894_528),
            ("houlsby { size = 24, norms = false }", 903_744),
            ("bitfit", 102_912 - 768),
            ("prefix_tuning { tokens = 10 }", 184_320),
        ],
    );
    add(
        bert(1024, 24),
        &[
            ("bitfit", 272_384 - 1024),
            ("prefix_tuning { tokens = 20 }", 983_040),
            ("pasta { vectors = 2 }", 49_152),
            ("pasta { vectors = 3 }", 73_728),
        ],
    );
    models
}

fn decoders() -> Vec<Model> {
    let mut models = Vec::new();
    let mut add = |config: Value, counts: &[Count]| {
        let counts = counts.to_vec();
        models.push(Model { config, counts });
    };
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16,
        "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
    });
    add(
        gpt2,
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
    add(
        llama(4096, 32, 11_008, (32, 32), 32_000),
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
    add(
        llama(5120, 40, 13_824, (40, 40), 32_000),
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
    add(
        llama(4096, 32, 14_336, (32, 8), 128_256),
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
    models
}

/// All of them.
pub fn models(roberta_large: Value) -> Vec<Model> {
    let mut all = encoders(roberta_large);
    all.extend(decoders());
    all
}
