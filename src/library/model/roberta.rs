//! RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-RoBERTa (Conneau et al. 2020).

use serde_json::Value as Json;

use super::super::net::{Net, Site};
use super::super::schema::Schema;
use super::encoder::{self, Config, Own, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::program::Value;
use crate::program::op::ActivationKind;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["roberta", "xlm-roberta", "camembert"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "roberta",
    summary: "RoBERTa and XLM-RoBERTa encoders of any size, from Hugging Face checkpoints",
    doc: "BERT's block with positions counted from the padding index + 1 and a two-layer head on `<s>`. `model_type` is \
          `roberta`, `xlm-roberta` or `camembert`.",
    paper: "Liu et al. 2019 (arXiv 1907.11692); Conneau et al. 2020 (arXiv 1911.02116)",
    keys: &[],
};

const TABLE: &str = "roberta.embeddings.word_embeddings";
const BIAS: &str = "lm_head.bias";
const DECODER: &str = "lm_head.decoder";

#[derive(Debug)]
struct Roberta {
    sizes: Sizes,
    facts: Facts,
    class: &'static str,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let class = match config.get("model_type").and_then(Json::as_str) {
        Some("xlm-roberta") => "XLMRobertaForSequenceClassification",
        Some("camembert") => "CamembertForSequenceClassification",
        _ => "RobertaForSequenceClassification",
    };
    let config = Config(config);
    let sizes = encoder::bert_sizes(&config)?;
    let padding = encoder::padding(&config, &sizes, 1)?;
    let (positions, max_length) = encoder::padded_positions(padding, &sizes)?;
    let facts = Facts {
        max_length,
        positions,
        ..sizes.facts(config.size_or("type_vocab_size", 2)?)
    };
    Ok(Box::new(Roberta {
        sizes,
        facts,
        class,
    }))
}

impl Model for Roberta {
    fn family(&self) -> &'static str {
        "roberta"
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
            &encoder::bert_block("roberta", layer),
            &self.sizes,
            (Some(layer), layer + 1 == self.sizes.layers),
            x,
        )
    }

    fn scores_by_distance(&self) -> bool {
        self.sizes.relative.is_some()
    }

    fn passes_over(&self, name: &str) -> bool {
        encoder::is_unread_table(&self.sizes, name)
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        encoder::dense_head(net, &self.sizes, ActivationKind::Tanh, (hidden, classes))
    }

    fn classify_tokens(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Option<Value> {
        let rate = self.sizes.head_dropout;
        Some(encoder::token_head(
            net,
            (self.sizes.hidden, classes),
            rate,
            hidden,
        ))
    }

    fn labels_tokens(&self) -> bool {
        true
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
        encoder::bias_names(name, BIAS, DECODER)
            .unwrap_or_else(|| encoder::old_names(name, &["roberta."]))
    }

    fn exported_class(&self) -> String {
        self.class.to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}

impl Chooses for Roberta {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        encoder::pooled_head(net, "roberta.pooler.dense", &self.sizes, hidden)
    }

    fn modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Extracts for Roberta {}

impl Narrow for Roberta {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: None,
            block: &encoder::bert_block("roberta", mirror.layer),
        };
        encoder::mirror(net, path, &self.sizes, own, (mirror, x))
    }

    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        net.layer_norm(site, x, self.sizes.eps)
    }

    fn ends_in_norm(&self) -> bool {
        true
    }
}

impl MaskedLm for Roberta {
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
