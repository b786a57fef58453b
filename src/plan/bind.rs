//! Binding: what a recipe's declarations mean on this machine. Models are read as far as their
//! config and tokenizer, data as far as their texts, lengths and labels; weights are not touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value as Json;

use super::error::{
    ASSUMED_LENGTHS, ASSUMED_MODEL, BAD_DATA, BAD_MODEL, BAD_PROMPT, BAD_TOKENIZER,
    UNKNOWN_IDENTITY,
};
use super::split::Lengths;
use crate::base::world::{HubFile, RepoKind, World};
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::data::batch::{EncodedExample, EncodedSet, Target};
use crate::library::data::set::{DataSet, DataSpec, Label, Labels, load};
use crate::library::data::split::{SplitSource, find_split};
use crate::library::model;
use crate::library::objective::Objective;
use crate::library::prompt::Template;
use crate::library::tokenizer::{Encoded, Tokenizer, TokenizerFiles};
use crate::program::DType;
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
    /// Its examples; `None` when the data are not at hand.
    pub encoded: Option<Arc<EncodedSet>>,
    /// Their lengths.
    pub lengths: Lengths,
    /// Columns of the text.
    pub text: Vec<String>,
    /// Class names, for classification.
    pub classes: Vec<String>,
    /// Hash of its files and of what is taken from them.
    pub identity: Option<String>,
    /// Bytes of texts and tokens in memory.
    pub host_bytes: u64,
}

/// Binds declarations, each once.
#[derive(Debug)]
pub(super) struct Binder<'a> {
    pub recipe: &'a Recipe,
    pub world: &'a dyn World,
    models: BTreeMap<String, (Option<Arc<BoundModel>>, Diags)>,
    tokenizers: BTreeMap<String, Arc<Tokenizer>>,
    raw: BTreeMap<String, Arc<RawSplit>>,
    splits: BTreeMap<String, Arc<BoundSplit>>,
}

#[derive(Debug)]
struct RawSplit {
    data: DataSet,
    identity: Option<String>,
}

/// What a stage wants of a split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    pub objective: Objective,
    /// Class names already fixed by the stage's head.
    pub classes: Option<&'a [String]>,
    /// The template around the text, and where it is written.
    pub template: Option<(&'a Template, Span)>,
    pub max_length: u64,
}

impl<'a> Binder<'a> {
    pub(super) fn new(recipe: &'a Recipe, world: &'a dyn World) -> Self {
        Self {
            recipe,
            world,
            models: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            raw: BTreeMap::new(),
            splits: BTreeMap::new(),
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
            tokenizer,
            identity,
            base_name,
        })
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

