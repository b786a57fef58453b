//! The tasks that other files describe: a `config.json`, an adapter of peft's, what an artifact says of itself.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{TASKS, Task, TaskKind, classify, embed, kind, ordinal, regress};
use crate::base::Span;
use crate::library::schema::{Checked, Kind, Values};

/// The task that the head of a `config.json` was trained for, of which there are so many scores.
///
/// # Errors
/// The `problem_type` that no task has.
pub fn of_config(config: &Json, scores: usize) -> Result<Arc<dyn Task>, String> {
    if let Some(kind) = of_class(config) {
        return Ok((kind.make)(&Values::default()));
    }
    if let (Some(_), Some(kind)) = (ordinal::ranks(config), kind(ordinal::NAME)) {
        return Ok((kind.make)(&Values::default()));
    }
    let problem = config.get("problem_type").and_then(Json::as_str);
    let kind = match problem {
        Some(problem) => TASKS.iter().find(|k| k.problem_type == Some(problem)),
        None if scores == 1 => Some(&&regress::KIND),
        None => Some(&&classify::KIND),
    };
    match (kind, problem) {
        (Some(kind), _) => Ok((kind.make)(&Values::default())),
        (None, problem) => Err(problem.unwrap_or_default().to_owned()),
    }
}

/// A task of a name with the values that [`Task::options`] gave.
#[must_use]
pub fn with_options(name: &str, options: &[(String, f64)]) -> Option<Arc<dyn Task>> {
    let kind = kind(name)?;
    let mut values = Values::default();
    for (key, value) in options {
        let own = kind.schema.keys.iter().find(|own| own.name == key);
        let value = match own.map(|own| &own.kind) {
            Some(Kind::Int(..)) => Checked::Int(*value as u64),
            Some(Kind::Bool) => Checked::Bool(*value != 0.0),
            Some(Kind::Choice(names)) => {
                let name = names.get(*value as usize).or(names.first());
                Checked::Str(name.map_or_else(String::new, |name| (*name).to_owned()))
            }
            _ => Checked::Float(*value),
        };
        values.insert(key, value, Span::default(), false);
    }
    Some((kind.make)(&values))
}

/// The task whose own head a `config.json` names by its class.
fn of_class(config: &Json) -> Option<&'static TaskKind> {
    let class = config.get("architectures")?.get(0)?.as_str()?;
    let own = |kind: &TaskKind| kind.class.is_some_and(|end| class.ends_with(end));
    TASKS.iter().copied().find(|kind| own(kind))
}

/// The task of a `task_type` of peft whose head is one for it alone, or that has none.
#[must_use]
pub fn of_peft(kind: &str) -> Option<Arc<dyn Task>> {
    let alone = |own: &&&TaskKind| own.class.is_some() || own.schema.name == embed::NAME;
    let own = TASKS.iter().filter(alone);
    let mut own = own.map(|kind| (kind.make)(&Values::default()));
    own.find(|task| task.peft_type() == Some(kind))
}

/// Whether a class of `transformers` has a head that labels texts, or their words.
#[must_use]
pub fn labels_texts(class: &str) -> bool {
    let mut own = TASKS.iter().filter_map(|kind| kind.class);
    class.ends_with("ForSequenceClassification") || own.any(|end| class.ends_with(end))
}
