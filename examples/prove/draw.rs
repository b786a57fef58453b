//! What is drawn: a model's shape, texts, and a recipe with one to three stages.

use peftc::base::rng::Stream;
use peftc::library::method::{METHODS, Method};
use peftc::library::net::{Role, Site};
use peftc::library::schema::{Default, Key, Kind};
use serde_json::{Value, json};

use super::dice::Dice;

const ROLES: [&str; 6] = [
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.up",
    "ffn.down",
];
/// Tokens of the largest batch: the largest draws then take gigabytes, not tens of them.
const MOST_TOKENS: u64 = 6144;

/// Everything a process needs, as texts.
#[derive(Clone)]
pub struct Draw {
    /// The model's `config.json`.
    pub config: Value,
    /// The recipe; its model lies in `model`, its data in `data`.
    pub recipe: String,
    /// The name of the data file.
    pub file: &'static str,
    /// The data file.
    pub data: String,
}

impl Draw {
    /// The same recipe with products in another precision; `any` draws it, and what activations are held in.
    pub fn say_precision(&mut self, precision: &str, seed: u64, index: u64) {
        let mut dice = Dice::new(seed, &format!("prove/{index}/numbers"));
        let numbers = if precision == "any" {
            let precision = dice.pick(&["f32", "tf32", "bf16"]);
            let activations = dice.pick(&["f32", "bf16", "bf16", "f16"]);
            format!("{precision}, activations = {activations}")
        } else {
            precision.to_owned()
        };
        let with = format!("init = random, precision = {numbers}");
        self.recipe = self.recipe.replacen("init = random", &with, 1);
    }
}

/// What random draws seldom come near: ranks as large as the matrices, a start by Fisher information, a thousand
/// classes.
pub fn corners(texts: &[(&str, &str)]) -> Vec<Draw> {
    let config = json!({
        "model_type": "bert", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "hidden_size": 384, "intermediate_size": 1536, "layer_norm_eps": 1e-12, "max_position_embeddings": 128,
        "num_attention_heads": 12, "num_hidden_layers": 3, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 6000,
    });
    let texts: Vec<&str> = texts.iter().map(|(text, _)| *text).take(64).collect();
    let rows = |classes: usize| {
        let mut data = "sentence\tlabel\n".to_owned();
        for i in 0..classes.max(texts.len()) {
            let text = texts[i % texts.len()];
            data.push_str(&format!("{text}\tc{:04}\n", i % classes));
        }
        data
    };
    let all = "on = {attention.{query, key, value, output}, ffn.{up, down}}";
    let train = |adapter: &str| {
        format!(
            "model m = local \"model\" {{ init = random, tokenizer = \"tokenizer\" }}\n\
             data d = local \"data\" {{ text = sentence, label = label }}\n\
             stage one = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-5, batch = 4, steps = 2 }}\n"
        )
    };
    let merge = "stage two = merge { from = one }\nstage three = eval { from = two, data = d.train, batch = 4 }\n";
    let score = "stage two = eval { from = one, data = d.train, batch = 4 }\n";
    [
        (format!("siva {{ rank = 384, {all} }}"), merge, 2),
        (format!("lora {{ rank = 384, {all} }}"), merge, 2),
        (format!("siva {{ rank = 64, {all} }}"), score, 2),
        (
            "lst { r = 4, init = fisher { samples = 16 } }".to_owned(),
            score,
            2,
        ),
        ("bitfit".to_owned(), score, 1000),
    ]
    .into_iter()
    .map(|(adapter, rest, classes)| Draw {
        config: config.clone(),
        recipe: train(&adapter) + rest,
        file: "train.tsv",
        data: rows(classes),
    })
    .collect()
}

/// Sizes of a draw.
pub struct Shape {
    pub layers: u64,
    pub hidden: u64,
    pub batch: u64,
    pub length: u64,
}

/// Draw number `index` of `seed`; the next `attempt` is another one for the same number.
pub fn draw(seed: u64, index: u64, attempt: u64, texts: &[(&str, &str)]) -> Draw {
    let mut dice = Dice::new(seed, &format!("prove/{index}/{attempt}"));
    let dice = &mut dice;
    // A stream of its own, so that draws of encoders stay what they were.
    let families = Stream::new(seed, &format!("prove/{index}/family"));
    if families.uniform(0) < 0.4 {
        return super::decoders::draw(dice, texts);
    }
    let heads = dice.pick(&[2, 4, 8, 12, 12]);
    let hidden = heads * dice.pick(&[16, 32, 64, 64]);
    let hidden = hidden.max(64);
    let batch = dice.scale(1, 32);
    let shape = Shape {
        layers: 2 + dice.below(5),
        hidden,
        batch,
        length: dice.scale(8, 256).min(MOST_TOKENS / batch),
    };
    let config = config(dice, &shape, heads);
    let rows = (batch * (1 + dice.below(3))).max(2);
    let (file, data) = texts_file(dice, &shape, rows, texts);
    Draw {
        config,
        recipe: recipe(dice, &shape),
        file,
        data,
    }
}

