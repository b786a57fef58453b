//! Binding: what a recipe's declarations mean on this machine. Models are read as far as their
//! config and tokenizer, data as far as their texts, lengths and labels; weights are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::holds::Stored;
use super::seen::Notes;
use super::source::DataSource;
use super::split::Lengths;
use crate::base::world::{Location, World};
use crate::base::{Diags, Span};
use crate::files::gguf::Gguf;
use crate::library::chat::ChatTemplate;
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn, Supervision};
use crate::library::data::set::DataSet;
use crate::library::data::tokens::{EncodedSet, Marking};
use crate::library::demonstrations::Demonstrations;
use crate::library::generate::Rules;
use crate::library::model::Sides;
use crate::library::prompt::Template;
use crate::library::task::{Modules, Task};
use crate::library::tokenizer::Tokenizer;
use crate::program::Numbers;
use crate::program::device::Device;
use crate::program::format::Storing;
use crate::resolve::Recipe;

/// A model as far as planning needs it.
#[derive(Debug)]
pub struct BoundModel {
    /// Its name in the recipe.
    pub name: String,
    /// Its config.json.
    pub config: Json,
    /// Where its files are.
    pub place: Location,
    /// Seed of random weights; `None` for pretrained ones.
    pub random: Option<u64>,
    /// How frozen matrices are stored.
    pub storage: Storing,
    /// In what numbers its products are formed.
    pub numbers: Numbers,
    /// Its tokenizer, if it could be had.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Its chat template, or why that cannot be read; `None` if it has none.
    pub chat: Option<super::chat::Bound>,
    /// Tokens that end a text, where it has a head for the next token.
    pub ends: Vec<u32>,
    /// What is said of the tokens that are made, where it makes targets of sources.
    pub rules: Option<Rules>,
    /// Hash of all that makes it what it is; `None` where that could not be had.
    pub identity: Option<String>,
    /// The tensors in its files, where they are at hand.
    pub stored: Option<Arc<Stored>>,
    /// The modules behind it, where its folder is one of sentence-transformers, and where the model is declared.
    pub modules: Option<(Modules, Span)>,
}

/// A split, tokenized.
#[derive(Clone, Debug)]
pub struct BoundSplit {
    /// Its examples, all in each draw of demonstrations; `None` when the data are not at hand.
    pub encoded: Option<Arc<EncodedSet>>,
    /// Their lengths.
    pub lengths: Lengths,
    /// The repository of the hub that its files are of.
    pub hub: Option<String>,
    /// The metrics that a named data set's benchmark reports.
    pub reported: &'static [&'static str],
    /// Columns of the text.
    pub text: Vec<String>,
    /// What its rows are.
    pub form: Form,
    /// The variables of chat templates that the recipe gives for it.
    pub variables: Option<Map<String, Json>>,
    /// What of it a language model learns; `None` where that is not known, or another thing is learned.
    pub supervision: Option<Supervision>,
    /// Class names, for classification.
    pub classes: Vec<String>,
    /// Hash of its files and of what is taken from them.
    pub identity: Option<String>,
    /// What its rows are known again by, in whatever order their classes are; `None` where they were not read.
    pub rows_hash: Option<String>,
    /// Bytes of tokens, tokenizer and demonstrations in memory.
    pub host_bytes: u64,
    /// Bytes that it takes beside these to make tokens of the texts, before anything is run.
    pub making: u64,
    /// Place of what was seen of its rows among all that was noted.
    pub noted: Option<usize>,
    /// Whether a stage draws rows of it, so that no program reads it itself.
    pub drawn_of: bool,
}

