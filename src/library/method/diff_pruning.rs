//! Diff pruning (methods S5): a difference from the pretrained weights whose gates learn to be 0.

use super::super::net::{Init, Param, ParamKind};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::{At, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::placement::Placement;
use crate::program::op::{
    BinaryKind, Broadcast, Constant, HardConcrete, Over, ReduceKind, UnaryKind,
};
use crate::program::{DType, Feed, Real};

/// A gated difference of each matrix.
#[derive(Debug)]
pub struct DiffPruning;

const PENALTY: Given<f64> = Given::<f64>::new(
    "penalty",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.25e-7, "1.25e-7"),
    "factor of the number of gates that are expected to be open, in the loss",
);
const RATE: Given<f64> = Given::<f64>::new(
    "gate_rate",
    kind::float(Bound::Excl(0.0), Bound::None),
    (10_000.0, "10_000"),
    "factor of the learning rate of the gates: the paper takes 0.1 for them, and 1e-5 for the weights",
);
const START: Given<f64> = Given::<f64>::new(
    "gate_start",
    kind::float(Bound::None, Bound::None),
    (5.0, "5"),
    "first value of the gates' logits, so that nearly all are open",
);
const LOW: Given<f64> = Given::<f64>::new(
    "low",
    kind::float(Bound::None, Bound::Excl(0.0)),
    (-1.5, "-1.5"),
    "lower end of the interval that gates are stretched to before they are clamped to 0 and 1",
);
const HIGH: Given<f64> = Given::<f64>::new(
    "high",
    kind::float(Bound::Excl(1.0), Bound::None),
    (1.5, "1.5"),
    "upper end of that interval",
);
const GROUPS: Given<bool> = Given::<bool>::new(
    "groups",
    kind::BOOL,
    (true, "true"),
    "whether each matrix has a gate of its own beside those of its numbers (structured diff pruning)",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention.*, ffn.*}",
    "which linear maps have a difference",
);

static SCHEMA: Schema = Schema {
    name: "diff_pruning",
    summary: "diff pruning: a dense difference from the pretrained weights with gates that learn which numbers stay 0",
    doc: "y = x (W0 + z ⊙ g · w)ᵀ + b with w [out, in] from 0, a gate z for each number, and g for each matrix. A gate is \
          clamp(s · (high − low) + low, 0, 1) with s = σ(ln u − ln(1 − u) + a), u drawn for each number and step; outside of \
          trainings s = σ(a). The loss has `penalty` · Σ σ(a − ln(−low/high)) of all gates more. Gates do not decay. Biases \
          and norms stay as they are, where the paper has differences of them too. The paper's second phase keeps the largest \
          differences: merge this stage, and name it in `lt_sft { density = 0.5% }` by `tuned`. A weight takes 36 bytes, \
          and the products of a matrix with its difference are kept for the backward. It merges; peft has no equal.",
    paper: "Guo et al. 2021 (arXiv 2012.07463)",
    keys: &[
        PENALTY.key(),
        RATE.key(),
        START.key(),
        LOW.key(),
        HIGH.key(),
        GROUPS.key(),
        ON.key(),
    ],
};

/// The logits of the gates of a site's numbers, and of the site.
fn logits(values: &Values, site: &Site, net: &mut Net<'_>) -> (Value, Option<Value>) {
    let start = || Init::Constant(START.get(values));
    let made = |name: &str, shape: &[u64]| {
        let own = Param::at(site, name).shape(shape).start(start());
        own.undecayed().rate(RATE.get(values))
    };
    let own = net.tensor(made("diff_gate", &[site.output(), site.input()]));
    let group = GROUPS
        .get(values)
        .then(|| net.tensor(made("diff_group_gate", &[1])));
    (own, group)
}

/// Gates of logits: drawn in a training, elsewhere those of the middle.
fn gates(values: &Values, net: &mut Net<'_>, purpose: &str, logits: Value) -> Value {
    let stream = net.is_training().then(|| net.signal_key(purpose));
    let op = HardConcrete {
        low: Real::new(LOW.get(values)),
        high: Real::new(HIGH.get(values)),
        temperature: Real::new(1.0),
        margin: Real::new(1e-4),
        stream,
    };
    let mut inputs = vec![logits];
    if stream.is_some() {
        inputs.push(net.b.feed(Feed::Step));
    }
    net.b.push1(op, &inputs)
}

/// The weight with its difference.
fn moved(at: &At<'_>, net: &mut Net<'_>, weight: Value) -> Value {
    let (values, site) = (at.values, at.site);
    let difference = Param::at(site, "diff_weight").shape(&[site.output(), site.input()]);
    let difference = net.tensor(difference.kind(ParamKind::Weight));
    let (own, group) = logits(values, site, net);
    let own = gates(values, net, &format!("diff/{}", site.path), own);
    let mut difference = net.binary(BinaryKind::Mul, Broadcast::Full, difference, own);
    if let Some(group) = group {
        let group = gates(values, net, &format!("diff/group/{}", site.path), group);
        difference = net.binary(BinaryKind::Mul, Broadcast::Scalar, difference, group);
    }
    net.add(weight, difference)
}

impl Method for DiffPruning {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn penalty(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Option<Value> {
        let factor = PENALTY.get(values);
        if factor == 0.0 {
            return None;
        }
        let shift = (-LOW.get(values) / HIGH.get(values)).ln();
        let mut sum = None;
        for site in sites {
            let (own, group) = logits(values, site, net);
            for mut logits in [Some(own), group].into_iter().flatten() {
                if shift != 0.0 {
                    let (value, dtype) = (Real::new(shift), DType::F32);
                    let shift = net.b.push1(Constant { value, dtype }, &[]);
                    logits = net.binary(BinaryKind::Sub, Broadcast::Scalar, logits, shift);
                }
                let open = net.unary(UnaryKind::Sigmoid, logits);
                let open = net.reduce(ReduceKind::Sum, Over::All, open);
                sum = Some(sum.map_or(open, |sum| net.add(sum, open)));
            }
        }
        Some(net.scaled(sum?, factor))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let weight = net.weight(at.site);
        let weight = moved(at, net, weight);
        net.affine(at.site, x, weight)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = net.weight(at.site);
        Some(moved(at, net, weight))
    }
}
