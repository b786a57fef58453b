//! Computes equal expressions once.
//!
//! Within one phase only: merging a backward node with a forward one would keep the forward's
//! result alive, which is the recompute pass' decision, not this one's. Ops that update are never
//! merged, nor are reads after an update (updates are in the last phase, after all other nodes).

use std::collections::HashMap;

use super::super::graph::{Phase, Program, Value};
use super::super::op::Op;
use super::Rebuild;

/// Merges nodes of equal op, inputs and phase.
#[must_use]
pub fn merge_common(program: &Program) -> Program {
    let mut rebuild = Rebuild::new(program);
    let mut seen: HashMap<(Op, Vec<Value>, Phase), Vec<Value>> = HashMap::new();
    for node in &program.nodes {
        if !node.op.rule().updates().is_empty() || node.phase == Phase::Update {
            rebuild.emit(node);
            continue;
        }
        let inputs: Vec<Value> = node.inputs.iter().map(|&v| rebuild.value(v)).collect();
        let key = (node.op.clone(), inputs, node.phase);
        if let Some(outputs) = seen.get(&key) {
            for (&old, &new) in node.outputs.iter().zip(outputs) {
                rebuild.replace(old, new);
            }
        } else {
            rebuild.emit(node);
            seen.insert(
                key,
                node.outputs.iter().map(|&v| rebuild.value(v)).collect(),
            );
        }
    }
    rebuild.finish()
}
