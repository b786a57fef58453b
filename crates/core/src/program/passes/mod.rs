//! Passes: `Program → Program`, one a file. [`pipeline`] lists them in order.

mod absorb;
mod common;
mod dead;
mod early;
mod hasten;
mod onto;
mod recast;
mod recompute;
mod rematerialize;

pub use absorb::absorb;
pub use common::merge_common;
pub use dead::remove_dead;
pub use early::{early, is_large};
pub use hasten::hasten;
pub use onto::onto;
pub use recast::recast;
pub use recompute::recompute;
pub use rematerialize::rematerialize;

use std::collections::BTreeMap;

use super::graph::{Def, Feed, Node, Program, Value, ValueInfo};

/// Rebuilds a program node by node: values are renumbered, residents and labels that no longer
/// occur are dropped.
#[derive(Debug)]
pub(in crate::program) struct Rebuild<'a> {
    from: &'a Program,
    to: Program,
    map: BTreeMap<Value, Value>,
}

impl<'a> Rebuild<'a> {
    pub(in crate::program) fn new(from: &'a Program) -> Self {
        let to = Program {
            name: from.name.clone(),
            ..Program::default()
        };
        Self {
            from,
            to,
            map: BTreeMap::new(),
        }
    }

    /// The new value of an old one; residents and feeds are carried over at first use.
    pub(in crate::program) fn value(&mut self, old: Value) -> Value {
        if let Some(&new) = self.map.get(&old) {
            return new;
        }
        let def = match self.from.def(old) {
            Def::Resident(i) => {
                self.to
                    .residents
                    .push(self.from.residents[i as usize].clone());
                Def::Resident((self.to.residents.len() - 1) as u32)
            }
            def => def,
        };
        let new = self.define(old, def);
        self.map.insert(old, new);
        new
    }

    fn define(&mut self, old: Value, def: Def) -> Value {
        self.to.values.push(ValueInfo {
            ty: self.from.ty(old).clone(),
            def,
        });
        Value((self.to.values.len() - 1) as u32)
    }

    /// Emits a copy of an old node over already mapped inputs, with fresh outputs, unmapped.
    pub(in crate::program) fn emit_copy(&mut self, node: &Node, inputs: Vec<Value>) -> Vec<Value> {
        let index = self.to.nodes.len() as u32;
        let outputs: Vec<Value> = node
            .outputs
            .iter()
            .enumerate()
            .map(|(i, &old)| {
                self.define(
                    old,
                    Def::Node {
                        node: index,
                        output: i as u32,
                    },
                )
            })
            .collect();
        let label = self
            .from
            .labels
            .get(node.label as usize)
            .cloned()
            .unwrap_or_default();
        let label = match self.to.labels.iter().rposition(|l| *l == label) {
            Some(i) => i as u32,
            None => {
                self.to.labels.push(label);
                (self.to.labels.len() - 1) as u32
            }
        };
        self.to.nodes.push(Node {
            inputs,
            outputs: outputs.clone(),
            label,
            ..node.clone()
        });
        outputs
    }

    /// Emits an old node.
    pub(in crate::program) fn emit(&mut self, node: &Node) {
        let inputs = node.inputs.iter().map(|&v| self.value(v)).collect();
        let outputs = self.emit_copy(node, inputs);
        for (&old, new) in node.outputs.iter().zip(outputs) {
            self.map.insert(old, new);
        }
    }

    /// Says that an old value is now an input of the step.
    pub(in crate::program) fn feed_instead(&mut self, old: Value, feed: Feed) {
        let new = self.define(old, Def::Feed(feed));
        self.map.insert(old, new);
    }

    /// Says that an old value is now another new one.
    pub(in crate::program) fn replace(&mut self, old: Value, new: Value) {
        self.map.insert(old, new);
    }

    /// The new program.
    pub(in crate::program) fn finish(mut self) -> Program {
        for (name, value) in &self.from.outputs {
            let value = self.value(*value);
            self.to.outputs.push((name.clone(), value));
        }
        for (resident, gradient) in &self.from.gradients {
            // A gradient that a pass removed is one that nobody reads.
            if let Some(&gradient) = self.map.get(gradient) {
                let resident = self.value(*resident);
                self.to.gradients.push((resident, gradient));
            }
        }
        self.to
    }
}

/// The pass list, in order; verified after each pass. [`hasten`] and [`early`] are not in it: the one is for programs that
/// accumulate in one go, the other for those that update.
///
/// # Errors
/// What the verifier found broken, with the pass that broke it.
pub fn pipeline(program: Program) -> Result<super::Verified, String> {
    let passes: [(&str, fn(&Program) -> Program); 5] = [
        ("absorb", absorb),
        ("onto", onto),
        ("dead code", remove_dead),
        ("common subexpressions", merge_common),
        ("recast", recast),
    ];
    let mut verified = super::verify(program).map_err(|why| format!("as built: {why}"))?;
    for (name, pass) in passes {
        verified = super::verify(pass(verified.program()))
            .map_err(|why| format!("after {name}: {why}"))?;
    }
    Ok(verified)
}
