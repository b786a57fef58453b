//! What a model that was read back differs in from the one that was written.

use super::describe::is_gelu;
use crate::library::model::{Fused, Layer, Rope, Shape};

/// What two models differ in, if they do; numbers may be apart by what f32 rounds.
#[must_use]
pub fn differs(one: &Shape, other: &Shape) -> Option<&'static str> {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * a.abs().max(b.abs());
    let both = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => close(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    let rope = |a: &Rope, b: &Rope| {
        let all = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(*a, *b))
        };
        let beyond = match (&a.beyond, &b.beyond) {
            (Some(a), Some(b)) => a.positions == b.positions && all(&a.inverse, &b.inverse),
            (a, b) => a.is_none() && b.is_none(),
        };
        beyond && close(a.factor, b.factor) && all(&a.inverse, &b.inverse)
    };
    let window = |l: &Layer| l.window.filter(|&w| u64::from(w) < one.positions);
    let layer = |(a, b): (&Layer, &Layer)| {
        let turned = match (&a.rope, &b.rope) {
            (Some(a), Some(b)) => rope(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        turned && window(a) == window(b) && close(a.score_scale, b.score_scale)
    };
    let checks = [
        (
            "width",
            one.hidden == other.hidden && one.ffn == other.ffn && one.head == other.head,
        ),
        (
            "number of heads",
            one.heads == other.heads && one.kv_heads == other.kv_heads,
        ),
        (
            "vocabulary",
            one.vocab == other.vocab && one.tied == other.tied,
        ),
        ("length", one.positions == other.positions),
        ("epsilon of norms", close(one.eps, other.eps)),
        (
            "activation",
            one.activation == other.activation
                || one.fused == Fused::Heads
                    && is_gelu(one.activation)
                    && is_gelu(other.activation),
        ),
        (
            "place of norms",
            one.norms == other.norms
                && one.plus_one == other.plus_one
                && one.layer_norm == other.layer_norm
                && one.parallel == other.parallel
                && one.qk_norm == other.qk_norm,
        ),
        (
            "choice of biases",
            one.biases == other.biases && one.fused == other.fused,
        ),
        (
            "factor of scores",
            close(one.score_scale, other.score_scale) && both(one.score_cap, other.score_cap),
        ),
        (
            "factor of the residual",
            close(one.embedding_scale, other.embedding_scale)
                && close(one.residual_scale, other.residual_scale),
        ),
        (
            "factor of logits",
            close(one.logit_scale, other.logit_scale) && both(one.logit_cap, other.logit_cap),
        ),
        (
            "rotary position, window or factor of scores of a block",
            one.layers.len() == other.layers.len()
                && one.layers.iter().zip(&other.layers).all(layer),
        ),
    ];
    checks
        .into_iter()
        .find(|(_, same)| !same)
        .map(|(what, _)| what)
}
