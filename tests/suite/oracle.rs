//! Scores against a forward that shares no code with the compiler's: each text for itself, in the plainest operations. What it
//! says of a model is in turn what PyTorch says of it (`forward.json`).

use std::collections::HashMap;
use std::path::Path;

use peftc::library::tokenizer::{Tokenizer, TokenizerFiles};
use serde_json::Value;

use super::support::{json, program, stderr_of};
use super::tensor::{self, Result, Tensor};

pub(crate) const SENTENCES: [&str; 6] = [
    "good",
    "a warm and funny film",
    "it is too long, and nothing in it is new",
    "the story goes nowhere , the jokes are old , and the actors know it as well as we do",
    "one of the best films of the year",
    "what a mess !",
];

/// Scores of each sentence.
pub(crate) type Scores = Vec<Vec<f32>>;

/// Token ids of the sentences.
fn tokens(dir: &Path) -> Vec<Vec<u32>> {
    let get = |name: &str| std::fs::read(dir.join(name)).ok();
    let tokenizer = Tokenizer::from_files(&TokenizerFiles {
        dir_name: dir.display().to_string(),
        get: &get,
    })
    .expect("a tokenizer");
    let one = |s: &&str| tokenizer.encode(&[(*s).to_owned()], 128).expect("tokens");
    let rows: Vec<Vec<u32>> = SENTENCES.iter().map(one).map(|e| e.ids).collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    assert!(rows.iter().any(|r| r.len() * 3 < longest));
    rows
}

/// Our scores of the sentences, as `eval` writes them.
fn ours(model: &Path) -> Scores {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows: String = SENTENCES
        .iter()
        .map(|s| format!("{s}\tpositive\n"))
        .collect();
    std::fs::write(
        dir.path().join("test.tsv"),
        format!("sentence\tlabel\n{rows}"),
    )
    .expect("written");
    let recipe = dir.path().join("r.peft");
    let text = format!(
        "model m = local \"{}\"\ndata d = local \".\" {{ text = sentence, label = label }}\nstage e = eval {{ model = m, data = d.test }}\n",
        model.display()
    );
    std::fs::write(&recipe, text).expect("written");
    let output = program()
        .args(["run", "--quiet"])
        .arg(&recipe)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let table = std::fs::read_to_string(dir.path().join(".peftc/runs/r/e/predictions.tsv"))
        .expect("predictions");
    let scores = |line: &str| {
        line.split('\t')
            .skip(3)
            .map(|x| x.parse().expect("a number"))
            .collect()
    };
    table.lines().skip(1).map(scores).collect()
}

fn compare(name: &str, own: &Scores, wanted: &Scores) {
    assert_eq!(own.len(), wanted.len());
    for (own, wanted) in own.iter().zip(wanted) {
        assert_eq!(own.len(), 2);
        for (a, b) in own.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-4, "{name}: {own:?} against {wanted:?}");
        }
    }
    let spread = |i: usize| {
        let column = || wanted.iter().map(move |row| row[i]);
        column().fold(f32::MIN, f32::max) - column().fold(f32::MAX, f32::min)
    };
    assert!(spread(0) > 1e-2, "{name}: the sentences have one score");
}

pub(crate) fn reference(name: &str) -> std::path::PathBuf {
    std::env::current_dir()
        .expect("a working directory")
        .join("tests/reference")
        .join(name)
}

/// What a family calls its modules, and where its head differs.
struct Names {
    /// Where embeddings and blocks are.
    base: &'static str,
    blocks: &'static str,
    /// Query, key, value, what joins the heads, the norm behind, both maps, the norm behind.
    block: [&'static str; 8],
    hidden: &'static str,
    heads: &'static str,
    layers: &'static str,
    /// The first map of the head, its activation, the last one.
    head: [&'static str; 2],
    activation: fn(&Tensor) -> Result<Tensor>,
    /// The position of the first token.
    first: u32,
}

const ENCODER: [&str; 8] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
];

fn names(family: &str) -> Names {
    let bert = Names {
        base: "bert",
        blocks: "encoder.layer",
        block: ENCODER,
        hidden: "hidden_size",
        heads: "num_attention_heads",
        layers: "num_hidden_layers",
        head: ["bert.pooler.dense", "classifier"],
        activation: Tensor::tanh,
        first: 0,
    };
    match family {
        "bert" => bert,
        "roberta" => Names {
            base: "roberta",
            head: ["classifier.dense", "classifier.out_proj"],
            first: 2,
            ..bert
        },
        "distilbert" => Names {
            base: "distilbert",
            blocks: "transformer.layer",
            block: [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
            hidden: "dim",
            heads: "n_heads",
            layers: "n_layers",
            head: ["pre_classifier", "classifier"],
            activation: Tensor::relu,
            first: 0,
        },
        other => panic!("no names of {other}"),
    }
}

/// A model's forward.
struct Forward<'a> {
    weights: &'a HashMap<String, Tensor>,
    /// Matrices, transposed.
    turned: HashMap<&'a str, Tensor>,
    config: Value,
    names: Names,
}

impl Forward<'_> {
    fn get(&self, name: &str) -> &Tensor {
        let found = self.weights.get(name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().expect("a number") as usize
    }

    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let product = x.matmul(&self.turned[format!("{name}.weight").as_str()])?;
        product.broadcast_add(self.get(&format!("{name}.bias")))
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(1)? as f64;
        let centred = x.broadcast_sub(&(x.sum_keepdim(1)? / width)?)?;
        let variance = (centred.sqr()?.sum_keepdim(1)? / width)?;
        let small = self.config["layer_norm_eps"].as_f64().unwrap_or(1e-12);
        let scaled = centred.broadcast_div(&(variance + small)?.sqrt()?)?;
        let scaled = scaled.broadcast_mul(self.get(&format!("{name}.weight")))?;
        scaled.broadcast_add(self.get(&format!("{name}.bias")))
    }

