//! Binding: what a recipe's declarations mean on this machine. Models are read as far as their
//! config and tokenizer, data as far as their texts, lengths and labels; weights are not touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{ASSUMED_MODEL, BAD_MODEL, BAD_TOKENIZER, NO_TF32, UNKNOWN_IDENTITY};
use super::seen::Notes;
use super::source::Source;
use super::split::Lengths;
use crate::base::world::{HubFile, RepoKind, World};
use crate::base::{Diag, Diags, Span};
use crate::library::data::set::DataSet;
use crate::library::data::tokens::EncodedSet;
use crate::library::demonstrations::Demonstrations;
use crate::library::model;
use crate::library::objective::Objective;
use crate::library::prompt::Template;
use crate::library::tokenizer::{Tokenizer, TokenizerFiles};
use crate::program::device::Device;
use crate::program::op::Precision;
use crate::program::{DType, Numbers};
use crate::resolve::{Declared, Recipe};

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Local(PathBuf),
    /// A hub repository.
    Hub {
        /// `org/name`
        repo: String,
        /// Branch, tag or commit as written.
        revision: Option<String>,
    },
}

/// A model as far as planning needs it.
#[derive(Debug)]
pub struct BoundModel {
    /// Its name in the recipe.
    pub name: String,
    /// Its config.json.
    pub config: Json,
    /// Where its files are.
    pub place: Place,
    /// Seed of random weights; `None` for pretrained ones.
    pub random: Option<u64>,
    /// Type in which frozen matrices are held.
    pub storage: DType,
    /// In what numbers its products are formed.
    pub numbers: Numbers,
    /// Its tokenizer, if it could be had.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Hash of all that makes it what it is; `None` where that could not be had.
    pub identity: Option<String>,
    /// What an exported adapter names as its base.
    pub base_name: String,
}

/// A split, tokenized.
#[derive(Debug)]
pub struct BoundSplit {
    /// Its examples, all in each draw of demonstrations; `None` when the data are not at hand.
    pub encoded: Option<Arc<EncodedSet>>,
    /// Their lengths.
    pub lengths: Lengths,
    /// Columns of the text.
    pub text: Vec<String>,
    /// Class names, for classification.
    pub classes: Vec<String>,
    /// Hash of its files and of what is taken from them.
    pub identity: Option<String>,
    /// Bytes of tokens, tokenizer and demonstrations in memory.
    pub host_bytes: u64,
    /// Place of what was seen of its rows among all that was noted.
    pub noted: Option<usize>,
}

impl BoundSplit {
    /// Bytes of its tokens in memory.
    #[must_use]
    pub fn token_bytes(&self) -> u64 {
        let encoded = self.encoded.as_ref();
        encoded.map_or(0, |e| e.heap_bytes() + e.len() as u64 * 4)
    }
}

/// Binds declarations, each once.
#[derive(Debug)]
pub(super) struct Binder<'a> {
    pub recipe: &'a Recipe,
    pub world: &'a dyn World,
    device: Device,
    pub(super) models: BTreeMap<String, (Option<Arc<BoundModel>>, Diags)>,
    pub(super) tokenizers: BTreeMap<String, Arc<Tokenizer>>,
    pub(super) sources: BTreeMap<String, Arc<Source>>,
    pub(super) raw: BTreeMap<String, Arc<RawSplit>>,
    pub(super) splits: BTreeMap<String, Arc<BoundSplit>>,
    pub(super) pools: BTreeMap<String, Arc<Demonstrations>>,
    /// Whether to look at the rows of splits, and what was seen of each.
    pub(super) survey: bool,
    pub(super) noted: Notes,
}

#[derive(Debug)]
pub(super) struct RawSplit {
    pub(super) data: DataSet,
    pub(super) identity: Option<String>,
}

/// What a stage wants of a split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    pub objective: Objective,
    /// Class names already fixed by the stage's head.
    pub classes: Option<&'a [String]>,
    /// The order in which classes are taken that are found in the data, where it holds the same ones.
    pub preferred: Option<&'a [String]>,
    /// The template around the text, and where it is written.
    pub template: Option<(&'a Template, Span)>,
    /// What stands behind the text.
    pub demonstrations: Option<&'a Arc<Demonstrations>>,
    /// How many draws of it, each a set of all examples.
    pub draws: u64,
    pub max_length: u64,
    /// Whether to say what is seen of its rows.
    pub survey: bool,
}

impl<'a> Binder<'a> {
    pub(super) fn new(recipe: &'a Recipe, world: &'a dyn World, device: Device) -> Self {
        Self {
            recipe,
            world,
            device,
            models: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            sources: BTreeMap::new(),
            raw: BTreeMap::new(),
            splits: BTreeMap::new(),
            pools: BTreeMap::new(),
            survey: true,
            noted: Notes::default(),
        }
    }

