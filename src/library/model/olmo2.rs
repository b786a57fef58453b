//! OLMo 2 (Team OLMo 2024, arXiv 2501.00656).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA, Norms, QkNorm};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["olmo2"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "olmo2",
    summary: "OLMo 2 decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block with norms behind each sub-layer, and of queries and keys over all heads. `model_type` is `olmo2`.",
    paper: "Team OLMo 2024 (arXiv 2501.00656)",
    keys: &[],
};

const CLASS: Class = Class { eps: 1e-5, ..LLAMA };

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.norms = Norms::Behind;
    shape.qk_norm = QkNorm::Width;
    decoder::model("olmo2", "Olmo2", shape)
}
