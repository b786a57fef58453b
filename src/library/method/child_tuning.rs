//! ChildTuning (methods S4): all weights are trained, but each update reaches a part of them only.

use super::super::derive::places::{Measure, Summed};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::{Masking, Method, Param, Schema, Values};

/// A mask on every update.
#[derive(Debug)]
pub struct ChildTuning;

const MODE: Given<str> = Given::<str>::new(
    "mode",
    kind::choice(&["task_free", "task_driven"]),
    ("task_free", "task_free"),
    "task_free draws a part anew in each step (ChildTuning-F); task_driven keeps those with the largest Fisher information (ChildTuning-D)",
);
const KEEP: Given<f64> = Given::<f64>::new(
    "keep",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.3, "0.3"),
    "share of the numbers that an update reaches",
);
const SAMPLES: Maybe<u64> = Maybe::new(
    "samples",
    kind::COUNT,
    "training examples whose gradients choose the part of task_driven; all if not written",
);
const MASK_WEIGHT_DECAY: Given<bool> = Given::<bool>::new(
    "mask_weight_decay",
    kind::BOOL,
    (true, "true"),
    "whether numbers that an update does not reach stay as they are; if not, weight decay and momentum move them, as in the authors' program",
);

static SCHEMA: Schema = Schema {
    name: "child_tuning",
    summary: "all weights are trained, and each update reaches a part of them: a random one, or the one that matters most",
    doc: "task_free: in each step and tensor a number is kept with the probability `keep`, by seed, step and place; the gradient \
          is masked and divided by `keep`. task_driven: once, before the first step, the share `keep` of the blocks' numbers \
          with the largest sum of squared gradients, one example at a time; the gradient is masked. Embeddings and the head \
          are trained unmasked there. The norm that clips the gradient is that of the whole one. The memory is that of \
          `full`, with a bit a number for the fixed mask and a copy of one tensor at a time.",
    paper: "Xu et al. 2021 (arXiv 2109.05687)",
    keys: &[
        MODE.key(),
        KEEP.key(),
        SAMPLES.key(),
        MASK_WEIGHT_DECAY.key(),
    ],
};

impl Method for ChildTuning {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self, _: &Values, _: &Param, _: u64) -> bool {
        true
    }

    fn masking(&self, values: &Values) -> Option<Masking> {
        let fixed = MODE.get(values) == "task_driven";
        Some(Masking {
            keep: KEEP.get(values),
            fixed: fixed.then(|| Measure {
                of: Summed::Squares,
                samples: SAMPLES.get(values).unwrap_or(u64::MAX),
                batch: 1,
            }),
            whole: MASK_WEIGHT_DECAY.get(values),
        })
    }
}
