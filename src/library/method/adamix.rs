//! AdaMix with adapters (methods A4): bottlenecks of which one is drawn for each step.

use super::super::net::{ParamKind, Part};
use super::super::schema::{Given, Maybe, kind};
use super::bottleneck::{FUNCTIONS, function};
use super::experts::{CONSISTENCY, EXPERTS, mixed, normal};
use super::{At, Method, Net, Schema, Site, Value, Values};
use crate::library::placement::Placement;

/// Adapters that are drawn, and averaged in the end.
#[derive(Debug)]
pub struct AdaMix;

const SIZE: Given<u64> =
    Given::<u64>::new("size", kind::WIDTH, (16, "16"), "width of the bottleneck");
const ACTIVATION: Given<str> = Given::<str>::new(
    "activation",
    kind::choice(FUNCTIONS),
    ("gelu", "gelu"),
    "the function between the two maps",
);
const SHARE_DOWN: Given<bool> = Given::<bool>::new(
    "share_down",
    kind::BOOL,
    (false, "false"),
    "whether all routes have one map down",
);
const SHARE_UP: Given<bool> = Given::<bool>::new(
    "share_up",
    kind::BOOL,
    (true, "true"),
    "whether all routes have one map up",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "ffn",
    "which sub-layers get adapters",
);

static SCHEMA: Schema = Schema {
    name: "adamix",
    summary: "AdaMix: several adapters a block, one drawn for each step, made one adapter by averaging",
    doc: "What a sub-layer gave, h, becomes h + f(h D_iᵀ + d_i) U_jᵀ + u_j before it is added to the residual. In each step i and j \
          are drawn evenly for every site, one draw for the whole batch; weights start normal of deviation 0.02. A step \
          computes the batch twice, with other draws and other dropout, and its loss is that of the first route plus \
          `consistency` · ½ (KL(q ‖ p) + KL(p ‖ q)) between both, in which what is compared with is a constant. Evaluations, \
          predictions and artifacts use the mean of all experts. Experts that are not drawn have a gradient of 0 in that step; the \
          optimizer's moments and decay act on them, as in the authors' program. Activations of two passes are kept; 16 bytes a \
          trained number. It is no linear map, so it cannot be merged, and peft has no equal.",
    paper: "Wang et al. 2022 (arXiv 2205.12410)",
    keys: &[
        EXPERTS.key(),
        SIZE.key(),
        ACTIVATION.key(),
        SHARE_DOWN.key(),
        SHARE_UP.key(),
        CONSISTENCY.key(),
        ON.key(),
    ],
};

/// A map's weight `[output, input]` and bias `[output]`.
fn map(
    net: &mut Net<'_>,
    at: &At<'_>,
    (name, shared): (&str, bool),
    shape: [u64; 2],
) -> (Value, Value) {
    let experts = if shared { 1 } else { EXPERTS.get(at.values) };
    let [output, _] = shape;
    let weight = format!("adamix_{name}.weight");
    let weight = mixed(net, (at.site, &weight), (experts, shape), |p| {
        p.kind(ParamKind::Weight).start(normal())
    });
    let bias = format!("adamix_{name}.bias");
    let bias = mixed(net, (at.site, &bias), (experts, [1, output]), |p| {
        p.kind(ParamKind::Bias)
    });
    (weight, net.flat(bias, output))
}

impl Method for AdaMix {
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

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn consistency(&self, values: &Values) -> Option<f64> {
        Some(CONSISTENCY.get(values)).filter(|&c| c > 0.0)
    }

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, _: Value, h: Value) -> Value {
        let (values, width) = (at.values, at.site.output());
        let size = SIZE.get(values);
        let (down, down_bias) = map(net, at, ("down", SHARE_DOWN.get(values)), [size, width]);
        let (up, up_bias) = map(net, at, ("up", SHARE_UP.get(values)), [width, size]);
        let z = net.dense(h, down, down_bias);
        let z = net.activation(function(Some(ACTIVATION.get(values))), z);
        let added = net.dense(z, up, up_bias);
        net.add(h, added)
    }
}
