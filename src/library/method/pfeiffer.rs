//! Pfeiffer adapters (methods A2): one bottleneck a block, behind the feed-forward network, and between two applications of
//! the model's own norm where one stands behind the residual.

use super::super::net::Part;
use super::super::schema::{Given, Maybe, kind};
use super::bottleneck::{self, Bottleneck, DROPOUT, First, GATE, REDUCTION, SIZE};
use super::{At, Method, Net, Schema, Site, Value, Values};
use crate::library::placement::Placement;

/// A trained bottleneck behind the feed-forward network.
#[derive(Debug)]
pub struct Pfeiffer;

const ACTIVATION: Given<str> = Given::<str>::new(
    "activation",
    kind::choice(bottleneck::FUNCTIONS),
    ("relu", "relu"),
    "the function f between the two maps",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "ffn",
    "which sub-layers get an adapter",
);

static SCHEMA: Schema = Schema {
    name: "pfeiffer",
    summary: "adapters of Pfeiffer et al.: one trained bottleneck a block, behind the feed-forward network",
    doc: "What the feed-forward network gave, h, becomes h + f(z Dᵀ + d) Uᵀ + u before it is added to the residual x. Where a \
          norm stands behind the residual, as in BERT and RoBERTa, z = norm(h + x) with the model's own frozen norm, which then \
          acts again; elsewhere z = h. D [size, hidden] and U [hidden, size] are normal of deviation 0.02, biases 0. Half the \
          parameters of `houlsby`. It is no linear map, so it cannot be merged, and peft has no equal.",
    paper: "Pfeiffer et al. 2020 (arXiv 2005.00247), section 2; the library `adapters` (SeqBnConfig)",
    keys: &[
        REDUCTION.key(),
        SIZE.key(),
        ACTIVATION.key(),
        DROPOUT.key(),
        GATE.key(),
        ON.key(),
    ],
};

impl Method for Pfeiffer {
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

    fn reads_all(&self, values: &Values) -> bool {
        GATE.get(values)
    }

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, x: Value, h: Value) -> Value {
        let (values, site) = (at.values, at.site);
        let width = site.output();
        let read = match at.norm {
            Some(norm) => {
                let sum = net.add(h, x);
                net.layer_norm(norm.site, sum, norm.eps)
            }
            None => h,
        };
        let own = Bottleneck {
            name: "pfeiffer",
            sizes: (width, bottleneck::size(values, width), width),
            function: bottleneck::function(ACTIVATION.find(values)),
            init: (First::Normal(0.02), First::Normal(0.02)),
            bias: true,
        };
        let mut added = own.apply(net, site, read, DROPOUT.get(values));
        if GATE.get(values) {
            added = bottleneck::gated(net, (site, own.name), read, added);
        }
        net.add(h, added)
    }
}
