//! Binding data: splits read, tokenized (within a prompt's template, if there is one), each once.

use std::sync::Arc;

use rayon::prelude::*;

use super::bind::{Binder, BoundModel, BoundSplit, RawSplit, Want};
use super::error::{ASSUMED_LENGTHS, BAD_DATA, BAD_DEMONSTRATIONS, BAD_PROMPT, BAD_TOKENIZER};
use super::split::Lengths;
use crate::base::world::{HubFile, RepoKind};
use crate::base::{Diag, Diags, suggest};
use crate::library::data::batch::{EncodedExample, EncodedSet, Target};
use crate::library::data::set::{DataSet, DataSpec, Label, Labels, load};
use crate::library::data::split::{SplitSource, find_split};
use crate::library::demonstrations::Demonstrations;
use crate::library::objective::Objective;
use crate::library::prompt::{Filled, Template};
use crate::library::tokenizer::{Encoded, Tokenizer};
use crate::resolve::Declared;

impl Binder<'_> {
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
            (Objective::Regress | Objective::MaskedLm { .. }, _) => Vec::new(),
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
            return Some(Arc::new(untold(&raw, &text, want)));
        };
        if want.demonstrations.is_some_and(|d| !d.at_hand()) {
            return Some(Arc::new(untold(&raw, &text, want)));
        }
        // All are kept as long as this, so their places tell them from all others.
        let key = format!(
            "{:p} {:p} {} {:?} {:?} {}",
            Arc::as_ptr(&raw),
            Arc::as_ptr(&tokenizer),
            want.max_length,
            want.template.map(|(t, _)| &t.source),
            want.demonstrations.map(Arc::as_ptr),
            want.draws
        );
        if let Some(known) = self.splits.get(&key) {
            return Some(known.clone());
        }
        let demonstrations = want.demonstrations.map(Arc::as_ref);
        let frame = want.template.map(|(template, _)| Frame {
            template,
            columns: &text,
            demonstrations,
        });
        match encode(&raw.data, &tokenizer, frame, want) {
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
                        + demonstrations.map_or(0, Demonstrations::heap_bytes)
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
                    Some((_, at)) if want.demonstrations.is_some() => (&BAD_DEMONSTRATIONS, at),
                    Some((_, at)) => (&BAD_PROMPT, at),
                    None => (&BAD_TOKENIZER, at),
                };
                let message = format!("`{name}.{split}` cannot be tokenized: {why}");
                let mut diag = Diag::error(code, at, message);
                if want.demonstrations.is_some() {
                    diag = diag.help("lower `demonstration_length` or `demonstrations`, or raise the stage's `max_length`");
                }
                diags.push(diag);
                None
            }
        }
    }

    pub(super) fn raw_split(
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
            Objective::MaskedLm { .. } => Labels::None,
            _ if classes.is_empty() => Labels::Derive,
            _ => Labels::Given(classes.to_vec()),
        };
        let spec = DataSpec {
            files: files.clone(),
            format: values.str("format").map(str::to_owned),
            text: values.names("text").to_vec(),
            label: values
                .str("label")
                .filter(|_| objective.reads_labels())
                .map(str::to_owned),
            take: values.opt_int("take"),
            shuffle: values.opt_int("shuffle"),
            labels,
        };
        if spec.label.is_none() && objective.reads_labels() {
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

/// Why a split cannot be had.
pub(super) enum Unavailable {
    Offline(String),
    Wrong(Vec<(String, Option<String>)>),
}

/// A split whose tokens cannot be told: every text is taken as long as can be.
fn untold(raw: &RawSplit, text: &[String], want: Want<'_>) -> BoundSplit {
    let n = raw.data.examples.len() * want.draws as usize;
    BoundSplit {
        text: text.to_vec(),
        encoded: None,
        lengths: Lengths::Known(vec![want.max_length as u32; n]),
        classes: raw.data.classes.clone(),
        identity: None,
        host_bytes: 0,
    }
}

/// Tokenizes a split, in parallel over examples; the order is that of the data, all of them for each draw of
/// demonstrations.
fn encode(
    data: &DataSet,
    tokenizer: &Tokenizer,
    frame: Option<Frame<'_>>,
    want: Want<'_>,
) -> Result<EncodedSet, String> {
    if let Some(frame) = frame {
        frame.check_room(tokenizer, want.max_length as usize)?;
    }
    let mut list = Vec::with_capacity(data.examples.len() * want.draws as usize);
    for draw in 0..want.draws as u32 {
        let examples: Result<Vec<EncodedExample>, String> = data
            .examples
            .par_iter()
            .map(|example| {
                let most = want.max_length as usize;
                let (encoded, mask) = tokenize(tokenizer, frame, &example.texts, draw, most)?;
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
        list.extend(examples?);
    }
    Ok(EncodedSet { examples: list })
}

/// What stands around a text.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The template.
    pub template: &'a Template,
    /// Names of the columns, in the order of an example's texts.
    pub columns: &'a [String],
    /// What stands behind it.
    pub demonstrations: Option<&'a Demonstrations>,
}

impl Frame<'_> {
    /// Whether the template and the longest demonstrations that can be drawn fit, so that whether a text
    /// can be read does not depend on what is drawn for it.
    ///
    /// # Errors
    /// A sentence that says how much too long they are.
    pub fn check_room(&self, tokenizer: &Tokenizer, max_length: usize) -> Result<(), String> {
        let Some(demonstrations) = self.demonstrations else {
            return Ok(());
        };
        let empty = fill(tokenizer, self.template, &[], &[]);
        let (encoded, _) = tokenizer.encode_prompt(&empty, &[], usize::MAX)?;
        let longest = demonstrations.longest();
        let all = encoded.ids.len() + longest;
        if all > max_length {
            return Err(format!(
                "the template alone takes {} tokens and its demonstrations up to {longest}, together {all}, and \
                 `max_length` is {max_length}",
                encoded.ids.len()
            ));
        }
        Ok(())
    }
}

/// A template filled with an example's columns.
pub(super) fn fill(
    tokenizer: &Tokenizer,
    template: &Template,
    columns: &[String],
    texts: &[String],
) -> Filled {
    let get = |name: &str| {
        let at = columns.iter().position(|c| c == name);
        at.and_then(|i| texts.get(i)).map_or("", String::as_str)
    };
    let mask = tokenizer.mask().map_or("", |(token, _)| token);
    template.fill(get, mask)
}

/// Tokens of an example's columns, plain or within a template, and the place of the mask.
///
/// # Errors
/// What the tokenizer complains about.
pub fn tokenize(
    tokenizer: &Tokenizer,
    frame: Option<Frame<'_>>,
    texts: &[String],
    draw: u32,
    max_length: usize,
) -> Result<(Encoded, u32), String> {
    let Some(frame) = frame else {
        return Ok((tokenizer.encode(texts, max_length)?, 0));
    };
    let filled = fill(tokenizer, frame.template, frame.columns, texts);
    let shown = frame.demonstrations.map(|d| d.tokens(&filled.text, draw));
    let (encoded, mask) =
        tokenizer.encode_prompt(&filled, &shown.unwrap_or_default(), max_length)?;
    Ok((encoded, mask.unwrap_or(0)))
}
