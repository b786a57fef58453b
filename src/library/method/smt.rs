//! SMT (methods S9): square blocks of the weights, chosen by gradients, are trained.

use super::super::derive::places::{Measure, Score, Summed};
use super::super::schema::{Given, Maybe, kind};
use super::sparse::{self, Count};
use super::{At, Complaint, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::error::CONFLICTING_KEYS;
use crate::library::placement::Placement;

/// Trained blocks of matrices.
#[derive(Debug)]
pub struct Smt;

const BLOCKS: Given<u64> = Given::<u64>::new(
    "blocks",
    kind::COUNT,
    (660, "660"),
    "blocks that are trained, of all matrices together",
);
const SIDE: Given<u64> = Given::<u64>::new(
    "side",
    kind::int(2, 1 << 16),
    (256, "256"),
    "rows and columns of a block",
);
const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::COUNT,
    (1600, "1600"),
    "training examples whose gradients choose the blocks",
);
const SCORE: Given<str> = Given::<str>::new(
    "score",
    kind::choice(&["mean_abs", "abs_mean"]),
    ("mean_abs", "mean_abs"),
    "what ranks a block: the size of its mean gradient, or its mean size of gradients (names of the authors' program)",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention.{query, key, value}",
    "which linear maps have trained blocks",
);

static SCHEMA: Schema = Schema {
    name: "smt",
    summary: "sparse matrix tuning: the blocks of the weights with the largest gradients are trained",
    doc: "y = x (W0 + S)ᵀ + b, where S has `blocks` trained blocks of side × side numbers, in all matrices of `on` together, and \
          zeros elsewhere; they start at 0. The blocks are those with the largest gradient, summed over the first `samples` \
          training examples, sixteen at a time, at the pretrained weights. The authors' program trains all weights meanwhile \
          and goes on from there; here the choice changes nothing, so the update is sparse. Only gradients of the blocks are \
          computed: 16 bytes a trained number with AdamW. Merges exactly. peft has no equal.",
    paper: "He et al. 2024 (arXiv 2405.15525)",
    keys: &[
        BLOCKS.key(),
        SIDE.key(),
        SAMPLES.key(),
        SCORE.key(),
        ON.key(),
    ],
};

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    let of = match SCORE.get(at.values) {
        "abs_mean" => Summed::Absolutes,
        _ => Summed::Plain,
    };
    let measure = Measure {
        of,
        samples: SAMPLES.get(at.values),
        batch: 16,
    };
    let count = Count::Blocks(BLOCKS.get(at.values), SIDE.get(at.values));
    sparse::shared(at, net, &count, (Score::Gradient(measure), false))
}

impl Method for Smt {
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

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let side = SIDE.get(values);
        let whole = site.input().is_multiple_of(side) && site.output().is_multiple_of(side);
        let complaint = (!whole).then(|| Complaint {
            key: SIDE.name(),
            code: &CONFLICTING_KEYS,
            message: format!(
                "`{}` is a matrix of {} × {}, which is not cut into whole blocks of {side} × {side}",
                site.path,
                site.output(),
                site.input()
            ),
            help: Some(format!("write a `{}` that divides both, or leave this matrix out of `on`", SIDE.name())),
        });
        complaint.or_else(|| sparse::check_size(site))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        delta(at, net).linear(at, net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        delta(at, net).merged(at, net)
    }
}
