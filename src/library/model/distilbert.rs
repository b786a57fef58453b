//! DistilBERT (Sanh et al. 2019, arXiv 1910.01108).

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
    model_types: &["distilbert"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "distilbert",
    summary: "DistilBERT encoders, from Hugging Face checkpoints",
    doc: "BERT's block without segments or pooler; sequences are classified by a ReLU layer and a linear layer on the \
          first token. `model_type` is `distilbert`.",
    paper: "Sanh et al. 2019 (arXiv 1910.01108)",
    keys: &[],
};

const TABLE: &str = "distilbert.embeddings.word_embeddings";

#[derive(Debug)]
struct DistilBert {
    sizes: Sizes,
    /// Rate of the dropout before the head for answers.
    qa_dropout: f64,
    facts: Facts,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let hidden_dropout = config.rate_or("dropout", 0.1)?;
    let hidden = config.size(config.name(&["hidden_size", "dim"]))?;
    let sizes = Sizes {
        layers: config.size(config.name(&["num_hidden_layers", "n_layers"]))?,
        hidden,
        embedding: hidden,
        heads: config.size(config.name(&["num_attention_heads", "n_heads"]))?,
        ffn: config.size("hidden_dim")?,
        vocab: config.vocabulary()?,
        positions: config.size("max_position_embeddings")?,
        eps: 1e-12,
        activation: config.activation("activation")?,
        hidden_dropout,
        attention_dropout: config.rate_or("attention_dropout", 0.1)?,
        head_dropout: config.rate_or("seq_classif_dropout", 0.2)?,
        drops_ffn: true,
        relative: None,
        pre_norm: false,
        tied: config.tied()?,
    }
    .checked()?;
    let facts = sizes.facts(0);
    Ok(Box::new(DistilBert {
        sizes,
        qa_dropout: config.rate_or("qa_dropout", 0.1)?,
        facts,
    }))
}

fn paths(layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("distilbert.transformer.layer.{layer}.{rest}");
    BlockPaths {
        query: at("attention.q_lin"),
        key: at("attention.k_lin"),
        value: at("attention.v_lin"),
        attention_output: at("attention.out_lin"),
        heads: at("attention"),
        attention: at("attention"),
        attention_norm: at("sa_layer_norm"),
        ffn_up: at("ffn.lin1"),
        ffn_down: at("ffn.lin2"),
        ffn: at("ffn"),
        ffn_norm: at("output_layer_norm"),
    }
}

impl Model for DistilBert {
    fn family(&self) -> &'static str {
        "distilbert"
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.sizes.set_dropout(rate);
        self.qa_dropout = rate;
        self.facts.dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        encoder::embeddings(net, "distilbert.embeddings", &self.sizes, 0)
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

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let d = self.sizes.hidden;
        let x = net.linear(
            Site::linear("pre_classifier", Role::HeadDense, (d, d)),
            hidden,
        );
        let x = net.activation(ActivationKind::Relu, x);
        let x = net.dropout(x, self.sizes.head_dropout);
        net.linear(
            Site::linear("classifier", Role::HeadOutput, (d, classes)),
            x,
        )
    }

    fn classify_tokens(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Option<Value> {
        let rate = self.sizes.hidden_dropout;
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
        encoder::old_names(name, &["distilbert."])
    }

    fn exported_class(&self) -> String {
        "DistilBertForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["pre_classifier", "classifier"]
    }
}

impl Chooses for DistilBert {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.classify(net, hidden, 1)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Extracts for DistilBert {
    fn bounds(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        encoder::bounds_head(net, self.sizes.hidden, self.qa_dropout, hidden)
    }
}

impl Narrow for DistilBert {
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
        true
    }
}

impl MaskedLm for DistilBert {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let paths = encoder::LmPaths {
            dense: "vocab_transform",
            norm: "vocab_layer_norm",
            bias: "vocab_projector.bias",
            embeddings: TABLE,
            decoder: "vocab_projector",
            activation: self.sizes.activation,
        };
        encoder::words(net, &paths, &self.sizes, masked, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "vocab_projector.weight",
            "distilbert.embeddings.word_embeddings.weight",
        )]
    }
}