    /// Binds the recipe's models, used or not.
    pub(super) fn models(&mut self, diags: &mut Diags) {
        let recipe = self.recipe;
        for declared in recipe.items.values() {
            if declared.declaration.keyword != "model" {
                continue;
            }
            let key = declared.identity();
            if !self.models.contains_key(&key) {
                let mut own = Diags::default();
                let bound = self.bind_model(declared, &mut own).map(Arc::new);
                self.models.insert(key.clone(), (bound, own));
            }
            if let Some((_, own)) = self.models.get(&key) {
                diags.extend(own.clone());
            }
        }
    }

    /// The model declared under a name, if it could be bound.
    pub(super) fn model(&self, name: &str) -> Option<Arc<BoundModel>> {
        let declared = self.recipe.find("model", name)?;
        self.models.get(&declared.identity())?.0.clone()
    }

    fn bind_model(&mut self, declared: &Declared, diags: &mut Diags) -> Option<BoundModel> {
        let arg = declared.arg.as_ref()?;
        let values = &declared.filled.values;
        let place = match declared.filled.name.as_str() {
            "hub" => Place::Hub {
                repo: arg.value.clone(),
                revision: values.str("revision").map(str::to_owned),
            },
            _ => Place::Local(declared.base.join(&arg.value)),
        };
        let files = Files {
            world: self.world,
            place: &place,
        };
        let vendored = || values.str("config").map(|file| declared.base.join(file));
        let mut bytes = files.read("config.json");
        if let (Err(why), Some(Ok(own))) = (&bytes, vendored().map(|file| self.world.read(&file))) {
            let message = format!("`{}` is not at hand: {why}", arg.value);
            let file = values.str("config").unwrap_or_default();
            diags.push(
                Diag::warning(&ASSUMED_MODEL, arg.span, message)
                    .label(format!("planned from `{file}`")),
            );
            bytes = Ok(own);
        }
        let mut fail = |message: String, help: &str| {
            let mut diag = Diag::error(&BAD_MODEL, arg.span, message).label("this model");
            if !help.is_empty() {
                diag = diag.help(help);
            }
            diags.push(diag);
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(why) => {
                fail(
                    format!(
                        "cannot read the config.json of `{}`: {why}",
                        declared.name.value
                    ),
                    "",
                );
                return None;
            }
        };
        let config: Json = match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(why) => {
                fail(
                    format!(
                        "the config.json of `{}` is not valid JSON: {why}",
                        declared.name.value
                    ),
                    "",
                );
                return None;
            }
        };
        let architecture = match model::parse(&config) {
            Ok(architecture) => architecture,
            Err(why) => {
                fail(why, "");
                return None;
            }
        };
        let random = (values.str("init") == Some("random")).then(|| values.int("seed"));
        if let (None, Place::Local(dir)) = (random, &place) {
            let has = |file: &str| self.world.exists(&dir.join(file));
            if !has("model.safetensors") && !has("model.safetensors.index.json") {
                let help = if has("pytorch_model.bin") {
                    "convert pytorch_model.bin to safetensors first: load it in transformers and call save_pretrained"
                } else {
                    "put model.safetensors there, or write `init = random` to try speed and memory without weights"
                };
                fail(format!("there are no weights in `{}`", dir.display()), help);
                return None;
            }
        }
        let tokenizer = self.tokenizer(declared, &place, architecture.facts().vocab, diags);
        let identity = files.identity(&bytes, random, tokenizer.as_deref());
        if identity.is_none() {
            diags.push(
                Diag::warning(
                    &UNKNOWN_IDENTITY,
                    arg.span,
                    format!("the revision of `{}` could not be had", declared.name.value),
                )
                .label("so stages that use it have no fingerprint"),
            );
        }
        let storage = match values.str("dtype") {
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            _ => DType::F32,
        };
        let products = match values.str("precision") {
            Some("bf16") => Precision::Bf16,
            Some("tf32") => {
                self.without_tf32(declared, diags);
                Precision::Tf32
            }
            _ => Precision::F32,
        };
        let base_name = match &place {
            Place::Hub { repo, .. } => repo.clone(),
            Place::Local(dir) => dir.display().to_string(),
        };
        Some(BoundModel {
            name: declared.name.value.clone(),
            config,
            place,
            random,
            storage,
            numbers: Numbers {
                products,
                activations: match values.str("activations") {
                    Some("f16") => DType::F16,
                    Some("bf16") => DType::BF16,
                    _ => DType::F32,
                },
            },
            tokenizer,
            identity,
            base_name,
        })
    }

    /// Says so where products in TF32 are asked for and cannot be had.
    fn without_tf32(&self, declared: &Declared, diags: &mut Diags) {
        let place = match self.device {
            Device::Cpu => "the processor has no TF32".to_owned(),
            Device::Cuda(Some(card)) if card.tf32 == 0 => {
                format!("`{}` has no TF32: it came with Ampere", card.name)
            }
            Device::Cuda(_) => return,
        };
        let at = declared.filled.values.span("precision");
        diags.push(
            Diag::warning(
                &NO_TF32,
                at,
                format!("{place}, and products are taken in f32"),
            )
            .label("more exact than asked for, and as slow as `f32`")
            .help("plan for a GPU (`--device cuda`, `--device a100-80gb`), or write `precision = bf16`"),
        );
    }

    fn tokenizer(
        &mut self,
        declared: &Declared,
        place: &Place,
        vocab: u64,
        diags: &mut Diags,
    ) -> Option<Arc<Tokenizer>> {
        let own = declared
            .filled
            .values
            .str("tokenizer")
            .map(|dir| Place::Local(declared.base.join(dir)));
        let place = own.as_ref().unwrap_or(place);
        let key = format!("{vocab} {place:?}");
        if let Some(known) = self.tokenizers.get(&key) {
            return Some(known.clone());
        }
        let at = declared
            .filled
            .values
            .written("tokenizer")
            .then(|| declared.filled.values.span("tokenizer"));
        let at = at
            .or(declared.arg.as_ref().map(|a| a.span))
            .unwrap_or_default();
        let files = Files {
            world: self.world,
            place,
        };
        let get = |name: &str| files.read(name).ok();
        let dir_name = match place {
            Place::Local(dir) => dir.display().to_string(),
            Place::Hub { repo, .. } => repo.clone(),
        };
        match Tokenizer::from_files(&TokenizerFiles {
            dir_name,
            get: &get,
        }) {
            Ok(tokenizer) if tokenizer.vocab_size() as u64 <= vocab => {
                let tokenizer = Arc::new(tokenizer);
                self.tokenizers.insert(key, tokenizer.clone());
                Some(tokenizer)
            }
            Ok(tokenizer) => {
                diags.push(
                    Diag::error(
                        &BAD_TOKENIZER,
                        at,
                        format!(
                            "the tokenizer knows {} tokens, the model has embeddings for {vocab}",
                            tokenizer.vocab_size()
                        ),
                    )
                    .help("name the directory of the model's own tokenizer: `tokenizer = \"…\"`"),
                );
                None
            }
            Err(why) if matches!(place, Place::Hub { .. }) => {
                diags.push(Diag::warning(
                    &BAD_TOKENIZER,
                    at,
                    format!(
                        "the tokenizer of `{}` cannot be had: {why}",
                        declared.name.value
                    ),
                ));
                None
            }
            Err(why) => {
                diags.push(Diag::error(
                    &BAD_TOKENIZER,
                    at,
                    format!(
                        "the tokenizer of `{}` cannot be read: {why}",
                        declared.name.value
                    ),
                ));
                None
            }
        }
    }
}

