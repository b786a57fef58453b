//! BERT (Devlin et al. 2019, arXiv 1810.04805).

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::super::schema::Schema;
use super::encoder::{self, Config, Own, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::program::Value;
use crate::program::op::ActivationKind;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["bert"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "bert",
    summary: "BERT encoders of any size, from Hugging Face checkpoints",
    doc: "Post-norm encoder with learned positions and segments; sequences are classified by tanh pooler and a linear \
          layer on the first token. With `position_embedding_type` = `relative_key` or `relative_key_query`, as transformers before version 5 has them, \
          scores meet rows of distances in place of positions. `model_type` is `bert`.",
    paper: "Devlin et al. 2019 (arXiv 1810.04805)",
    keys: &[],
};

const TABLE: &str = "bert.embeddings.word_embeddings";
const BIAS: &str = "cls.predictions.bias";
const DECODER: &str = "cls.predictions.decoder";

#[derive(Debug)]
struct Bert {
    sizes: Sizes,
    facts: Facts,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let sizes = encoder::bert_sizes(&config)?;
    let facts = sizes.facts(config.size_or("type_vocab_size", 2)?);
    Ok(Box::new(Bert { sizes, facts }))
}

impl Model for Bert {
    fn family(&self) -> &'static str {
        "bert"
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
        encoder::embeddings(net, "bert.embeddings", &self.sizes, self.facts.segments)
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        encoder::block(
            net,
            &encoder::bert_block("bert", layer),
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
        let d = self.sizes.hidden;
        let pooled = net.linear(
            Site::linear("bert.pooler.dense", Role::HeadDense, (d, d)),
            hidden,
        );
        let pooled = net.activation(ActivationKind::Tanh, pooled);
        let pooled = net.dropout(pooled, self.sizes.head_dropout);
        net.linear(
            Site::linear("classifier", Role::HeadOutput, (d, classes)),
            pooled,
        )
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
            .unwrap_or_else(|| encoder::old_names(name, &["bert."]))
    }

    fn exported_class(&self) -> String {
        "BertForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Chooses for Bert {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.classify(net, hidden, 1)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Extracts for Bert {}

impl Narrow for Bert {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: None,
            block: &encoder::bert_block("bert", mirror.layer),
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

impl MaskedLm for Bert {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let paths = encoder::LmPaths {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
            bias: BIAS,
            embeddings: TABLE,
            decoder: DECODER,
            activation: self.sizes.activation,
        };
        encoder::words(net, &paths, &self.sizes, masked, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "cls.predictions.decoder.weight",
                "bert.embeddings.word_embeddings.weight",
            ),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ]
    }
}
