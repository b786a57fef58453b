//! ELECTRA (Clark et al. 2020, arXiv 2003.10555), discriminators and generators.

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
    model_types: &["electra"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "electra",
    summary: "ELECTRA encoders, from Hugging Face checkpoints",
    doc: "BERT's block behind embeddings of a width of their own; sequences are classified by a GELU layer and a linear layer on \
          the first token. Discriminators are what is usually fine-tuned; the masked-LM head is that of generators. \
          `model_type` is `electra`.",
    paper: "Clark et al. 2020 (arXiv 2003.10555)",
    keys: &[],
};

const TABLE: &str = "electra.embeddings.word_embeddings";
const WIDENING: &str = "electra.embeddings_project";
const DECODER: &str = "generator_lm_head";

/// What stands between the first token's state and the score of an option.
#[derive(Clone, Copy, Debug)]
struct Summary {
    activation: Option<ActivationKind>,
    dropout: f64,
}

impl Summary {
    /// What a config says of it; `None` where it is of a kind that is not built.
    fn of(config: &Config<'_>) -> Result<Option<Self>, String> {
        let text = |key: &str, default| match config.0.get(key) {
            None => default,
            Some(value) => value.as_str().unwrap_or_default(),
        };
        let dropout = config.rate_or("summary_last_dropout", 0.1)?;
        let projects = config.flag("summary_use_proj", true)?;
        let to_labels = config.flag("summary_proj_to_labels", false)?;
        if text("summary_type", "first") != "first" || !projects || to_labels {
            return Ok(None);
        }
        let activation = match config.0.get("summary_activation") {
            Some(Json::Null) => Ok(None),
            Some(Json::String(name)) if name.is_empty() => Ok(None),
            _ => config.activation("summary_activation").map(Some),
        };
        Ok(activation.ok().map(|activation| Self {
            activation,
            dropout,
        }))
    }
}

#[derive(Debug)]
struct Electra {
    sizes: Sizes,
    facts: Facts,
    /// The head on options.
    summary: Option<Summary>,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let sizes = Sizes {
        embedding: config.size_or("embedding_size", 128)?,
        ..encoder::bert_sizes(&config)?
    }
    .checked()?;
    let facts = sizes.facts(config.size_or("type_vocab_size", 2)?);
    let summary = Summary::of(&config)?;
    Ok(Box::new(Electra {
        sizes,
        facts,
        summary,
    }))
}

impl Electra {
    /// The map behind the embeddings, where they are not as wide as the blocks.
    fn widening(&self) -> Option<&'static str> {
        (self.sizes.embedding != self.sizes.hidden).then_some(WIDENING)
    }
}

impl Model for Electra {
    fn family(&self) -> &'static str {
        "electra"
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
        if let Some(summary) = &mut self.summary {
            summary.dropout = rate;
        }
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        let segments = self.facts.segments;
        let x = encoder::embeddings(net, "electra.embeddings", &self.sizes, segments);
        match self.widening() {
            Some(path) => encoder::widened(net, path, &self.sizes, x),
            None => x,
        }
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        encoder::block(
            net,
            &encoder::bert_block("electra", layer),
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
        // Whatever the blocks have.
        encoder::dense_head(net, &self.sizes, ActivationKind::Gelu, (hidden, classes))
    }

    fn narrow(&self) -> Option<&dyn Narrow> {
        Some(self)
    }

    fn chooses(&self) -> Option<&dyn Chooses> {
        self.summary.map(|_| self as &dyn Chooses)
    }

    fn extracts(&self) -> Option<&dyn Extracts> {
        Some(self)
    }

    fn masked_lm(&self) -> Option<&dyn MaskedLm> {
        Some(self)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        encoder::old_names(name, &["electra."])
    }

    fn other_heads(&self) -> &'static [&'static str] {
        &[
            "discriminator_predictions",
            "generator_predictions",
            "generator_lm_head",
            "sequence_summary",
        ]
    }

    fn exported_class(&self) -> String {
        "ElectraForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}

impl Chooses for Electra {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        let d = self.sizes.hidden;
        let dense = Site::linear("sequence_summary.summary", Role::HeadDense, (d, d));
        let mut x = net.linear(dense, hidden);
        if let Some(Summary {
            activation,
            dropout,
        }) = self.summary
        {
            x = match activation {
                Some(kind) => net.activation(kind, x),
                None => x,
            };
            x = net.dropout(x, dropout);
        }
        let site = Site::linear("classifier", Role::HeadOutput, (d, 1));
        net.linear(site, x)
    }

    fn modules(&self) -> &'static [&'static str] {
        &["sequence_summary", "classifier"]
    }
}

impl Extracts for Electra {}

impl Narrow for Electra {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: self.widening(),
            block: &encoder::bert_block("electra", mirror.layer),
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

impl MaskedLm for Electra {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let paths = encoder::LmPaths {
            dense: "generator_predictions.dense",
            norm: "generator_predictions.LayerNorm",
            bias: "generator_lm_head.bias",
            embeddings: TABLE,
            decoder: DECODER,
            // Whatever the blocks have.
            activation: ActivationKind::Gelu,
        };
        encoder::words(net, &paths, &self.sizes, masked, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "generator_lm_head.weight",
            "electra.embeddings.word_embeddings.weight",
        )]
    }
}
