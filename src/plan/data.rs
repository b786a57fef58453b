//! Binding data: splits read, tokenized (within a prompt's template, if there is one), each once.

use std::sync::Arc;

use super::bind::{Binder, BoundModel, BoundSplit, RawSplit, Want};
use super::encode::{Cause, Frame, encoded};
use super::error::{
    ASSUMED_LENGTHS, BAD_DATA, BAD_DEMONSTRATIONS, BAD_PROMPT, BAD_TOKENIZER, UNKEPT_TOKENS,
};
use super::split::Lengths;
use crate::base::world::{HubFile, RepoKind};
use crate::base::{Diag, Diags, suggest};
use crate::library::data::DataError;
use crate::library::data::report::{Sight, Survey, Surveyor};
use crate::library::data::set::{DataSpec, Labels, Reading, load};
use crate::library::data::split::{SplitSource, find_split};
use crate::library::demonstrations::Demonstrations;
use crate::library::objective::Objective;
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
        let source = match self.source(declared, split, want.objective, &classes) {
            Ok(source) => source,
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
                    noted: None,
                }));
            }
            Err(Unavailable::Wrong(list)) => {
                wrong(list, at, "this split", diags);
                return None;
            }
        };
        let tokenizer = model.tokenizer.clone();
        let known = want.demonstrations.is_none_or(|d| d.at_hand());
        let Some(tokenizer) = tokenizer.filter(|_| known) else {
            return match self.tally(&source) {
                Ok((n, classes, survey)) => Some(Arc::new(BoundSplit {
                    noted: self.note(declared, split, want, None, &classes, survey),
                    text: text.clone(),
                    encoded: None,
                    lengths: Lengths::Known(vec![want.max_length as u32; n * want.draws as usize]),
                    classes,
                    identity: None,
                    host_bytes: 0,
                })),
                Err(list) => {
                    wrong(sentences(list), at, "this split", diags);
                    None
                }
            };
        };
        // All are kept as long as this, so their places tell them from all others.
        let key = format!(
            "{:p} {:p} {} {:?} {:?} {}",
            Arc::as_ptr(&source),
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
        match encoded(&source, &tokenizer, frame, want, self.world) {
            Ok(made) => {
                if let Some(why) = made.unkept {
                    let message = format!("the tokens of `{name}.{split}` cannot be kept: {why}");
                    diags.push(
                        Diag::warning(&UNKEPT_TOKENS, at, message)
                            .help("they are held in memory; free space there, or name another folder in `XDG_CACHE_HOME`"),
                    );
                }
                let tokens = Some(tokenizer.identity());
                let bound = Arc::new(BoundSplit {
                    noted: self.note(declared, split, want, tokens, &made.classes, made.survey),
                    text: text.clone(),
                    host_bytes: made.set.heap_bytes()
                        + made.set.len() as u64 * 4
                        + demonstrations.map_or(0, Demonstrations::heap_bytes)
                        + tokenizer.heap_bytes(),
                    lengths: Lengths::Known(made.set.lengths()),
                    encoded: Some(Arc::new(made.set)),
                    classes: made.classes,
                    identity: source.identity.clone(),
                });
                self.splits.insert(key, bound.clone());
                Some(bound)
            }
            Err(Cause::Data(list)) => {
                wrong(sentences(list), at, "this split", diags);
                None
            }
            Err(Cause::Tokens(why)) => {
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

    /// How many examples there are, the names of the classes, and what is seen of them without their
    /// tokens.
    fn tally(&self, source: &Source) -> Result<Tally, Vec<DataError>> {
        let reading = Reading::open(&source.spec, self.world)?;
        let mut n = 0;
        let mut surveyor = self.survey.then(Surveyor::default);
        reading.walk(&mut |_, example| {
            n += 1;
            if let Some(surveyor) = &mut surveyor {
                surveyor.see(&Sight::of(&example));
            }
            true
        })?;
        let classes = reading.classes().to_vec();
        let survey = surveyor.map(|s| s.finish(classes.len()));
        Ok((n, classes, survey))
    }

    /// A split's texts and labels, in memory.
    pub(super) fn raw_split(
        &mut self,
        declared: &Declared,
        split: &str,
        objective: Objective,
        classes: &[String],
    ) -> Result<Arc<RawSplit>, Unavailable> {
        let source = self.source(declared, split, objective, classes)?;
        let key = format!("{:p}", Arc::as_ptr(&source));
        if let Some(raw) = self.raw.get(&key) {
            return Ok(raw.clone());
        }
        let data = load(&source.spec, self.world);
        let data = data.map_err(|list| Unavailable::Wrong(sentences(list)))?;
        let identity = source.identity.clone();
        let raw = Arc::new(RawSplit { data, identity });
        self.raw.insert(key, raw.clone());
        Ok(raw)
    }

    /// Where a split's examples come from.
    fn source(
        &mut self,
        declared: &Declared,
        split: &str,
        objective: Objective,
        classes: &[String],
    ) -> Result<Arc<Source>, Unavailable> {
        let key = format!(
            "{}.{split}.{}.{classes:?}",
            declared.identity(),
            objective.name()
        );
        if let Some(source) = self.sources.get(&key) {
            return Ok(source.clone());
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
        let source = Arc::new(Source { spec, identity });
        self.sources.insert(key, source.clone());
        Ok(source)
    }
}

/// Examples, classes, what was seen of the rows.
type Tally = (usize, Vec<String>, Option<Survey>);

/// Where a split's examples come from.
#[derive(Debug)]
pub(super) struct Source {
    /// Its files, and what is taken from them.
    pub spec: DataSpec,
    /// Hash of both.
    pub identity: Option<String>,
}

/// What is wrong with data, and what to do about it.
fn sentences(list: Vec<DataError>) -> Vec<(String, Option<String>)> {
    let each = list.into_iter().map(|e| (e.to_string(), e.help));
    each.collect()
}

/// Says what is wrong with data.
fn wrong(
    list: Vec<(String, Option<String>)>,
    at: crate::base::Span,
    label: &str,
    diags: &mut Diags,
) {
    for (message, help) in list {
        let mut diag = Diag::error(&BAD_DATA, at, message);
        diag.help = help;
        diags.push(diag.label(label));
    }
}

/// Why a split cannot be had.
pub(super) enum Unavailable {
    Offline(String),
    Wrong(Vec<(String, Option<String>)>),
}
