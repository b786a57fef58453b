//! The optimizer registry: update rules as ops, and the state each keeps per trainable tensor.

use super::schema::{Bound, Given, Schema, Values, kind};
use crate::program::{Builder, Class, TensorType, Value};

mod adafactor;
mod adamw;
mod adamw_8bit;
mod lion;
mod sgd;

pub use adamw::adamw_numbers;

/// An update rule.
pub trait Optimizer: Sync + Send + std::fmt::Debug {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// The state tensors of a parameter of this type, by the suffixes of their names; they start at zero.
    fn state(&self, values: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)>;

    /// Appends the in-place update of one parameter.
    fn update(&self, values: &Values, b: &mut Builder, update: Update<'_>);
}

/// The operands of an update.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The parameter.
    pub param: Value,
    /// Its gradient.
    pub grad: Value,
    /// State tensors, in the order of [`Optimizer::state`].
    pub state: &'a [Value],
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// The factor that clips the gradient: `[1]`.
    pub factor: Value,
    /// Its learning rate: `[1]`.
    pub lr: Value,
    /// Steps of the training before its first update.
    pub since: u32,
}

/// A parameter to be updated.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub param: Value,
    /// Its gradient.
    pub grad: Value,
    /// Whether weight decay applies to it.
    pub decays: bool,
    /// Steps of the training before its first update.
    pub since: u32,
}

/// Every optimizer.
pub const OPTIMIZERS: &[&dyn Optimizer] = &[
    &adamw::AdamW,
    &adafactor::Adafactor,
    &adamw_8bit::AdamW8bit,
    &lion::Lion,
    &sgd::Sgd,
];

/// Looks an optimizer up by name.
#[must_use]
pub fn optimizer(name: &str) -> Option<&'static dyn Optimizer> {
    OPTIMIZERS.iter().copied().find(|o| o.schema().name == name)
}

/// Name of a state tensor.
#[must_use]
pub fn state_name(param: &str, suffix: &str) -> String {
    format!("optimizer.{suffix}.{param}")
}

/// Declares the state of a parameter and appends its update, at a rate and with a factor of its gradient.
pub fn apply(
    (optimizer, values): (&dyn Optimizer, &Values),
    b: &mut Builder,
    trained: Trained<'_>,
    (lr, factor): (Value, Value),
) {
    let Trained {
        name,
        param,
        grad,
        decays,
        since,
    } = trained;
    let state = optimizer.state(values, b.ty(param)).into_iter();
    let state: Vec<Value> = state
        .map(|(suffix, ty)| b.resident(&state_name(name, suffix), ty, Class::Optimizer))
        .collect();
    b.label(name);
    optimizer.update(
        values,
        b,
        Update {
            param,
            grad,
            state: &state,
            decays,
            factor,
            lr,
            since,
        },
    );
}

const WEIGHT_DECAY: Given<f64> = Given::<f64>::new(
    "weight_decay",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "decay of weights; biases and norms are never decayed",
);
