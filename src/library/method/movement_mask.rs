//! A mask by movement (methods S12): the weights that training would move away from zero are trained.

use super::super::derive::places::{Measure, Score, Summed};
use super::super::schema::{Given, kind};
use super::Schema;
use super::mask::Mask;
use super::sparse::{DENSITY, ON};

const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::COUNT,
    (1024, "1024"),
    "training examples whose gradients choose the places",
);

static SCHEMA: Schema = Schema {
    name: "movement_mask",
    summary: "the weights that move away from zero most are trained, chosen once",
    doc: "y = x (W0 + S)ᵀ + b, where S has trained numbers at the places with the largest movement scores and zeros elsewhere; \
          they start at 0. The score of a weight is −W0 · Σ ∂L/∂W0, with its sign, over the first `samples` training examples, \
          one at a time, without dropout: what movement pruning's scores become under plain gradient descent while the \
          weights stay. All matrices of `on` are ranked together: the share `density` of their numbers is trained. It selects \
          what is trained and removes no weight. Before training this takes the memory of one number a weight. Only \
          gradients at the places are computed, and only the places decay: 20 bytes a trained number with AdamW. Merges \
          exactly, and is written in peft's format as SHiRA where a matrix has room for its rank.",
    paper: "Sanh et al. 2020 (arXiv 2005.07683)",
    keys: &[DENSITY.key(), SAMPLES.key(), ON.key()],
};

/// A fixed mask by how weights would move.
pub static METHOD: Mask = Mask {
    goes_on: |_| false,
    schema: &SCHEMA,
    score: |values| {
        Score::Gradient(Measure {
            of: Summed::Moving,
            samples: SAMPLES.get(values),
            batch: 1,
        })
    },
};
