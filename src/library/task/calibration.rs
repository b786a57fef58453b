//! Label probabilities of in-context learning, set off against those of inputs without content.

use std::ops::Range;

use super::{Asked, Gathered, Names, Scored, one_class};
use crate::base::Span;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::schema::{Maybe, Values, kind};

pub(super) const CALIBRATE: Maybe<[String]> = Maybe::new(
    "calibrate",
    kind::TEXTS,
    "texts without content, such as `\"N/A\"`, which stand for all columns of a row behind the same demonstrations: each label's probability is divided \
          by the mean of theirs (Zhao et al. 2021, arXiv 2102.09690)",
);

/// The texts without content that a recipe writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    pub(super) texts: Vec<String>,
    /// Where they are written.
    pub(super) at: Span,
}

impl Calibration {
    pub(super) fn of(values: &Values) -> Self {
        Self {
            texts: CALIBRATE.get(values).unwrap_or_default().to_vec(),
            at: CALIBRATE.span(values),
        }
    }
}

/// The places of each row's sequences in a set.
fn rows(set: &EncodedSet, count: usize) -> Vec<(u32, Range<u32>)> {
    let mut list: Vec<(u32, Range<u32>)> = Vec::new();
    for example in 0..to_u32(count) {
        let row = set.row(example).unwrap_or(example);
        match list.last_mut() {
            Some((own, places)) if *own == row => places.end += 1,
            _ => list.push((row, example..example + 1)),
        }
    }
    list
}

/// What the rows of a set come to. `logits` gives those of a row's labels by the places of its sequences: its own first, then those of the texts
/// without content. Where only the first row has such, they are those of all.
pub(super) fn gathered(
    (set, count): (&EncodedSet, usize),
    asked: Asked<'_>,
    logits: impl Fn(Range<u32>) -> Vec<Vec<f32>>,
) -> Gathered {
    let mut made = Gathered::default();
    let mut loss = 0.0;
    let mut free: Vec<f64> = Vec::new();
    let names = Names {
        classes: asked.classes,
        tokens: None,
    };
    for (row, places) in rows(set, count) {
        let target = set.label(places.start).unwrap_or(Target::None);
        let all = logits(places);
        let Some((own, others)) = all.split_first() else {
            continue;
        };
        if !others.is_empty() {
            free = vec![0.0; own.len()];
            for other in others {
                let shares = one_class::softmax(other);
                for (sum, share) in free.iter_mut().zip(shares) {
                    *sum += share / others.len() as f64;
                }
            }
        }
        let scores: Vec<f32> = match free.is_empty() {
            true => own.clone(),
            false => {
                let shares = one_class::softmax(own);
                let raised = shares.iter().zip(&free);
                // A label that nothing ever speaks for keeps a finite score.
                let each = raised.map(|(p, q)| p.max(1e-300).ln() - q.max(1e-300).ln());
                each.map(|x| x as f32).collect()
            }
        };
        let predicted = Target::Class(crate::library::metric::best(&scores));
        loss += one_class::loss_of(&scores, &target);
        let scored = Scored {
            position: 0,
            target: &target,
            predicted: &predicted,
            scores: &scores,
        };
        made.cells.push((row, one_class::cells(names, scored)));
        made.predictions.targets.push(target);
        made.predictions.predicted.push(predicted);
    }
    made.predictions.loss = loss / made.cells.len().max(1) as f64;
    made
}
