//! Weights of classes, smoothed labels and the focal loss in a training: keys that several tasks have.

use std::collections::BTreeMap;

use super::Classes;
use crate::base::{Diag, Span, suggest};
use crate::library::counts::to_u32;
use crate::library::data::set::same_label;
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::error::{BAD_CLASS_WEIGHTS, CONFLICTING_KEYS};
use crate::library::schema::{Bound, ClassWeights, Given, Maybe, Values, kind};
use crate::program::op::{
    BinaryKind, Broadcast, Constant, Detach, Elementwise, Over, Reduce, ReduceKind, Unary,
    UnaryKind, WeightedBinaryCrossEntropy, WeightedCrossEntropy,
};
use crate::program::{Builder, DType, Feed, Real, TargetKind, Value};

/// How much the rows of each class weigh.
pub(super) const CLASS_WEIGHTS: Maybe<ClassWeights> = Maybe::new(
    "class_weights",
    kind::CLASS_WEIGHTS,
    "how much the rows of each class weigh in the mean that is minimised: `balanced` for rows / (classes · rows of the class), or a number \
          each; evaluations report the plain loss",
);

/// The share of a label that is spread over all classes.
pub(super) const LABEL_SMOOTHING: Given<f64> = Given::<f64>::tacit(
    "label_smoothing",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "share of each label that is spread evenly over all classes while training; evaluations report the plain loss",
);

/// How much less rows count that are predicted well.
pub(super) const FOCAL: Given<f64> = Given::<f64>::tacit(
    "focal",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "γ of the focal loss: each row counts (1 − p)^γ, p the probability of its class, while training; evaluations report the plain loss",
);

/// How much the presence of a class weighs.
pub(super) const POSITIVE_WEIGHTS: Maybe<ClassWeights> = Maybe::new(
    "positive_weights",
    kind::CLASS_WEIGHTS,
    "how much more the texts of a class weigh in its loss than the others: `balanced` for rows without it / rows with it, or a number \
          each; evaluations report the plain loss",
);

/// What a recipe writes of these keys, and the weights that come of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Weighting {
    smoothing: f64,
    /// γ of the focal loss.
    focal: f64,
    weights: Option<ClassWeights>,
    /// The keys that are written, with their places.
    written: Vec<(&'static str, Span)>,
    /// The weight of each class, once they are known.
    each: Vec<f32>,
}

impl Weighting {
    pub(super) fn of(values: &Values) -> Self {
        let keys = [
            CLASS_WEIGHTS.key(),
            POSITIVE_WEIGHTS.key(),
            LABEL_SMOOTHING.key(),
            FOCAL.key(),
        ];
        let written = keys.into_iter().filter(|key| values.written(key.name));
        let weights = CLASS_WEIGHTS.get(values).or(POSITIVE_WEIGHTS.get(values));
        Self {
            smoothing: LABEL_SMOOTHING.get(values),
            focal: FOCAL.get(values),
            weights: weights.cloned(),
            written: written
                .map(|key| (key.name, values.span(key.name)))
                .collect(),
            each: Vec::new(),
        }
    }

    /// The keys that are written, with their places.
    pub(super) fn written(&self) -> Vec<(&'static str, Span)> {
        self.written.clone()
    }

    /// Whether the loss is the plain one.
    fn is_plain(&self) -> bool {
        self.weights.is_none() && self.smoothing == 0.0 && self.focal == 0.0
    }

    /// Cross-entropy with these weights; `None` where it is the plain one.
    pub(super) fn cross_entropy(&self, b: &mut Builder, scores: Value) -> Option<Value> {
        if self.is_plain() {
            return None;
        }
        if self.focal > 0.0 {
            return Some(self.focal_loss(b, scores));
        }
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let labels = b.feed(Feed::Targets(TargetKind::Class));
        let weights = self.feed(b);
        let op = WeightedCrossEntropy {
            smoothing: Real::new(self.smoothing),
        };
        Some(b.push1(op, &[scores, labels, scale, weights]))
    }

