//! XLM-RoBERTa-XL (Goyal et al. 2021, arXiv 2105.00572).

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::super::schema::Schema;
use super::encoder::{self, BlockPaths, Config, Own, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::program::Value;
use crate::program::op::ActivationKind;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["xlm-roberta-xl"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "xlm_roberta_xl",
    summary: "XLM-RoBERTa-XL and XXL encoders, from Hugging Face checkpoints",
    doc: "RoBERTa with a norm before each sub-layer, one behind the last block, and none behind the embeddings. `model_type` is \
          `xlm-roberta-xl`.",
    paper: "Goyal et al. 2021 (arXiv 2105.00572)",
    keys: &[],
};

const TABLE: &str = "roberta.embeddings.word_embeddings";
const BIAS: &str = "lm_head.bias";
const DECODER: &str = "lm_head.decoder";

#[derive(Debug)]
struct XlmRobertaXl {
    sizes: Sizes,
    facts: Facts,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let sizes = Sizes {
        eps: config.eps("layer_norm_eps", 1e-5)?,
        drops_ffn: false,
        pre_norm: true,
        ..encoder::bert_sizes(&config)?
    };
    let padding = encoder::padding(&config, &sizes, 1)?;
    let (positions, max_length) = encoder::padded_positions(padding, &sizes)?;
    let facts = Facts {
        max_length,
        positions,
        ..sizes.facts(config.size_or("type_vocab_size", 1)?)
    };
    Ok(Box::new(XlmRobertaXl { sizes, facts }))
}

/// Where the norms stand is all that differs from RoBERTa's paths.
fn paths(layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("roberta.encoder.layer.{layer}.{rest}");
    BlockPaths {
        attention_norm: at("attention.self_attn_layer_norm"),
        ffn_norm: at("LayerNorm"),
        ..encoder::bert_block("roberta", layer)
    }
}

impl Model for XlmRobertaXl {
    fn family(&self) -> &'static str {
        "xlm_roberta_xl"
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.sizes.set_dropout(rate);
        self.facts.dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        encoder::embeddings(net, "roberta.embeddings", &self.sizes, self.facts.segments)
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        encoder::block(
            net,
            &paths(layer),
            &self.sizes,
            (Some(layer), layer + 1 == self.sizes.layers),
            x,
        )
    }

    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        let path = "roberta.encoder.LayerNorm";
        let norm = Site::norm(path, Role::FinalNorm, self.sizes.hidden);
        net.layer_norm(&norm, x, self.sizes.eps)
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        encoder::dense_head(net, &self.sizes, ActivationKind::Tanh, (hidden, classes))
    }

    fn narrow(&self) -> Option<&dyn Narrow> {
        Some(self)
    }

    fn chooses(&self) -> Option<&dyn Chooses> {
        Some(self)
    }

    fn extracts(&self) -> Option<&dyn Extracts> {
        Some(self)
    }

    fn masked_lm(&self) -> Option<&dyn MaskedLm> {
        Some(self)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        // Files of a model that is not tied hold the other bias too, which nothing reads.
        let tied = self.sizes.tied;
        let bias = tied.then(|| encoder::bias_names(name, BIAS, DECODER));
        bias.flatten()
            .unwrap_or_else(|| encoder::old_names(name, &["roberta."]))
    }

    fn exported_class(&self) -> String {
        "XLMRobertaXLForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}

impl Chooses for XlmRobertaXl {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        encoder::pooled_head(net, "roberta.pooler.dense", &self.sizes, hidden)
    }

    fn modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Extracts for XlmRobertaXl {}

impl Narrow for XlmRobertaXl {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: None,
            block: &paths(mirror.layer),
        };
        encoder::mirror(net, path, &self.sizes, own, (mirror, x))
    }

    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        net.layer_norm(site, x, self.sizes.eps)
    }

    fn ends_in_norm(&self) -> bool {
        false
    }
}

impl MaskedLm for XlmRobertaXl {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let paths = encoder::LmPaths {
            dense: "lm_head.dense",
            norm: "lm_head.layer_norm",
            bias: BIAS,
            embeddings: TABLE,
            decoder: DECODER,
            // Whatever the blocks have.
            activation: ActivationKind::Gelu,
        };
        encoder::words(net, &paths, &self.sizes, masked, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "lm_head.decoder.weight",
                "roberta.embeddings.word_embeddings.weight",
            ),
            ("lm_head.decoder.bias", "lm_head.bias"),
        ]
    }
}
