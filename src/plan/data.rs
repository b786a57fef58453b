//! Binding data: splits read, tokenized (within a prompt's template, if there is one), each once.

use std::sync::Arc;

use rayon::prelude::*;

use super::bind::{Binder, BoundModel, BoundSplit, RawSplit, Want};
use super::error::{ASSUMED_LENGTHS, BAD_DATA, BAD_PROMPT, BAD_TOKENIZER};
use super::split::Lengths;
use crate::base::world::{HubFile, RepoKind};
use crate::base::{Diag, Diags, suggest};
use crate::library::data::batch::{EncodedExample, EncodedSet, Target};
use crate::library::data::set::{DataSet, DataSpec, Label, Labels, load};
use crate::library::data::split::{SplitSource, find_split};
use crate::library::objective::Objective;
use crate::library::prompt::Template;
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
