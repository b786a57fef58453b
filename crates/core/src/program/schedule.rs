//! Liveness: where each value dies, and which buffers are taken over. One table serves both sides:
//! the estimate sums it, the executor frees by it.

use std::ops::Range;

use super::graph::{Def, Program, Value};
use super::together::groups;

/// What happens around one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The input whose buffer output 0 takes over.
    pub takes: Option<usize>,
    /// Values whose buffers are freed after the node, taken ones excluded.
    pub frees: Vec<Value>,
}

/// A program's liveness table: one step a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// In node order.
    pub steps: Vec<Step>,
    /// Nodes that a device other than the processor applies in one go, all of them in order.
    pub groups: Vec<Range<usize>>,
}

impl Schedule {
    /// The table of a program.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let mut last_use: Vec<Option<usize>> = vec![None; program.values.len()];
        for (index, node) in program.nodes.iter().enumerate() {
            // An output nobody reads dies where it is born.
            for &value in node.inputs.iter().chain(&node.outputs) {
                last_use[value.index()] = Some(index);
            }
        }
        for (_, value) in &program.outputs {
            last_use[value.index()] = None;
        }
        let mut steps = vec![Step::default(); program.nodes.len()];
        for (index, node) in program.nodes.iter().enumerate() {
            let step = &mut steps[index];
            let dies = |v: Value| {
                matches!(program.def(v), Def::Node { .. }) && last_use[v.index()] == Some(index)
            };
            step.takes = node.op.rule().in_place().iter().copied().find(|&i| {
                let (Some(&input), Some(&output)) = (node.inputs.get(i), node.outputs.first())
                else {
                    return false;
                };
                dies(input)
                    && node.inputs.iter().filter(|&&v| v == input).count() == 1
                    && program.ty(input) == program.ty(output)
            });
            let taken = step.takes.and_then(|i| node.inputs.get(i).copied());
            let mut frees: Vec<Value> = node
                .inputs
                .iter()
                .chain(&node.outputs)
                .copied()
                .filter(|&v| dies(v) && Some(v) != taken)
                .collect();
            frees.sort_unstable();
            frees.dedup();
            step.frees = frees;
        }
        let groups = groups(program, &steps);
        Self { steps, groups }
    }
}