impl BoundSplit {
    /// Whether its rows are pairs of texts.
    #[must_use]
    pub fn is_pair(&self) -> bool {
        let pairs = matches!(self.form, Form::Choices | Form::Question);
        self.form == Form::Text && self.text.len() > 1 || pairs
    }

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
    pub(super) device: Device,
    pub(super) models: BTreeMap<String, (Option<Arc<BoundModel>>, Diags)>,
    pub(super) tokenizers: BTreeMap<String, Arc<Tokenizer>>,
    pub(super) listings: BTreeMap<String, Option<Arc<[String]>>>,
    pub(super) ggufs: BTreeMap<PathBuf, Result<Arc<Gguf>, String>>,
    pub(super) sources: BTreeMap<String, Arc<DataSource>>,
    pub(super) raw: BTreeMap<String, Arc<RawSplit>>,
    pub(super) splits: BTreeMap<String, Arc<BoundSplit>>,
    pub(super) pools: BTreeMap<String, Arc<Demonstrations>>,
    /// Whether to look at the rows of splits, and what was seen of each.
    pub(super) survey: bool,
    pub(super) noted: Notes,
    /// Models of whose modules it was said that they are not used.
    pub(super) unused: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct RawSplit {
    pub(super) data: DataSet,
    pub(super) identity: Option<String>,
}

/// What a stage wants of a split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want<'a> {
    pub task: &'a dyn Task,
    /// Class names already fixed by the stage's head.
    pub classes: Option<&'a [String]>,
    /// The order in which classes are taken that are found in the data, where it holds the same ones.
    pub preferred: Option<&'a [String]>,
    /// The template around the text, and where it is written.
    pub template: Option<(&'a Template, Span)>,
    /// What stands behind the text.
    pub demonstrations: Option<&'a Arc<Demonstrations>>,
    /// What each class is called behind a prompt, where labels are read as texts.
    pub labels: &'a [String],
    /// How many draws of it, each a set of all examples.
    pub draws: u64,
    pub max_length: u64,
    /// What is put into the texts, or marked in them, for the methods.
    pub marking: Marking,
    /// The method whose tasks the examples name, and how many it has.
    pub tasks: Option<(&'static str, u64)>,
    /// Whether its labels are read, where the task reads such.
    pub labelled: bool,
    /// Whether to say what is seen of its rows.
    pub survey: bool,
    /// How the tokens are found that a language model learns.
    pub rows: Rows<'a>,
}

impl Want<'_> {
    /// Most tokens of a text, with those that are put into it, and with its target and the token before that.
    pub(super) fn longest(&self) -> u32 {
        let most = self.rows.sides.map_or(u64::MAX, |sides| sides.longest);
        let target = self.task.target_length().map_or(0, |n| n.min(most) + 1);
        to_u32(self.max_length + u64::from(self.marking.virtual_tokens) + target)
    }
}

/// How the tokens of rows are found that a language model learns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    /// What a row is.
    pub form: Form,
    /// Which tokens are learned.
    pub learn: Learn,
    /// The template of conversations.
    pub template: Option<&'a ChatTemplate>,
    /// The template's variables that the recipe gives.
    pub variables: Option<&'a Map<String, Json>>,
    /// How targets are learned, where they are no texts with their sources.
    pub sides: Option<Sides>,
}

impl Rows<'_> {
    /// Texts whose labels are learned.
    pub(super) const PLAIN: Rows<'static> = Rows {
        form: Form::Text,
        learn: Learn::Nothing,
        template: None,
        variables: None,
        sides: None,
    };

    /// Hash of all that decides what they become beside the tokenizer; empty where that is nothing.
    pub(super) fn identity(&self) -> String {
        let template = self.template.map(ChatTemplate::identity);
        if let Some(sides) = self.sides {
            return format!("targets {sides:?}");
        }
        match (self.form, template, self.variables) {
            (_, None, None) => String::new(),
            (form, template, variables) => format!("{form:?} {template:?} {variables:?}"),
        }
    }
}

impl<'a> Binder<'a> {
    pub(super) fn new(recipe: &'a Recipe, world: &'a dyn World, device: Device) -> Self {
        Self {
            recipe,
            world,
            device,
            models: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            listings: BTreeMap::new(),
            ggufs: BTreeMap::new(),
            sources: BTreeMap::new(),
            raw: BTreeMap::new(),
            splits: BTreeMap::new(),
            pools: BTreeMap::new(),
            survey: true,
            noted: Notes::default(),
            unused: BTreeSet::new(),
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
}
