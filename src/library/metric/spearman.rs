//! Spearman's rank correlation.

use super::pearson::correlation;
use super::{Answer, Metric, Predictions, Schema};

/// Pearson's correlation of ranks; equal values share their mean rank.
#[derive(Debug)]
pub(super) struct Spearman;

static SCHEMA: Schema = Schema {
    name: "spearman",
    summary: "rank correlation of predicted and true numbers",
    doc: "Pearson's correlation of the ranks; equal values share their mean rank. Of `ordinal`, classes are numbers in their order.",
    paper: "Spearman 1904",
    keys: &[],
};

impl Metric for Spearman {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        matches!(answer, Answer::Number | Answer::Grade)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let (x, y): (Vec<f64>, Vec<f64>) = p.numbers().into_iter().chain(p.grades()).unzip();
        correlation(&ranks(&x).into_iter().zip(ranks(&y)).collect::<Vec<_>>())
    }
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = |v: f64| {
        let below = sorted.partition_point(|s| s.total_cmp(&v).is_lt());
        let upto = sorted.partition_point(|s| s.total_cmp(&v).is_le());
        (below + upto + 1) as f64 / 2.0
    };
    x.iter().map(|&v| rank(v)).collect()
}
