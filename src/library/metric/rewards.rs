//! Rewards of preferred answers and of the others: β times the log-likelihood of each above the reference's.

use super::{Answer, Metric, Predictions, Schema, ratio};
use crate::library::data::tokens::Target;

/// A mean over pairs of rewards.
#[derive(Debug)]
pub(super) struct Rewards {
    schema: &'static Schema,
    of: fn(f64, f64) -> f64,
    higher: bool,
    /// Whether it is of pairs alone.
    paired: bool,
}

static ACCURACY_SCHEMA: Schema = Schema {
    name: "reward_accuracy",
    summary: "share of pairs whose chosen answer has the higher reward",
    doc: "TRL's rewards/accuracies.",
    paper: "",
    keys: &[],
};
static MARGIN_SCHEMA: Schema = Schema {
    name: "reward_margin",
    summary: "mean reward of chosen answers less that of rejected ones; of `kto`, of wanted answers and of the others",
    doc: "TRL's rewards/margins.",
    paper: "",
    keys: &[],
};
static CHOSEN_SCHEMA: Schema = Schema {
    name: "reward_chosen",
    summary: "mean reward of chosen answers: β times their log-likelihood above the reference's",
    doc: "TRL's rewards/chosen.",
    paper: "",
    keys: &[],
};
static REJECTED_SCHEMA: Schema = Schema {
    name: "reward_rejected",
    summary: "mean reward of rejected answers; less is better",
    doc: "TRL's rewards/rejected.",
    paper: "",
    keys: &[],
};

/// The share of pairs in the right order.
pub(super) static ACCURACY: Rewards = Rewards {
    schema: &ACCURACY_SCHEMA,
    of: |chosen, rejected| if chosen > rejected { 1.0 } else { 0.0 },
    higher: true,
    paired: true,
};
/// The mean distance.
pub(super) static MARGIN: Rewards = Rewards {
    schema: &MARGIN_SCHEMA,
    of: |chosen, rejected| chosen - rejected,
    higher: true,
    paired: false,
};
/// The mean of the chosen.
pub(super) static CHOSEN: Rewards = Rewards {
    schema: &CHOSEN_SCHEMA,
    of: |chosen, _| chosen,
    higher: true,
    paired: false,
};
/// The mean of the rejected.
pub(super) static REJECTED: Rewards = Rewards {
    schema: &REJECTED_SCHEMA,
    of: |_, rejected| rejected,
    higher: false,
    paired: false,
};

impl Metric for Rewards {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn higher_is_better(&self) -> bool {
        self.higher
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Preference || answer == Answer::Desirable && !self.paired
    }

    fn compute(&self, p: &Predictions) -> f64 {
        if p.targets.iter().any(|own| matches!(own, Target::Class(_))) {
            let [rejected, chosen] = [0, 1].map(|label| mean_of(p, label));
            return (self.of)(chosen, rejected);
        }
        let pairs = p.predicted.as_chunks::<2>().0;
        let each = pairs.iter().map(|pair| match pair {
            [Target::Score(chosen), Target::Score(rejected)] => {
                (self.of)(f64::from(*chosen), f64::from(*rejected))
            }
            _ => 0.0,
        });
        ratio(each.sum(), pairs.len() as f64)
    }
}

/// The mean reward of the answers with this label.
fn mean_of(p: &Predictions, label: u32) -> f64 {
    let own = p.rows().filter_map(|row| match row {
        (Target::Class(own), Target::Score(reward)) if *own == label => Some(f64::from(*reward)),
        _ => None,
    });
    let (sum, count) = own.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    ratio(sum, count)
}
