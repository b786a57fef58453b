//! Makes again in the backward what a cheap op gave in the forward, where all that it reads is kept anyway
//! (selective recomputation, Korthikanti et al. 2022, arXiv 2205.05198).
//!
//! A linear map's gradient reads its input: the result of a normalisation or of an activation, whose own gradient
//! reads what stands before it. So both are kept, although the one is made from the other in a moment.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::{Def, Node, Phase, Program, Value};
use super::Rebuild;

/// Rewrites the backward so that the results of cheap ops are made again. No bit changes.
#[must_use]
pub fn rematerialize(program: &Program) -> Program {
    let uses = Uses::of(program);
    let mut again: BTreeMap<u32, &Node> = BTreeMap::new();
    for (index, node) in program.nodes.iter().enumerate() {
        if uses.pays(program, node, &again) {
            again.insert(index as u32, node);
        }
    }
    let mut rebuild = Rebuild::new(program);
    for node in &program.nodes {
        if node.phase == Phase::Backward {
            for &input in &node.inputs {
                emit_again(&mut rebuild, program, &mut again, input);
            }
        }
        rebuild.emit(node);
    }
    rebuild.finish()
}

/// Where the backward reads the values of the forward.
struct Uses {
    /// The first and the last node that reads a value.
    backward: BTreeMap<Value, (usize, usize)>,
    /// Whether a value is handed out or read by an update.
    elsewhere: BTreeSet<Value>,
}

impl Uses {
    fn of(program: &Program) -> Self {
        let mut backward: BTreeMap<Value, (usize, usize)> = BTreeMap::new();
        let mut elsewhere: BTreeSet<_> = program.outputs.iter().map(|(_, v)| *v).collect();
        for (index, node) in program.nodes.iter().enumerate() {
            for &input in &node.inputs {
                match node.phase {
                    Phase::Forward => {}
                    Phase::Backward => {
                        backward.entry(input).or_insert((index, index)).1 = index;
                    }
                    Phase::Update => {
                        elsewhere.insert(input);
                    }
                }
            }
        }
        Self {
            backward,
            elsewhere,
        }
    }

    /// Whether a node's results are kept for the backward alone, and what it reads lies there at that time
    /// and longer.
    fn pays(&self, program: &Program, node: &Node, again: &BTreeMap<u32, &Node>) -> bool {
        if node.phase != Phase::Forward || !node.op.rule().is_cheap() {
            return false;
        }
        let read = node.outputs.iter().filter_map(|v| self.backward.get(v));
        let Some(first) = read.map(|(first, _)| *first).min() else {
            return false;
        };
        let free = node.outputs.iter().all(|v| !self.elsewhere.contains(v));
        free && node.inputs.iter().all(|&input| match program.def(input) {
            Def::Resident(_) | Def::Feed(_) => true,
            Def::Node { node, .. } => {
                !again.contains_key(&node)
                    && self
                        .backward
                        .get(&input)
                        .is_some_and(|(_, last)| *last >= first)
            }
        })
    }
}

/// Emits the maker of a value once more, if it is one of those.
fn emit_again(
    rebuild: &mut Rebuild<'_>,
    program: &Program,
    again: &mut BTreeMap<u32, &Node>,
    value: Value,
) {
    let Def::Node { node, .. } = program.def(value) else {
        return;
    };
    let Some(maker) = again.remove(&node) else {
        return;
    };
    let copy = Node {
        phase: Phase::Backward,
        ..maker.clone()
    };
    let inputs = copy.inputs.iter().map(|&v| rebuild.value(v)).collect();
    let fresh = rebuild.emit_copy(&copy, inputs);
    for (&old, new) in maker.outputs.iter().zip(fresh) {
        rebuild.replace(old, new);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::autodiff::differentiate;
    use super::super::super::graph::{Axis, Feed};
    use super::super::super::op::{
        Activation, ActivationKind, Epilogue, Machine, MatMul, Over, Reduce, ReduceKind, RmsNorm,
    };
    use super::super::super::types::{DType, Real, TensorType};
    use super::super::super::{Bindings, Builder, Class, memory};
    use super::super::pipeline;
    use super::*;

    /// The mean of `f(norm(x W1ᵀ) W2ᵀ) W3ᵀ`, all matrices trained, with its gradients.
    fn program() -> Program {
        let mut b = Builder::new("loss");
        let rows = b.feed(Feed::Feature {
            index: 0,
            width: 8,
            of: Axis::Tokens,
            stored: DType::F32,
        });
        let matrix = |b: &mut Builder, name: &str| {
            let ty = TensorType::fixed(DType::F32, &[8, 8]);
            b.resident(name, ty, Class::Trainable)
        };
        let weights = ["a", "b", "c"].map(|name| matrix(&mut b, name));
        let scale = b.resident("n", TensorType::fixed(DType::F32, &[8]), Class::Frozen);
        let linear = MatMul::linear(Real::new(1.0), Epilogue::None);
        let x = b.push1(linear.clone(), &[rows, weights[0]]);
        let x = b.push1(
            RmsNorm {
                eps: Real::new(1e-6),
                plus_one: false,
            },
            &[x, scale],
        );
        let x = b.push1(linear.clone(), &[x, weights[1]]);
        let kind = ActivationKind::Silu;
        let x = b.push1(Activation { kind }, &[x]);
        let x = b.push1(linear, &[x, weights[2]]);
        let kind = ReduceKind::Mean;
        let loss = b.push1(
            Reduce {
                kind,
                over: Over::All,
            },
            &[x],
        );
        for (gradient, name) in differentiate(&mut b, loss, &weights)
            .iter()
            .zip(["a", "b", "c"])
        {
            b.output(name, gradient.unwrap());
        }
        b.finish()
    }

    #[test]
    fn results_of_cheap_ops_are_made_again_and_not_kept() {
        let before = program();
        let after = rematerialize(&before);
        let made = |p: &Program| {
            let cheap = p.nodes.iter().filter(|n| n.op.rule().is_cheap());
            cheap.map(|n| (n.op.name(), n.phase)).collect::<Vec<_>>()
        };
        let (forward, backward) = (Phase::Forward, Phase::Backward);
        assert_eq!(
            made(&before),
            [("rms_norm", forward), ("activation", forward)]
        );
        assert_eq!(
            made(&after),
            [
                ("rms_norm", forward),
                ("activation", forward),
                ("activation", backward),
                ("rms_norm", backward)
            ]
        );
        let kept = |p: Program| {
            let p = pipeline(p).unwrap();
            let sizes = Bindings::of_lengths([1000]);
            memory::peak(p.program(), p.schedule(), &sizes, &Machine::cpu(2)).bytes()
        };
        // Of the norm and the activation, input and output were kept; one of them is there at the peak, made again.
        assert_eq!(kept(before) - kept(after), 1000 * 8 * 4);
    }
}
