//! Computes the inner values of blocks again in the backward instead of keeping them from the forward
//! (activation checkpointing, Chen et al. 2016, arXiv 1604.06174).
//!
//! Kept are a block's inputs and what other blocks read of it. Random ops are keyed by step and element,
//! so the second computation gives the same bits.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::{Def, Node, Phase, Program, Value};
use super::Rebuild;

/// Rewrites the backward of the first `blocks` blocks (those numbered below it) to make their inner
/// values again.
#[must_use]
pub fn recompute(program: &Program, blocks: u64) -> Program {
    let outputs: BTreeSet<Value> = program.outputs.iter().map(|(_, v)| *v).collect();
    // Values that only nodes of their own block read in the forward.
    let mut inner: BTreeMap<Value, &Node> = BTreeMap::new();
    for node in program.nodes.iter().filter(|n| n.phase == Phase::Forward) {
        if node.block.is_some_and(|block| block.number < blocks) {
            let free = node.outputs.iter().filter(|v| !outputs.contains(v));
            inner.extend(free.map(|&v| (v, node)));
        }
        for input in &node.inputs {
            if inner
                .get(input)
                .is_some_and(|maker| maker.block != node.block)
            {
                inner.remove(input);
            }
        }
    }
    let mut rebuild = Rebuild::new(program);
    let mut made = BTreeSet::new();
    for node in &program.nodes {
        if node.phase == Phase::Backward {
            for &input in &node.inputs {
                again(&mut rebuild, program, &inner, &mut made, input);
            }
        }
        rebuild.emit(node);
    }
    rebuild.finish()
}

/// Emits the maker of an inner value, and before it those of the inner values it reads, once.
fn again(
    rebuild: &mut Rebuild<'_>,
    program: &Program,
    inner: &BTreeMap<Value, &Node>,
    made: &mut BTreeSet<u32>,
    value: Value,
) {
    let (Some(maker), Def::Node { node, .. }) = (inner.get(&value), program.def(value)) else {
        return;
    };
    if !made.insert(node) {
        return;
    }
    for &input in &maker.inputs {
        again(rebuild, program, inner, made, input);
    }
    let copy = Node {
        phase: Phase::Backward,
        ..(*maker).clone()
    };
    let inputs = copy.inputs.iter().map(|&v| rebuild.value(v)).collect();
    let fresh = rebuild.emit_copy(&copy, inputs);
    for (&old, new) in maker.outputs.iter().zip(fresh) {
        rebuild.replace(old, new);
    }
}
