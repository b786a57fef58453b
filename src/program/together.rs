//! Neighbouring nodes that a device applies in one launch: AdamW over small tensors, of which an adapter has
//! hundreds, each too little work for a launch of its own.
//!
//! **Invariant:** the interpreter and the estimate ask here, so both know the same groups.

use super::graph::{Node, Program};
use super::memory::sized;
use super::op::launch::Launches;
use super::op::{AdamW, Op, SizedCx};
use super::types::Bindings;

/// A tensor of more elements is work enough for a launch of its own.
const SMALL: u64 = 1 << 18;

/// The nodes that are applied together from `at` on: one, where nothing else is said.
#[must_use]
pub fn together(program: &Program, at: usize) -> &[Node] {
    let rest = program.nodes.get(at..).unwrap_or_default();
    let first = rest.first().and_then(|node| small(program, node));
    let count = match first {
        None => 1,
        Some((op, shared)) => rest
            .iter()
            .take(AdamW::MOST_TOGETHER)
            .take_while(|node| {
                small(program, node).is_some_and(|(own, with)| own.goes_with(op) && with == shared)
            })
            .count(),
    };
    rest.get(..count).unwrap_or_default()
}

/// An update of a small tensor, and the rate, step and factor that it reads.
fn small<'a>(program: &Program, node: &'a Node) -> Option<(&'a AdamW, &'a [super::Value])> {
    let Op::AdamW(op) = &node.op else { return None };
    let (weight, shared) = (node.inputs.first()?, node.inputs.get(4..)?);
    let elements = program.ty(*weight).bytes(&Bindings::default()) / 4;
    (elements <= SMALL).then_some((op, shared))
}

/// What some nodes launch together; the operands of the second follow those of the first. `None` if there is
/// no kernel.
#[must_use]
pub fn launches(program: &Program, nodes: &[Node], sizes: &Bindings) -> Option<Launches> {
    let cx = |node: &Node| sized(program, node, sizes);
    if let [node] = nodes {
        return node.op.rule().launches(&cx(node));
    }
    let all: Option<Vec<(&AdamW, SizedCx)>> = nodes
        .iter()
        .map(|node| match &node.op {
            Op::AdamW(op) => Some((op, cx(node))),
            _ => None,
        })
        .collect();
    AdamW::together(&all?)
}