    /// A split as a stage wants it; `None` after a diagnostic.
    pub(super) fn split(
        &mut self,
        name: &str,
        split: &str,
        model: &BoundModel,
        want: Want<'_>,
        at: crate::base::Span,
        diags: &mut Diags,
    ) -> Option<Arc<BoundSplit>> {
        let declared = self.recipe.find("data", name)?;
        let text = declared.filled.values.names("text").to_vec();
        if let Some((template, at)) = want.template
            && let Some(column) = template.columns().find(|c| !text.iter().any(|t| t == c))
        {
            let mut diag = Diag::error(
                &BAD_PROMPT,
                at,
                format!(
                    "the template asks for the column `{column}`, which `{name}` does not read"
                ),
            );
            diag.help = suggest::did_you_mean(column, text.iter().map(String::as_str))
                .or_else(|| Some(format!("add it to `text` of `{name}`")));
            diags.push(diag);
            return None;
        }
        let classes = match (want.objective, want.classes) {
            (Objective::Regress, _) => Vec::new(),
            (_, Some(classes)) => classes.to_vec(),
            (_, None) => declared.filled.values.names("labels").to_vec(),
        };
        let raw = match self.raw_split(declared, split, want.objective, &classes) {
            Ok(raw) => raw,
            Err(Unavailable::Offline(why)) => {
                diags.push(
                    Diag::warning(
                        &ASSUMED_LENGTHS,
                        at,
                        format!("`{name}.{split}` is not at hand: {why}"),
                    )
                    .label(format!(
                        "every text is taken as {} tokens long; lengths and labels are not checked",
                        want.max_length
                    )),
                );
                return Some(Arc::new(BoundSplit {
                    text: text.clone(),
                    encoded: None,
                    lengths: Lengths::Assumed(want.max_length as u32),
                    classes,
                    identity: None,
                    host_bytes: 0,
                }));
            }
            Err(Unavailable::Wrong(list)) => {
                for (message, help) in list {
                    let mut diag = Diag::error(&BAD_DATA, at, message);
                    diag.help = help;
                    diags.push(diag.label("this split"));
                }
                return None;
            }
        };
        let Some(tokenizer) = model.tokenizer.clone() else {
            let n = raw.data.examples.len();
            let known = Lengths::Known(vec![want.max_length as u32; n]);
            return Some(Arc::new(BoundSplit {
                text: text.clone(),
                encoded: None,
                lengths: known,
                classes: raw.data.classes.clone(),
                identity: None,
                host_bytes: 0,
            }));
        };
        // Both are kept as long as this, so their places tell them from all others.
        let key = format!(
            "{:p} {:p} {} {:?}",
            Arc::as_ptr(&raw),
            Arc::as_ptr(&tokenizer),
            want.max_length,
            want.template.map(|(t, _)| &t.source)
        );
        if let Some(known) = self.splits.get(&key) {
            return Some(known.clone());
        }
        let template = want.template.map(|(t, _)| (t, text.as_slice()));
        match encode(&raw.data, &tokenizer, template, want.max_length as usize) {
            Ok(encoded) => {
                let lengths: Vec<u32> = encoded.lengths();
                let tokens: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
                let text_bytes: u64 = raw
                    .data
                    .examples
                    .iter()
                    .flat_map(|e| &e.texts)
                    .map(|t| t.len() as u64 + 24)
                    .sum();
                let bound = Arc::new(BoundSplit {
                    text: text.clone(),
                    host_bytes: text_bytes
                        + tokens * 5
                        + lengths.len() as u64 * 120
                        + tokenizer.heap_bytes(),
                    encoded: Some(Arc::new(encoded)),
                    lengths: Lengths::Known(lengths),
                    classes: raw.data.classes.clone(),
                    identity: raw.identity.clone(),
                });
                self.splits.insert(key, bound.clone());
                Some(bound)
            }
            Err(why) => {
                let (code, at) = match want.template {
                    Some((_, at)) => (&BAD_PROMPT, at),
                    None => (&BAD_TOKENIZER, at),
                };
                let message = format!("`{name}.{split}` cannot be tokenized: {why}");
                diags.push(Diag::error(code, at, message));
                None
            }
        }
    }