fn config(dice: &mut Dice, shape: &Shape, heads: u64) -> Value {
    let (layers, hidden) = (shape.layers, shape.hidden);
    let ffn = hidden * dice.pick(&[2, 3, 4]);
    let dropout = dice.pick(&[0.0, 0.1]);
    let vocabulary = dice.pick(&[6000, 6000, 12_000, 30_522]);
    match dice.pick(&["bert", "roberta", "distilbert"]) {
        "distilbert" => json!({
            "model_type": "distilbert", "activation": "gelu", "attention_dropout": dropout, "dim": hidden,
            "dropout": dropout, "hidden_dim": ffn, "max_position_embeddings": 512, "n_heads": heads,
            "n_layers": layers, "pad_token_id": 0, "seq_classif_dropout": 0.2, "vocab_size": vocabulary,
        }),
        family => {
            let roberta = family == "roberta";
            json!({
                "model_type": family, "attention_probs_dropout_prob": dropout, "hidden_act": "gelu",
                "hidden_dropout_prob": dropout, "hidden_size": hidden, "intermediate_size": ffn,
                "layer_norm_eps": 1e-12, "max_position_embeddings": if roberta { 514 } else { 512 },
                "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 0,
                "type_vocab_size": if roberta { 1 } else { 2 }, "vocab_size": vocabulary,
            })
        }
    }
}

/// Texts of the reviews, joined until they have about as many words as fit; some are shorter, some longer.
fn texts_file(
    dice: &mut Dice,
    shape: &Shape,
    rows: u64,
    texts: &[(&str, &str)],
) -> (&'static str, String) {
    let jsonl = dice.chance(0.5);
    let mut data = if jsonl { "" } else { "sentence\tlabel\n" }.to_owned();
    for row in 0..rows {
        let words = (shape.length as f64 * (0.3 + dice.unit())) as usize;
        let text = texts_of(dice, words.max(2), texts);
        // Both classes are there.
        let label = (row % 2).to_string();
        if jsonl {
            data.push_str(&json!({ "sentence": text, "label": label }).to_string());
            data.push('\n');
        } else {
            data.push_str(&format!("{text}\t{label}\n"));
        }
    }
    let file = if jsonl { "train.jsonl" } else { "train.tsv" };
    (file, data)
}

/// So many words of some texts, one behind the other.
pub fn texts_of(dice: &mut Dice, words: usize, texts: &[(&str, &str)]) -> String {
    let mut text = String::new();
    while text.split(' ').count() < words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(dice.pick(texts).0);
    }
    let text: Vec<&str> = text.split(' ').take(words).collect();
    text.join(" ")
}

/// Some of a model's linear maps, in some of its blocks.
fn placement(dice: &mut Dice, layers: u64, all: &[&str]) -> String {
    let mut roles: Vec<&str> = all.iter().copied().filter(|_| dice.chance(0.5)).collect();
    if roles.is_empty() {
        roles.push(dice.pick(all));
    }
    let range = match dice.below(4) {
        0 => {
            let from = dice.below(layers);
            format!("layers[{from}..{}].", from + 1 + dice.below(layers - from))
        }
        1 => format!("layers[-{}..].", 1 + dice.below(layers)),
        _ => String::new(),
    };
    let list: Vec<String> = roles.iter().map(|r| format!("{range}{r}")).collect();
    format!("{{ {} }}", list.join(", "))
}

fn start(dice: &mut Dice, batch: u64) -> String {
    match dice.below(4) {
        0 => ", init = magnitude".to_owned(),
        1 => format!(
            ", init = fisher {{ samples = {} }}",
            1 + dice.below(2 * batch)
        ),
        _ => String::new(),
    }
}

