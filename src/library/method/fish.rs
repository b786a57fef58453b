//! FISH mask (methods S3): the numbers with the largest empirical Fisher information are trained.

use super::super::derive::places::{Measure, Score, Summed};
use super::super::schema::{Given, kind};
use super::sparse::{self, DENSITY, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema, Site, Stacking,
    Value, Values,
};

/// A fixed mask by Fisher information.
#[derive(Debug)]
pub struct Fish;

const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::int(1, u64::MAX),
    (1024, "1024"),
    "training examples whose gradients choose the places",
);
const SCORE: Given<str> = Given::<str>::new(
    "score",
    kind::choice(&["square", "absolute"]),
    ("square", "square"),
    "what is summed over the examples: squared gradients, as in the paper, or absolute ones, as the authors' program does by default",
);

static SCHEMA: Schema = Schema {
    name: "fish",
    summary: "FISH mask: the numbers on which the loss depends most are trained, chosen once",
    doc: "y = x (W0 + S)ᵀ + b, where S has trained numbers at the places with the largest sum of squared gradients of the \
          frozen model's loss, and zeros elsewhere; they start at 0. The sum runs over the first `samples` training \
          examples, one at a time, with true labels, without dropout, and all matrices of `on` are ranked together: the \
          share `density` of their numbers is trained. Before training this takes the memory of one number a weight; the \
          estimate counts it. Only gradients at the places are computed, and only the places decay: 20 bytes a \
          trained number with AdamW. Merges exactly, and is written in peft's format as SHiRA where a matrix has room for \
          its rank.",
    paper: "Sung et al. 2021 (arXiv 2111.09839)",
    keys: &[DENSITY.key(), SAMPLES.key(), SCORE.key(), ON.key()],
};

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    let of = match SCORE.get(at.values) {
        "absolute" => Summed::Absolutes,
        _ => Summed::Squares,
    };
    let measure = Measure {
        of,
        samples: SAMPLES.get(at.values),
        batch: 1,
    };
    sparse::shared(
        at,
        net,
        &sparse::density(at.values),
        Score::Gradient(measure),
    )
}

impl Method for Fish {
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