    /// `scale · Σ weight · −(1 − p)^γ · ln p`, p the probability of the row's class.
    fn focal_loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let classes = to_u32(self.each.len());
        let own = b.feed(Feed::Targets(TargetKind::ClassSet { classes }));
        let weights = self.feed(b);
        let binary = |b: &mut Builder, kind, broadcast, x, y| {
            b.push1(Elementwise { kind, broadcast }, &[x, y])
        };
        let unary = |b: &mut Builder, kind, x| b.push1(Unary { kind }, &[x]);
        let rows = |b: &mut Builder, kind, x| {
            let over = Over::Columns;
            b.push1(Reduce { kind, over }, &[x])
        };
        let number = |b: &mut Builder, value| {
            let (value, dtype) = (Real::new(value), DType::F32);
            b.push1(Constant { value, dtype }, &[])
        };
        let most = rows(b, ReduceKind::Max, scores);
        let most = b.push1(Detach, &[most]);
        let below = binary(b, BinaryKind::Sub, Broadcast::Column, scores, most);
        let shares = unary(b, UnaryKind::Exp, below);
        let sum = rows(b, ReduceKind::Sum, shares);
        let sum = unary(b, UnaryKind::Log, sum);
        let logs = binary(b, BinaryKind::Sub, Broadcast::Column, below, sum);
        let logs = binary(b, BinaryKind::Mul, Broadcast::Full, logs, own);
        let log = rows(b, ReduceKind::Sum, logs);
        // 1 − p, never 0, so that its logarithm is a number.
        let share = unary(b, UnaryKind::Exp, log);
        let limit = number(b, 1.0 + f64::from(f32::EPSILON));
        let rest = binary(b, BinaryKind::Sub, Broadcast::Scalar, share, limit);
        let rest = unary(b, UnaryKind::Neg, rest);
        let power = unary(b, UnaryKind::Log, rest);
        let gamma = number(b, self.focal);
        let power = binary(b, BinaryKind::Mul, Broadcast::Scalar, power, gamma);
        let factor = unary(b, UnaryKind::Exp, power);
        let own = binary(b, BinaryKind::Mul, Broadcast::Row, own, weights);
        let weight = rows(b, ReduceKind::Sum, own);
        let each = binary(b, BinaryKind::Mul, Broadcast::Full, factor, log);
        let each = binary(b, BinaryKind::Mul, Broadcast::Full, each, weight);
        let (kind, over) = (ReduceKind::Sum, Over::All);
        let all = b.push1(Reduce { kind, over }, &[each]);
        let all = unary(b, UnaryKind::Neg, all);
        binary(b, BinaryKind::Mul, Broadcast::Full, all, scale)
    }

    /// Binary cross-entropy with these weights of the presence of a class; `None` where it is the plain one.
    pub(super) fn binary(&self, b: &mut Builder, scores: Value) -> Option<Value> {
        if self.is_plain() {
            return None;
        }
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let classes = to_u32(self.each.len());
        let targets = b.feed(Feed::Targets(TargetKind::ClassSet { classes }));
        let weights = self.feed(b);
        let inputs = [scores, targets, scale, weights];
        Some(b.push1(WeightedBinaryCrossEntropy, &inputs))
    }

    fn feed(&self, b: &mut Builder) -> Value {
        b.feed(Feed::ClassWeights {
            classes: to_u32(self.each.len()),
        })
    }

    /// The weight of each class.
    pub(super) fn each(&self) -> &[f32] {
        &self.each
    }

    /// The weight of an example with one class, in the mean over examples.
    pub(super) fn of_label(&self, label: &Target) -> f64 {
        match label {
            Target::Class(class) => {
                let own = self.each.get(*class as usize);
                own.map_or(1.0, |&weight| f64::from(weight))
            }
            _ => 1.0,
        }
    }

    /// The same with the weight of each class; `None` where the loss is the plain one. Without the data all weigh 1.
    ///
    /// # Errors
    /// What of the weights does not fit the classes.
    pub(super) fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Self>, Box<Diag>> {
        if self.is_plain() {
            return Ok(None);
        }
        if self.focal > 0.0 && self.smoothing > 0.0 {
            let focal = FOCAL.name();
            let own = self.written.iter().find(|(key, _)| *key == focal);
            let (_, at) = own.copied().unwrap_or_default();
            let message = "`focal` and `label_smoothing` are both written, and the focal loss has one class a row";
            let diag = Diag::error(&CONFLICTING_KEYS, at, message);
            return Err(Box::new(diag.help("keep one of them")));
        }
        let each = match (&self.weights, classes.train) {
            (Some(ClassWeights::Balanced), Some(train)) => self.balanced(classes.names, train)?,
            (Some(ClassWeights::Each(list)), Some(_)) => self.named(classes.names, list)?,
            (None, _) | (_, None) => vec![1.0; classes.names.len()],
        };
        Ok(Some(Self {
            each,
            ..self.clone()
        }))
    }

    /// Where the weights are written, and by which key.
    fn key(&self) -> (&'static str, Span) {
        let others = [LABEL_SMOOTHING.name(), FOCAL.name()];
        let own = self.written.iter().find(|(key, _)| !others.contains(key));
        own.copied().unwrap_or_default()
    }

    fn wrong(&self, message: String, help: &str) -> Box<Diag> {
        let (_, at) = self.key();
        Box::new(Diag::error(&BAD_CLASS_WEIGHTS, at, message).help(help))
    }

    /// Weights by which every class has the same in all.
    fn balanced(&self, names: &[String], train: &EncodedSet) -> Result<Vec<f32>, Box<Diag>> {
        let mut rows: BTreeMap<u32, u64> = BTreeMap::new();
        let labels = (0..to_u32(train.len())).filter_map(|i| train.label(i));
        for label in labels {
            match label {
                Target::Class(class) => *rows.entry(class).or_default() += 1,
                Target::Classes(all) => {
                    for class in all.iter() {
                        *rows.entry(*class).or_default() += 1;
                    }
                }
                Target::Each(_) | Target::Score(_) | Target::None => {}
            }
        }
        let (key, _) = self.key();
        let (all, classes) = (train.len() as f64, names.len() as f64);
        let each = (0..).zip(names).map(|(class, name)| {
            let own = rows.get(&class).copied().unwrap_or(0) as f64;
            let weight = if key == POSITIVE_WEIGHTS.name() {
                (all - own) / own
            } else {
                all / (classes * own)
            };
            if weight.is_finite() && weight > 0.0 {
                return Ok(weight as f32);
            }
            let has = if own > 0.0 { "every row" } else { "no row" };
            let message = format!(
                "`{key} = balanced` has no weight for `{name}`: {has} of the split is of this class"
            );
            Err(self.wrong(
                message,
                "write a weight for each class instead, or take other data",
            ))
        });
        each.collect()
    }

    /// Weights by name, in the order of the classes.
    fn named(&self, names: &[String], list: &[(String, f64)]) -> Result<Vec<f32>, Box<Diag>> {
        let (key, _) = self.key();
        let place = |written: &str| {
            let exact = names.iter().position(|name| name == written);
            exact.or_else(|| names.iter().position(|name| same_label(name, written)))
        };
        let mut each: Vec<Option<f32>> = vec![None; names.len()];
        for (written, weight) in list {
            let Some(own) = place(written).and_then(|class| each.get_mut(class)) else {
                let near = suggest::did_you_mean(written, names.iter().map(String::as_str));
                let known = || format!("the classes are {}", shown(names.iter()));
                let message = format!("`{key}` names `{written}`, which is none of the classes");
                return Err(self.wrong(message, &near.unwrap_or_else(known)));
            };
            if own.replace(*weight as f32).is_some() {
                let message = format!("`{key}` gives the class `{written}` two weights");
                return Err(self.wrong(message, "keep one of them"));
            }
        }
        let missing: Vec<&String> = (names.iter().zip(&each))
            .filter(|(_, weight)| weight.is_none())
            .map(|(name, _)| name)
            .collect();
        if !missing.is_empty() {
            let message = format!("`{key}` has no weight for {}", shown(missing.into_iter()));
            return Err(self.wrong(
                message,
                "write a weight for each class: 1 leaves it as it is",
            ));
        }
        Ok(each.into_iter().flatten().collect())
    }
}

/// Names of classes in a message.
fn shown<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const MOST: usize = 8;
    let more = if names.len() > MOST { ", …" } else { "" };
    let list: Vec<String> = names.take(MOST).map(|n| format!("`{n}`")).collect();
    format!("{}{more}", list.join(", "))
}
