//! DeBERTa-v2 and DeBERTa-v3 (He et al. 2021, arXiv 2006.03654 and 2111.09543).

use super::super::net::{Convolution, Net, Role, Site};
use super::super::schema::Schema;
use super::encoder::{self, BlockPaths, Disentangled, Own, Scores, Sizes};
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::program::op::ActivationKind;
use crate::program::{Distances, Feed, Value};

mod config;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["deberta-v2"],
    parse: config::parse,
};

static SCHEMA: Schema = Schema {
    name: "deberta_v2",
    summary: "DeBERTa-v2 and v3 encoders, from Hugging Face checkpoints",
    doc: "BERT's block with disentangled attention: queries meet keys of distances (`c2p`), and keys queries of distances (`p2c`), which \
          one table for all blocks is mapped to. Sequences are classified by a pooler with `pooler_hidden_act` and a linear layer on the \
          first token. With `conv_kernel_size`, as the larger v2 models have it, a convolution along the tokens stands beside the first \
          block. Blocks of ladders attend without distances, and have no convolution. `model_type` is `deberta-v2`, which v3 has too.",
    paper: "He et al. 2021 (arXiv 2006.03654; 2111.09543)",
    keys: &[],
};

const TABLE: &str = "deberta.embeddings.word_embeddings";
const WIDENING: &str = "deberta.embeddings.embed_proj";

/// What stands between the first token's state and the scores.
#[derive(Debug)]
struct Pooler {
    dropout: f64,
    activation: ActivationKind,
}

/// What stands behind the first block.
#[derive(Clone, Copy, Debug)]
struct Convolved {
    of: Convolution,
    activation: ActivationKind,
}

#[derive(Debug)]
struct Deberta {
    sizes: Sizes,
    facts: Facts,
    /// The bucket of each distance, where attention reads them.
    distances: Option<Distances>,
    /// Whether queries meet distances, and keys.
    meets: [bool; 2],
    /// Whether the maps of tokens make keys and queries of distances.
    shares: bool,
    /// Whether a norm stands behind the table of distances.
    normed: bool,
    /// Whether embeddings of positions are added to those of tokens.
    biased: bool,
    padding: Option<u32>,
    /// Whether the masked-LM head is the older one.
    legacy: bool,
    pooler: Pooler,
    convolved: Option<Convolved>,
}

fn paths(layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("deberta.encoder.layer.{layer}.attention.self.{rest}");
    BlockPaths {
        query: at("query_proj"),
        key: at("key_proj"),
        value: at("value_proj"),
        ..encoder::bert_block("deberta", layer)
    }
}

impl Deberta {
    /// The rows of distances as all blocks read them, `[buckets, hidden]`.
    fn rows(&self, net: &mut Net<'_>, distances: Distances) -> Value {
        let d = self.sizes.hidden;
        let sizes = (distances.buckets.into(), d);
        let path = "deberta.encoder.rel_embeddings";
        let table = Site::table(path, Role::PositionEmbedding, sizes);
        net.b.label(path);
        let rows = net.weight(&table);
        if !self.normed {
            return rows;
        }
        let norm = Site::norm("deberta.encoder.LayerNorm", Role::PositionNorm, d);
        net.layer_norm(&norm, rows, self.sizes.eps)
    }

    /// What a block's scores have beside the products of its queries and keys. A block of a model with `pos_att_type` and without a
    /// table of distances has the smaller scale alone.
    fn scores(&self, rows: Option<(Value, Distances)>, layer: u64) -> Scores {
        let Some((rows, distances)) = rows else {
            return Scores::Alone(self.meets.iter().filter(|meets| **meets).count());
        };
        let own = |rest: &str| format!("deberta.encoder.layer.{layer}.attention.self.{rest}");
        Scores::Disentangled(Disentangled {
            rows,
            distances,
            meets: self.meets,
            own: (!self.shares).then(|| [own("pos_key_proj"), own("pos_query_proj")]),
        })
    }

    /// What leaves the first block, with what a convolution makes of what entered it.
    fn convolve(&self, net: &mut Net<'_>, own: Convolved, (x, y): (Value, Value)) -> Value {
        let made = net.convolution("deberta.encoder.conv.conv", Some(0), own.of, x);
        let made = net.dropout(made, self.sizes.hidden_dropout);
        let made = net.activation(own.activation, made);
        let sum = net.add(y, made);
        let path = "deberta.encoder.conv.LayerNorm";
        let norm = Site::norm(path, Role::ConvolutionNorm, self.sizes.hidden).in_layer(Some(0));
        net.layer_norm(&norm, sum, self.sizes.eps)
    }

    fn widening(&self) -> Option<&'static str> {
        (self.sizes.embedding != self.sizes.hidden).then_some(WIDENING)
    }

    /// A score for each class of the first tokens' states.
    fn pooled(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let d = self.sizes.hidden;
        let x = net.dropout(hidden, self.pooler.dropout);
        let x = net.linear(Site::linear("pooler.dense", Role::HeadDense, (d, d)), x);
        let x = net.activation(self.pooler.activation, x);
        let x = net.dropout(x, self.sizes.head_dropout);
        let site = Site::linear("classifier", Role::HeadOutput, (d, classes));
        net.linear(site, x)
    }
}

