//! Two routes of a step and how far apart their predictions are: AdaMix (methods A4) and R-Drop.

use super::super::net::{Mode, Net};
use super::super::task::Answer;
use super::network::{Built, again, route};
use super::{Diag, StageCx};
use crate::library::error::{BAD_METHOD_VALUES, CONFLICTING_KEYS};
use crate::program::op::{BinaryKind, Broadcast, Over, ReduceKind, UnaryKind};
use crate::program::{Builder, Feed, Value};

/// What a second route of a step is for.
struct Second {
    /// The key that asks for it.
    key: &'static str,
    /// The factor of the divergence.
    factor: f64,
    /// Whether it is R-Drop: gradients flow through what is compared with, and the loss is the mean of both routes'.
    drops: bool,
}

impl Second {
    /// That of a stage's methods (AdaMix), or of its task (R-Drop).
    fn of(cx: &StageCx<'_>) -> Result<Option<Self>, Box<Diag>> {
        let mut methods = cx.tuning.methods.iter();
        let own = methods.find_map(|(method, filled)| method.consistency(&filled.values));
        match (own, cx.task.r_drop()) {
            (Some(_), Some(_)) => {
                let message = "`r_drop` and `consistency` each compare a second prediction of a text with the first, and there is one";
                let diag = Diag::error(&CONFLICTING_KEYS, cx.span, message);
                Err(Box::new(
                    diag.help("write `consistency = 0`, or remove `r_drop`"),
                ))
            }
            (Some(factor), None) => Ok(Some(Self {
                key: "consistency",
                factor,
                drops: false,
            })),
            (None, Some(factor)) => Ok(Some(Self {
                key: "r_drop",
                factor,
                drops: true,
            })),
            (None, None) => Ok(None),
        }
    }

    fn refused<T>(&self, cx: &StageCx<'_>, why: &str) -> Result<T, Box<Diag>> {
        let key = self.key;
        let message = format!("`{key}` compares two predictions of each text, and {why}");
        let diag = Diag::error(&BAD_METHOD_VALUES, cx.span, message);
        Err(Box::new(diag.help(format!(
            "write `{key} = 0`, which reads each text once"
        ))))
    }
}

/// What a step minimises, times its loss scale, where its first route is there: `[1]`. A second route adds how far its
/// predictions are from the first's.
///
/// # Errors
/// The task predicts no distribution, rows weigh differently, or no dropout makes the routes differ.
pub(super) fn minimised(
    b: &mut Builder,
    cx: &StageCx<'_>,
    first: &Built,
    of: (Mode, Option<(u64, u64)>),
) -> Result<Value, Box<Diag>> {
    let own = first.training_loss(b, cx.task.as_ref());
    let Some(by) = Second::of(cx)? else {
        return Ok(own);
    };
    if !matches!(cx.task.answer(), Answer::Class | Answer::Token) {
        return by.refused(cx, "this objective predicts no distribution");
    }
    if cx.task.class_weights().iter().any(|weight| *weight != 1.0) {
        return by.refused(
            cx,
            "with weights of classes its mean is not that of the loss; that is not built",
        );
    }
    if by.drops && !first.varies {
        return by.refused(
            cx,
            "no dropout acts in this stage, so that both are the same; `dropout = 0.1`, or that of a method, is what makes them differ",
        );
    }
    let second = route(b, cx, of);
    let logits = |b: &mut Builder, built: &Built| {
        again(b, cx, |net| {
            if !built.is_fused() {
                return Some(built.scores);
            }
            cx.task.logits(cx.model.as_ref(), net, built.hidden)
        })
    };
    let (Some(p), Some(q)) = (logits(b, first), logits(b, &second)) else {
        return by.refused(cx, "this objective takes its loss without them");
    };
    let other = by.drops.then(|| second.training_loss(b, cx.task.as_ref()));
    b.label("consistency");
    let (p, q) = (log_softmax(b, cx, p), log_softmax(b, cx, q));
    let apart = again(b, cx, |net| {
        let one = |net: &mut Net<'_>, (of, from): (Value, Value)| {
            let of = if by.drops { of } else { net.detach(of) };
            let share = net.unary(UnaryKind::Exp, of);
            let apart = net.binary(BinaryKind::Sub, Broadcast::Full, of, from);
            let each = net.binary(BinaryKind::Mul, Broadcast::Full, share, apart);
            net.reduce(ReduceKind::Sum, Over::All, each)
        };
        let (there, back) = (one(net, (q, p)), one(net, (p, q)));
        let both = net.add(there, back);
        net.scaled(both, 0.5 * by.factor)
    });
    let scale = b.feed(Feed::LossScale);
    Ok(again(b, cx, |net| {
        let apart = net.binary(BinaryKind::Mul, Broadcast::Full, apart, scale);
        let loss = match other {
            Some(other) => {
                let both = net.add(own, other);
                net.scaled(both, 0.5)
            }
            None => own,
        };
        net.add(loss, apart)
    }))
}

/// The logarithms of the probabilities of rows of logits.
fn log_softmax(b: &mut Builder, cx: &StageCx<'_>, logits: Value) -> Value {
    again(b, cx, |net| {
        let most = net.reduce(ReduceKind::Max, Over::Columns, logits);
        let most = net.detach(most);
        let below = net.binary(BinaryKind::Sub, Broadcast::Column, logits, most);
        let shares = net.unary(UnaryKind::Exp, below);
        let sum = net.reduce(ReduceKind::Sum, Over::Columns, shares);
        let sum = net.unary(UnaryKind::Log, sum);
        net.binary(BinaryKind::Sub, Broadcast::Column, below, sum)
    })
}
