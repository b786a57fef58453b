//! Scores against candle-transformers, an implementation that shares no code with ours: it reads
//! padded batches under a mask, we read packed tokens.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Result, Tensor};
use candle_nn::{Module, VarBuilder, linear};
use candle_transformers::models::bert::{BertModel, Config as BertConfig};
use candle_transformers::models::distilbert::{Config as DistilBertConfig, DistilBertModel};
use candle_transformers::models::xlm_roberta::{
    Config as RobertaConfig, XLMRobertaForSequenceClassification,
};
use peftc::library::tokenizer::{Tokenizer, TokenizerFiles};
use serde_json::{Value, json};

use super::support::{program, stderr_of};

pub(crate) const SENTENCES: [&str; 6] = [
    "good",
    "a warm and funny film",
    "it is too long, and nothing in it is new",
    "the story goes nowhere , the jokes are old , and the actors know it as well as we do",
    "one of the best films of the year",
    "what a mess !",
];

/// Token ids `[S, N]` with padding, and where tokens stand: 1, and 0 for padding.
struct Batch {
    ids: Tensor,
    mask: Tensor,
}

fn config(dir: &Path) -> Value {
    let bytes = std::fs::read(dir.join("config.json")).expect("a config");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn weights(dir: &Path) -> VarBuilder<'static> {
    let bytes = std::fs::read(dir.join("model.safetensors")).expect("weights");
    VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).expect("safetensors")
}

fn batch(dir: &Path) -> Batch {
    let get = |name: &str| std::fs::read(dir.join(name)).ok();
    let tokenizer = Tokenizer::from_files(&TokenizerFiles {
        dir_name: dir.display().to_string(),
        get: &get,
    })
    .expect("a tokenizer");
    let padding = config(dir)["pad_token_id"].as_u64().expect("an id") as u32;
    let rows: Vec<Vec<u32>> = SENTENCES
        .iter()
        .map(|s| tokenizer.encode(&[(*s).to_owned()], 128).expect("tokens"))
        .map(|e| e.ids)
        .collect();
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    assert!(rows.iter().any(|r| r.len() * 3 < longest));
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for row in &rows {
        let rest = longest - row.len();
        ids.extend(row.iter().copied().chain(vec![padding; rest]));
        mask.extend([vec![1u32; row.len()], vec![0; rest]].concat());
    }
    let tensor =
        |list: Vec<u32>| Tensor::from_vec(list, (rows.len(), longest), &Device::Cpu).expect("fits");
    Batch {
        ids: tensor(ids),
        mask: tensor(mask),
    }
}

/// Our scores of the sentences, as `eval` writes them.
fn ours(model: &Path) -> Vec<Vec<f32>> {
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

fn compare(name: &str, own: &[Vec<f32>], wanted: &Tensor) {
    let wanted: Vec<Vec<f32>> = wanted.to_vec2().expect("scores");
    assert_eq!(own.len(), wanted.len());
    for (own, wanted) in own.iter().zip(&wanted) {
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

/// `dense`, an activation, `output` on the first token.
fn head(
    hidden: &Tensor,
    dense: VarBuilder<'_>,
    activation: fn(&Tensor) -> Result<Tensor>,
    output: VarBuilder<'_>,
) -> Result<Tensor> {
    let first = hidden.i((.., 0))?.contiguous()?;
    let width = first.dim(1)?;
    let pooled = activation(&linear(width, width, dense)?.forward(&first)?)?;
    linear(width, 2, output)?.forward(&pooled)
}

/// The scores of the sentences by candle's model of a family, with the config of `dir` and any weights.
pub(crate) fn candle_scores(family: &str, dir: &Path, vb: VarBuilder<'static>) -> Result<Tensor> {
    let (mut config, batch) = (config(dir), batch(dir));
    match family {
        "bert" => {
            let config: BertConfig = serde_json::from_value(config).expect("a BERT");
            let model = BertModel::load(vb.clone(), &config)?;
            let hidden = model.forward(&batch.ids, &batch.ids.zeros_like()?, Some(&batch.mask))?;
            head(
                &hidden,
                vb.pp("bert.pooler.dense"),
                Tensor::tanh,
                vb.pp("classifier"),
            )
        }
        "distilbert" => {
            // What candle's DistilBERT calls `gelu` is the approximation by tanh.
            config["activation"] = json!("gelu");
            let config: DistilBertConfig = serde_json::from_value(config).expect("a DistilBERT");
            let model = DistilBertModel::load(vb.clone(), &config)?;
            let padding = batch.mask.eq(0u32)?.unsqueeze(1)?.unsqueeze(1)?;
            let hidden = model.forward(&batch.ids, &padding)?;
            head(
                &hidden,
                vb.pp("pre_classifier"),
                Tensor::relu,
                vb.pp("classifier"),
            )
        }
        _ => {
            config["position_embedding_type"] = json!("absolute");
            let config: RobertaConfig = serde_json::from_value(config).expect("a RoBERTa");
            let model = XLMRobertaForSequenceClassification::new(2, &config, vb)?;
            model.forward(&batch.ids, &batch.mask, &batch.ids.zeros_like()?)
        }
    }
}

#[test]
fn bert_gives_the_scores_of_candle() -> Result<()> {
    let dir = reference("bert-tiny");
    compare(
        "bert",
        &ours(&dir),
        &candle_scores("bert", &dir, weights(&dir))?,
    );
    Ok(())
}

#[test]
fn distilbert_gives_the_scores_of_candle() -> Result<()> {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for entry in std::fs::read_dir(reference("distilbert-tiny")).expect("a model") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    let mut approximate = config(dir.path());
    approximate["activation"] = json!("gelu_new");
    std::fs::write(dir.path().join("config.json"), approximate.to_string()).expect("written");
    let scores = candle_scores("distilbert", dir.path(), weights(dir.path()))?;
    compare("distilbert", &ours(dir.path()), &scores);
    Ok(())
}

#[test]
fn roberta_gives_the_scores_of_candle() -> Result<()> {
    let dir = reference("roberta-tiny");
    let scores = candle_scores("roberta", &dir, weights(&dir))?;
    compare("roberta", &ours(&dir), &scores);
    Ok(())
}
