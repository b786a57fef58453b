//! Side-LoRA (methods R2; the meeting slides): LoRA whose frozen product is a constant.

use super::super::schema::{Default, Key, Kind};
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
    paper: "slides of a meeting on Say, Coşlu and Gudelj 2023 (see `k_lst`), \"Side-LoRA\"",
    keys: &[
        lora::RANK,
        lora::ALPHA,
        lora::DROPOUT,
        lora::RS_LORA,
        Key {
            name: "exact",
            kind: Kind::Bool,
            default: Default::Text("false"),
            doc: "keep the gradient through the frozen matrices",
        },
        lora::ON,
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
        lora::add_update(values, net, site, base, x)
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
