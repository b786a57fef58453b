//! Side-LoRA (methods R2; the meeting slides): LoRA whose frozen product is a constant.

use super::super::schema::{Given, kind};
use super::lora::{self, Lora};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Value, Values,
};

/// LoRA without a gradient through the frozen product.
#[derive(Debug)]
pub struct SideLora;

const EXACT: Given<bool> = Given::<bool>::new(
    "exact",
    kind::BOOL,
    (false, "false"),
    "keep the gradient through the frozen matrices",
);

static SCHEMA: Schema = Schema {
    name: "side_lora",
    summary: "LoRA that lets no gradient through the frozen matrices",
    doc: "The forward pass, the tensors and the exported adapter are LoRA's. In the backward pass `x W0ᵀ` counts as a \
          constant, so that lower layers learn through the low-rank paths, the attention and the residuals alone: a \
          cheaper, biased gradient. `exact = true` keeps the gradient, and is then LoRA itself.",
    paper: "slides of a meeting on Say, Coşlu and Gudelj 2023 (see `k_lst`), \"Side-LoRA\"",
    keys: &[
        lora::RANK.key(),
        lora::ALPHA.key(),
        lora::RANKS.key(),
        lora::ALPHAS.key(),
        lora::DROPOUT.key(),
        lora::RS_LORA.key(),
        EXACT.key(),
        lora::ON.key(),
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

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        if EXACT.get(at.values) {
            return Lora.linear(at, net, x);
        }
        let base = net.detached_linear(at.site, x);
        lora::add_update(at, net, base, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        Lora.merged(at, net)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Lora.peft(values)
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        Lora.peft_tensors(values, site, get)
    }
}
