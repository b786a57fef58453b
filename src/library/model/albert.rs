//! ALBERT (Lan et al. 2020, arXiv 1909.11942).

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::super::schema::Schema;
use super::encoder::{self, BlockPaths, Config, Own, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow, Narrowing};
use crate::program::Value;
use crate::program::op::ActivationKind;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["albert"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "albert",
    summary: "ALBERT encoders, whose blocks are shared, from Hugging Face checkpoints",
    doc: "BERT's block behind embeddings of a width of their own, run several times with the same parameters. `layers[…]` and \
          methods count a block that is shared once: what is placed on it acts in each of its runs. Side networks have a \
          block for each run. Sequences are classified by tanh pooler and a linear layer on the first token. \
          `model_type` is `albert`.",
    paper: "Lan et al. 2020 (arXiv 1909.11942)",
    keys: &[],
};

const TABLE: &str = "albert.embeddings.word_embeddings";
const WIDENING: &str = "albert.encoder.embedding_hidden_mapping_in";
const BIAS: &str = "predictions.bias";
const DECODER: &str = "predictions.decoder";

#[derive(Debug)]
struct Albert {
    sizes: Sizes,
    facts: Facts,
    /// The block of each run.
    runs: Vec<u64>,
    /// Blocks of a group.
    inner: u64,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let layers = config.size("num_hidden_layers")?;
    let groups = config.size_or("num_hidden_groups", 1)?;
    let inner = config.size_or("inner_group_num", 1)?;
    if groups > layers {
        return Err(format!(
            "config.json has `num_hidden_groups` = {groups} and `num_hidden_layers` = {layers}: groups that no layer \
             runs are not built"
        ));
    }
    let sizes = Sizes {
        layers: layers.saturating_mul(inner),
        embedding: config.size_or("embedding_size", 128)?,
        activation: config.activation_or("hidden_act", "gelu_new")?,
        hidden_dropout: config.rate_or("hidden_dropout_prob", 0.0)?,
        attention_dropout: config.rate_or("attention_probs_dropout_prob", 0.0)?,
        head_dropout: config.rate_or("classifier_dropout_prob", 0.1)?,
        drops_ffn: false,
        ..encoder::bert_sizes(&config)?
    }
    .checked()?;
    let per_group = layers as f64 / groups as f64;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number of a group is rounded down, as transformers does"
    )]
    let group = |layer: u64| (layer as f64 / per_group) as u64;
    let runs = (0..layers)
        .flat_map(|layer| (0..inner).map(move |own| (layer, own)))
        .map(|(layer, own)| group(layer) * inner + own)
        .collect();
    let facts = Facts {
        blocks: groups * inner,
        narrow: Narrowing {
            // A matrix that several side blocks are cut out of would be ranked anew for each.
            prunes: false,
            ..sizes.narrowing()
        },
        ..sizes.facts(config.size_or("type_vocab_size", 2)?)
    };
    Ok(Box::new(Albert {
        sizes,
        facts,
        runs,
        inner,
    }))
}

impl Albert {
    /// The paths of a block.
    fn paths(&self, block: u64) -> BlockPaths {
        let (group, own) = (block / self.inner, block % self.inner);
        let layer = format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{own}");
        let at = |rest: &str| format!("{layer}.{rest}");
        BlockPaths {
            query: at("attention.query"),
            key: at("attention.key"),
            value: at("attention.value"),
            attention_output: at("attention.dense"),
            heads: at("attention"),
            attention: at("attention"),
            attention_norm: at("attention.LayerNorm"),
            ffn_up: at("ffn"),
            ffn_down: at("ffn_output"),
            ffn: layer.clone(),
            ffn_norm: at("full_layer_layer_norm"),
        }
    }
}

impl Model for Albert {
    fn family(&self) -> &'static str {
        "albert"
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
        let segments = self.facts.segments;
        let x = encoder::embeddings(net, "albert.embeddings", &self.sizes, segments);
        encoder::widened(net, WIDENING, &self.sizes, x)
    }

    fn block_of(&self, layer: u64) -> u64 {
        self.runs.get(layer as usize).copied().unwrap_or(layer)
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        let block = self.block_of(layer);
        encoder::block(
            net,
            &self.paths(block),
            &self.sizes,
            (Some(block), layer + 1 == self.sizes.layers),
            x,
        )
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let d = self.sizes.hidden;
        let pooler = Site::linear("albert.pooler", Role::HeadDense, (d, d));
        let pooled = net.linear(pooler, hidden);
        let pooled = net.activation(ActivationKind::Tanh, pooled);
        let pooled = net.dropout(pooled, self.sizes.head_dropout);
        net.linear(
            Site::linear("classifier", Role::HeadOutput, (d, classes)),
            pooled,
        )
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
            .unwrap_or_else(|| encoder::old_names(name, &["albert."]))
    }

    fn other_heads(&self) -> &'static [&'static str] {
        &["predictions", "sop_classifier"]
    }

    fn exported_class(&self) -> String {
        "AlbertForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Chooses for Albert {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.classify(net, hidden, 1)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Extracts for Albert {}

impl Narrow for Albert {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: Some(WIDENING),
            block: &self.paths(self.block_of(mirror.layer)),
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

impl MaskedLm for Albert {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let paths = encoder::LmPaths {
            dense: "predictions.dense",
            norm: "predictions.LayerNorm",
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
                "predictions.decoder.weight",
                "albert.embeddings.word_embeddings.weight",
            ),
            ("predictions.decoder.bias", BIAS),
        ]
    }
}
