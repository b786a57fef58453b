//! `head_loss`: the head of a language model, its softmax and the cross-entropy, without the logits in memory.

use super::super::format::Format;
use super::super::graph::Def;
use super::super::types::{DType, Dim, Real};
use super::launch::{KernelSource, Launches, source};
use super::{
    Add, At, BinaryKind, Broadcast, Builder, Columns, Constant, Cost, Elementwise, HeadLossGrad,
    Io, Kernel, Machine, Op, OpError, OpRule, Precision, Reshape, SizedCx, TensorType, Value,
};

mod forward;
mod kernel;
mod pieces;
mod table;

pub(super) use kernel::{Products, backward, backward_scratch, by_types, sizes};
pub(super) use pieces::Pieces;
pub(super) use table::Numbers;

/// `(x [R, d], head [V, d], targets u32[R], scale f32[1][, bias [V]]) → (loss [1], lse [R], rows [R, 2])`.
///
/// The logits of a row are `cap(alpha · x headᵀ + bias)`, with `cap(z) = c · tanh(z / c)` if there is a soft cap `c`. The bias is
/// a constant.
/// `lse` is the logarithm of the sum of their exponentials, `loss = scale · Σ (lse − logit[target])`, and `rows` has
/// of each row that difference, which is minus the logarithm of the target's probability, and the number of the
/// token with the largest logit, the first of equals; no number where the logits are none.
///
/// The logits are made and used a piece at a time (Wijmans et al. 2024, arXiv 2411.09009). If the head is frozen, the
/// gradient by the states `[R, d]` is a fourth result: each piece adds the head's rows times their exponentials to it,
/// as attention adds values (Milakov and Gimelshein 2018, arXiv 1805.02867). By a head that is trained the gradient is
/// an op of its own, which makes the logits anew. A row's results do not depend on the other rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadLoss {
    /// Factor of the logits.
    pub alpha: Real,
    /// Bound that logits approach (Gemma 2, arXiv 2408.00118, section 2).
    pub softcap: Option<Real>,
    /// Whether a bias is added to the logits.
    pub bias: bool,
    /// What the states' gradient is made of beside the loss; the op's own gradient rule sets it.
    pub gradient: StatesGradient,
    /// In what numbers products are formed; [`Builder`] sets it.
    pub precision: Precision,
}

/// Of what a loss makes the gradient by its states as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatesGradient {
    /// Of nothing: there is no such result.
    Nothing,
    /// Of the sum, with its scale, for an upstream gradient of one.
    Loss,
    /// Of each row's own loss, which is not scaled.
    Rows,
}

/// Numbers of tokens are results in f32, which holds all whole numbers up to here.
const LARGEST: u64 = 1 << 24;

impl HeadLoss {
    /// Without a soft cap and without a bias.
    #[must_use]
    pub const fn plain(alpha: Real) -> Self {
        Self {
            alpha,
            softcap: None,
            bias: false,
            gradient: StatesGradient::Nothing,
            precision: Precision::F32,
        }
    }

    /// Whether the states' gradient is a result.
    fn makes_gradient(&self) -> bool {
        self.gradient != StatesGradient::Nothing
    }

    /// The gradient by the states where the loss can make it itself: under a head that is frozen, for an upstream gradient of
    /// the sum or of the rows.
    fn at_once(&self, b: &mut Builder, at: At<'_>) -> Option<Value> {
        let (gradient, up) = match *at.up {
            [Some(up), _, None] => (StatesGradient::Loss, up),
            [None, _, Some(up)] => (StatesGradient::Rows, up),
            _ => return None,
        };
        // A loss that is differentiated twice has such a result already.
        if at.needs[1] || self.makes_gradient() {
            return None;
        }
        let own = Self {
            gradient,
            ..self.clone()
        };
        let made = *b.extend(at.outputs[0], own).first()?;
        let times = |b: &mut Builder, broadcast, factor| {
            let kind = BinaryKind::Mul;
            Some(b.push1(Elementwise { kind, broadcast }, &[made, factor]))
        };
        if gradient == StatesGradient::Loss {
            return match is_one(b, up) {
                true => Some(made),
                false => times(b, Broadcast::Scalar, up),
            };
        }
        let shape = b.ty(made).shape.first().copied().into_iter().collect();
        let (from, to, groups) = (0, 1, 1);
        let up = b.push1(Columns { from, to, groups }, &[up]);
        let up = b.push1(Reshape { shape }, &[up]);
        times(b, Broadcast::Column, up)
    }

