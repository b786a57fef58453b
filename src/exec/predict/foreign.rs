//! A model directory that no stage of ours described: what its own files say of its head.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::exec::export::description::Description;
use crate::files::RunError;
use crate::files::weights::Checkpoint;
use crate::library::model::{Model, is_lm, is_pair};
use crate::library::net::{Owner, Param};
use crate::library::task;
use crate::library::task::{Modules, Task};
use crate::plan::Plan;

/// What `predict` needs to know of a model directory with a trained head, from its `config.json` and
/// `tokenizer_config.json`. Columns of the text stand in neither.
///
/// # Errors
/// It has no head that gives classes or a number.
pub(in crate::exec) fn describe(
    folder: &Path,
    config: &Json,
    model: &dyn Model,
) -> Result<Description, RunError> {
    let wrong = |what: String| RunError::file(folder.join("config.json"), what);
    let class = config
        .get("architectures")
        .and_then(|list| list.get(0)?.as_str());
    let made_for = made_for(folder);
    let max_length = model.facts().max_length.min(made_for);
    match class {
        Some(class) if task::labels_texts(class) => {}
        Some(class) if is_lm(class) && model.causal_lm().is_some() => {
            return Ok(Description {
                weights: ".".into(),
                objective: task::NEXT_TOKEN.to_owned(),
                max_length,
                ..Description::default()
            });
        }
        Some(class) if is_pair(class) && model.seq2seq().is_some() => {
            return Ok(Description {
                weights: ".".into(),
                objective: task::TARGETS.to_owned(),
                max_length,
                ..Description::default()
            });
        }
        Some(class) if class.ends_with("Model") && modules(folder).is_some() => {
            let task = vectors(folder).map_err(wrong)?;
            return Ok(headless(folder, model, task.as_ref()));
        }
        Some(class) => {
            return Err(wrong(format!(
                "`{class}` has no head that labels texts or goes on with them; train one with a recipe whose model is this \
                 folder, or name a folder of a class `…ForSequenceClassification`, `…ForTokenClassification`, `…ForCausalLM`, \
                 `…ForConditionalGeneration` or `…MTModel`"
            )));
        }
        None => {
            return Err(wrong(
                "it does not say which head the model has (`architectures` is missing); train one with a recipe whose model is \
                 this folder"
                    .to_owned(),
            ));
        }
    }
    let classes = classes(config).map_err(wrong)?;
    let task = task::of_config(config, classes.len())
        .map_err(|problem| wrong(format!("`problem_type` is `{problem}`, which is not built")))?;
    let has_classes = task.answer().names_classes();
    Ok(Description {
        weights: ".".into(),
        objective: task.name().to_owned(),
        options: task
            .options()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        classes: if has_classes { classes } else { Vec::new() },
        max_length,
        ..Description::default()
    })
}

/// The modules behind the model of a folder of sentence-transformers.
fn modules(folder: &Path) -> Option<Modules> {
    Plan::modules(&|name| std::fs::read(folder.join(name)).ok())
}

/// The task of such a folder.
fn vectors(folder: &Path) -> Result<Arc<dyn Task>, String> {
    let task = task::task(task::VECTORS);
    behind(folder, task.unwrap_or_else(task::usual))
}

/// A task on the model of a folder, with what the modules there say.
pub(super) fn behind(folder: &Path, task: Arc<dyn Task>) -> Result<Arc<dyn Task>, String> {
    let own = modules(folder).and_then(|own| task.of_modules(&own));
    own.unwrap_or(Ok(task)).map_err(|why| {
        format!("the vectors of this folder of sentence-transformers cannot be made: {why}")
    })
}

/// The same of a base whose head is an adapter's, or none: without classes.
pub(super) fn headless(folder: &Path, model: &dyn Model, task: &dyn Task) -> Description {
    let options = task.options().into_iter();
    Description {
        weights: ".".into(),
        objective: task.name().to_owned(),
        options: options
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        max_length: model.facts().max_length.min(made_for(folder)),
        ..Description::default()
    }
}

/// How many tokens a folder's tokenizer was made for.
fn made_for(folder: &Path) -> u64 {
    let limits: Option<Json> = std::fs::read(folder.join("tokenizer_config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    limits
        .as_ref()
        .and_then(|limits| limits.get("model_max_length")?.as_f64())
        .filter(|&n| n >= 2.0)
        .map_or(u64::MAX, |n| n as u64)
}

/// The class names of a config, in the order of the scores: `id2label`, or `LABEL_0`, … as many as
/// `num_labels` says, of which there are two if nothing does.
pub(super) fn classes(config: &Json) -> Result<Vec<String>, String> {
    if let Some(ranks) = task::ranks(config) {
        return Ok(ranks);
    }
    let Some(map) = config.get("id2label").and_then(Json::as_object) else {
        let n = config.get("num_labels").and_then(Json::as_u64).unwrap_or(2);
        if n > 1 << 20 {
            return Err(format!("`num_labels` is {n}"));
        }
        return Ok((0..n).map(|i| format!("LABEL_{i}")).collect());
    };
    let mut pairs: Vec<(u64, String)> = Vec::new();
    for (place, name) in map {
        match (place.parse(), name.as_str()) {
            (Ok(place), Some(name)) => pairs.push((place, name.to_owned())),
            _ => return Err(format!("`id2label` has no place `{place}` with a name")),
        }
    }
    pairs.sort();
    if let Some((i, _)) = pairs.iter().zip(0..).find(|((at, _), i)| at != i) {
        return Err(format!(
            "`id2label` does not number its classes from 0 on, each once: there is a `{}`",
            i.0
        ));
    }
    if pairs.is_empty() {
        return Err("`id2label` names no class".to_owned());
    }
    Ok(pairs.into_iter().map(|(_, name)| name).collect())
}

/// Complains about parts of the head that the weights do not hold: they would be random numbers.
pub(in crate::exec) fn has_head(
    params: &[Param],
    model: &dyn Model,
    weights: &Checkpoint,
) -> Result<(), RunError> {
    for param in params.iter().filter(|p| p.owner == Owner::Head) {
        let names = model.checkpoint_names(&param.name);
        match names.iter().find_map(|name| weights.info(name)) {
            Some((_, shape)) if shape == param.shape => {}
            Some((_, shape)) => {
                return Err(RunError::file(
                    weights.path(),
                    format!(
                        "the head's `{}` has the shape {shape:?}, and config.json stands for {:?}",
                        param.name, param.shape
                    ),
                ));
            }
            None => {
                return Err(RunError::file(
                    weights.path(),
                    format!(
                        "there is no head in it (no tensor `{}`), so that it cannot label; train one with a recipe whose model \
                         is this folder",
                        param.name
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_are_read_in_the_order_of_their_numbers() {
        let of = |config: Json| classes(&config);
        let ten: serde_json::Map<String, Json> = (0..11)
            .map(|i| (i.to_string(), json!(format!("c{i}"))))
            .collect();
        assert_eq!(of(json!({ "id2label": ten })).unwrap()[10], "c10");
        assert_eq!(of(json!({})).unwrap(), ["LABEL_0", "LABEL_1"]);
        assert_eq!(of(json!({ "num_labels": 1 })).unwrap(), ["LABEL_0"]);
        for wrong in [
            json!({ "id2label": { "1": "a", "2": "b" } }),
            json!({ "id2label": { "x": "a" } }),
            json!({ "id2label": { "0": 1 } }),
            json!({ "id2label": {} }),
            json!({ "num_labels": u64::MAX }),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
