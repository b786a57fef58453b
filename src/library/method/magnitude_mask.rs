//! A mask by magnitude (methods S11): the largest weights are trained.

use super::super::derive::places::Score;
use super::sparse::{self, DENSITY, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema, Site, Stacking,
    Value, Values,
};

/// A fixed mask by the size of the weights.
#[derive(Debug)]
pub struct MagnitudeMask;

static SCHEMA: Schema = Schema {
    name: "magnitude_mask",
    summary: "the largest weights are trained, chosen once",
    doc: "y = x (W0 + S)ᵀ + b, where S has trained numbers at the places with the largest |W0| and zeros elsewhere; they start \
          at 0. All matrices of `on` are ranked together: the share `density` of their numbers is trained. It selects what is \
          trained and removes no weight. Only gradients at the places are computed, and only the places decay: 20 bytes a \
          trained number with AdamW. Merges exactly, and is written in peft's format as SHiRA where a matrix has room for \
          its rank.",
    paper: "Sanh et al. 2020 (arXiv 2005.07683), the baseline",
    keys: &[DENSITY.key(), ON.key()],
};

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    sparse::shared(at, net, &sparse::density(at.values), Score::Magnitude)
}

impl Method for MagnitudeMask {
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
