//! SHiRA (methods S14): as many numbers of each matrix as a LoRA of rank r has, at places that stay.

use serde_json::{Map, Value as Json};

use super::super::derive::places::{Measure, Score, Summed};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::sparse::{self, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::RANK_TOO_LARGE;

/// Trained numbers at a few places of each matrix.
#[derive(Debug)]
pub struct Shira;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (32, "32"),
    "a matrix of [out, in] has rank · (out + in) trained numbers, as LoRA of this rank has",
);
const MASK: Given<str> = Given::<str>::new(
    "mask",
    kind::choice(&["random", "magnitude", "gradient", "snip"]),
    ("random", "random"),
    "how places are chosen: drawn, or those with the largest weights, gradients, or products of both",
);
const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::COUNT,
    (64, "64"),
    "training examples whose gradients choose the places, where the mask asks for them",
);

static SCHEMA: Schema = Schema {
    name: "shira",
    summary: "sparse high-rank adaptation: a few numbers of each matrix are trained, at places that stay",
    doc: "y = x (W0 + S)ᵀ + b, where S [out, in] has rank · (out + in) trained numbers and zeros elsewhere. They start at 0, \
          so the model starts unchanged. `mask` says which: `random` draws them; `magnitude` takes the largest |W0|; \
          `gradient` the largest sum of |∂L/∂W0| over the first `samples` training examples, one at a time, before the \
          first step; `snip` the largest |W0 · ∂L/∂W0| of the summed gradient. Only the gradient at these places is \
          computed, so a trained number takes 20 bytes with AdamW: value, gradient, two moments and its place. Merges \
          exactly into plain weights and is written in peft's format.",
    paper: "Bhardwaj et al. 2024 (arXiv 2406.13175)",
    keys: &[RANK.key(), MASK.key(), SAMPLES.key(), ON.key()],
};

/// The keys of peft's `ShiraConfig`.
const PEFT_KEYS: Keys = &[
    ("init_weights", WithoutEffect(BEGAN)),
    ("mask_type", WithoutEffect("of places that are in the file")),
    ("r", Used),
    (
        "random_seed",
        WithoutEffect("of places that are in the file"),
    ),
];

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    let site = at.site;
    let count = RANK
        .get(at.values)
        .saturating_mul(site.input() + site.output());
    let measure = |of| {
        Score::Gradient(Measure {
            of,
            samples: SAMPLES.get(at.values),
            batch: 1,
        })
    };
    let score = match MASK.get(at.values) {
        "magnitude" => Score::Magnitude,
        "gradient" => measure(Summed::Absolutes),
        "snip" => measure(Summed::Weighted),
        _ => Score::Random { seed: net.seed() },
    };
    sparse::own(at, net, count, score)
}

impl Method for Shira {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let rank = RANK.get(values);
        let most = sparse::size(site) / (site.input() + site.output()).max(1);
        let complaint = (rank > most).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, but rank · ({} + {}) is more than all numbers of `{}`",
                site.output(),
                site.input(),
                site.path
            ),
            help: Some(format!("write at most `rank = {most}`")),
        });
        complaint.or_else(|| sparse::check_size(site))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        delta(at, net).linear(at, net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        delta(at, net).merged(at, net)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "SHIRA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let rank = file.config().positive("r", 32)?;
        for place in file.places()? {
            sparse::read(file, &place, rank)?;
            file.put(&Shira, place.site, vec![(RANK.name(), Checked::Int(rank))]);
        }
        Ok(())
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(sparse::form(Some(RANK.get(values))))
    }

    fn peft_turned(&self) -> bool {
        false
    }

    fn peft_tensors(&self, _: &Values, site: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        sparse::own_tensors(site, get)
    }
}
