//! `fisher`: pruned from the backbone by empirical Fisher information.

use super::super::derive::prune::Importance;
use super::super::schema::{Given, Schema, kind};
use super::Start;

const SAMPLES: Given<u64> = Given::<u64>::new(
    "samples",
    kind::COUNT,
    (1024, "1024"),
    "training examples whose gradients are squared and summed",
);

/// The registry's row.
pub(super) static START: Start = Start {
    schema: &Schema {
        name: "fisher",
        summary: "side blocks begin as the backbone's blocks, pruned to what the loss depends on most",
        doc: "As `magnitude`, but an entry counts by the sum, over the first `samples` training examples (in the order \
              of the first epoch; all if there are fewer), of the squared gradient of the loss of the frozen backbone \
              with the head as it is before training, one example at a time, with true labels, without dropout. Before \
              training this takes `samples` forward and backward passes through the whole backbone, and the memory of \
              a second copy of its ranked matrices; the estimate counts it.",
        paper: "Sung et al. 2022 (arXiv 2206.06522), section 3.2, and its code (variant without residual)",
        keys: &[SAMPLES.key()],
    },
    importance: |filled| {
        Some(Importance::Fisher {
            samples: SAMPLES.get(&filled.values),
        })
    },
};
