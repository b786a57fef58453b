//! `ordinal`: one of several classes that stand in an order, such as grades.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{
    Answer, Classes, Details, Form, Names, Scored, Task, TaskKind, added, label_keys, one_class,
};
use crate::base::Diag;
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::rows::Added;
use crate::library::schema::Schema;
use crate::program::op::Ordinal as Loss;
use crate::program::{Builder, Feed, TargetKind, Value};

/// The key of a `config.json` that holds the names of ranks, in their order.
pub const ORDINAL_LABELS: &str = "ordinal_labels";

/// One of several classes in an order: conditional probabilities on the sequence head.
#[derive(Debug)]
struct Ordinal {
    /// Scores of a text, once the classes are known.
    scores: usize,
}

/// Its name.
pub(super) const NAME: &str = "ordinal";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "one of several classes in an order, such as grades: conditional probabilities of ranks (CORN)",
    doc: "The head gives one score less than there are classes. Score k is the log-odds that a text is above class k if it is at least of \
          class k, and is learned from such texts alone; the loss is the mean of these binary cross-entropies over all scores and texts that they are \
          asked of, as `corn_loss` of coral-pytorch has it. Evaluations report the mean of −log of the class's probability. The probability to be above class k is the product of those up to k, so that it falls \
          from class to class; the predicted class is the first that a text is above with at most half. Classes are numbers in their order, or \
          names in that of the data set's `labels`.",
    paper: "Shi, Cao and Raschka 2021, Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities (arXiv 2111.08851)",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |_| Arc::new(Ordinal { scores: 0 }),
};

/// `log(1 + eˣ)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// For each class but the last the probability to be above it.
fn above(scores: &[f32]) -> impl Iterator<Item = f64> {
    scores.iter().scan(1.0, |above, &score| {
        *above /= 1.0 + (-f64::from(score)).exp();
        Some(*above)
    })
}

/// The class that a row of scores predicts.
fn rank(scores: &[f32]) -> u32 {
    (0..)
        .zip(above(scores))
        .take_while(|(_, p)| *p > 0.5)
        .map(|(class, _)| class + 1)
        .last()
        .unwrap_or(0)
}

/// The probability of each class.
fn probabilities(scores: &[f32]) -> Vec<f64> {
    let mut rest = 1.0;
    let mut each: Vec<f64> = above(scores)
        .map(|above| std::mem::replace(&mut rest, above) - above)
        .collect();
    each.push(rest);
    each
}

/// How many scores are asked of a text of this class, among so many.
fn asked(class: u32, scores: usize) -> usize {
    (class as usize + 1).min(scores)
}

impl Task for Ordinal {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Grade
    }

    fn width(&self, classes: usize) -> u64 {
        (classes as u64).max(2) - 1
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let ranks = b.feed(Feed::Targets(TargetKind::Class));
        b.push1(Loss, &[scores, ranks, scale])
    }

    fn weight_of(&self, label: &Target) -> f64 {
        match label {
            Target::Class(class) => asked(*class, self.scores).max(1) as f64,
            _ => 1.0,
        }
    }

    fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Arc<dyn Task>>, Box<Diag>> {
        let scores = self.width(classes.names.len()) as usize;
        Ok(Some(Arc::new(Self { scores })))
    }

    fn loss_of(&self, scores: &[f32], target: &Target) -> f64 {
        let Target::Class(class) = target else {
            return 0.0;
        };
        let each = (0..=*class).zip(scores).map(|(task, &score)| {
            let x = f64::from(score);
            softplus(if task < *class { -x } else { x })
        });
        each.sum()
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["accuracy", "rank_error", "quadratic_kappa", "spearman"]
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Class(rank(scores))
    }

    fn columns(&self, classes: &[String]) -> Vec<String> {
        let scores = classes.iter().take(self.width(classes.len()) as usize);
        let scores = scores.map(|name| format!("score_above_{name}"));
        let first = ["label", "prediction"].map(str::to_owned);
        first.into_iter().chain(scores).collect()
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        one_class::cells(names, row)
    }

    fn details(&self, classes: &[String], predictions: &Predictions) -> Details {
        one_class::details(classes, predictions)
    }

    fn answers(&self, classes: &[String], form: Form) -> Result<Vec<Added>, String> {
        let mut list = vec![added("rank", true)];
        list.splice(0..0, one_class::answers(classes, form));
        Ok(list)
    }

    fn values(&self, classes: &[String], form: Form, scores: &[f32]) -> Vec<Json> {
        let each = probabilities(scores);
        let mut list = one_class::of_probabilities(classes, form, (rank(scores), &each));
        list.push(json!(rank(scores)));
        list
    }

    fn export(&self, config: &mut Map<String, Json>, classes: &[String]) {
        // For transformers each score is a yes or no of its own, which it is.
        let scores = classes.iter().take(self.width(classes.len()) as usize);
        let scores: Vec<String> = scores.map(|name| format!("> {name}")).collect();
        label_keys(config, &scores);
        config.insert("problem_type".into(), json!("multi_label_classification"));
        config.insert(ORDINAL_LABELS.into(), json!(classes));
    }
}

/// The names of the ranks that the head of a `config.json` tells, if it tells ranks.
#[must_use]
pub fn ranks(config: &Json) -> Option<Vec<String>> {
    let list = config.get(ORDINAL_LABELS)?.as_array()?.iter();
    list.map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_products_and_ranks_their_halves() {
        // Of coral-pytorch's `corn_label_from_logits`.
        let scores = [14.152, -6.1942, 0.47710, 0.96850];
        assert_eq!(
            (rank(&scores), rank(&[65.667, 0.303, 11.500, -4.524])),
            (1, 3)
        );
        let each = probabilities(&scores);
        assert!(
            (each.iter().sum::<f64>() - 1.0).abs() < 1e-12 && each[1] > 0.99,
            "{each:?}"
        );
        assert_eq!(rank(&[]), 0);
        let config = json!({ ORDINAL_LABELS: ["bad", "good"] });
        assert_eq!(
            ranks(&config),
            Some(vec!["bad".to_owned(), "good".to_owned()])
        );
    }
}
