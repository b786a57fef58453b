//! A mask by magnitude (methods S11): the largest weights are trained.

use super::super::derive::places::Score;
use super::Schema;
use super::mask::Mask;
use super::sparse::{DENSITY, ON};

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

/// A fixed mask by the size of the weights.
pub static METHOD: Mask = Mask {
    goes_on: |_| false,
    schema: &SCHEMA,
    score: |_| Score::Magnitude,
};