/// A model's files by name.
struct Files<'a> {
    world: &'a dyn World,
    place: &'a Place,
}

impl Files<'_> {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        match self.place {
            Place::Local(dir) => self.world.read(&dir.join(name)).map_err(|e| e.to_string()),
            Place::Hub { repo, revision } => {
                let file = HubFile {
                    repo: repo.clone(),
                    kind: RepoKind::Model,
                    revision: revision.clone(),
                    file: name.to_owned(),
                };
                let path = self.world.hub(&file).map_err(|e| e.to_string())?;
                self.world.read(&path.path).map_err(|e| e.to_string())
            }
        }
    }

    /// Config, weights and tokenizer: local files by content, hub files by commit.
    fn identity(
        &self,
        config: &[u8],
        random: Option<u64>,
        tokenizer: Option<&Tokenizer>,
    ) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(config);
        hasher.update(format!("{random:?}").as_bytes());
        if let Some(json) = tokenizer.and_then(|t| t.save_json().ok()) {
            hasher.update(&json);
        }
        match (self.place, random) {
            (Place::Local(dir), None) => {
                for file in self.weight_files(dir) {
                    hasher.update(self.world.fingerprint(&dir.join(file)).ok()?.as_bytes());
                }
            }
            (Place::Hub { repo, revision }, None) => {
                let file = HubFile {
                    repo: repo.clone(),
                    kind: RepoKind::Model,
                    revision: revision.clone(),
                    file: "config.json".to_owned(),
                };
                let commit = self.world.hub(&file).ok()?.commit?;
                hasher.update(format!("{repo}@{commit}").as_bytes());
            }
            (_, Some(_)) => {}
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    fn weight_files(&self, dir: &Path) -> Vec<String> {
        let all = self.world.list(dir).unwrap_or_default();
        all.into_iter()
            .filter(|f| f.ends_with(".safetensors") || f == "model.safetensors.index.json")
            .collect()
    }
}
