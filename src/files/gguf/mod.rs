//! GGUF, llama.cpp's files: a whole model with its config and tokenizer in one file.
//!
//! A file stands for a model's folder: its metadata give `config.json`, `tokenizer.json` and `tokenizer_config.json`,
//! and its tensors have the names and values that Hugging Face's files give them.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

pub mod config;
pub mod describe;
mod differs;
pub mod header;
pub mod names;
pub mod tokenizer;
pub mod tokens;
mod types;
pub mod write;

use header::Header;

pub use differs::differs as config_differs;

/// The end of its files' names, behind the dot.
pub const EXTENSION: &str = "gguf";

/// Whether a path names such a file.
#[must_use]
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == EXTENSION)
}

/// An open file, as far as a plan needs it.
#[derive(Debug)]
pub struct Gguf {
    header: Header,
    config: Json,
    /// The tokenizer's two files, made when they are first asked for.
    tokens: OnceLock<Result<[Vec<u8>; 2], String>>,
}

impl Gguf {
    /// Reads the front of a file of so many bytes.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub fn open(file: &File, size: u64) -> Result<Self, String> {
        let header = Header::read(file, size)?;
        let config = config::config(&header, file)?;
        Ok(Self {
            header,
            config,
            tokens: OnceLock::new(),
        })
    }

    /// A file of the folder that it stands for; `None` where there is none of that name.
    ///
    /// # Errors
    /// Its metadata do not give that file.
    pub fn side(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let json = match name {
            "config.json" => self.config.clone(),
            "tokenizer.json" => return self.tokens().map(|[own, _]| Some(own.clone())),
            "tokenizer_config.json" => return self.tokens().map(|[_, own]| Some(own.clone())),
            "generation_config.json" => self.ends()?,
            _ => return Ok(None),
        };
        serde_json::to_vec(&json)
            .map(Some)
            .map_err(|e| e.to_string())
    }

    /// `tokenizer.json` and `tokenizer_config.json`.
    fn tokens(&self) -> Result<&[Vec<u8>; 2], String> {
        let make = || {
            let own = tokenizer::files(&self.header)?;
            let bytes = |json: &Json| serde_json::to_vec(json).map_err(|e| e.to_string());
            Ok([bytes(&own.tokenizer)?, bytes(&own.config)?])
        };
        self.tokens.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// The tokens at which a text ends.
    fn ends(&self) -> Result<Json, String> {
        let mut ids: Vec<u64> = Vec::new();
        for role in ["eos", "eot"] {
            let id = self
                .header
                .size(&format!("tokenizer.ggml.{role}_token_id"))?;
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        Ok(json!({ "eos_token_id": ids }))
    }
}
