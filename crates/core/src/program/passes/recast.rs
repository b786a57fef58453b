//! Widens a narrow frozen weight anew for each backward reader, so that its widened copy is a
//! transient of one op and not an activation kept from forward to backward.

use std::collections::BTreeMap;

use super::super::graph::{Def, Node, Phase, Program, Value};
use super::super::op::Op;
use super::Rebuild;

/// Repeats casts of residents before their backward readers.
#[must_use]
pub fn recast(program: &Program) -> Program {
    let casts: BTreeMap<Value, &Node> = program
        .nodes
        .iter()
        .filter(|n| matches!(n.op, Op::Cast(_)) && n.phase == Phase::Forward)
        .filter(|n| {
            n.inputs
                .iter()
                .all(|&v| matches!(program.def(v), Def::Resident(_)))
        })
        .flat_map(|n| n.outputs.iter().map(move |&out| (out, n)))
        .collect();
    let mut rebuild = Rebuild::new(program);
    for node in &program.nodes {
        if node.phase == Phase::Forward {
            rebuild.emit(node);
            continue;
        }
        for &input in &node.inputs {
            if let Some(cast) = casts.get(&input) {
                let again = Node {
                    phase: node.phase,
                    label: node.label,
                    block: node.block,
                    ..(*cast).clone()
                };
                let inputs = again.inputs.iter().map(|&v| rebuild.value(v)).collect();
                if let [fresh] = rebuild.emit_copy(&again, inputs)[..] {
                    rebuild.replace(input, fresh);
                }
            }
        }
        rebuild.emit(node);
    }
    rebuild.finish()
}
