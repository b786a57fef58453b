//! BitFit (methods S1): biases and the head.

use super::super::net::ParamKind;
use super::{Method, Param, Schema, Values};

/// Every bias and the head are trained.
#[derive(Debug)]
pub struct BitFit;

static SCHEMA: Schema = Schema {
    name: "bitfit",
    summary: "every bias (of linear maps and norms) and the head are trained",
    doc: "About 0.1 % of a BERT's parameters. Activations need not be kept for weight gradients, but backward runs \
          through every block.",
    paper: "Ben Zaken et al. 2022 (arXiv 2106.10199)",
    keys: &[],
};

impl Method for BitFit {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self, _: &Values, param: &Param, _: u64) -> bool {
        matches!(param.kind, ParamKind::Bias | ParamKind::NormBias)
    }
}
