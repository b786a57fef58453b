//! AdamW whose moments are kept in 8 bits.

use super::adamw::{self, AdamW, op_of};
use super::{Builder, Optimizer, Update};
use crate::library::schema::{Schema, Values};
use crate::program::types::Bindings;
use crate::program::{Feed, TensorType, op};

/// AdamW with blockwise codes of 8 bits for its moments.
#[derive(Debug)]
pub(super) struct AdamW8bit;

/// Numbers from which on a tensor's moments are codes.
const LEAST: u64 = 4096;

static SCHEMA: Schema = Schema {
    name: "adamw_8bit",
    summary: "AdamW with moments of 8 bits; 2 bytes of state a parameter, a quarter of AdamW's",
    doc: "The update is AdamW's. Between two steps m and v are codes of the dynamic map of 8 bits, with one scale for 256 neighbours: their \
          largest magnitude. Each step reads them, computes in f32 and rounds to the nearest code, as in bitsandbytes. Tensors of fewer than \
          4,096 numbers keep their moments in f32. It saves memory where many numbers are trained: full fine-tuning, last blocks.",
    paper: "Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861)",
    keys: &adamw::KEYS,
};

fn numbers(param: &TensorType) -> u64 {
    param.elements(&Bindings::default())
}

impl Optimizer for AdamW8bit {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, values: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)> {
        if numbers(param) < LEAST {
            return AdamW.state(values, param);
        }
        let names = ["m_codes", "v_codes", "m_scales", "v_scales"];
        names
            .into_iter()
            .zip(op::AdamW8bit::state(numbers(param)))
            .collect()
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        if numbers(b.ty(u.param)) < LEAST {
            return AdamW.update(values, b, u);
        }
        let (op, step) = (op::AdamW8bit(op_of(values, &u)), b.feed(Feed::Step));
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([u.lr, step, u.factor]);
        b.push(op, &inputs);
    }
}
