//! What a stage starts from: a model or the result of another stage, and the methods in force.

use std::sync::Arc;

use super::Planner;
use crate::base::{Diag, Diags};
use crate::library::error::{BAD_TOKENS, BAD_VIRTUAL_TOKENS};
use crate::library::method::{Method, Tuning, import, method};
use crate::library::method::{keys as method_keys, keys_of_tokens};
use crate::library::model::Model;
use crate::library::schema::{Checked, Filled, Values};
use crate::library::stage::{StageKind, keys};
use crate::library::task;
use crate::library::task::Task;
use crate::library::tokenizer::Tokenizer;
use crate::plan::adapters::start_from_peft;
use crate::plan::bind::BoundModel;
use crate::plan::by_place::spread;
use crate::plan::error::{UNMERGED_ADAPTER, WRONG_PORT};
use crate::plan::{Handed, holds};
use crate::resolve::Declared;

impl Planner<'_, '_> {
    /// The stage whose weights its method compares with the model's.
    pub(super) fn tuned(
        &self,
        values: &Values,
        start: &Handed,
        diags: &mut Diags,
    ) -> Option<Option<String>> {
        let Some((name, _)) = keys::TUNED.get(values) else {
            return Some(None);
        };
        // A name that is none, or of a stage that is wrong itself, has its complaint already.
        let there = self.here.get(name);
        let Some(stage) = there.and_then(|at| self.plan.stages.get(*at)) else {
            return Some(None);
        };
        let own = stage.name.value.as_str();
        let weights = stage
            .hands_on
            .as_ref()
            .filter(|l| l.adapter.is_none() && l.weights.as_deref() == Some(own));
        let same = |l: &&Handed| {
            l.model.name == start.model.name && l.model.identity == start.model.identity
        };
        let why = match weights {
            None => format!("`{name}` leaves no weights of a whole model"),
            Some(_) if weights.filter(same).is_none() => format!("`{name}` trains another model"),
            Some(_) => return Some(Some(own.to_owned())),
        };
        diags.push(
            Diag::error(&WRONG_PORT, keys::TUNED.span(values), why)
                .label("its weights are to be compared with this stage's")
                .help("name a stage that trains the same model with `adapter = full`, `last_n` or the like, or that merges an adapter into it"),
        );
        None
    }

    /// What the stage starts from, and the stage that leaves it.
    pub(super) fn start(
        &mut self,
        values: &Values,
        kind: &dyn StageKind,
        diags: &mut Diags,
    ) -> Option<(Handed, Option<String>)> {
        if let Some((name, _)) = keys::FROM.get(values) {
            let parent = self.plan.stages.get(*self.here.get(name)?)?;
            let Some(handed) = parent.hands_on.clone() else {
                diags.push(
                    Diag::error(
                        &WRONG_PORT,
                        keys::FROM.span(values),
                        format!(
                            "`{name}` is a stage of the kind `{}` and leaves no model",
                            parent.filled.name
                        ),
                    )
                    .label("no model comes from here")
                    .related(parent.name.span, "declared here"),
                );
                return None;
            };
            return Some((handed, Some(parent.name.value.clone())));
        }
        let (name, _) = keys::MODEL.get(values)?;
        let model = self.binder.model(name)?;
        let (task, classes) = if kind.trains() {
            (task::usual(), Vec::new())
        } else {
            let (task, classes) = trained_head(&model);
            let task = match task {
                Ok(task) => task,
                Err(problem) if keys::OBJECTIVE.get(values).is_none() => {
                    diags.push(holds::unknown_problem(
                        &model,
                        &problem,
                        keys::MODEL.span(values),
                    ));
                    return None;
                }
                Err(_) => task::usual(),
            };
            (task, classes.unwrap_or_default())
        };
        let tuning = Tuning::default();
        Some((
            Handed {
                model,
                tuning,
                task,
                classes,
                fresh_head: false,
                prompt: None,
                chooser: None,
                max_length: 0,
                weights: None,
                adapter: None,
                tuned: None,
                teachers: Vec::new(),
                drawing: None,
            },
            None,
        ))
    }