/// A value for a key of a method that has no draw of its own; `None` leaves the key out.
fn value(
    dice: &mut Dice,
    method: &dyn Method,
    key: &Key,
    (layers, all): (u64, &[&str]),
) -> Option<String> {
    let required = matches!(key.default, Default::Required);
    if !required && dice.chance(0.5) {
        return None;
    }
    match key.kind {
        Kind::Int(low, high) => Some(dice.scale(low.max(1), high.min(64)).to_string()),
        Kind::Bool => Some(dice.pick(&["true", "false"]).to_owned()),
        Kind::Choice(names) => Some(dice.pick(names).to_owned()),
        Kind::Placement => {
            let map = Site::linear("map", Role::Query, (64, 64));
            method.fits(&map).then(|| placement(dice, layers, all))
        }
        // Numbers change no bytes, and files are not at hand.
        _ => None,
    }
}

/// A method with values, placed at some of these maps.
pub fn adapter(dice: &mut Dice, method: &dyn Method, shape: &Shape, all: &[&str]) -> String {
    let name = method.schema().name;
    let layers = shape.layers;
    match name {
        "last_n" => format!("last_n {{ n = {} }}", 1 + dice.below(layers)),
        "lora" | "side_lora" => {
            let rank = dice.scale(1, 64);
            let dropout = dice.pick(&["", ", dropout = 0.1"]);
            let rest = match name {
                "lora" => dice.pick(&["", ", rs_lora = true"]),
                _ => dice.pick(&["", "", ", exact = true"]),
            };
            let on = placement(dice, layers, all);
            format!("{name} {{ rank = {rank}, alpha = 8{dropout}{rest}, on = {on} }}")
        }
        "cpt" => format!("cpt {{ token_ids = [1, 2, {}] }}", 3 + dice.below(4)),
        "unfreeze" => {
            let last = 1 + dice.below(layers);
            format!("unfreeze {{ every = 1 steps, last = {last} }}")
        }
        "siva" => {
            let rank = dice.scale(1, 32);
            let kept = match dice.chance(0.3) {
                true => format!(
                    ", decomposition = {}",
                    rank + dice.below(shape.hidden - rank + 1)
                ),
                false => String::new(),
            };
            let on = placement(dice, layers, all);
            format!("siva {{ rank = {rank}{kept}, on = {on} }}")
        }
        "lst" => {
            let r = dice.pick(&[2, 4, 8, 16]);
            let dropout = dice.pick(&["", ", dropout = 0.2"]);
            let kept: Vec<String> = (0..layers)
                .filter(|_| dice.chance(0.6))
                .map(|i| i.to_string())
                .collect();
            let some = dice.chance(0.3) && !kept.is_empty();
            let kept = match some {
                true => format!(", layers = [{}]", kept.join(", ")),
                false => String::new(),
            };
            let init = start(dice, shape.batch);
            format!("lst {{ r = {r}{dropout}{kept}{init} }}")
        }
        "k_lst" => {
            let k = dice.pick(&[1, 3, 5, 9]);
            let r = dice.pick(&[2, 4, 8, 16]);
            let dropout = dice.pick(&["", ", dropout = 0.2"]);
            let down = dice.pick(&["", ", down = per_slot"]);
            let share = dice.pick(&["", "", ", share = true"]);
            let residual = dice.pick(&["", ", residual = true"]);
            let pool = dice.pick(&["", ", pool = true"]);
            let init = start(dice, shape.batch);
            format!("k_lst {{ k = {k}, r = {r}{dropout}{down}{share}{residual}{pool}{init} }}")
        }
        _ => {
            let keys = method.schema().keys.iter();
            let drawn: Vec<String> = keys
                .filter_map(|key| Some((key.name, value(dice, method, key, (layers, all))?)))
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            format!("{name} {{ {} }}", drawn.join(", "))
        }
    }
}

/// What the first stage shares with others.
struct Task {
    objective: &'static str,
    prompt: bool,
}

impl Task {
    fn keys(&self) -> String {
        let prompt = if self.prompt { ", prompt = p" } else { "" };
        format!(", objective = {}{prompt}", self.objective)
    }
}

fn task(dice: &mut Dice) -> Task {
    match dice.below(10) {
        0..6 => Task {
            objective: "classify",
            prompt: dice.chance(0.2),
        },
        6..8 => Task {
            objective: "label_words",
            prompt: true,
        },
        _ => Task {
            objective: "masked_lm { rate = 15% }",
            prompt: false,
        },
    }
}

