//! Removes nodes whose results nobody reads and that update nothing.

use super::super::graph::{Def, Program};
use super::Rebuild;

/// Keeps what leads to an output or an update.
#[must_use]
pub fn remove_dead(program: &Program) -> Program {
    let mut live = vec![false; program.nodes.len()];
    let mut work: Vec<usize> = (0..program.nodes.len())
        .filter(|&i| !program.nodes[i].op.rule().updates().is_empty())
        .collect();
    work.extend(
        program
            .outputs
            .iter()
            .filter_map(|(_, v)| match program.def(*v) {
                Def::Node { node, .. } => Some(node as usize),
                Def::Resident(_) | Def::Feed(_) => None,
            }),
    );
    while let Some(index) = work.pop() {
        if std::mem::replace(&mut live[index], true) {
            continue;
        }
        work.extend(
            program.nodes[index]
                .inputs
                .iter()
                .filter_map(|v| match program.def(*v) {
                    Def::Node { node, .. } => Some(node as usize),
                    Def::Resident(_) | Def::Feed(_) => None,
                }),
        );
    }
    let mut rebuild = Rebuild::new(program);
    for (node, _) in program.nodes.iter().zip(&live).filter(|(_, live)| **live) {
        rebuild.emit(node);
    }
    rebuild.finish()
}
