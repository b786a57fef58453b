//! Series adapters (methods A3): `y ← y + s · U f(D y)` behind a linear map or a sub-layer.

use super::super::net::Part;
use super::super::schema::{Given, Maybe, kind};
use super::bottleneck::{
    self, BIAS, Bottleneck, DROPOUT, First, GATE, INIT, LEARNED_SCALING, SCALING,
};
use super::{At, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::placement::Placement;

/// A trained bottleneck behind a map.
#[derive(Debug)]
pub struct Series;

pub(super) const SIZE: Given<u64> =
    Given::<u64>::new("size", kind::WIDTH, (256, "256"), "width of the bottleneck");
pub(super) const ACTIVATION: Given<str> = Given::<str>::new(
    "activation",
    kind::choice(bottleneck::FUNCTIONS),
    ("tanh", "tanh"),
    "the function f between the two maps",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "ffn.down",
    "which linear maps or sub-layers get an adapter",
);

static SCHEMA: Schema = Schema {
    name: "series_adapter",
    summary: "series adapters: a trained bottleneck behind a linear map, as in LLM-Adapters",
    doc: "What a linear map, or a whole sub-layer, gave, y, becomes y + scaling · f(y Dᵀ) Uᵀ with D [size, out] and U [out, size]. \
          By default there is one adapter a block, behind the map that the feed-forward network ends with; `on = ffn` is the same \
          behind its dropout. It is no linear map, so it cannot be merged, and peft has no equal.",
    paper: "Hu et al. 2023 (arXiv 2304.01933), section 3.1; Houlsby et al. 2019 (arXiv 1902.00751)",
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

/// What a bottleneck of so many columns gives.
pub(super) fn adapter(
    (at, name): (&At<'_>, &str),
    net: &mut Net<'_>,
    sizes: (u64, u64),
    read: Value,
) -> Value {
    let (values, site) = (at.values, at.site);
    let (input, output) = sizes;
    let own = Bottleneck {
        name,
        sizes: (input, SIZE.get(values), output),
        function: bottleneck::function(ACTIVATION.find(values)),
        init: First::both(values),
        bias: BIAS.get(values),
    };
    let added = own.apply(net, site, read, DROPOUT.get(values));
    bottleneck::scaled(net, (site, name), values, (read, added))
}

/// Whether an adapter can be at such a site.
pub(super) const fn has_place(site: &Site) -> bool {
    matches!(site.part, Part::Sublayer { .. } | Part::Linear { .. })
}

impl Method for Series {
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

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, _: Value, y: Value) -> Value {
        let width = at.site.output();
        let added = adapter((at, "series"), net, (width, width), y);
        net.add(y, added)
    }
}
