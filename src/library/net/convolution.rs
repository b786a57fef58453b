//! A convolution along the tokens of each text.

use super::{Net, Param, ParamKind, Role};
use crate::library::counts::to_u32;
use crate::program::op::{BinaryKind, BlockProduct, Blocks, Broadcast, Neighbours};
use crate::program::{Feed, Value};

/// A convolution that makes rows as wide as those that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Width of the rows.
    pub rows: u64,
    /// Tokens that it reads at once: an odd number, the middle one of which it stands for.
    pub width: u64,
    /// Groups of columns that are read apart from each other.
    pub groups: u64,
}

impl Net<'_> {
    /// `[T, d] → [T, d]`: each token's row from those around it in its text, as torch's `Conv1d(padding = (width − 1) / 2)`. Its weight is
    /// `<path>.weight [d, d / groups, width]`, its bias `<path>.bias [d]`, of the given layer.
    pub fn convolution(
        &mut self,
        path: &str,
        layer: Option<u64>,
        of: Convolution,
        x: Value,
    ) -> Value {
        self.b.label(path);
        let (d, k) = (of.rows, of.width);
        let depth = d / of.groups.max(1);
        let own = |name: &str, shape: &[u64], kind| Param {
            layer,
            ..Param::own(format!("{path}.{name}"), shape, kind, Role::Convolution)
        };
        let weight = self.tensor(own("weight", &[d, depth, k], ParamKind::Weight));
        let bias = self.tensor(own("bias", &[d], ParamKind::Bias));
        let weight = self.reshaped(weight, d, depth * k);
        let offsets = self.b.feed(Feed::Offsets);
        let op = Neighbours {
            width: to_u32(k as usize),
        };
        let around = self.b.push1(op, &[x, offsets]);
        if of.groups == 1 {
            return self.dense(around, weight, bias);
        }
        let op = BlockProduct::of_rows(to_u32(of.groups as usize), Blocks::STACKED.transposed());
        let made = self.b.push1(op, &[around, weight]);
        self.binary(BinaryKind::Add, Broadcast::Row, made, bias)
    }
}
