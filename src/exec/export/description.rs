//! What an artifact says of itself, so that `predict` needs no recipe.

use std::path::PathBuf;

use crate::library::chat::Kept;
use crate::library::generate::Rules;
use serde::{Deserialize, Serialize};

/// Name of the description inside an artifact.
pub const DESCRIPTION: &str = "peftc.json";

/// What [`Description::storage`] is where each matrix is stored as the file of the plain weights has it.
pub const AS_STORED: &str = "as stored";

/// Name of the file with the demonstrations of a prompt, beside the description.
pub const DEMONSTRATIONS: &str = "demonstrations.json";

/// What `predict` needs to know of an artifact beside its tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Description {
    /// Directory with the plain weights, as seen from the description's own.
    pub weights: PathBuf,
    /// Where that was when the artifact was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_at: Option<PathBuf>,
    /// Hash of the plain weights that an adapter stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Seed of the plain weights, where they are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<u64>,
    /// The model's config.json with the head of this artifact; a file beside the description where it is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
    /// The format of blocks that frozen matrices were stored in, if they were; or [`AS_STORED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Name of the file with what was trained, beside the description; `None` for whole models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Methods as written in a recipe.
    pub methods: Vec<String>,
    /// Name of the task.
    pub objective: String,
    /// Values of the task's keys that predictions depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<(String, f64)>,
    /// Class names.
    pub classes: Vec<String>,
    /// Tokens after which text is cut.
    pub max_length: u64,
    /// Tokens that end a text, where it generates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<u32>,
    /// What is said of the tokens that are made, where targets are made of sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Columns of the text.
    pub text: Vec<String>,
    /// What the chat template is given beside the messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Kept>,
    /// The template around the text.
    #[serde(default)]
    pub template: Option<String>,
    /// Token ids of the label words.
    #[serde(default)]
    pub words: Vec<u32>,
    /// Name of the file with the demonstrations that stand behind the text, beside the description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demonstrations: Option<String>,
}
