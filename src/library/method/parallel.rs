//! Parallel adapters (methods A3): `y = x Wᵀ + s · U f(D x)` beside a linear map or a sub-layer.

use super::super::schema::{Maybe, kind};
use super::bottleneck::{BIAS, DROPOUT, GATE, INIT, LEARNED_SCALING, SCALING};
use super::series::{ACTIVATION, SIZE, adapter, has_place};
use super::{At, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::placement::Placement;

/// A trained bottleneck beside a map.
#[derive(Debug)]
pub struct Parallel;

const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "ffn.{up, down}",
    "which linear maps or sub-layers get an adapter",
);

static SCHEMA: Schema = Schema {
    name: "parallel_adapter",
    summary: "parallel adapters: a trained bottleneck beside a linear map, which reads what the map reads",
    doc: "y = x Wᵀ + b + scaling · f(x Dᵀ) Uᵀ with D [size, in] and U [out, size]; with the identity in the place of f it would \
          be LoRA. On a sub-layer, as `on = ffn`, it reads what the sub-layer reads and adds to what that gave: `parallel_adapter \
          { on = ffn, size = …, activation = relu, scaling = 4, bias = true }` is the parallel adapter of He et al. It is no \
          linear map, so it cannot be merged, and peft has no equal.",
    paper: "Hu et al. 2023 (arXiv 2304.01933), section 3.1; He et al. 2021 (arXiv 2110.04366), section 3.3",
    keys: &[
        SIZE.key(),
        ACTIVATION.key(),
        DROPOUT.key(),
        SCALING.key(),
        LEARNED_SCALING.key(),
        BIAS.key(),
        INIT.key(),
        GATE.key(),
        ON.key(),
    ],
};

impl Method for Parallel {
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
        has_place(site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn reads_all(&self, values: &Values) -> bool {
        GATE.get(values)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let y = at.linear(net, x);
        self.output(at, net, x, y)
    }

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, x: Value, y: Value) -> Value {
        let sizes = (at.site.input(), at.site.output());
        let added = adapter((at, "parallel"), net, sizes, x);
        net.add(y, added)
    }
}
