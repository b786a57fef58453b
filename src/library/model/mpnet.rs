//! MPNet (Song et al. 2020, arXiv 2004.09297).

use serde_json::Value as Json;

use super::super::net::{Beside, Net, Role, Site};
use super::super::schema::Schema;
use super::encoder::{self, BlockPaths, Config, Own, Scores, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::library::counts::to_u32;
use crate::program::op::ActivationKind;
use crate::program::{Bucketing, Distances, Feed, Value};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["mpnet"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "mpnet",
    summary: "MPNet encoders, from Hugging Face checkpoints",
    doc: "BERT's block with RoBERTa's positions and head, without segments, and with a bias of the scores by distance that all blocks \
          share. `model_type` is `mpnet`.",
    paper: "Song et al. 2020 (arXiv 2004.09297)",
    keys: &[],
};

const TABLE: &str = "mpnet.embeddings.word_embeddings";
const BIAS: &str = "lm_head.bias";
const DECODER: &str = "lm_head.decoder";
/// The token that is not counted, whatever `pad_token_id` says.
const PADDING: u64 = 1;
/// The distances that the class knows, whatever its table has room for.
const DISTANCES: Distances = Distances {
    buckets: 32,
    furthest: 128,
    by: Bucketing::BothSides,
    of_source: false,
};

#[derive(Debug)]
struct Mpnet {
    sizes: Sizes,
    facts: Facts,
    /// Rows of the table of distances.
    buckets: u64,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let own = encoder::bert_sizes(&config)?;
    let sizes = Sizes {
        // No class of it reads `classifier_dropout`.
        head_dropout: own.hidden_dropout,
        ..own
    };
    let key = "relative_attention_num_buckets";
    let buckets = config.size_or(key, DISTANCES.buckets.into())?;
    if !(u64::from(DISTANCES.buckets)..=1 << 16).contains(&buckets) {
        return Err(format!(
            "config.json has `{key}` = {buckets}; from {} to 65536 are wanted, since transformers puts distances into so many \
             buckets whatever it says",
            DISTANCES.buckets
        ));
    }
    let (positions, max_length) = encoder::padded_positions(PADDING, &sizes)?;
    let facts = Facts {
        max_length,
        positions,
        ..sizes.facts(0)
    };
    Ok(Box::new(Mpnet {
        sizes,
        facts,
        buckets,
    }))
}

fn paths(layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("mpnet.encoder.layer.{layer}.{rest}");
    BlockPaths {
        query: at("attention.attn.q"),
        key: at("attention.attn.k"),
        value: at("attention.attn.v"),
        attention_output: at("attention.attn.o"),
        heads: at("attention.attn"),
        attention: at("attention"),
        attention_norm: at("attention.LayerNorm"),
        ..encoder::bert_block("mpnet", layer)
    }
}

impl Mpnet {
    /// What is added to the scores by distance.
    fn scores(&self, net: &mut Net<'_>) -> Scores {
        let path = "mpnet.encoder.relative_attention_bias";
        let sizes = (self.buckets, self.sizes.heads);
        let table = Site::table(path, Role::PositionEmbedding, sizes);
        Scores::Plain(Beside::Bias(net.bias_by_distance(&table, DISTANCES)))
    }
}

impl Model for Mpnet {
    fn family(&self) -> &'static str {
        "mpnet"
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
        // Looking up the rows of padding teaches them nothing.
        let (d, padding) = (self.sizes.hidden, (1.0, Some(to_u32(PADDING))));
        let at = |name: &str| format!("mpnet.embeddings.{name}");
        let words = Site::table(TABLE, Role::WordEmbedding, (self.sizes.vocab, d));
        let ids = net.b.feed(Feed::TokenIds);
        let x = net.embedding_padded(&words, ids, padding);
        let sizes = (self.sizes.positions, d);
        let places = Site::table(at("position_embeddings"), Role::PositionEmbedding, sizes);
        let positions = net.b.feed(Feed::Positions);
        let place = net.embedding_padded(&places, positions, padding);
        let x = net.add(x, place);
        let norm = Site::norm(at("LayerNorm"), Role::EmbeddingNorm, d);
        let x = net.layer_norm(&norm, x, self.sizes.eps);
        net.dropout(x, self.sizes.hidden_dropout)
    }

    fn scores_by_distance(&self) -> bool {
        true
    }

    fn encode(&self, net: &mut Net<'_>) -> Value {
        let scores = self.scores(net);
        super::stacked(self, net, |net, layer, x| {
            let at = (Some(layer), layer + 1 == self.sizes.layers, scores.clone());
            encoder::block_scored(net, &paths(layer), &self.sizes, at, x)
        })
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        encoder::dense_head(net, &self.sizes, ActivationKind::Tanh, (hidden, classes))
    }

    fn classify_tokens(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Option<Value> {
        let (width, rate) = (self.sizes.hidden, self.sizes.head_dropout);
        Some(encoder::token_head(net, (width, classes), rate, hidden))
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
        // Files of a model that is not tied hold the other bias too, which nothing reads.
        let tied = self.sizes.tied;
        let bias = tied.then(|| encoder::bias_names(name, BIAS, DECODER));
        bias.flatten()
            .unwrap_or_else(|| encoder::old_names(name, &["mpnet."]))
    }

    fn exported_class(&self) -> String {
        "MPNetForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["classifier"]
    }
}

impl Chooses for Mpnet {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        encoder::pooled_head(net, "mpnet.pooler.dense", &self.sizes, hidden)
    }

    fn modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Extracts for Mpnet {}

impl Narrow for Mpnet {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: None,
            block: &paths(mirror.layer),
        };
        // A copy has as many heads, so the bias is the model's own.
        let scores = self.scores(net);
        encoder::mirror_scored(net, path, &self.sizes, own, (mirror, scores, x))
    }

    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        net.layer_norm(site, x, self.sizes.eps)
    }

    fn ends_in_norm(&self) -> bool {
        true
    }
}

impl MaskedLm for Mpnet {
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
                "mpnet.embeddings.word_embeddings.weight",
            ),
            ("lm_head.decoder.bias", "lm_head.bias"),
        ]
    }
}