/// The keys of a stage that trains, after its kind's own.
fn training(dice: &mut Dice, shape: &Shape) -> String {
    let mut keys = format!(
        ", lr = 1e-5, batch = {}, max_length = {}, steps = 2",
        shape.batch, shape.length
    );
    if shape.batch > 1 && dice.chance(0.4) {
        let micro = 1 + dice.below(shape.batch - 1);
        keys.push_str(&format!(", micro_batch = {micro}"));
    }
    if dice.chance(0.3) {
        keys.push_str(", dev = d.train");
    }
    keys.push_str(dice.pick(&["", "", ", features = 0B", ", features = 100KB"]));
    keys.push_str(&format!(", seed = {}", dice.below(1000)));
    keys
}

fn train(dice: &mut Dice, shape: &Shape) -> String {
    let optimizer = dice.pick(&[
        "adamw",
        "adamw",
        "lion",
        "sgd",
        "sgd { momentum = 0.9, nesterov = true }",
    ]);
    let mut keys = training(dice, shape);
    keys.push_str(&format!(", optimizer = {optimizer}"));
    keys.push_str(dice.pick(&["", "", ", clip = 0"]));
    keys.push_str(dice.pick(&["", "", "", ", dropout_frozen = true"]));
    keys
}

fn mezo(dice: &mut Dice, shape: &Shape) -> String {
    let many = dice.pick(&["", "", ", perturbations = 2"]);
    format!("{}{many}", training(dice, shape))
}

fn recipe(dice: &mut Dice, shape: &Shape) -> String {
    let dtype = dice.pick(&["f32", "f32", "bf16"]);
    let mut text = format!(
        "model m = local \"model\" {{ init = random, dtype = {dtype}, tokenizer = \"tokenizer\" }}\n\
         data d = local \"data\" {{ text = sentence, label = label, labels = [\"0\", \"1\"] }}\n"
    );
    let kind = dice.below(20);
    let task = task(dice);
    let words = kind == 18 || task.objective == "label_words";
    let mask = if words || task.prompt {
        " It was {mask}."
    } else {
        ""
    };
    if task.prompt || words {
        text.push_str(&format!(
            "prompt p {{ template = \"{{sentence}}{mask}\", verbalizer = {{ \"0\": \"terrible\", \"1\": \"great\" }} }}\n"
        ));
    }
    let method = dice.pick(METHODS);
    let made = adapter(dice, method, shape, &ROLES);
    let score_batch = dice.scale(1, 32);
    let mut stage = |name: &str, kind: &str, keys: String| {
        text.push_str(&format!("stage {name} = {kind} {{ {keys} }}\n"));
    };
    let keys = task.keys();
    let first = format!("model = m, data = d.train{keys}, adapter = {made}");
    match kind {
        // One training.
        0..8 => stage("one", "train", first + &train(dice, shape)),
        // A training, and what comes of it.
        8..10 => {
            stage("one", "train", first + &train(dice, shape));
            let own = format!("from = one, data = d.train, batch = {score_batch}");
            stage("two", "eval", own);
        }
        10..12 => {
            let folding: Vec<&dyn Method> = METHODS.iter().copied().filter(|m| m.folds()).collect();
            let made = match method.folds() {
                true => made,
                false => {
                    let method = dice.pick(&folding);
                    adapter(dice, method, shape, &ROLES)
                }
            };
            let first = format!("model = m, data = d.train{keys}, adapter = {made}");
            stage("one", "train", first + &train(dice, shape));
            let dtype = dice.pick(&["f32", "bf16", "f16"]);
            stage("two", "merge", format!("from = one, dtype = {dtype}"));
        }
        12..15 => stage("one", "mezo", first + &mezo(dice, shape)),
        // MeZO on the whole model, then the method.
        15..16 => {
            let whole = format!("model = m, data = d.train{keys}");
            stage("one", "mezo", whole + &mezo(dice, shape));
            let second = format!("from = one, data = d.train{keys}, adapter = {made}");
            stage("two", "train", second + &train(dice, shape));
        }
        // A training that goes on.
        16..17 => {
            stage("one", "train", first + &train(dice, shape));
            let second = format!("from = one, data = d.train{keys}");
            stage("two", "train", second + &train(dice, shape));
        }
        _ => {
            let keys = match words {
                true => ", objective = label_words, prompt = p",
                false => ", objective = masked_lm { rate = 15% }",
            };
            let length = shape.length;
            let own = format!(
                "model = m, data = d.train{keys}, batch = {score_batch}, max_length = {length}"
            );
            stage("one", "eval", own);
        }
    }
    text
}