    fn raw_split(
        &mut self,
        declared: &Declared,
        split: &str,
        objective: Objective,
        classes: &[String],
    ) -> Result<Arc<RawSplit>, Unavailable> {
        let key = format!(
            "{}.{split}.{}.{classes:?}",
            declared.identity(),
            objective.name()
        );
        if let Some(raw) = self.raw.get(&key) {
            return Ok(raw.clone());
        }
        let values = &declared.filled.values;
        let canonical = if matches!(split, "validation" | "valid" | "val") {
            "dev"
        } else {
            split
        };
        let named = values.names(canonical);
        let arg = declared
            .arg
            .as_ref()
            .map(|a| a.value.clone())
            .unwrap_or_default();
        let hub = declared.filled.name == "hub";
        let files = if named.is_empty() {
            let source = if hub {
                SplitSource::Hub {
                    repo: arg,
                    revision: values.str("revision").map(str::to_owned),
                    config: values.str("config").map(str::to_owned),
                }
            } else {
                SplitSource::Local(declared.base.join(&arg))
            };
            // A repository that answers, but has no such split or configuration, is the recipe's mistake.
            let out_of_reach = match &source {
                SplitSource::Hub { repo, revision, .. } => {
                    let listed = self
                        .world
                        .hub_list(repo, RepoKind::Dataset, revision.as_deref());
                    listed.is_err()
                }
                SplitSource::Local(_) => false,
            };
            find_split(&source, split, self.world).map_err(|e| {
                if out_of_reach {
                    Unavailable::Offline(e.to_string())
                } else {
                    Unavailable::Wrong(vec![(e.to_string(), e.help.clone())])
                }
            })?
        } else if hub {
            let revision = values.str("revision").map(str::to_owned);
            let fetch = |file: &String| {
                let file = HubFile {
                    repo: arg.clone(),
                    kind: RepoKind::Dataset,
                    revision: revision.clone(),
                    file: file.clone(),
                };
                self.world
                    .hub(&file)
                    .map(|p| p.path)
                    .map_err(|e| Unavailable::Offline(e.to_string()))
            };
            named.iter().map(fetch).collect::<Result<Vec<_>, _>>()?
        } else {
            let dir = declared.base.join(&arg);
            named.iter().map(|file| dir.join(file)).collect()
        };
        let labels = match objective {
            Objective::Regress => Labels::Regression,
            _ if classes.is_empty() => Labels::Derive,
            _ => Labels::Given(classes.to_vec()),
        };
        let spec = DataSpec {
            files: files.clone(),
            format: values.str("format").map(str::to_owned),
            text: values.names("text").to_vec(),
            label: values.str("label").map(str::to_owned),
            take: values.opt_int("take"),
            shuffle: values.opt_int("shuffle"),
            labels,
        };
        if spec.label.is_none() {
            let help = "write `label = …` with the column that holds what is to be learned";
            return Err(Unavailable::Wrong(vec![(
                format!("`{}` names no label column", declared.name.value),
                Some(help.to_owned()),
            )]));
        }
        let data = load(&spec, self.world).map_err(|list| {
            Unavailable::Wrong(
                list.into_iter()
                    .map(|e| (e.to_string(), e.help.clone()))
                    .collect(),
            )
        })?;
        let hashes: Option<Vec<String>> = files
            .iter()
            .map(|f| self.world.fingerprint(f).ok())
            .collect();
        let identity = hashes.map(|list| {
            let taken = format!(
                "{:?} {:?} {:?} {:?} {:?}",
                spec.text, spec.label, spec.take, spec.shuffle, spec.labels
            );
            blake3::hash(format!("{list:?} {taken}").as_bytes())
                .to_hex()
                .to_string()
        });
        let raw = Arc::new(RawSplit { data, identity });
        self.raw.insert(key, raw.clone());
        Ok(raw)
    }
}

enum Unavailable {
    Offline(String),
    Wrong(Vec<(String, Option<String>)>),
}

/// Tokenizes a split, in parallel over examples; the order is that of the data.
fn encode(
    data: &DataSet,
    tokenizer: &Tokenizer,
    template: Option<(&Template, &[String])>,
    max_length: usize,
) -> Result<EncodedSet, String> {
    let examples: Result<Vec<EncodedExample>, String> = data
        .examples
        .par_iter()
        .map(|example| {
            let (encoded, mask) = tokenize(tokenizer, template, &example.texts, max_length)?;
            let label = match example.label {
                None => Target::None,
                Some(Label::Class(c)) => Target::Class(c),
                Some(Label::Score(x)) => Target::Score(x),
            };
            Ok(EncodedExample {
                ids: encoded.ids,
                segments: encoded.segments,
                mask,
                label,
            })
        })
        .collect();
    Ok(EncodedSet {
        examples: examples?,
    })
}

/// Tokens of an example's columns, plain or within a template, and the place of the mask.
///
/// # Errors
/// What the tokenizer complains about.
pub fn tokenize(
    tokenizer: &Tokenizer,
    template: Option<(&Template, &[String])>,
    texts: &[String],
    max_length: usize,
) -> Result<(Encoded, u32), String> {
    let Some((template, columns)) = template else {
        return Ok((tokenizer.encode(texts, max_length)?, 0));
    };
    let get = |name: &str| {
        let at = columns.iter().position(|c| c == name);
        at.and_then(|i| texts.get(i)).map_or("", String::as_str)
    };
    let mask = tokenizer.mask().map_or("", |(token, _)| token);
    let (encoded, mask) = tokenizer.encode_prompt(&template.fill(get, mask), max_length)?;
    Ok((encoded, mask.unwrap_or(0)))
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
