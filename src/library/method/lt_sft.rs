//! LT-SFT (methods S2): of a dense training's weights, those that moved most are trained anew from where they began.

use super::super::derive::places::Score;
use super::super::schema::{Given, kind};
use super::Schema;
use super::mask::Mask;
use super::sparse::{DENSITY, ON};

const REWIND: Given<bool> = Given::<bool>::new(
    "rewind",
    kind::BOOL,
    (true, "true"),
    "whether the numbers start at 0, the pretrained weights; else where the dense training left them, as diff pruning's second phase does",
);

static SCHEMA: Schema = Schema {
    name: "lt_sft",
    summary: "lottery-ticket sparse fine-tuning: the weights that moved most in a dense training are trained anew",
    doc: "Two stages. The first trains all weights: `stage dense = train { adapter = full, … }`. The second starts at the same \
          pretrained weights and names it: `tuned = dense`. There y = x (W0 + S)ᵀ + b, where S has trained numbers at the \
          places with the largest |W_dense − W0| and zeros elsewhere; they start at 0, so the model is rewound. All matrices \
          of `on` are ranked together: the share `density` of their numbers is trained. Each stage has its own memory, \
          optimizer, schedule and checkpoints. With `rewind = false` the numbers start at W_dense − W0 instead: after `diff_pruning`, merged, \
          that is its second phase. Only gradients at the places are computed, and only the places decay: 20 \
          bytes a trained number with AdamW. Merges exactly, and is written in peft's format as SHiRA where a matrix has \
          room for its rank.",
    paper: "Ansell et al. 2022 (arXiv 2110.07560)",
    keys: &[DENSITY.key(), REWIND.key(), ON.key()],
};

/// A fixed mask by how far weights move.
pub static METHOD: Mask = Mask {
    goes_on: |values| !REWIND.get(values),
    schema: &SCHEMA,
    score: |_| Score::Moved,
};
