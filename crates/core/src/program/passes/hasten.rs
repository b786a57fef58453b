//! Moves updates of accumulators up to where what they add is made, so that it dies there.

use std::collections::BTreeMap;

use super::super::graph::{Class, Def, Program, Value};
use super::Rebuild;

/// Each node that only updates gradient accumulators which no other node knows goes right behind the
/// last node it reads from, within its phase.
#[must_use]
pub fn hasten(program: &Program) -> Program {
    let mut uses: BTreeMap<Value, usize> = BTreeMap::new();
    for &value in program.nodes.iter().flat_map(|n| &n.inputs) {
        *uses.entry(value).or_default() += 1;
    }
    let mut behind: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut moved = vec![false; program.nodes.len()];
    for (index, node) in program.nodes.iter().enumerate() {
        let updates = node.op.rule().updates();
        let own = |&i: &usize| {
            node.inputs.get(i).is_some_and(|v| {
                let class = program.resident(*v).map(|r| r.class);
                class == Some(Class::Gradient) && uses.get(v) == Some(&1)
            })
        };
        if updates.is_empty() || !node.outputs.is_empty() || !updates.iter().all(own) {
            continue;
        }
        let made = node.inputs.iter().filter_map(|&v| match program.def(v) {
            Def::Node { node, .. } => Some(node as usize),
            Def::Resident(_) | Def::Feed(_) => None,
        });
        let Some(made) = made.max() else { continue };
        if program
            .nodes
            .get(made)
            .is_some_and(|m| m.phase == node.phase)
        {
            behind.entry(made).or_default().push(index);
            moved[index] = true;
        }
    }
    let mut rebuild = Rebuild::new(program);
    for (index, node) in program.nodes.iter().enumerate() {
        if !moved[index] {
            rebuild.emit(node);
        }
        for &update in behind.get(&index).into_iter().flatten() {
            rebuild.emit(&program.nodes[update]);
        }
    }
    rebuild.finish()
}
