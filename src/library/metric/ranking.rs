//! How near a text's own one is among all texts of a split: of each row one is right.

use super::{Answer, Metric, Predictions, Schema, ratio};
use crate::library::data::tokens::Target;

/// A mean over rows of what a place is worth, which counts from 0.
#[derive(Debug)]
pub(super) struct Ranking {
    schema: &'static Schema,
    of: fn(u32) -> f64,
}

/// How far the list goes that is looked at.
const MOST: u32 = 10;

static ACCURACY_AT_1_SCHEMA: Schema = Schema {
    name: "accuracy_at_1",
    summary: "share of anchors whose own positive is the nearest of all positives of the split",
    doc: "A positive that is as near as the own one, as the same text in another row, does not count as nearer.",
    paper: "",
    keys: &[],
};
static RECALL_AT_10_SCHEMA: Schema = Schema {
    name: "recall_at_10",
    summary: "share of anchors whose own positive is among the 10 nearest of all positives of the split",
    doc: "One positive is right for each anchor, so that it is the accuracy at 10, too.",
    paper: "",
    keys: &[],
};
static MRR_AT_10_SCHEMA: Schema = Schema {
    name: "mrr_at_10",
    summary: "mean over anchors of 1 over the place of their own positive among all positives of the split, 0 behind the tenth",
    doc: "",
    paper: "",
    keys: &[],
};
static NDCG_AT_10_SCHEMA: Schema = Schema {
    name: "ndcg_at_10",
    summary: "discounted gain of the place of an anchor's own positive among all positives of the split: 1 / log2(1 + place), 0 behind the tenth",
    doc: "One positive is right for each anchor, so that the best possible gain is 1.",
    paper: "Järvelin and Kekäläinen 2002",
    keys: &[],
};

/// Whether it is the first.
pub(super) static ACCURACY_AT_1: Ranking = Ranking {
    schema: &ACCURACY_AT_1_SCHEMA,
    of: |place| if place == 0 { 1.0 } else { 0.0 },
};
/// Whether it is among the first.
pub(super) static RECALL_AT_10: Ranking = Ranking {
    schema: &RECALL_AT_10_SCHEMA,
    of: |place| if place < MOST { 1.0 } else { 0.0 },
};
/// One over its place.
pub(super) static MRR_AT_10: Ranking = Ranking {
    schema: &MRR_AT_10_SCHEMA,
    of: |place| match place < MOST {
        true => 1.0 / f64::from(place + 1),
        false => 0.0,
    },
};
/// Its discounted gain.
pub(super) static NDCG_AT_10: Ranking = Ranking {
    schema: &NDCG_AT_10_SCHEMA,
    of: |place| match place < MOST {
        true => 1.0 / f64::from(place + 2).log2(),
        false => 0.0,
    },
};

impl Metric for Ranking {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Rank
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let each = p.predicted.iter().map(|place| match place {
            Target::Class(place) => (self.of)(*place),
            _ => 0.0,
        });
        ratio(each.sum(), p.predicted.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_worth_less_the_further_back_they_are() {
        let places = |list: &[u32]| Predictions {
            predicted: list.iter().map(|&p| Target::Class(p)).collect(),
            ..Predictions::default()
        };
        let all = places(&[0, 1, 9, 10]);
        let of = |metric: &Ranking| metric.compute(&all);
        assert!((of(&ACCURACY_AT_1) - 0.25).abs() < 1e-12);
        assert!((of(&RECALL_AT_10) - 0.75).abs() < 1e-12);
        assert!((of(&MRR_AT_10) - (1.0 + 0.5 + 0.1) / 4.0).abs() < 1e-12);
        let gains = 1.0 + 1.0 / 3.0_f64.log2() + 1.0 / 11.0_f64.log2();
        assert!((of(&NDCG_AT_10) - gains / 4.0).abs() < 1e-12);
        assert!(MRR_AT_10.compute(&places(&[])).abs() < 1e-12);
    }
}
