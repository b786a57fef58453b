//! What the files that a stage reads hold of its tensors, so that a missing or misshapen one, and a head that
//! is not there, are found before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde_json::Value as Json;

use super::bind::BoundModel;
use super::error::{BAD_MODEL, NO_HEAD, NO_SEGMENT};
use super::{Handed, Plan, Sets};
use crate::base::world::World;
use crate::base::{Diag, Diags, Span};
use crate::files::gguf::is_gguf;
use crate::files::weights::sharded::{self, Layout};
use crate::files::weights::{Entry, Kind, entries};
use crate::library::data::positioned::read_at;
use crate::library::model::Model;
use crate::library::net::{Owner, Param};
use crate::library::schema::Values;
use crate::library::stage::StageKind;
use crate::library::stage::keys;
use crate::program::Format;

/// The tensors in a model's files, by name.
#[derive(Default)]
pub struct Stored {
    tensors: BTreeMap<String, (usize, Entry)>,
    files: Vec<File>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} tensors)", self.tensors.len())
    }
}

impl Stored {
    /// Reads the headers of the weights in a folder.
    ///
    /// # Errors
    /// What is wrong with a file; where there are no weights, that.
    pub(super) fn read(world: &dyn World, dir: &Path) -> Result<Self, String> {
        if is_gguf(dir) {
            let mut stored = Self::default();
            stored.add(world, dir)?;
            return Ok(stored);
        }
        let names = match Layout::of(|name| world.exists(&dir.join(name))) {
            Layout::Single => vec![sharded::SINGLE.to_owned()],
            Layout::Sharded => {
                let index = world.read(&dir.join(sharded::INDEX));
                sharded::listed(&index.map_err(|e| e.to_string())?)?
            }
            Layout::Pickle | Layout::None => return Err("there are no weights".to_owned()),
        };
        let mut stored = Self::default();
        for name in names {
            stored.add(world, &dir.join(&name))?;
        }
        Ok(stored)
    }

    /// Reads the header of one file.
    fn add(&mut self, world: &dyn World, path: &Path) -> Result<(), String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (file, size) = world.open(path).map_err(|e| e.to_string())?;
        let list = entries(&name, &file, size).map_err(|why| format!("{name}: {why}"))?;
        for entry in list {
            let own = (self.files.len(), entry.clone());
            self.tensors.insert(entry.name, own);
        }
        self.files.push(file);
        Ok(())
    }

    /// The shapes of all tensors.
    pub(super) fn shapes(&self) -> impl Iterator<Item = &[u64]> {
        self.tensors.values().map(|(_, e)| e.shape.as_slice())
    }

    /// How the matrices are stored, as far as programs store them so.
    pub(super) fn formats(&self) -> BTreeMap<String, Format> {
        let all = self.tensors.values();
        all.filter_map(|(_, e)| Some((e.name.clone(), e.stored_as()?)))
            .collect()
    }

    /// Whether two tensors are there and are not the same.
    fn differ(&self, one: &str, other: &str) -> bool {
        const PIECE: u64 = 1 << 20;
        let find = |name: &str| {
            let (file, entry) = self.tensors.get(name)?;
            Some((self.files.get(*file)?, entry))
        };
        let (Some((a, one)), Some((b, other))) = (find(one), find(other)) else {
            return false;
        };
        let length = one.end - one.start;
        if length != other.end - other.start || one.kind != other.kind {
            return true;
        }
        let read = |file: &File, from: u64, n: u64| {
            let mut bytes = vec![0; n as usize];
            read_at(file, &mut bytes, from).ok().map(|()| bytes)
        };
        (0..length).step_by(PIECE as usize).any(|at| {
            let n = PIECE.min(length - at);
            read(a, one.start + at, n) != read(b, other.start + at, n)
        })
    }
}

/// What a stage starts from.
enum Holds<'a> {
    /// The model's own files.
    Files(&'a Stored),
    /// What an earlier stage leaves, by name.
    Left(BTreeMap<String, Vec<u64>>),
}

