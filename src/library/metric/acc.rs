//! Shares of rows whose likeliest option is the right one, as lm-evaluation-harness calls them.

use super::{Answer, Metric, Predictions, Schema, ratio};
use crate::library::data::tokens::Target;

/// By which of the three figures an option is the best.
#[derive(Debug)]
pub(super) struct Acc {
    schema: &'static Schema,
    place: usize,
}

static SUM: Schema = Schema {
    name: "acc",
    summary: "share of rows whose right option has the largest log-likelihood",
    doc: "lm-evaluation-harness' acc, for `objective = multiple_choice`.",
    paper: "",
    keys: &[],
};
static NORM: Schema = Schema {
    name: "acc_norm",
    summary: "share of rows whose right option has the largest log-likelihood a byte",
    doc: "lm-evaluation-harness' acc_norm, for `objective = multiple_choice`: the sum is divided by the bytes of the option, without what stands \
          between prompt and option. (The harness counts characters: options outside ASCII may differ.)",
    paper: "",
    keys: &[],
};
static TOKEN: Schema = Schema {
    name: "acc_token",
    summary: "share of rows whose right option has the largest log-likelihood a token",
    doc: "For `objective = multiple_choice`: the sum is divided by the option's tokens.",
    paper: "",
    keys: &[],
};

/// By the sum.
pub(super) static ACC: Acc = Acc {
    schema: &SUM,
    place: 0,
};
/// A byte.
pub(super) static ACC_NORM: Acc = Acc {
    schema: &NORM,
    place: 1,
};
/// A token.
pub(super) static ACC_TOKEN: Acc = Acc {
    schema: &TOKEN,
    place: 2,
};

impl Metric for Acc {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Choice
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let right = p.rows().filter(|row| match row {
            (Target::Class(right), Target::Classes(best)) => best.get(self.place) == Some(right),
            _ => false,
        });
        ratio(right.count() as f64, p.targets.len() as f64)
    }
}
