//! What tasks have in common that tell the next token: a row of scores is the loss there and the likeliest token.

use super::{Names, Scored};
use crate::library::data::tokens::Target;
use crate::library::model::LmHead;
use crate::library::net::Net;
use crate::program::Value;

/// Scores of a row.
pub(super) const WIDTH: u64 = 2;

pub(super) const METRICS: &[&str] = &["perplexity", "token_accuracy"];

/// Scores and loss of some states, without logits in memory.
pub(super) fn fused(net: &mut Net<'_>, hidden: Value, head: &LmHead) -> (Value, Value) {
    let (loss, rows) = net.head_loss(hidden, head);
    (rows, loss)
}

pub(super) fn loss_of(scores: &[f32]) -> f64 {
    scores.first().copied().map_or(0.0, f64::from)
}

pub(super) fn predict(scores: &[f32]) -> Target {
    Target::Class(scores.get(1).copied().unwrap_or_default() as u32)
}

pub(super) fn columns() -> Vec<String> {
    ["position", "token", "prediction", "loss"]
        .map(str::to_owned)
        .to_vec()
}

/// Cells of a predicted token, at its position.
pub(super) fn cells(position: u32, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
    vec![
        position.to_string(),
        names.token(row.target),
        names.token(row.predicted),
        row.scores.first().copied().unwrap_or_default().to_string(),
    ]
}
