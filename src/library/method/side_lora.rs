//! Side-LoRA (methods R2; the meeting slides): LoRA whose frozen product is a constant.

use super::super::schema::{Bound, Default, Key, Kind};
use super::lora::{self, Lora};
use super::{Complaint, Lookup, Method, Net, PeftAdapter, Schema, Site, Value, Values};

/// LoRA without a gradient through the frozen product.
#[derive(Debug)]
pub struct SideLora;

static SCHEMA: Schema = Schema {
    name: "side_lora",
    summary: "LoRA that lets no gradient through the frozen matrices",
    doc: "The forward pass, the tensors and the exported adapter are LoRA's. In the backward pass `x W0ᵀ` counts as a \
          constant, so that lower layers learn through the low-rank paths, the attention and the residuals alone: a \
          cheaper, biased gradient. `exact = true` keeps the gradient, and is then LoRA itself.",
    paper: "the report's meeting slides, \"Side-LoRA\"",
    keys: &[
        Key {
            name: "rank",
            kind: Kind::Int(1, u64::MAX),
            default: Default::Text("8"),
            doc: "rank r of the update",
        },
        Key {
            name: "alpha",
            kind: Kind::Float(Bound::Excl(0.0), Bound::None),
            default: Default::Text("8"),
            doc: "scale: the update is multiplied by alpha / rank",
        },
        Key {
            name: "dropout",
            kind: Kind::Float(Bound::Incl(0.0), Bound::Excl(1.0)),
            default: Default::Text("0"),
            doc: "dropout on the adapter's input",
        },
        Key {
            name: "rs_lora",
            kind: Kind::Bool,
            default: Default::Text("false"),
            doc: "scale by alpha / √rank instead",
        },
        Key {
            name: "exact",
            kind: Kind::Bool,
            default: Default::Text("false"),
            doc: "keep the gradient through the frozen matrices",
        },
        Key {
            name: "on",
            kind: Kind::Placement,
            default: Default::Text("attention.{query, value}"),
            doc: "which linear maps get an adapter",
        },
    ],
};

impl Method for SideLora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        Lora.check(values, site)
    }

    fn linear(&self, values: &Values, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        if values.bool("exact") {
            return Lora.linear(values, net, site, x);
        }
        let base = net.detached_linear(site, x);
        let (a, bt) = lora::factors(values, net, site);
        let dropped = net.dropout_before(x, values.float("dropout"), a);
        let z = net.project(dropped, a);
        net.project_onto(base, z, bt, lora::scale(values))
    }

    fn merged(&self, values: &Values, net: &mut Net<'_>, site: &Site) -> Option<Value> {
        Lora.merged(values, net, site)
    }

    fn peft_config(&self, values: &Values) -> Option<PeftAdapter> {
        Lora.peft_config(values)
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        Lora.peft_tensors(values, site, get)
    }
}
