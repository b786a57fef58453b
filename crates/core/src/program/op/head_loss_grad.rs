//! `head_loss_grad`: gradients of a language model's loss by the states and by the head.

use super::super::format::Format;
use super::super::types::DType;
use super::head_loss::{Pieces, backward, backward_scratch, by_types, sizes};
use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::{Cost, HeadLoss, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx, TensorType};

/// `(up [1], x [R, d], head [V, d], targets u32[R], scale f32[1][, bias [V]], lse [R]) → (dx [R, d])`, `(dhead [V, d])` or both. With
/// `up [R, 2]` it is the gradient by the rows' own losses, which are not scaled.
///
/// The logits are made again, a piece at a time. What is not wanted is not computed: of a frozen head, `dx` alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadLossGrad {
    /// The loss.
    pub of: HeadLoss,
    /// Whether the states' gradient is wanted.
    pub input: bool,
    /// Whether the head's is.
    pub head: bool,
}

impl HeadLossGrad {
    /// Which input the sums of the rows are.
    pub(super) const fn sums(&self) -> usize {
        5 + self.of.bias as usize
    }

    /// Products: of the logits, and one for each gradient.
    fn products(&self) -> u64 {
        1 + u64::from(self.input) + u64::from(self.head)
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("head_loss_grad"));

impl OpRule for HeadLossGrad {
    fn kernel(&self) -> Option<&'static str> {
        (self.of.precision == Precision::Bf16).then_some("head_loss_grad_bf16")
    }

    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, of @ .., lse] = x else {
            return Err("a gradient, the loss's operands and a sum for each row are wanted".into());
        };
        let rows = self.of.check(of)?;
        let [x, head, ..] = of else {
            return Err("states and a head are wanted".into());
        };
        let each = TensorType::new(x.dtype, [rows, 2.into()]);
        let statistics = (**up == TensorType::scalar(x.dtype) || **up == each)
            && **lse == TensorType::new(x.dtype, [rows]);
        if !statistics || !(self.input || self.head) {
            return Err("a gradient and a sum for each row are wanted, and one result".into());
        }
        if self.head && head.stored != x.dtype {
            return Err(format!("a head in {} has no gradient", head.stored));
        }
        let outs = [(self.input, *x), (self.head, *head)];
        let wanted = outs.into_iter().filter(|(wanted, _)| *wanted);
        Ok(wanted.map(|(_, ty)| ty.clone()).collect())
    }

    fn reads(&self, i: usize, stored: Format) -> bool {
        i == 2 && (stored == DType::BF16 || stored.blocks().is_some())
    }

    fn mixes_rows(&self) -> bool {
        self.head
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let pieces = Pieces::of(&self.of, cx, 1, &mut list)?;
        let (rows, d) = (pieces.rows, pieces.width);
        let outs = [self.input, self.head];
        let [dx, dhead] = [0, 1].map(|i| outs[i].then(|| Out(usize::from(i == 1 && self.input))));
        if rows == 0 {
            if let Some(dhead) = dhead {
                let n = pieces.vocabulary * d;
                list.fours("fill", "fill", n, args![dhead, n, 0.0_f32]);
            }
            return Some(list);
        }
        let most = pieces.each().next()?;
        let by_row = cx.inputs.first()?.dims.len() > 1;
        let rounded = pieces.rounded(&mut list, rows * most.columns);
        let in_parts = dhead.is_some() && most.columns < pieces.vocabulary;
        let part = in_parts.then(|| list.scratch(4 * most.columns * d));
        for piece in pieces.each() {
            let n = piece.columns;
            pieces.make(&mut list, piece);
            list.rows(
                "head_loss_grad",
                "head_loss_slopes",
                rows,
                n,
                args![
                    pieces.logits,
                    rounded.map_or(Arg::Null, Arg::At),
                    pieces.bias,
                    In(3),
                    In(self.sums()),
                    In(4),
                    In(0),
                    n as u32,
                    piece.first as u32,
                    pieces.cap,
                    u32::from(by_row)
                ],
            );
            let slopes = rounded.unwrap_or(pieces.logits);
            if let Some(dx) = dx {
                let beta = if piece.first == 0 { 0.0 } else { 1.0 };
                let head = pieces.head(piece, false);
                pieces.product(&mut list, (rows, d, n), ((slopes, false), head), (beta, dx));
            }
            if let Some(dhead) = dhead {
                let factors = ((slopes, true), (pieces.x, false, 0));
                let to = part.unwrap_or(dhead);
                pieces.product(&mut list, (n, d, rows), factors, (0.0, to));
                if let Some(part) = part {
                    let args = args![part, dhead, piece.first * d, n * d];
                    list.fours("head_loss_grad", "head_put", n * d, args);
                }
            }
        }
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (x, head) = (io.input(1).dtype(), io.input(2).format());
        by_types!((x, head, self.of.precision), products => backward(self, products, cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (rows, vocabulary, d) = sizes(cx, 1);
        Cost {
            flops: rows * vocabulary * (2 * d * self.products() + 5),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        backward_scratch(self, sizes(cx, 1), size)
    }
}

/// What the gradient reads, of a loss and its operands.
#[cfg(test)]
pub(super) fn operands(of: &HeadLoss, inputs: &[super::Tensor]) -> Vec<super::Tensor> {
    let made = super::fixtures::eval(&of.clone().into(), inputs, 1);
    let up = match inputs[0].dtype() {
        DType::F64 => super::Tensor::new(vec![0.7_f64], &[1]),
        _ => super::fixtures::scalar(0.7),
    };
    let lse = made[1].clone();
    [vec![up], inputs.to_vec(), vec![lse]].concat()
}

/// The same with a gradient for each row.
#[cfg(test)]
fn by_row(mut operands: Vec<super::Tensor>) -> Vec<super::Tensor> {
    let rows = operands[1].dims[0];
    operands[0] = super::fixtures::random(52, &[rows, 2]);
    operands
}

/// The results that may be wanted.
#[cfg(test)]
pub(super) const WANTED: [(bool, bool); 3] = [(true, true), (true, false), (false, true)];

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow};
    use super::head_loss::{cases, kinds};
    let mut all = Fixtures::new();
    all.activations = Some(|op, _| match op {
        super::Op::HeadLossGrad(op) if !op.input => (vec![1], vec![]),
        _ => (vec![1], vec![0]),
    });
    for of in kinds() {
        for (input, head) in WANTED {
            let of = of.clone();
            let op = HeadLossGrad { of, input, head };
            let single = |(rows, d, vocabulary)| -> Vec<super::Tensor> {
                let all = super::head_loss::operands(rows, d, vocabulary);
                all.iter().map(narrow).collect()
            };
            let small = super::head_loss::operands(4, 5, 7);
            all.sample(op.clone(), operands(&op.of, &small));
            all.sample(op.clone(), by_row(operands(&op.of, &small)));
            all.large(op.clone(), operands(&op.of, &single((70, 16, 4500))));
            let mut rounded = op.clone();
            rounded.of.precision = Precision::Bf16;
            // So few slopes that none is near where bf16 rounds the other way.
            all.case(rounded.clone(), operands(&rounded.of, &single((3, 8, 10))));
            for inputs in cases() {
                if !(head && inputs[1].format() != DType::F32) {
                    all.case(op.clone(), operands(&op.of, &inputs));
                }
            }
        }
    }
    for (input, head) in WANTED {
        let of = super::head_loss::with_bias();
        let op = HeadLossGrad { of, input, head };
        let with_bias = |inputs| operands(&op.of, &super::head_loss::biased(inputs));
        all.sample(op.clone(), with_bias(super::head_loss::operands(4, 5, 7)));
        for inputs in cases() {
            if !(head && inputs[1].format() != DType::F32) {
                all.case(op.clone(), with_bias(inputs));
            }
        }
    }
    all
}
