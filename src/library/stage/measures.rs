//! The metrics that a stage names, and the class that F1 is about.

use super::super::data::set::same_label;
use super::super::metric::{self, Metric};
use super::super::schema::{Filled, Kind, Registry, Schema, Values};
use super::super::task::Answer;
use super::{Diag, Diags, StageCx, keys};
use crate::library::counts::to_u32;
use crate::library::error::{IDLE_KEY, METRIC_MISMATCH};

/// The metrics a stage names, those that the benchmark of its data reports, or those the objective suggests.
pub(super) fn metrics(cx: &StageCx<'_>, key: &str) -> Result<Vec<&'static dyn Metric>, Vec<Diag>> {
    let written = cx.values.find::<[String]>(key).unwrap_or_default();
    if written.is_empty() {
        let fitting = |names: &[&str]| -> Vec<&'static dyn Metric> {
            let positive = keys::POSITIVE.is_written(cx.values);
            let fits = |m: &&dyn Metric| m.fits(cx.task.answer(), cx.classes.len(), positive);
            let all = names.iter().filter_map(|n| metric::metric(n));
            all.filter(fits).collect()
        };
        // What is scored is the last split: that of an evaluation, or the one that a training is evaluated on.
        let scored = cx.splits.iter().rev().flatten().next();
        let reported = scored.map_or(&[][..], |split| split.reported);
        let own = fitting(reported);
        return Ok(match own.len() == reported.len() && !own.is_empty() {
            true => own,
            false => fitting(cx.task.metrics()),
        });
    }
    written
        .iter()
        .map(|name| checked_metric(cx, name, key))
        .collect()
}

pub(super) fn checked_metric(
    cx: &StageCx<'_>,
    name: &str,
    key: &str,
) -> Result<&'static dyn Metric, Vec<Diag>> {
    let of = (cx.task.answer(), cx.classes.len());
    fitting_metric(name, of, cx.values, key).map_err(|diag| vec![*diag])
}

/// Complains about metrics that a stage names and that are none, or cannot be computed of what it predicts. Classes
/// that are not known yet are taken as two.
pub fn check_metrics(
    schema: &Schema,
    values: &Values,
    (answer, classes): (Answer, usize),
    diags: &mut Diags,
) {
    let classes = if classes == 0 { 2 } else { classes };
    for key in schema.keys {
        let names = match (key.kind, key.name) {
            (Kind::Entry(Registry::Metric), key) => values
                .find::<Filled>(key)
                .map(|e| &e.name)
                .into_iter()
                .collect(),
            (Kind::Names, "metrics") => keys::METRICS
                .get(values)
                .unwrap_or_default()
                .iter()
                .collect(),
            _ => Vec::new(),
        };
        for name in names {
            if let Err(diag) = fitting_metric(name, (answer, classes), values, key.name) {
                diags.push(*diag);
            }
        }
    }
}

fn fitting_metric(
    name: &str,
    (answer, classes): (Answer, usize),
    values: &Values,
    key: &str,
) -> Result<&'static dyn Metric, Box<Diag>> {
    let (at, positive) = (values.span(key), keys::POSITIVE.is_written(values));
    let names = metric::METRICS.iter().map(|m| m.schema().name);
    let Some(metric) = metric::metric(name) else {
        let mut diag = Diag::error(&METRIC_MISMATCH, at, format!("there is no metric `{name}`"));
        diag.help = crate::library::words::unknown_name(name, names);
        return Err(Box::new(diag));
    };
    if metric.fits(answer, classes, positive) {
        return Ok(metric);
    }
    if metric.fits(Answer::Text, classes, positive) {
        if keys::GENERATE.is_written(values) {
            return Ok(metric);
        }
        let message = format!(
            "`{name}` compares texts that a model generates, and this stage generates none"
        );
        let help = "add `generate = { max_new_tokens = 64 }` to an `eval` stage whose data have prompts and completions";
        return Err(Box::new(
            Diag::error(&METRIC_MISMATCH, at, message).help(help),
        ));
    }
    let fitting: Vec<String> = metric::METRICS
        .iter()
        .filter(|m| m.fits(answer, classes, positive))
        .map(|m| format!("`{}`", m.schema().name))
        .collect();
    let message = format!("`{name}` cannot be computed for this stage's predictions");
    let diag = Diag::error(&METRIC_MISMATCH, at, message);
    Err(Box::new(diag.help(format!(
        "here {} can be computed",
        fitting.join(", ")
    ))))
}

/// The class that `f1` is of: the one that `positive` names, else the second.
pub(super) fn positive(
    cx: &StageCx<'_>,
    metrics: impl IntoIterator<Item = &'static dyn Metric>,
) -> Result<u32, Vec<Diag>> {
    let Some(name) = keys::POSITIVE.get(cx.values) else {
        return Ok(1);
    };
    let at = keys::POSITIVE.span(cx.values);
    if metrics.into_iter().all(|m| m.schema().name != "f1") {
        let message = "`positive` has no effect without `f1`";
        let help = "add `f1` to the metrics, or remove `positive`";
        let diag = Diag::error(&IDLE_KEY, at, message).label("changes nothing");
        return Err(vec![diag.help(help)]);
    }
    if !cx.task.answer().names_classes() {
        return Ok(1); // `f1` does not fit there, which is said
    }
    let classes = &cx.classes;
    let known = cx.splits.iter().flatten().any(|s| s.examples.is_some());
    let exact = classes.iter().position(|class| class == name);
    match exact.or_else(|| classes.iter().position(|class| same_label(class, name))) {
        Some(place) => Ok(to_u32(place)),
        // Without the data the classes are not known.
        None if !known => Ok(1),
        None => {
            let message = format!("`positive` names `{name}`, which is none of the classes");
            let mut diag = Diag::error(&METRIC_MISMATCH, at, message).label("no such class");
            let names = || classes.iter().map(String::as_str);
            diag.help = crate::base::suggest::did_you_mean(name, names()).or_else(|| {
                let shown: Vec<String> = names().take(8).map(|n| format!("`{n}`")).collect();
                let more = if classes.len() > 8 { ", …" } else { "" };
                Some(format!("the classes are {}{more}", shown.join(", ")))
            });
            Err(vec![diag])
        }
    }
}
