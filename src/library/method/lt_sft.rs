//! LT-SFT (methods S2): of a dense training's weights, those that moved most are trained anew from where they began.

use super::super::derive::places::Score;
use super::sparse::{self, DENSITY, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema, Site, Stacking,
    Value, Values,
};

/// A fixed mask by how far weights move.
#[derive(Debug)]
pub struct LtSft;

static SCHEMA: Schema = Schema {
    name: "lt_sft",
    summary: "lottery-ticket sparse fine-tuning: the weights that moved most in a dense training are trained anew",
    doc: "Two stages. The first trains all weights: `stage dense = train { adapter = full, … }`. The second starts at the same \
          pretrained weights and names it: `tuned = dense`. There y = x (W0 + S)ᵀ + b, where S has trained numbers at the \
          places with the largest |W_dense − W0| and zeros elsewhere; they start at 0, so the model is rewound. All matrices \
          of `on` are ranked together: the share `density` of their numbers is trained. Each stage has its own memory, \
          optimizer, schedule and checkpoints. Only gradients at the places are computed, and only the places decay: 20 \
          bytes a trained number with AdamW. Merges exactly, and is written in peft's format as SHiRA where a matrix has \
          room for its rank.",
    paper: "Ansell et al. 2022 (arXiv 2110.07560)",
    keys: &[DENSITY.key(), ON.key()],
};

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    sparse::shared(at, net, &sparse::density(at.values), Score::Moved)
}

impl Method for LtSft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, _: &Values, site: &Site) -> Option<Complaint> {
        sparse::check_size(site)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        delta(at, net).linear(at, net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        delta(at, net).merged(at, net)
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(sparse::form(None))
    }

    fn peft_turned(&self) -> bool {
        false
    }

    fn peft_tensors(&self, _: &Values, _: &Site, _: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        Some(Vec::new())
    }

    fn peft_together(&self, _: &Values, sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
        sparse::together(sites, get)
    }
}
