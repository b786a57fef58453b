//! What adapters that are bottlenecks share: `U f(D x + d) + u`, its keys, tensors, first values, scale and gate.

use super::super::net::{Init, Param, ParamKind, Site};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::{Net, Value, Values};
use crate::library::decl::RATE;
use crate::program::op::{ActivationKind, BinaryKind, Broadcast, Over, ReduceKind, UnaryKind};

/// Functions between the two maps.
pub(super) const FUNCTIONS: &[&str] = &["gelu", "relu", "silu", "tanh"];

pub(super) const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    RATE,
    (0.0, "0"),
    "dropout on what the adapter reads",
);
pub(super) const REDUCTION: Given<u64> = Given::<u64>::new(
    "reduction",
    kind::WIDTH,
    (16, "16"),
    "how many times narrower than the model the bottleneck is",
);
pub(super) const SIZE: Maybe<u64> = Maybe::new(
    "size",
    kind::WIDTH,
    "width of the bottleneck, instead of `reduction`",
);
pub(super) const GATE: Given<bool> = Given::<bool>::new(
    "gate",
    kind::BOOL,
    (false, "false"),
    "multiply what is added by a learned gate: the mean over the text of sigmoid(w x + b) of what the adapter reads",
);
pub(super) const SCALING: Given<f64> = Given::<f64>::new(
    "scaling",
    kind::float(Bound::None, Bound::None),
    (1.0, "1"),
    "factor of what is added",
);
pub(super) const LEARNED_SCALING: Given<str> = Given::<str>::new(
    "learned_scaling",
    kind::choice(&["none", "scalar", "channel"]),
    ("none", "none"),
    "learn a factor beside it, from 1 on: one number, or one for each column",
);
pub(super) const BIAS: Given<bool> = Given::<bool>::new(
    "bias",
    kind::BOOL,
    (false, "false"),
    "give both maps a bias, from 0 on",
);
pub(super) const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["mam", "bert"]),
    ("mam", "mam"),
    "first values: `mam` is D uniform in ±1/√in and U zero, so that the model starts unchanged; `bert` is both normal of deviation 0.02",
);

/// A function by its name.
pub(super) fn function(name: Option<&str>) -> ActivationKind {
    match name {
        Some("relu") => ActivationKind::Relu,
        Some("silu") => ActivationKind::Silu,
        Some("tanh") => ActivationKind::Tanh,
        _ => ActivationKind::Gelu,
    }
}

/// The width of a bottleneck in a model of a width: `size`, or what `reduction` leaves, at least 1.
pub(super) fn size(values: &Values, width: u64) -> u64 {
    let reduced = width / REDUCTION.get(values).max(1);
    SIZE.get(values).unwrap_or(reduced).max(1)
}

/// A bottleneck at a site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bottleneck<'a> {
    /// What its tensors' names begin with, behind the site's path.
    pub name: &'a str,
    /// Columns read, of the middle, and made.
    pub sizes: (u64, u64, u64),
    /// The function in the middle.
    pub function: ActivationKind,
    /// First values of both weights.
    pub init: (First, First),
    /// Whether the maps have biases.
    pub bias: bool,
}

/// First values of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    /// Normal with this deviation.
    Normal(f64),
    /// Uniform in one over the root of the number of inputs.
    Uniform,
    /// Zero.
    Zero,
}

impl First {
    fn of(self, inputs: u64) -> Init {
        match self {
            Self::Normal(deviation) => Init::Normal(deviation),
            Self::Uniform => Init::Uniform(1.0 / (inputs as f64).sqrt()),
            Self::Zero => Init::Constant(0.0),
        }
    }

    /// Those of both weights that `init` names.
    pub(super) fn both(values: &Values) -> (Self, Self) {
        match INIT.get(values) {
            "bert" => (Self::Normal(0.02), Self::Normal(0.02)),
            _ => (Self::Uniform, Self::Zero),
        }
    }
}