    /// The methods that train: the stage's own, or those of the stage it continues.
    pub(super) fn tuning(
        &self,
        declared: &Declared,
        (start, continues): (&Handed, bool),
        model: &dyn Model,
        diags: &mut Diags,
    ) -> Option<Tuning> {
        let n_layers = model.facts().blocks;
        let (base, values) = (declared.base.as_path(), &declared.filled.values);
        let own = |key: &str| values.written(key) || !continues || start.tuning.methods.is_empty();
        let written: Vec<Filled> = keys::ADAPTER
            .get(values)
            .filter(|_| own("adapter") && !keys::ADAPTERS.is_written(values))
            .into_iter()
            .cloned()
            .chain(
                keys::ADAPTERS
                    .get(values)
                    .unwrap_or_default()
                    .iter()
                    .cloned(),
            )
            .collect();
        let inherited = start.adapter.is_some();
        if written.is_empty() && continues && !start.tuning.methods.is_empty() {
            return Some(Tuning {
                n_layers,
                frozen: false,
                ..start.tuning.clone()
            });
        }
        if written.is_empty() {
            diags.push(
                Diag::error(&crate::resolve::error::MISSING_KEY, keys::DATA.span(values), "the stage names no method")
                    .help("write `adapter = lora { … }`, or `adapter = full` to train everything; `peftc list methods` names them all"),
            );
            return None;
        }
        if inherited {
            let key = if keys::ADAPTER.is_written(values) {
                "adapter"
            } else {
                "adapters"
            };
            diags.push(
                Diag::error(&UNMERGED_ADAPTER, values.span(key), "the stage it comes from leaves an adapter that is not folded in")
                    .label("other methods would stand on it")
                    .help("put a `merge` stage between, or remove this key to go on with the same adapter"),
            );
            return None;
        }
        let written = written
            .into_iter()
            .map(|f| start_from_peft(base, (f, true), model, diags))
            .collect::<Option<Vec<_>>>()?;
        let methods = written.into_iter().flatten();
        let methods = methods.filter_map(|f| Some((method(&f.name)?, f)));
        let methods = methods
            .map(|(method, filled)| {
                let own = spread(filled, method, model, diags)?;
                Some(own.into_iter().map(move |f| (method, f)))
            })
            .collect::<Option<Vec<_>>>()?;
        let methods = methods.into_iter().flatten();
        let methods = methods.map(|(method, filled)| {
            let tokenizer = start.model.tokenizer.as_deref();
            worded((method, filled), tokenizer).map_err(|diag| diags.push(*diag))
        });
        let methods = methods.collect::<Result<Vec<_>, ()>>().ok()?;
        let methods = methods.into_iter().map(|(method, filled)| {
            let tokenizer = start.model.tokenizer.as_deref();
            numbered((method, filled), tokenizer).map_err(|diag| diags.push(*diag))
        });
        let methods = methods.collect::<Result<Vec<_>, ()>>().ok()?;
        Some(Tuning {
            methods,
            n_layers,
            frozen: false,
        })
    }

    /// The methods of what a stage starts from, or of the adapter that it applies to that.
    pub(super) fn applied(
        &self,
        declared: &Declared,
        start: &Handed,
        model: &dyn Model,
        diags: &mut Diags,
    ) -> Option<Tuning> {
        let (base, values) = (declared.base.as_path(), &declared.filled.values);
        let tuning = Tuning {
            n_layers: model.facts().blocks,
            ..start.tuning.clone()
        };
        let Some(filled) = keys::APPLIED.get(values) else {
            return Some(tuning);
        };
        let refuse = |message: &str, help: &str| {
            Diag::error(&UNMERGED_ADAPTER, keys::APPLIED.span(values), message)
                .help(help.to_owned())
        };
        if filled.name != import::NAME {
            let message = format!(
                "`{}` would be made anew here, and nothing trains it",
                filled.name
            );
            diags.push(refuse(
                &message,
                "name a finished adapter, `adapter = peft \"DIR\"`, or train one in a stage before",
            ));
            return None;
        }
        if !start.tuning.methods.is_empty() {
            diags.push(refuse(
                "the stage it comes from leaves an adapter that is not folded in",
                "put a `merge` stage between, or remove this key",
            ));
            return None;
        }
        // What changes the model itself is in no LoRA.
        let only = declared.filled.name == "convert";
        let made = start_from_peft(base, (filled.clone(), only), model, diags)?;
        let made = made.into_iter().filter_map(|f| Some((method(&f.name)?, f)));
        Some(Tuning {
            methods: made.collect(),
            ..tuning
        })
    }
}

