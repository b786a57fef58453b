//! Last n blocks (methods F2): embeddings and lower blocks are frozen.

use super::super::schema::{Maybe, kind};
use super::{Complaint, Facts, Method, Param, Schema, Values};
use crate::library::error::LAYERS_OUT_OF_RANGE;

/// The last n blocks and the head are trained.
#[derive(Debug)]
pub struct LastN;

const N: Maybe<u64> = Maybe::required(
    "n",
    kind::COUNT,
    "number of trained blocks, counted from the last",
);

static SCHEMA: Schema = Schema {
    name: "last_n",
    summary: "the last n blocks and the head are trained",
    doc: "Layer freezing: backward stops at the input of the first trained block; the blocks below run in evaluation \
          mode and keep no activations.",
    paper: "Report, section 3.3 (last 3 layers)",
    keys: &[N.key()],
};

impl Method for LastN {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self, values: &Values, param: &Param, n_layers: u64) -> bool {
        param
            .layer
            .is_some_and(|layer| N.get(values).is_some_and(|n| layer + n >= n_layers))
    }

    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let (n, n_layers) = (N.get(values)?, facts.blocks);
        (n > n_layers).then(|| Complaint {
            key: "n",
            code: &LAYERS_OUT_OF_RANGE,
            message: format!("`n` is {n}, but the model has {n_layers} blocks"),
            help: Some(format!(
                "write at most `n = {n_layers}`, or `full` to train the embeddings too"
            )),
        })
    }
}