impl Holds<'_> {
    /// Whether what is found under the first of these names that is there is transposed where the model says so.
    fn turns(&self, names: &[String]) -> bool {
        let Self::Files(stored) = self else {
            return false;
        };
        let found = names.iter().find_map(|name| stored.tensors.get(name));
        found.is_none_or(|(_, entry)| !entry.straight)
    }

    /// Shape of the first of several names that is there, and how it is stored if that is not read.
    fn find(&self, names: &[String]) -> Option<(&str, &[u64], Option<&Kind>)> {
        names.iter().find_map(|name| match self {
            Self::Files(stored) => {
                let (_, entry) = stored.tensors.get(name)?;
                Some((
                    entry.name.as_str(),
                    entry.shape.as_slice(),
                    Some(&entry.kind).filter(|_| !entry.is_float()),
                ))
            }
            Self::Left(list) => list
                .get_key_value(name)
                .map(|(name, shape)| (name.as_str(), shape.as_slice(), None)),
        })
    }
}

/// Checks the tensors of a stage against what it starts from; an adapter of peft's holds those of these names. `false`
/// after a diagnostic.
#[expect(
    clippy::too_many_arguments,
    reason = "what is planned, what it stands on, and where complaints go"
)]
pub(super) fn check(
    plan: &Plan,
    (kind, values): (&dyn StageKind, &Values),
    (start, stored_as): (&Handed, &BTreeSet<String>),
    (model, params): (&dyn Model, &[Param]),
    at: Span,
    diags: &mut Diags,
) -> bool {
    let name = start.weights.as_deref();
    let (source, holds) = match (name, &start.model.stored) {
        (Some(stage), _) => (stage, Holds::Left(left(plan, stage))),
        (None, Some(stored)) => (start.model.name.as_str(), Holds::Files(stored)),
        // Random weights, or files that are not at hand.
        (None, None) => return true,
    };
    let adapter = start.adapter.as_deref().map(|stage| left(plan, stage));
    let given = |name: &str| {
        stored_as.contains(name) || adapter.as_ref().is_some_and(|a| a.contains_key(name))
    };
    if let Holds::Files(stored) = &holds
        && let Some(diag) = tied_and_not(stored, start, model, at)
    {
        diags.push(diag);
        return false;
    }
    let fresh = kind.trains() || keys::HEAD.find(values) == Some("random");
    let wanted = |param: &&Param| !given(&param.name) && !param.is_made();
    for param in params.iter().filter(wanted) {
        let head = param.owner == Owner::Head;
        let wanted = match (param.replaces.as_ref(), param.owner) {
            (Some(weight), _) => weight.as_str(),
            (None, Owner::Base) => param.name.as_str(),
            (None, Owner::Head) if !fresh => param.name.as_str(),
            _ => continue,
        };
        let names = model.checkpoint_names(wanted);
        // Only files hold a matrix transposed; what an earlier stage leaves is known by the model's own shapes.
        let turned = holds.turns(&names) && model.transposed(wanted);
        let mut shape = param.shape.clone();
        if turned {
            shape.reverse();
        }
        let diag = match holds.find(&names) {
            Some((_, found, None)) if found == shape => continue,
            None if param.is_buffer() => continue,
            found if head => {
                let random = kind.schema().key(keys::HEAD.name()).is_some();
                let help = match random {
                    true => "train a head first, or name a model with one; `head = random` scores with a random one",
                    false => "train a head first, or name a model with one",
                };
                no_head(source, wanted, (found.map(|f| f.1), &param.shape), at).help(help)
            }
            None => Diag::error(
                &BAD_MODEL,
                at,
                format!("`{source}` holds no tensor `{}`, which this stage reads", names.join("` or `")),
            )
            .help("the weights belong to another model, or were saved without this part"),
            Some((own, found, None)) => Diag::error(
                &BAD_MODEL,
                at,
                format!("`{own}` of `{source}` has the shape {found:?}; by its config.json it has {shape:?}"),
            )
            .help("the weights belong to another config.json"),
            Some((own, _, Some(kind))) => Diag::error(
                &BAD_MODEL,
                at,
                format!("`{own}` of `{source}` is stored as {}, which is not read", kind.name()),
            )
            .help("F64, F32, F16 and BF16 are read, and the blocks Q4_0 to Q8_0 and Q2_K to Q6_K of GGUF files: take the model as it was \
                   before it was quantised, or another of its files"),
        };
        diags.push(diag);
        return false;
    }
    true
}

