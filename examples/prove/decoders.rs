//! Draws of language models: families, formats of weights, forms of rows, tasks and generation.

use peftc::library::method::METHODS;
use serde_json::{Value, json};

use super::dice::Dice;
use super::draw::{Draw, Shape, adapter, texts_of};

/// Families, and whether queries, keys and values are one map.
const FAMILIES: [(&str, bool); 10] = [
    ("llama", false),
    ("mistral", false),
    ("qwen2", false),
    ("qwen3", false),
    ("gemma2", false),
    ("phi3", true),
    ("olmo2", false),
    ("granite", false),
    ("gpt2", true),
    ("gpt_neox", true),
];

/// Maps that every family has, and those of families with single maps.
const COMMON: [&str; 3] = ["attention.output", "ffn.up", "ffn.down"];
const SINGLE: [&str; 7] = [
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.gate",
    "ffn.up",
    "ffn.down",
];

/// Tokens of the vocabulary.
const VOCABULARY: u64 = 5120;

fn config(dice: &mut Dice, family: &str, shape: &Shape, (heads, head): (u64, u64)) -> Value {
    let (layers, hidden) = (shape.layers, shape.hidden);
    let ffn = hidden * dice.pick(&[2, 3, 4]);
    let tied = dice.chance(0.5);
    match family {
        "gpt2" => json!({
            "model_type": family, "n_embd": hidden, "n_layer": layers, "n_head": heads, "n_inner": ffn, "n_positions": 512,
            "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 2,
        }),
        "gpt_neox" => json!({
            "model_type": family, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": ffn, "max_position_embeddings": 512, "vocab_size": VOCABULARY, "rotary_pct": 0.25,
            "use_parallel_residual": dice.chance(0.5), "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 2,
        }),
        _ => {
            let kept = dice.pick(&[heads, heads / 2, 1]).max(1);
            let mut own = json!({
                "model_type": family, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
                "num_key_value_heads": kept, "intermediate_size": ffn, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
                "vocab_size": VOCABULARY, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
            });
            if family != "phi3" {
                own["head_dim"] = json!(head);
            }
            if matches!(family, "mistral" | "gemma2") {
                own["sliding_window"] = json!(dice.scale(4, 256));
            }
            own
        }
    }
}

/// Rows that have all columns: a text, a prompt with answers, a conversation, options.
fn rows(dice: &mut Dice, shape: &Shape, count: u64, texts: &[(&str, &str)]) -> String {
    let mut data = String::new();
    for row in 0..count {
        let words = (shape.length as f64 * (0.2 + 0.6 * dice.unit())) as usize;
        let text = texts_of(dice, words.max(4), texts);
        let all: Vec<&str> = text.split(' ').collect();
        let (prompt, answer) = all.split_at(all.len() / 2);
        let (prompt, answer) = (prompt.join(" ") + " ", answer.join(" "));
        let other = texts_of(dice, (words / 3).max(2), texts);
        let said = json!([
            { "role": "user", "content": prompt }, { "role": "assistant", "content": answer },
        ]);
        data += &json!({
            "text": text, "prompt": prompt, "answer": answer, "other": other, "messages": said,
            "options": [answer, other], "right": row % 2,
        })
        .to_string();
        data.push('\n');
    }
    data
}

/// A language model's draw.
pub fn draw(dice: &mut Dice, texts: &[(&str, &str)]) -> Draw {
    let (family, fused) = dice.pick(&FAMILIES);
    let heads = dice.pick(&[2, 4, 6]);
    let head = dice.pick(&[16, 32, 64]);
    let batch = dice.scale(1, 16);
    let shape = Shape {
        layers: 2 + dice.below(4),
        hidden: heads * head,
        batch,
        length: dice.scale(16, 256),
    };
    let config = config(dice, family, &shape, (heads, head));
    let count = (batch * (1 + dice.below(3))).max(2);
    let data = rows(dice, &shape, count, texts);
    let dtype = dice.pick(&["f32", "f32", "bf16", "q8_0", "nf4", "q4_0"]);
    let roles: &[&str] = if fused { &COMMON } else { &SINGLE };
    let method = dice.pick(METHODS);
    let made = adapter(dice, method, &shape, roles);
    let (form, objective) = dice.pick(&[
        ("text = text", "causal_lm"),
        ("prompt = prompt, completion = answer", "causal_lm"),
        ("messages = messages", "causal_lm"),
        ("prompt = prompt, chosen = answer, rejected = other", "dpo"),
        (
            "prompt = prompt, chosen = answer, rejected = other",
            "dpo { loss = ipo }",
        ),
        (
            "prompt = prompt, chosen = answer, rejected = other",
            "dpo { reference_free = true }",
        ),
    ]);
    let mut recipe = format!(
        "model m = local \"model\" {{ init = random, dtype = {dtype}, tokenizer = \"tales\" }}\n\
         data d = local \"data\" {{ {form} }}\n\
         data p = local \"data\" {{ prompt = prompt, completion = answer }}\n\
         data c = local \"data\" {{ prompt = prompt, choices = options, answer = right }}\n"
    );
    let mut keys = format!(
        ", lr = 1e-5, max_length = 512, steps = 2, seed = {}",
        dice.below(1000)
    );
    keys += &match dice.chance(0.3) {
        true => format!(", batch = {} tokens", 1100 + dice.below(1000)),
        false => format!(", batch = {batch}"),
    };
    if batch > 1 && dice.chance(0.4) && !keys.contains("tokens") {
        keys += &format!(", micro_batch = {}", 1 + dice.below(batch - 1));
    }
    if dice.chance(0.3) {
        keys += ", dev = d.train";
    }
    keys += dice.pick(&["", "", ", recompute = true", ", features = 0B"]);
    recipe += &format!(
        "stage one = train {{ model = m, data = d.train, objective = {objective}, adapter = {made}{keys} }}\n"
    );
    let many = dice.scale(1, 16);
    recipe += &match dice.below(5) {
        0 => format!("stage two = eval {{ from = one, data = d.train, batch = {many} }}\n"),
        1 => format!(
            "stage two = eval {{ from = one, data = p.train, objective = causal_lm, batch = {many}, metrics = [loss, rouge_l], \
             generate = {{ max_new_tokens = {} }} }}\n",
            dice.scale(2, 32)
        ),
        2 => format!(
            "stage two = eval {{ from = one, data = c.train, objective = multiple_choice, batch = {many} }}\n"
        ),
        3 if method.folds() => {
            let dtype = dice.pick(&["f32", "bf16"]);
            format!("stage two = merge {{ from = one, dtype = {dtype} }}\n")
        }
        _ => String::new(),
    };
    Draw {
        config,
        recipe,
        file: "train.jsonl",
        data,
    }
}