    /// Checks the operands; gives the rows of the first.
    pub(super) fn check(&self, x: &[&TensorType]) -> Result<Dim, String> {
        let [x, head, targets, scale, bias @ ..] = x else {
            return Err("states, a head, targets and a scale are wanted".into());
        };
        let (Some((rows, d)), Some((vocabulary, width))) = (x.matrix(), head.matrix()) else {
            return Err("states and a head are matrices".into());
        };
        let stored = head.dtype == x.dtype || (x.dtype, head.dtype) == (DType::F32, DType::BF16);
        if !x.dtype.is_compute() || !stored || d != width || d.as_const().is_none() {
            return Err(format!(
                "states of {d} and a head of {width} must agree, in one compute type or with a head in bf16"
            ));
        }
        if !vocabulary.as_const().is_some_and(|v| v > 0 && v <= LARGEST) {
            return Err(format!("a vocabulary of 1 to {LARGEST} tokens is wanted"));
        }
        if self
            .softcap
            .is_some_and(|c| !(c.get() > 0.0 && c.get().is_finite()))
        {
            return Err("a soft cap must be above 0".into());
        }
        if **targets != TensorType::new(DType::U32, [rows])
            || **scale != TensorType::scalar(DType::F32)
        {
            return Err("a u32 target for each row and an f32 scale are wanted".into());
        }
        let fits = match bias {
            [] => !self.bias,
            [bias] => self.bias && **bias == TensorType::new(x.dtype, [vocabulary]),
            _ => false,
        };
        if !fits {
            return Err("a bias has a number for each token".into());
        }
        Ok(rows)
    }
}

/// Whether a value is the constant 1.
fn is_one(b: &Builder, value: Value) -> bool {
    let Def::Node { node, .. } = b.program().def(value) else {
        return false;
    };
    let node = b.program().nodes.get(node as usize);
    matches!(node.map(|node| &node.op), Some(Op::Constant(Constant { value, .. })) if value.get() == 1.0)
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("head_loss" with "tensor_core.cuh"));

impl OpRule for HeadLoss {
    fn kernel(&self) -> Option<&'static str> {
        (self.precision == Precision::Bf16).then_some("head_loss_bf16")
    }

    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let rows = self.check(x)?;
        let dtype = x.first().map_or(DType::F32, |x| x.dtype);
        let mut outs = vec![
            TensorType::scalar(dtype),
            TensorType::new(dtype, [rows]),
            TensorType::new(dtype, [rows, 2.into()]),
        ];
        let states = x.first().filter(|_| self.makes_gradient());
        outs.extend(states.map(|x| TensorType::new(x.dtype, x.shape.clone())));
        Ok(outs)
    }

    fn is_exact(&self, _: usize) -> bool {
        true
    }

    fn reads(&self, i: usize, stored: Format) -> bool {
        i == 1 && (stored == DType::BF16 || stored.blocks().is_some())
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        pieces::forward(self, cx)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (x, head) = (io.input(0).dtype(), io.input(1).format());
        by_types!((x, head, self.precision), products => forward::forward(self, products, cx, io))
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut grads = vec![None; at.inputs.len()];
        let (input, head) = (at.needs[0], at.needs[1]);
        if !(input || head) {
            return grads;
        }
        if let Some(own) = self.at_once(b, at) {
            grads[0] = Some(own);
            return grads;
        }
        // That of the sum, and those of the rows.
        for up in [at.up[0], at.up[2]].into_iter().flatten() {
            let of = Self {
                gradient: StatesGradient::Nothing,
                ..self.clone()
            };
            let mut operands = vec![up];
            operands.extend(at.inputs);
            operands.push(at.outputs[1]);
            let mut made = b
                .push(HeadLossGrad { of, input, head }, &operands)
                .into_iter();
            for (slot, wanted) in grads.iter_mut().zip([input, head]) {
                let own = if wanted { made.next() } else { None };
                *slot = match (*slot, own) {
                    (Some(one), Some(other)) => Some(b.push1(Add, &[one, other])),
                    (one, other) => one.or(other),
                };
            }
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 2
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (rows, vocabulary, d) = sizes(cx, 0);
        Cost {
            flops: rows * vocabulary * (2 * d * (1 + u64::from(self.makes_gradient())) + 5),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        forward::scratch(self, sizes(cx, 0), size)
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
pub(super) use fixtures::{biased, cases, fixtures, kinds, operands, with_bias};
#[cfg(test)]
mod tests;