/// Names and shapes of what a stage leaves: the plain weights, or the adapter with the head.
fn left(plan: &Plan, stage: &str) -> BTreeMap<String, Vec<u64>> {
    let mut list = BTreeMap::new();
    for param in plan.stage(stage).into_iter().flat_map(|s| &s.job.params) {
        if let Some(weight) = &param.replaces {
            list.insert(weight.clone(), param.shape.clone());
        }
        list.insert(param.name.clone(), param.shape.clone());
    }
    list
}

fn no_head(source: &str, name: &str, (found, wanted): (Option<&[u64]>, &[u64]), at: Span) -> Diag {
    let message = match found {
        None => format!("`{source}` has no trained head for this: there is no `{name}`"),
        Some(shape) => format!(
            "`{source}` has another head than this stage scores with: `{name}` has the shape {shape:?}, and {wanted:?} is wanted"
        ),
    };
    Diag::error(&NO_HEAD, at, message).label("its scores would be random numbers")
}

/// A decoder or a bias of its own in the files of a model whose config says that it is tied.
fn tied_and_not(stored: &Stored, start: &Handed, model: &dyn Model, at: Span) -> Option<Diag> {
    if !start.task.needs().is_lm() {
        return None;
    }
    let config = &start.model.config;
    let tied = config.get("tie_word_embeddings") != Some(&Json::Bool(false));
    let pairs = model.masked_lm().map_or(&[][..], |head| head.tied_names());
    let (own, other) = pairs
        .iter()
        .find(|(own, other)| tied && stored.differ(own, other))?;
    Some(
        Diag::error(
            &BAD_MODEL,
            at,
            format!(
                "the files of `{}` hold a `{own}` that is not `{other}`, and its config.json says that they are one",
                start.model.name
            ),
        )
        .help("write \"tie_word_embeddings\": false into config.json if the decoder is its own, or remove it from the weights"),
    )
}

/// The error of a head whose `problem_type` is that of no task.
pub(super) fn unknown_problem(model: &BoundModel, problem: &str, at: Span) -> Diag {
    let message = format!(
        "the head of `{}` is for `problem_type` = \"{problem}\", which is not built",
        model.name
    );
    let help = "write `objective = classify` to score it as a choice of one class";
    Diag::error(&BAD_MODEL, at, message).help(help)
}

/// Refuses pairs whose second text is in a segment that the model has no embedding for.
pub(super) fn segments(
    start: &Handed,
    model: &dyn Model,
    (kind, values): (&dyn StageKind, &Values),
    sets: &[Sets],
    diags: &mut Diags,
) -> Option<()> {
    let known = model.facts().segments;
    let tokenizer = start.model.tokenizer.as_ref();
    let Some(tokenizer) = tokenizer.filter(|_| known > 0) else {
        return Some(());
    };
    let framed = start.prompt.is_some() || kind.chooses();
    for (key, split) in kind.splits().iter().zip(sets.iter().flatten()) {
        let apart = start.task.texts_apart();
        let pair = !framed && !apart && split.as_ref().is_some_and(|s| s.is_pair());
        let segment = tokenizer.most_segment(pair);
        if segment >= known {
            let message = format!(
                "the tokenizer of `{}` puts tokens into segment {segment}, and the model knows {known} (`type_vocab_size`)",
                start.model.name
            );
            diags.push(
                Diag::error(&NO_SEGMENT, values.span(key), message)
                    .label(if pair { "the second text of these pairs" } else { "these texts" })
                    .help("take the model's own tokenizer, put both texts into a prompt's template, or write \"model_input_names\": \
                           [\"input_ids\", \"attention_mask\"] into tokenizer_config.json to show no segments"),
            );
            return None;
        }
    }
    Some(())
}
