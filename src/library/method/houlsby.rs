//! Houlsby adapters (methods A1): `h ← h + f(h W_downᵀ + b_down) W_upᵀ + b_up` on what each sub-layer adds to the
//! residual.

use super::super::net::{Init, Param, ParamKind, Part};
use super::super::schema::{Given, Maybe, kind};
use super::{At, Method, Net, Schema, Site, Value, Values};
use crate::library::decl::RATE;
use crate::library::placement::Placement;
use crate::program::op::ActivationKind;

/// A trained bottleneck behind each sub-layer.
#[derive(Debug)]
pub struct Houlsby;

/// Standard deviation of the weights: the model starts almost unchanged.
const STD: f64 = 1e-3;

const SIZE: Given<u64> =
    Given::<u64>::new("size", kind::WIDTH, (64, "64"), "width of the bottleneck");
const ACTIVATION: Given<str> = Given::<str>::new(
    "activation",
    kind::choice(&["gelu", "relu", "silu", "tanh"]),
    ("gelu", "gelu"),
    "the function f between the two maps",
);
const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    RATE,
    (0.0, "0"),
    "dropout on what the adapter reads",
);
const NORMS: Given<bool> = Given::<bool>::new(
    "norms",
    kind::BOOL,
    (false, "false"),
    "train all norms of the blocks and of the embeddings too",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention, ffn}",
    "which sub-layers get an adapter",
);

static SCHEMA: Schema = Schema {
    name: "houlsby",
    summary: "adapters: a trained bottleneck behind the attention and behind the feed-forward network",
    doc: "Before it is added to the residual, what a sub-layer gave, h [N, hidden], becomes h + f(h Dᵀ + d) Uᵀ + u with D \
          [size, hidden] and U [hidden, size] normal of deviation 0.001 and zero biases, so the model starts almost \
          unchanged. With `on = ffn` one adapter a block is left. `norms = true` trains all norms too, as the paper \
          does. It is no linear map, so it cannot be merged, and peft has no equal: evaluate it and predict with it as it is.",
    paper: "Houlsby et al. 2019 (arXiv 1902.00751), section 2.1",
    keys: &[
        SIZE.key(),
        ACTIVATION.key(),
        DROPOUT.key(),
        NORMS.key(),
        ON.key(),
    ],
};

/// The function between the two maps.
fn activation(values: &Values) -> ActivationKind {
    match ACTIVATION.find(values) {
        Some("relu") => ActivationKind::Relu,
        Some("silu") => ActivationKind::Silu,
        Some("tanh") => ActivationKind::Tanh,
        _ => ActivationKind::Gelu,
    }
}

/// A map's weight `[output, input]` and bias `[output]`.
fn map(net: &mut Net<'_>, site: &Site, name: &str, shape: [u64; 2]) -> (Value, Value) {
    let weight = Param::at(site, &format!("{name}.weight")).shape(&shape);
    let weight = weight.kind(ParamKind::Weight).start(Init::Normal(STD));
    let bias = Param::at(site, &format!("{name}.bias")).shape(&shape[..1]);
    (net.tensor(weight), net.tensor(bias.kind(ParamKind::Bias)))
}

impl Method for Houlsby {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        matches!(site.part, Part::Sublayer { .. })
    }

    fn trains(&self, values: &Values, param: &Param, _: u64) -> bool {
        let norm = matches!(param.kind, ParamKind::NormWeight | ParamKind::NormBias);
        norm && NORMS.get(values) && !param.role.is_lm()
    }

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, _: Value, h: Value) -> Value {
        let (values, site) = (at.values, at.site);
        let (size, width) = (SIZE.get(values), site.output());
        let (down, down_bias) = map(net, site, "adapter_down", [size, width]);
        let (up, up_bias) = map(net, site, "adapter_up", [width, size]);
        let x = net.dropout_before(h, DROPOUT.get(values), down);
        let z = net.dense(x, down, down_bias);
        let z = net.activation(activation(values), z);
        let added = net.dense(z, up, up_bias);
        net.add(h, added)
    }
}