impl Model for Deberta {
    fn family(&self) -> &'static str {
        "deberta_v2"
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.sizes.set_dropout(rate);
        self.pooler.dropout = rate;
        self.facts.dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        let at = |name: &str| format!("deberta.embeddings.{name}");
        let table =
            |name: &str, role, rows| Site::table(at(name), role, (rows, self.sizes.embedding));
        let ids = net.b.feed(Feed::TokenIds);
        let words = Site::table(
            TABLE,
            Role::WordEmbedding,
            (self.sizes.vocab, self.sizes.embedding),
        );
        let mut x = net.embedding_padded(&words, ids, (1.0, self.padding));
        let segments = self.facts.segments;
        for (there, feed, site) in [
            (
                self.biased,
                Feed::Positions,
                table(
                    "position_embeddings",
                    Role::PositionEmbedding,
                    self.sizes.positions,
                ),
            ),
            (
                segments > 0,
                Feed::Segments,
                table("token_type_embeddings", Role::SegmentEmbedding, segments),
            ),
        ] {
            if there {
                let ids = net.b.feed(feed);
                let part = net.embedding(&site, ids);
                x = net.add(x, part);
            }
        }
        if let Some(path) = self.widening() {
            let widths = (self.sizes.embedding, self.sizes.hidden);
            let map = Site::linear(path, Role::EmbeddingProjection, widths);
            x = net.linear(map.without_bias(), x);
        }
        let norm = Site::norm(at("LayerNorm"), Role::EmbeddingNorm, self.sizes.hidden);
        let x = net.layer_norm(&norm, x, self.sizes.eps);
        net.dropout(x, self.sizes.hidden_dropout)
    }

    fn encode(&self, net: &mut Net<'_>) -> Value {
        let rows = self.distances.map(|own| (self.rows(net, own), own));
        super::stacked(self, net, |net, layer, x| {
            let scores = self.scores(rows, layer);
            let convolved = self.convolved.filter(|_| layer == 0);
            let last = layer + 1 == self.sizes.layers && convolved.is_none();
            let at = (Some(layer), last, scores);
            let y = encoder::block_scored(net, &paths(layer), &self.sizes, at, x);
            match convolved {
                Some(convolved) => self.convolve(net, convolved, (x, y)),
                None => y,
            }
        })
    }

    fn scores_by_distance(&self) -> bool {
        self.distances.is_some()
    }

    fn maps_distances(&self) -> bool {
        self.distances.is_some()
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        self.pooled(net, hidden, classes)
    }

    fn classify_tokens(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Option<Value> {
        // Whatever `cls_dropout` says.
        let (width, rate) = (self.sizes.hidden, self.sizes.hidden_dropout);
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
        // The newer head multiplies states with embeddings.
        let fits = self.legacy || self.widening().is_none();
        fits.then_some(self as &dyn MaskedLm)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        // Files of a model that is not tied hold the other bias too, which nothing reads.
        let (paths, shared) = (self.lm_paths(), self.legacy && self.sizes.tied);
        let bias = shared.then(|| encoder::bias_names(name, paths.bias, paths.decoder));
        bias.flatten()
            .unwrap_or_else(|| encoder::old_names(name, &["deberta."]))
    }

    fn other_heads(&self) -> &'static [&'static str] {
        if self.legacy {
            &["lm_predictions", "mask_predictions"]
        } else {
            &["cls", "mask_predictions"]
        }
    }

    fn passes_over(&self, name: &str) -> bool {
        let positions = name.ends_with("embeddings.position_embeddings.weight");
        let distances = [
            "encoder.rel_embeddings.weight",
            "encoder.LayerNorm.weight",
            "encoder.LayerNorm.bias",
        ];
        positions && !self.biased
            || self.distances.is_none() && distances.iter().any(|own| name.ends_with(own))
    }

    fn exported_class(&self) -> String {
        "DebertaV2ForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["pooler", "classifier"]
    }
}

impl Chooses for Deberta {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.pooled(net, hidden, 1)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Extracts for Deberta {}

impl Narrow for Deberta {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let own = Own {
            table: TABLE,
            widening: self.widening(),
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

impl Deberta {
    fn lm_paths(&self) -> encoder::LmPaths {
        let activation = self.sizes.activation;
        if self.legacy {
            encoder::LmPaths {
                dense: "cls.predictions.transform.dense",
                norm: "cls.predictions.transform.LayerNorm",
                bias: "cls.predictions.bias",
                embeddings: TABLE,
                decoder: "cls.predictions.decoder",
                activation,
            }
        } else {
            encoder::LmPaths {
                dense: "lm_predictions.lm_head.dense",
                norm: "lm_predictions.lm_head.LayerNorm",
                bias: "lm_predictions.lm_head.bias",
                embeddings: TABLE,
                decoder: "lm_predictions.lm_head.decoder",
                activation,
            }
        }
    }
}

impl MaskedLm for Deberta {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        // The newer head reads the embeddings whatever `tie_word_embeddings` says.
        let sizes = Sizes {
            tied: self.sizes.tied || !self.legacy,
            ..self.sizes.clone()
        };
        encoder::words(net, &self.lm_paths(), &sizes, masked, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        if !self.legacy {
            return &[];
        }
        &[
            (
                "cls.predictions.decoder.weight",
                "deberta.embeddings.word_embeddings.weight",
            ),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ]
    }
}
