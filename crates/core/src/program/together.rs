//! Neighbouring nodes that a device applies in one go: AdamW over small tensors, of which an adapter has
//! hundreds, each too little work for a launch of its own; a product's bias with the activation behind it; bias,
//! dropout, residual and layer norm at a block's end; a product with the sum that it is added to.
//!
//! **Invariant:** the interpreter and the estimate read the same groups, made once with the schedule: a group's
//! outputs are all there before anything of it is freed.

use std::ops::Range;

use super::graph::{Node, Program, Value};
use super::memory::sized;
use super::op::launch::Launches;
use super::op::{
    AdamW, Epilogue, Op, SizedCx, added_product, bias_activation, residual_layer_norm,
};
use super::schedule::Step;
use super::stored;
use super::types::Bindings;

/// A tensor of more elements is work enough for a launch of its own.
pub(super) const SMALL: u64 = 1 << 18;

/// All nodes of a program, in order, in groups of one or more.
#[must_use]
pub fn groups(program: &Program, steps: &[Step]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut at = 0;
    while at < program.nodes.len() {
        let rest = program.nodes.get(at..).unwrap_or_default();
        let count = updates(program, rest).or_else(|| {
            // Whether there are kernels for the operands does not depend on sizes.
            let count = chain(rest).or_else(|| added(rest))?;
            launches(program, steps, at..at + count, &Bindings::of_lengths([1]))?;
            Some(count)
        });
        let group = at..at + count.unwrap_or(1);
        at = group.end;
        groups.push(group);
    }
    groups
}

/// How many updates from the first node on go together.
fn updates(program: &Program, rest: &[Node]) -> Option<usize> {
    let (op, shared) = small(program, rest.first()?)?;
    let alike = rest
        .iter()
        .take(AdamW::MOST_TOGETHER)
        .take_while(|node| {
            small(program, node).is_some_and(|(own, with)| own.goes_with(op) && with == shared)
        })
        .count();
    (alike > 1).then_some(alike)
}

/// An update of a small tensor, and the rate, step and factor that it reads.
fn small<'a>(program: &Program, node: &'a Node) -> Option<(&'a AdamW, &'a [Value])> {
    let Op::AdamW(op) = &node.op else { return None };
    let (weight, shared) = (node.inputs.first()?, node.inputs.get(4..)?);
    let elements = program.ty(*weight).bytes(&Bindings::default()) / 4;
    (elements <= SMALL).then_some((op, shared))
}

/// How many nodes from the first on are a product with its bias and an activation of it, or the end of a block:
/// `[product with bias] [dropout] sum, layer norm`, each reading the one before it.
fn chain(rest: &[Node]) -> Option<usize> {
    let mut count = 0;
    let follows = |count: usize| {
        let before = count
            .checked_sub(1)
            .and_then(|i| rest.get(i)?.outputs.first());
        let node = rest.get(count)?;
        let reads = before.is_none_or(|v| node.inputs.iter().filter(|&own| own == v).count() == 1);
        let first = before.is_none_or(|v| node.inputs.first() == Some(v));
        let phase = rest.first().map(|first| first.phase) == Some(node.phase);
        (reads && phase).then_some((node, first))
    };
    if is_biased(&follows(0)?.0.op) {
        count += 1;
        if let Some((node, true)) = follows(count)
            && matches!(node.op, Op::Activation(_))
        {
            return Some(count + 1);
        }
    }
    if let Some((node, true)) = follows(count)
        && matches!(node.op, Op::Dropout(_))
    {
        count += 1;
    }
    if !matches!(follows(count)?.0.op, Op::Add(_)) {
        return None;
    }
    count += 1;
    match follows(count)? {
        (node, true) if matches!(node.op, Op::LayerNorm(_)) => Some(count + 1),
        _ => None,
    }
}

/// How many nodes from the first on are a product and the sum of it with something else, unless a layer norm takes the sum.
fn added(rest: &[Node]) -> Option<usize> {
    let (product, sum) = (rest.first()?, rest.get(1)?);
    let made = product.outputs.first()?;
    let plain = matches!(&product.op, Op::MatMul(own) if own.epilogue == Epilogue::None);
    let once = sum.inputs.iter().filter(|&own| own == made).count() == 1;
    let ends = rest.get(2).is_some_and(|next| {
        matches!(next.op, Op::LayerNorm(_)) && next.inputs.first() == sum.outputs.first()
    });
    let joined = matches!(sum.op, Op::Add(_)) && sum.phase == product.phase;
    (plain && joined && once && !ends).then_some(2)
}

fn is_biased(op: &Op) -> bool {
    matches!(op, Op::MatMul(product) if product.epilogue == Epilogue::Bias)
}

/// What a group launches; the operands of the second node follow those of the first. `None` if there is no
/// kernel.
#[must_use]
pub fn launches(
    program: &Program,
    steps: &[Step],
    group: Range<usize>,
    sizes: &Bindings,
) -> Option<Launches> {
    let nodes = program.nodes.get(group.clone())?;
    let cx = |node: &Node| sized(program, node, sizes);
    if let [node] = nodes {
        return stored::launches(&node.op, &cx(node));
    }
    let all: Vec<(&Op, SizedCx)> = nodes.iter().map(|node| (&node.op, cx(node))).collect();
    // Which results the rest of the program still reads.
    let kept: Vec<bool> = nodes
        .iter()
        .map(|node| {
            let ends = steps.get(group.clone()).unwrap_or_default().iter();
            let out = node.outputs.first();
            let mut gone = ends.zip(nodes).filter(|(step, by)| {
                let taken = step.takes.and_then(|i| by.inputs.get(i));
                step.frees.iter().chain(taken).any(|v| Some(v) == out)
            });
            gone.next().is_none()
        })
        .collect();
    // Where the sum's other operand is: the one that no node of the group makes.
    let made: Vec<Value> = nodes
        .iter()
        .flat_map(|n| n.outputs.iter().copied())
        .collect();
    let sum = nodes.iter().find(|n| matches!(n.op, Op::Add(_)));
    let residual = sum.map_or(0, |sum| {
        let inside = |v: &Value| made.contains(v);
        usize::from(sum.inputs.first().is_some_and(inside))
    });
    match all.last()?.0 {
        Op::AdamW(_) => AdamW::together(&all),
        Op::Activation(_) => bias_activation(&all, &kept),
        Op::Add(_) => added_product(&all, &kept, residual),
        _ => residual_layer_norm(&all, &kept, residual),
    }
}
