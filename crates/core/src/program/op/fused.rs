//! What neighbouring ops launch together on a GPU, with the bits they have one by one; only a product that is added to
//! something is rounded once less. Operands are numbered through: those of the second op follow those of the first.

use super::launch::{
    Arg, Launches,
    Operand::{self, In, Out},
    args, stored_in,
};
use super::random::threshold;
use super::{ActivationKind, Epilogue, MatMul, Op, SizedCx};

/// Numbers of a group's operands.
struct Places {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

impl Places {
    fn of(all: &[(&Op, SizedCx)]) -> Self {
        let sums = |count: fn(&SizedCx) -> usize| {
            let ends = all.iter().scan(0, |sum, (_, cx)| {
                let own = *sum;
                *sum += count(cx);
                Some(own)
            });
            ends.collect()
        };
        Self {
            inputs: sums(|cx| cx.inputs.len()),
            outputs: sums(|cx| cx.outputs.len()),
        }
    }

    fn input(&self, op: usize, i: usize) -> Operand {
        In(self.inputs.get(op).copied().unwrap_or(0) + i)
    }

    fn output(&self, op: usize, i: usize) -> Operand {
        Out(self.outputs.get(op).copied().unwrap_or(0) + i)
    }
}

/// A product with its bias, and an activation of it. `kept` says whose results something else reads.
#[must_use]
pub fn bias_activation(all: &[(&Op, SizedCx)], kept: &[bool]) -> Option<Launches> {
    let [(Op::MatMul(product), first), (Op::Activation(own), second)] = all else {
        return None;
    };
    let mut list = product.without_bias(first)?;
    if stored_in(second, &[0], &[0])? != list.stored_in {
        return None;
    }
    let kernel = match own.kind {
        ActivationKind::Gelu => "bias_gelu",
        ActivationKind::GeluTanh => "bias_gelu_tanh",
        ActivationKind::Relu => "bias_relu",
        ActivationKind::Tanh => "bias_tanh",
        ActivationKind::Silu => "bias_silu",
    };
    let (places, n) = (Places::of(all), second.width(0));
    let keep = u32::from(kept.first().copied().unwrap_or(true));
    let args = args![Out(0), In(2), places.output(1, 0), n as u32, keep];
    list.rows("activation", kernel, second.rows(0), n, args);
    Some(list)
}

/// A product that is added to the sum's other operand, `residual`, where the sum is made.
#[must_use]
pub fn added_product(all: &[(&Op, SizedCx)], kept: &[bool], residual: usize) -> Option<Launches> {
    let [(Op::MatMul(product), first), (Op::Add(_), second)] = all else {
        return None;
    };
    let (other, out) = (second.inputs.get(residual)?, second.outputs.first()?);
    if kept.first().copied().unwrap_or(true) || other.stored != out.stored {
        return None;
    }
    let onto = Op::from(MatMul {
        epilogue: Epilogue::Accumulate,
        ..product.clone()
    });
    let mut cx = first.clone();
    cx.inputs.push(other.clone());
    cx.outputs.clone_from(&second.outputs);
    let mut list = super::super::stored::launches(&onto, &cx)?;
    let places = Places::of(all);
    let moved = [
        (In(2), places.input(1, residual)),
        (Out(0), places.output(1, 0)),
    ];
    for operand in list.list.iter_mut().flat_map(|l| l.operands_mut()) {
        if let Some((_, to)) = moved.iter().find(|(from, _)| from == operand) {
            *operand = *to;
        }
    }
    Some(list)
}

/// `[product with its bias] [dropout] sum, layer norm`; `residual` is the sum's operand from outside.
#[must_use]
pub fn residual_layer_norm(
    all: &[(&Op, SizedCx)],
    kept: &[bool],
    residual: usize,
) -> Option<Launches> {
    let places = Places::of(all);
    let find = |is: fn(&Op) -> bool| all.iter().position(|(op, _)| is(op));
    let product = find(|op| matches!(op, Op::MatMul(_)));
    let dropout = find(|op| matches!(op, Op::Dropout(_)));
    let (sum, norm) = (
        find(|op| matches!(op, Op::Add(_)))?,
        find(|op| matches!(op, Op::LayerNorm(_)))?,
    );
    let cx = |i: usize| all.get(i).map(|(_, cx)| cx);
    let mut list = match (product, all.first()?) {
        (Some(0), (Op::MatMul(op), cx)) => op.without_bias(cx)?,
        _ => Launches::of(cx(sum)?.outputs.first()?.stored.plain()?),
    };
    let dropped = dropout.map_or(Some(list.stored_in), |i| stored_in(cx(i)?, &[0], &[0]));
    if dropped? != list.stored_in
        || stored_in(cx(sum)?, &[0, 1], &[0])? != list.stored_in
        || stored_in(cx(norm)?, &[0], &[0])? != list.stored_in
    {
        return None;
    }
    let own = |i: usize| {
        kept.get(i)
            .copied()
            .unwrap_or(true)
            .then(|| places.output(i, 0))
    };
    let maybe = |operand: Option<Operand>| operand.map_or(Arg::Null, Arg::At);
    // What comes in: the product, or the first operand from outside that is not the residual.
    let x = match (product, dropout) {
        (Some(i), _) => places.output(i, 0),
        (None, Some(i)) => places.input(i, 0),
        (None, None) => places.input(sum, 1 - residual.min(1)),
    };
    let Some((Op::LayerNorm(op), _)) = all.get(norm) else {
        return None;
    };
    let (rows, d) = (cx(norm)?.rows(0), cx(norm)?.width(0));
    let mut args = args![x];
    args.push(maybe(product.map(|i| places.input(i, 2))));
    args.push(maybe(product.and_then(own)));
    args.push(maybe(dropout.map(|i| places.input(i, 1))));
    args.push(maybe(dropout.map(|i| places.input(i, 2))));
    args.push(maybe(dropout.and_then(own)));
    args.extend(args![places.input(sum, residual), places.output(sum, 0)]);
    args.extend(args![places.input(norm, 1), places.input(norm, 2)]);
    args.extend((0..3).map(|i| Arg::At(places.output(norm, i))));
    args.extend(args![d as u32, op.eps.get()]);
    let (p, [k0, k1]) = match dropout.and_then(|i| all.get(i)) {
        Some((Op::Dropout(op), _)) => (op.p.get(), op.stream),
        _ => (0.0, [0, 0]),
    };
    args.extend(args![k0, k1, threshold(p), (1.0 / (1.0 - p)) as f32]);
    list.rows("layer_norm", "residual_layer_norm", rows, d, args);
    Some(list)
}
