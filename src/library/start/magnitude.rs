//! `magnitude`: pruned from the backbone by the size of its weights.

use super::super::derive::prune::Importance;
use super::super::schema::Schema;
use super::Start;

/// The registry's row.
pub(super) static START: Start = Start {
    schema: &Schema {
        name: "magnitude",
        summary: "side blocks begin as the backbone's blocks, pruned to their largest weights",
        doc: "A walk through the backbone keeps 1/r of each width: the columns of the token embedding with the largest \
              L1 norm, then of each block's maps the rows whose entries in the columns just kept are largest: query, \
              key and value jointly, by the product of the three entries, then output, ffn.up, ffn.down. Rows are \
              ranked over the whole projection, not per head. Biases and norms are taken at the rows kept. Down- and \
              up-projections, gates and the last norm begin as with `random`.",
        paper: "Sung et al. 2022 (arXiv 2206.06522), section 3.2, and its code (variant without residual)",
        keys: &[],
    },
    importance: |_| Some(Importance::Magnitude),
};