/// A method with the numbers of the tokens that it is for.
fn numbered(
    (method, mut filled): (&'static dyn Method, Filled),
    tokenizer: Option<&Tokenizer>,
) -> Result<(&'static dyn Method, Filled), Box<Diag>> {
    let (texts, ids) = (keys_of_tokens::TOKENS, keys_of_tokens::TOKEN_IDS);
    let Some(tokens) = method.tokens(&filled.values) else {
        return Ok((method, filled));
    };
    let at = texts.span(&filled.values);
    let wrong = |message: String, help: &str| {
        Box::new(Diag::error(&BAD_TOKENS, at, message).help(help.to_owned()))
    };
    if ids.is_written(&filled.values) {
        let message = "`tokens` and `token_ids` both say which tokens are trained".to_owned();
        return Err(wrong(message, "keep one of them"));
    }
    let Some(tokenizer) = tokenizer else {
        let message = "the model has no tokenizer at hand that makes tokens of these texts";
        return Err(wrong(
            message.to_owned(),
            "write `token_ids = […]`, or run without --offline",
        ));
    };
    let mut list = Vec::new();
    for text in tokens {
        list.push(tokenizer.one(text).map_err(|why| {
            wrong(
                why,
                "write tokens as the vocabulary has them, or `token_ids = […]`",
            )
        })?);
    }
    let list = list.iter().map(ToString::to_string).collect();
    filled
        .values
        .insert(ids.name(), Checked::Names(list), at, false);
    Ok((method, filled))
}

/// A method with the tokens of the text that it starts at.
fn worded(
    (method, mut filled): (&'static dyn Method, Filled),
    tokenizer: Option<&Tokenizer>,
) -> Result<(&'static dyn Method, Filled), Box<Diag>> {
    // An artifact says all of them: what was made of them is in it.
    let given = [
        method_keys::TEXT.name(),
        method_keys::TOKEN_IDS.name(),
        "init",
    ];
    let mut written = given.into_iter().filter(|key| filled.values.written(key));
    let starts = method.schema().key(method_keys::TOKEN_IDS.name()).is_some();
    if let (true, Some(one), Some(key)) = (starts, written.next(), written.next()) {
        let message = format!("`{one}` and `{key}` both say what virtual tokens start at");
        let diag = Diag::error(&BAD_VIRTUAL_TOKENS, filled.values.span(key), message);
        return Err(Box::new(diag.help("keep one of them")));
    }
    let Some(text) = method.text(&filled.values) else {
        return Ok((method, filled));
    };
    let at = filled.values.span(method_keys::TEXT.name());
    let wrong = |message: String, help: &str| {
        Box::new(Diag::error(&BAD_VIRTUAL_TOKENS, at, message).help(help.to_owned()))
    };
    let tokenizer = tokenizer.ok_or_else(|| {
        let message = "the model has no tokenizer at hand that makes tokens of this text";
        wrong(
            message.to_owned(),
            "write `token_ids = […]`, or run without --offline",
        )
    })?;
    let encoded = tokenizer.encode(&[text.to_owned()], usize::MAX);
    let ids = encoded.map_err(|why| wrong(why, "write another text"))?.ids;
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    if ids.is_empty() {
        return Err(wrong(
            "this text has no token".to_owned(),
            "write another one",
        ));
    }
    let key = method_keys::TOKEN_IDS.name();
    filled.values.insert(key, Checked::Names(ids), at, false);
    Ok((method, filled))
}

/// The task that a model's head was trained for, or the `problem_type` that no task has; and the names of its classes,
/// if it has classes.
pub(super) fn trained_head(
    model: &BoundModel,
) -> (Result<Arc<dyn Task>, String>, Option<Vec<String>>) {
    let config = &model.config;
    let names = config.get("id2label").and_then(|m| m.as_object());
    let mut pairs: Vec<(u64, String)> = names
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_owned())))
        .collect();
    pairs.sort();
    let mut names: Vec<String> = pairs.into_iter().map(|(_, n)| n).collect();
    let count = config.get("num_labels").and_then(serde_json::Value::as_u64);
    if let Some(count) = count.filter(|&n| n <= 1 << 16 && n != names.len() as u64) {
        // As transformers does where the two disagree.
        names = (0..count).map(|i| format!("LABEL_{i}")).collect();
    }
    if let Some(ranks) = task::ranks(config) {
        names = ranks;
    }
    let task = task::of_config(config, names.len());
    let has_classes = task.as_ref().map_or(true, |t| t.answer().names_classes());
    (task, Some(names).filter(|_| has_classes))
}

pub(super) fn hands_on(
    kind: &dyn StageKind,
    name: &str,
    start: &Handed,
    tuning: &Tuning,
) -> Option<Handed> {
    let mut handed = start.clone();
    // Its own head is of its classes.
    handed.fresh_head = false;
    handed.tuned = None;
    handed.teachers.clear();
    handed.drawing = None;
    if kind.merges() {
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        return Some(handed);
    }
    if !kind.trains() {
        return None;
    }
    handed.tuning = tuning.begun();
    if tuning.exports_adapter() {
        handed.adapter = Some(name.to_owned());
    } else {
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
    }
    Some(handed)
}
