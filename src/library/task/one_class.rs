//! What tasks with one class a text have in common.

use serde_json::{Map, Value as Json, json};

use super::{Details, Form, Names, Scored, added, label_keys, number};
use crate::library::counts::to_u32;
use crate::library::data::tokens::Target;
use crate::library::error::ONE_PREDICTION;
use crate::library::metric::{Confusion, Predictions, best};
use crate::library::rows::Added;
use crate::program::op::CrossEntropy;
use crate::program::{Builder, Feed, TargetKind, Value};

/// Classes up to which the whole table of labels and predictions is in a result.
const WHOLE: usize = 100;
/// Confusions that a result lists.
const LISTED: usize = 20;

/// Cross-entropy over the classes.
pub(super) fn loss(b: &mut Builder, scores: Value) -> Value {
    b.label("loss");
    let scale = b.feed(Feed::LossScale);
    let labels = b.feed(Feed::Targets(TargetKind::Class));
    b.push1(CrossEntropy, &[scores, labels, scale])
}

/// `ln Σ exp(s) − s[class]`; 0 without a class.
pub(super) fn loss_of(scores: &[f32], target: &Target) -> f64 {
    let Target::Class(class) = target else {
        return 0.0;
    };
    let Some(own) = scores.get(*class as usize) else {
        return 0.0;
    };
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|s| f64::from(s - most).exp()).sum();
    sum.ln() - f64::from(own - most)
}

pub(super) fn columns(classes: &[String]) -> Vec<String> {
    let scores = classes.iter().map(|name| format!("score_{name}"));
    ["label", "prediction"]
        .into_iter()
        .map(str::to_owned)
        .chain(scores)
        .collect()
}

pub(super) fn cells(names: Names<'_>, row: Scored<'_>) -> Vec<String> {
    let name = |target: &Target| match target {
        Target::Class(class) => names.class(*class).to_owned(),
        _ => String::new(),
    };
    let first = [name(row.target), name(row.predicted)];
    let scores = row.scores.iter().map(f32::to_string);
    first.into_iter().chain(scores).collect()
}

/// How each class is predicted, what is taken for what, and what is doubtful about it.
pub(super) fn details(classes: &[String], predictions: &Predictions) -> Details {
    let confusion = Confusion::of(predictions);
    if confusion.rows() == 0 {
        return Details::default();
    }
    let name = |class: u32| classes.get(class as usize).map_or("?", String::as_str);
    let mut entries = Map::new();
    let each = (0..to_u32(classes.len())).map(|class| {
        let own = confusion.class(class);
        json!({
            "name": name(class), "support": own.support, "predicted": own.predicted, "precision": own.precision,
            "recall": own.recall, "f1": own.f1,
        })
    });
    entries.insert("classes".to_owned(), each.collect());
    let whole = (classes.len() <= WHOLE).then(|| -> Vec<Vec<u64>> {
        let all = 0..to_u32(classes.len());
        let row = |label: u32| all.clone().map(move |predicted| (label, predicted));
        let cells = |label| row(label).map(|(l, p)| confusion.rows_of(l, p)).collect();
        all.clone().map(cells).collect()
    });
    entries.insert("confusion".to_owned(), json!(whole));
    let mut wrong: Vec<(u32, u32, u64)> = confusion.cells().filter(|(l, p, _)| l != p).collect();
    wrong.sort_by_key(|&(label, predicted, rows)| (std::cmp::Reverse(rows), label, predicted));
    let listed = wrong.into_iter().take(LISTED).map(|(label, predicted, rows)| {
        json!({ "label": name(label), "prediction": name(predicted), "rows": rows })
    });
    entries.insert("confused".to_owned(), listed.collect());
    let only = confusion.only_prediction().map(|class| {
        let message = format!(
            "all {} predictions are `{}`, and the labels are of several classes",
            confusion.rows(),
            name(class)
        );
        (&ONE_PREDICTION, message)
    });
    Details {
        entries,
        doubts: only.into_iter().collect(),
    }
}

pub(super) fn answers(classes: &[String], form: Form) -> Vec<Added> {
    let mut list = vec![added("prediction", false), added("probability", true)];
    match (form.all, form.nested) {
        (false, _) => {}
        (true, true) => list.push(added("probabilities", false)),
        (true, false) => {
            list.extend(
                classes
                    .iter()
                    .map(|c| added(format!("probability_{c}"), true)),
            );
        }
    }
    list
}

pub(super) fn values(classes: &[String], form: Form, scores: &[f32]) -> Vec<Json> {
    of_probabilities(classes, form, (best(scores), &softmax(scores)))
}

/// The same of a class that is predicted, and the probability of each.
pub(super) fn of_probabilities(
    classes: &[String],
    form: Form,
    (class, probabilities): (u32, &[f64]),
) -> Vec<Json> {
    let class = class as usize;
    let of = |i: usize| number(probabilities.get(i).copied().unwrap_or_default());
    let mut list = vec![json!(classes.get(class)), of(class)];
    match (form.all, form.nested) {
        (false, _) => {}
        (true, true) => {
            let pairs = classes.iter().enumerate().map(|(i, c)| (c.clone(), of(i)));
            list.push(Json::Object(pairs.collect::<Map<_, _>>()));
        }
        (true, false) => list.extend((0..classes.len()).map(of)),
    }
    list
}

/// Probabilities of a row of scores.
pub(super) fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|x| f64::from(x - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|x| x / sum).collect()
}

/// Writes the classes into a config.
pub(super) fn export(config: &mut Map<String, Json>, classes: &[String]) {
    label_keys(config, classes);
    // Only a config that names a type needs another one.
    if config
        .get("problem_type")
        .is_some_and(|kind| !kind.is_null())
    {
        config.insert("problem_type".into(), json!("single_label_classification"));
    }
}
