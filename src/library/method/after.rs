//! What a method does to a step beside its layers: terms of the loss that are made of weights alone, and nodes behind the
//! optimizer's updates.

use std::collections::BTreeMap;

use super::super::optimizer::state_name;
use super::Net;
use crate::program::op::{Accumulate, BinaryKind, Broadcast, Fill};
use crate::program::{Class, DType, Real, TensorType, Value};

/// The end of a step, behind the optimizer's updates: parameters have their new values.
#[derive(Debug)]
pub struct After<'n, 'a> {
    /// The network, for its parameters and layers.
    pub net: &'n mut Net<'a>,
    /// Steps of the training.
    pub steps: u64,
    gradients: &'n BTreeMap<String, Value>,
    clip: Value,
}

impl<'n, 'a> After<'n, 'a> {
    /// The end of a step with these gradients by parameter, which the optimizer multiplied by `clip`.
    pub const fn new(
        net: &'n mut Net<'a>,
        gradients: &'n BTreeMap<String, Value>,
        clip: Value,
        steps: u64,
    ) -> Self {
        Self {
            net,
            steps,
            gradients,
            clip,
        }
    }

    /// The gradient of a parameter as the optimizer read it; `None` if it is not trained.
    pub fn gradient(&mut self, name: &str) -> Option<Value> {
        let gradient = *self.gradients.get(name)?;
        Some(
            self.net
                .binary(BinaryKind::Mul, Broadcast::Scalar, gradient, self.clip),
        )
    }

    /// A tensor that goes with a parameter from step to step, of zeros at first. Checkpoints keep it, and estimates count it
    /// as state of the optimizer.
    pub fn state(&mut self, param: &str, suffix: &str, like: Value) -> Value {
        let shape = self.net.b.ty(like).shape.clone();
        let ty = TensorType::new(DType::F32, shape.iter().copied());
        self.net
            .b
            .resident(&state_name(param, suffix), ty, Class::Optimizer)
    }

    /// `to ← to + x`
    pub fn add(&mut self, to: Value, x: Value) {
        self.net.b.push(Accumulate, &[to, x]);
    }

    /// `to ← x`
    pub fn set(&mut self, to: Value, x: Value) {
        let value = Real::new(0.0);
        self.net.b.push(Fill { value }, &[to]);
        self.add(to, x);
    }
}