    /// Rows of a table.
    fn rows(&self, name: &str, at: &[u32]) -> Result<Tensor> {
        let table = self.get(&format!("{}.embeddings.{name}.weight", self.names.base));
        let rows: Result<Vec<Tensor>> =
            at.iter().map(|&i| table.narrow(0, i as usize, 1)).collect();
        Tensor::cat(&rows?, 0)
    }

    fn embedded(&self, ids: &[u32]) -> Result<Tensor> {
        let positions: Vec<u32> = (self.names.first..).take(ids.len()).collect();
        let mut sum =
            (self.rows("word_embeddings", ids)? + self.rows("position_embeddings", &positions)?)?;
        if self.names.base != "distilbert" {
            sum = (sum + self.rows("token_type_embeddings", &vec![0; ids.len()])?)?;
        }
        self.norm(&format!("{}.embeddings.LayerNorm", self.names.base), &sum)
    }

    fn attention(&self, [query, key, value]: [Tensor; 3]) -> Result<Tensor> {
        let heads = self.number(self.names.heads);
        let width = query.dim(1)? / heads;
        let one = |head: usize| {
            let own = |x: &Tensor| x.narrow(1, head * width, width);
            let scores = (own(&query)?.matmul(&own(&key)?.t()?)? / (width as f64).sqrt())?;
            let top = scores.max(1)?.unsqueeze(1)?;
            let raised = scores.broadcast_sub(&top)?.exp()?;
            let shares = raised.broadcast_div(&raised.sum_keepdim(1)?)?;
            shares.matmul(&own(&value)?)
        };
        let heads: Result<Vec<Tensor>> = (0..heads).map(one).collect();
        Tensor::cat(&heads?, 1)
    }

    fn scores(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut x = self.embedded(ids)?;
        for layer in 0..self.number(self.names.layers) {
            let own = |i: usize| {
                let Names {
                    base,
                    blocks,
                    block,
                    ..
                } = self.names;
                format!("{base}.{blocks}.{layer}.{}", block[i])
            };
            let parts = [0, 1, 2].map(|i| self.linear(&own(i), &x).expect("fits"));
            let joined = self.linear(&own(3), &self.attention(parts)?)?;
            x = self.norm(&own(4), &(x + joined)?)?;
            let gelu = |x: f32| 0.5 * x * (1.0 + libm::erff(x / std::f32::consts::SQRT_2));
            let raised = self.linear(&own(5), &x)?.map(gelu);
            x = self.norm(&own(7), &(&x + self.linear(&own(6), &raised)?)?)?;
        }
        let first = x.narrow(0, 0, 1)?;
        assert_eq!(first.dim(1)?, self.number(self.names.hidden));
        let pooled = (self.names.activation)(&self.linear(self.names.head[0], &first)?)?;
        self.linear(self.names.head[1], &pooled)?
            .flatten_all()?
            .to_vec1()
    }
}

/// The scores of the sentences, with the config of `dir` and any weights.
pub(crate) fn plain_scores(dir: &Path, weights: &HashMap<String, Tensor>) -> Scores {
    let config = json(dir.join("config.json"));
    let names = names(config["model_type"].as_str().expect("a family"));
    let matrices = weights
        .iter()
        .filter(|(name, _)| !name.contains("embeddings"));
    let turned = matrices.filter_map(|(name, tensor)| Some((name.as_str(), tensor.t().ok()?)));
    let forward = Forward {
        weights,
        turned: turned.collect(),
        config,
        names,
    };
    let one = |ids: &Vec<u32>| forward.scores(ids).unwrap_or_else(|e| panic!("{e}"));
    tokens(dir).iter().map(one).collect()
}

#[test]
fn evaluations_give_the_scores_of_a_plain_forward() {
    for family in ["bert", "distilbert", "roberta"] {
        let dir = reference(&format!("{family}-tiny"));
        let plain = plain_scores(&dir, &tensor::load(dir.join("model.safetensors")));
        compare(family, &ours(&dir), &plain);
    }
}
