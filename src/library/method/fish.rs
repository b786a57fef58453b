//! FISH mask (methods S3): the numbers with the largest empirical Fisher information are trained.

use super::super::derive::places::{Measure, Score, Summed};
use super::super::schema::{Given, kind};
use super::mask::Mask;
use super::sparse::{DENSITY, ON};
use super::{Schema, Values};

const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::COUNT,
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

/// A fixed mask by Fisher information.
pub static METHOD: Mask = Mask {
    goes_on: |_| false,
    schema: &SCHEMA,
    score,
};

fn score(values: &Values) -> Score {
    let of = match SCORE.get(values) {
        "absolute" => Summed::Absolutes,
        _ => Summed::Squares,
    };
    Score::Gradient(Measure {
        of,
        samples: SAMPLES.get(values),
        batch: 1,
    })
}
