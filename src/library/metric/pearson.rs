//! Pearson's correlation.

use super::{Answer, Metric, Predictions, Schema, ratio};

/// Pearson's correlation of scores and targets.
#[derive(Debug)]
pub(super) struct Pearson;

static SCHEMA: Schema = Schema {
    name: "pearson",
    summary: "linear correlation of predicted and true numbers",
    doc: "cov(x, y) / (σx σy); 0 where either is constant.",
    paper: "Pearson 1895",
    keys: &[],
};

impl Metric for Pearson {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Number
    }

    fn compute(&self, p: &Predictions) -> f64 {
        correlation(&p.numbers())
    }
}

/// Pearson's correlation of pairs.
pub(super) fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len().max(1) as f64;
    let (mx, my) = (
        pairs.iter().map(|p| p.0).sum::<f64>() / n,
        pairs.iter().map(|p| p.1).sum::<f64>() / n,
    );
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        xy += (x - mx) * (y - my);
        xx += (x - mx) * (x - mx);
        yy += (y - my) * (y - my);
    }
    ratio(xy, (xx * yy).sqrt())
}
