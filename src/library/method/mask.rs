//! What methods share that train numbers at places chosen once among those of all their matrices together.

use super::super::derive::places::Score;
use super::sparse;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema, Site, Stacking,
    Value, Values,
};

/// A fixed mask of a share `density` of the numbers, those with the largest scores.
#[derive(Debug)]
pub struct Mask {
    /// Name, doc, keys.
    pub schema: &'static Schema,
    /// Whether they start where the training that they are chosen by left them, and not at 0.
    pub goes_on: fn(&Values) -> bool,
    /// What numbers are ranked by.
    pub score: fn(&Values) -> Score,
}

impl Mask {
    fn delta(&self, at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
        sparse::shared(
            at,
            net,
            &sparse::density(at.values),
            ((self.score)(at.values), (self.goes_on)(at.values)),
        )
    }
}

impl Method for Mask {
    fn schema(&self) -> &'static Schema {
        self.schema
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
        self.delta(at, net).linear(at, net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        self.delta(at, net).merged(at, net)
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
