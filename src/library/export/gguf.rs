//! `gguf`: a whole model in one file for llama.cpp.

use super::{Export, Target};
use crate::library::schema::{Given, Schema, Values, kind};
use crate::program::Format;

/// The format.
#[derive(Debug)]
pub(super) struct Gguf;

const DTYPE: Given<str> = Given::<str>::new(
    "dtype",
    kind::choice(&["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k"]),
    ("f16", "f16"),
    "how matrices are stored. In 4 bits, embeddings and the head are stored in `q8_0`; rows that are no whole blocks in `q8_0` or `f16`",
);

static SCHEMA: Schema = Schema {
    name: "gguf",
    summary: "a GGUF file for llama.cpp, with an Ollama Modelfile beside it",
    doc: "Adapters are folded in. The file holds weights, config, tokenizer and chat template. It is read back and compared \
          before the stage counts as done. Where matrices are stored in blocks, the error of rounding to blocks is compared with the \
          adapter's update in every matrix.",
    paper: "",
    keys: &[DTYPE.key()],
};

impl Export for Gguf {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn target(&self, values: &Values) -> Target {
        Target::Gguf(Format::named(DTYPE.get(values)).unwrap_or_default())
    }
}