impl Bottleneck<'_> {
    /// A map's weight `[out, in]` and bias `[out]`.
    fn map(
        &self,
        net: &mut Net<'_>,
        (site, part): (&Site, &str),
        (output, input): (u64, u64),
        start: First,
    ) -> (Value, Option<Value>) {
        let name = |kind: &str| format!("{}_{part}.{kind}", self.name);
        let weight = Param::at(site, &name("weight")).shape(&[output, input]);
        let weight = net.tensor(weight.kind(ParamKind::Weight).start(start.of(input)));
        let bias = self.bias.then(|| {
            let bias = Param::at(site, &name("bias")).shape(&[output]);
            net.tensor(bias.kind(ParamKind::Bias))
        });
        (weight, bias)
    }

    /// `U f(D drop(x) + d) + u`
    pub(super) fn apply(&self, net: &mut Net<'_>, site: &Site, x: Value, dropout: f64) -> Value {
        let (input, size, output) = self.sizes;
        let (down, down_bias) = self.map(net, (site, "down"), (size, input), self.init.0);
        let (up, up_bias) = self.map(net, (site, "up"), (output, size), self.init.1);
        let x = net.dropout_before(x, dropout, down);
        let z = net.dense(x, down, down_bias);
        let z = net.activation(self.function, z);
        net.dense(z, up, up_bias)
    }
}

/// What is added, times its factors, those that are learned and the gate on what was read.
pub(super) fn scaled(
    net: &mut Net<'_>,
    (site, name): (&Site, &str),
    values: &Values,
    (read, added): (Value, Value),
) -> Value {
    let mut added = net.scaled(added, SCALING.get(values));
    let factor = |shape: u64| {
        let factor = Param::at(site, &format!("{name}_scaling")).shape(&[shape]);
        factor.start(Init::Constant(1.0))
    };
    match LEARNED_SCALING.get(values) {
        "scalar" => {
            let factor = net.tensor(factor(1));
            added = net.binary(BinaryKind::Mul, Broadcast::Scalar, added, factor);
        }
        "channel" => {
            let factor = net.tensor(factor(site.output()));
            added = net.binary(BinaryKind::Mul, Broadcast::Row, added, factor);
        }
        _ => {}
    }
    if GATE.get(values) {
        added = gated(net, (site, name), read, added);
    }
    added
}

/// What is added, times the gate on what was read.
pub(super) fn gated(net: &mut Net<'_>, of: (&Site, &str), read: Value, added: Value) -> Value {
    let gate = gate(net, of, read);
    net.binary(BinaryKind::Mul, Broadcast::Column, added, gate)
}

/// A gate for each token that its whole text shares: the mean over the text of `sigmoid(w x + b)`, as a column.
pub(super) fn opening(net: &mut Net<'_>, (site, name): (&Site, &str), x: Value) -> Value {
    let width = net.b.ty(x).matrix();
    let width = width.and_then(|(_, d)| d.as_const()).unwrap_or(1);
    let weight = Param::at(site, &format!("{name}_gate.weight")).shape(&[1, width]);
    let bound = 1.0 / (width as f64).sqrt();
    let weight = weight.kind(ParamKind::Weight).start(Init::Uniform(bound));
    let bias = Param::at(site, &format!("{name}_gate.bias")).shape(&[1]);
    let bias = bias.kind(ParamKind::Bias).start(Init::Uniform(bound));
    let (weight, bias) = (net.tensor(weight), net.tensor(bias));
    let open = net.dense(x, weight, bias);
    let open = net.unary(UnaryKind::Sigmoid, open);
    net.text_mean(open)
}

/// The same as a list.
pub(super) fn gate(net: &mut Net<'_>, of: (&Site, &str), x: Value) -> Value {
    let mean = opening(net, of, x);
    // One column, so that the sum is the column itself.
    net.reduce(ReduceKind::Sum, Over::Columns, mean)
}
