//! Two routes of a step and how far apart their predictions are (methods A4).

use super::super::net::Mode;
use super::super::task::Answer;
use super::network::{Built, again, route};
use super::{Diag, StageCx};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{BinaryKind, Broadcast, Over, ReduceKind, UnaryKind};
use crate::program::{Builder, Feed, Value};

/// The factor by which a stage's methods ask for a second route, if one does.
fn factor(cx: &StageCx<'_>) -> Option<f64> {
    let mut methods = cx.tuning.methods.iter();
    methods.find_map(|(method, filled)| method.consistency(&filled.values))
}

/// What the divergence of a second route adds to the loss of the first, times the step's loss scale: `[1]`.
///
/// # Errors
/// The task predicts no distribution, or rows weigh differently.
pub(super) fn divergence(
    b: &mut Builder,
    cx: &StageCx<'_>,
    first: &Built,
    of: (Mode, Option<(u64, u64)>),
) -> Result<Option<Value>, Box<Diag>> {
    let Some(factor) = factor(cx) else {
        return Ok(None);
    };
    let refused = |why: &str| {
        let message = format!("`consistency` compares the predictions of two routes, and {why}");
        let diag = Diag::error(&BAD_METHOD_VALUES, cx.span, message);
        Err(Box::new(
            diag.help("write `consistency = 0`, which leaves one route"),
        ))
    };
    if !matches!(cx.task.answer(), Answer::Class | Answer::Token) {
        return refused("this objective predicts no distribution");
    }
    if !cx.task.class_weights().is_empty() {
        return refused(
            "with weights of classes its mean is not that of the loss; that is not built",
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
        return refused("this objective takes its loss without them");
    };
    b.label("consistency");
    let (p, q) = (log_softmax(b, cx, p), log_softmax(b, cx, q));
    let sum = again(b, cx, |net| {
        let mut sum: Option<Value> = None;
        for (of, from) in [(q, p), (p, q)] {
            let of = net.detach(of);
            let share = net.unary(UnaryKind::Exp, of);
            let apart = net.binary(BinaryKind::Sub, Broadcast::Full, of, from);
            let each = net.binary(BinaryKind::Mul, Broadcast::Full, share, apart);
            let all = net.reduce(ReduceKind::Sum, Over::All, each);
            sum = Some(sum.map_or(all, |sum| net.add(sum, all)));
        }
        sum.map(|sum| net.scaled(sum, 0.5 * factor))
    });
    let scale = b.feed(Feed::LossScale);
    let mul = |sum| {
        again(b, cx, |net| {
            net.binary(BinaryKind::Mul, Broadcast::Full, sum, scale)
        })
    };
    Ok(sum.map(mul))
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
