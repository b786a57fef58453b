//! ModernBERT (Warner et al. 2024, arXiv 2412.13663).

mod block;
mod config;

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::super::schema::Schema;
use super::{Architecture, Chooses, Extracts, Facts, MaskedLm, Mirror, Model, Narrow};
use crate::program::{Feed, Value};

use block::Block;
use config::{Layer, Shape};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["modernbert"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "modernbert",
    summary: "ModernBERT encoders, from Hugging Face checkpoints",
    doc: "Norms before each sub-layer, rotary positions, GeGLU, and biases where the config has them; most blocks look through a \
          window on both sides, with rotary positions of their own. Sequences are classified by a layer with activation and \
          norm and a linear layer, on the first token or the mean of all. `model_type` is `modernbert`.",
    paper: "Warner et al. 2024 (arXiv 2412.13663)",
    keys: &[],
};

const TABLE: &str = "model.embeddings.tok_embeddings";
const DECODER: &str = "decoder";

#[derive(Debug)]
struct ModernBert {
    shape: Shape,
    facts: Facts,
}

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let shape = config::shape(config)?;
    let facts = shape.facts();
    Ok(Box::new(ModernBert { shape, facts }))
}

impl ModernBert {
    fn table(&self) -> Site {
        let sizes = (self.shape.vocab, self.shape.hidden);
        Site::table(TABLE, Role::WordEmbedding, sizes)
    }

    /// What stands before the scores, of classes or of words: `norm(act(dense(x)))`.
    fn head(&self, net: &mut Net<'_>, (dense, norm): (Role, Role), x: Value) -> Value {
        let d = self.shape.hidden;
        let dense = Site::linear("head.dense", dense, (d, d));
        let dense = self.shape.biased(self.shape.biases.head, dense);
        let x = net.linear(dense, x);
        let x = net.activation(self.shape.head_activation, x);
        self.shape.norm(net, &Site::norm("head.norm", norm, d), x)
    }

    fn layer(&self, layer: u64) -> Option<&Layer> {
        self.shape.layers.get(layer as usize)
    }
}

impl Model for ModernBert {
    fn family(&self) -> &'static str {
        "modernbert"
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.shape.set_dropout(rate);
        self.facts.dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        let ids = net.b.feed(Feed::TokenIds);
        let x = net.embedding(&self.table(), ids);
        let width = self.shape.hidden;
        let norm = Site::norm("model.embeddings.norm", Role::EmbeddingNorm, width);
        let x = self.shape.norm(net, &norm, x);
        net.dropout(x, self.shape.dropout.embedding)
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        let Some(own) = self.layer(layer) else {
            return x;
        };
        let block = Block {
            shape: &self.shape,
            own,
            layer: Some(layer),
            prefix: format!("model.layers.{layer}"),
        };
        block.build(net, x, layer + 1 == self.facts.layers)
    }

    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        let norm = Site::norm("model.final_norm", Role::FinalNorm, self.shape.hidden);
        self.shape.norm(net, &norm, x)
    }

    fn averages(&self) -> bool {
        self.shape.averages
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let x = self.head(net, (Role::HeadDense, Role::HeadNorm), hidden);
        let x = net.dropout(x, self.shape.dropout.head);
        let widths = (self.shape.hidden, classes);
        net.linear(Site::linear("classifier", Role::HeadOutput, widths), x)
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
        // Files of the bare model have no prefix.
        let bare = name.strip_prefix("model.").map(str::to_owned);
        [name.to_owned()].into_iter().chain(bare).collect()
    }

    fn other_heads(&self) -> &'static [&'static str] {
        &["head", "decoder"]
    }

    fn exported_class(&self) -> String {
        "ModernBertForSequenceClassification".to_owned()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["head", "classifier"]
    }
}

impl Chooses for ModernBert {
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.classify(net, hidden, 1)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Extracts for ModernBert {
    fn bounds(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        self.classify(net, hidden, 2)
    }

    fn modules(&self) -> &'static [&'static str] {
        self.head_modules()
    }
}

impl Narrow for ModernBert {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let Some(own) = self.layer(mirror.layer) else {
            return x;
        };
        let copy = Block {
            shape: &self.shape.narrower(mirror.reduction),
            own: &own.narrower(mirror.reduction),
            layer: None,
            prefix: path.to_owned(),
        };
        copy.build(net, x, mirror.last)
    }

    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        self.shape.norm(net, site, x)
    }

    fn ends_in_norm(&self) -> bool {
        false
    }
}

impl MaskedLm for ModernBert {
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value {
        let x = self.head(net, (Role::LmDense, Role::LmNorm), masked);
        let sizes = (self.shape.vocab, self.shape.hidden);
        let table = match self.shape.tied {
            true => self.table(),
            false => Site::table(DECODER, Role::LmDecoder, sizes),
        };
        let bias = self.shape.biases.decoder.then_some("decoder.bias");
        net.decode(x, &table, bias, words)
    }

    fn tied_names(&self) -> &'static [(&'static str, &'static str)] {
        &[("decoder.weight", "model.embeddings.tok_embeddings.weight")]
    }
}
