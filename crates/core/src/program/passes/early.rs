//! Moves updates of large tensors up into the backward, behind the node that makes their gradient, so that the gradient
//! dies there. A step then has few large gradients at a time instead of all (Lv et al. 2023, arXiv 2306.09782).

use std::collections::BTreeMap;

use super::super::graph::{Def, Node, Phase, Program};
use super::super::together::SMALL;
use super::super::types::{Bindings, TensorType};
use super::Rebuild;

/// Whether a gradient of this type is worth an update of its own. Small ones are applied together.
#[must_use]
pub fn is_large(ty: &TensorType) -> bool {
    ty.bytes(&Bindings::default()) / 4 > SMALL
}

/// Rewrites a step so that what reads a large gradient runs as soon as it can, if a large one is made later. What waits for a
/// number of all gradients stays, as updates do that a norm clips; so this is for steps without clipping. No bit changes.
#[must_use]
pub fn early(program: &Program) -> Program {
    let Some(moves) = Moves::of(program) else {
        return program.clone();
    };
    let mut rebuild = Rebuild::new(program);
    for (index, node) in program.nodes.iter().enumerate() {
        if !moves.moved.contains_key(&index) {
            rebuild.emit(node);
        }
        for &update in moves.behind.get(&index).into_iter().flatten() {
            rebuild.emit(&Node {
                phase: Phase::Backward,
                ..program.nodes[update].clone()
            });
        }
    }
    rebuild.finish()
}

/// Which updates move: the node that each goes behind, and the other way round, in order.
struct Moves {
    moved: BTreeMap<usize, usize>,
    behind: BTreeMap<usize, Vec<usize>>,
}

/// What the nodes so far did to a tensor of the store.
#[derive(Clone, Default)]
struct Touched {
    /// Those that read or write it.
    by: Vec<usize>,
    /// Those that write it.
    written: Vec<usize>,
}

impl Moves {
    fn of(program: &Program) -> Option<Self> {
        let nodes = &program.nodes;
        // The backward begins behind this node.
        let base = nodes.iter().position(|n| n.phase == Phase::Backward)?;
        let base = base.checked_sub(1)?;
        let first = nodes.iter().position(|n| n.phase == Phase::Update)?;
        let mut touched: BTreeMap<u32, Touched> = BTreeMap::new();
        let mut places: Vec<usize> = Vec::with_capacity(nodes.len());
        let mut waits: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let before = dependencies(program, node, &touched);
            let place = before.iter().map(|&i| places[i]).fold(base, usize::max);
            places.push(if index < first { index } else { place });
            waits.push(before);
            note(program, node, index, &mut touched);
        }
        let updates = nodes.get(first..).unwrap_or_default();
        let mut moved = BTreeMap::new();
        // Behind the last large gradient there is nothing to make room for.
        let large = updates.iter().flat_map(|n| large_made(program, n));
        let last = large.filter(|&made| made < first).max();
        for index in (first..nodes.len()).rev() {
            let reads_large = large_made(program, &nodes[index]).next().is_some();
            let early = reads_large && Some(places[index]) < last;
            if early || moved.contains_key(&index) {
                moved.insert(index, places[index]);
                let needed = waits[index].iter().filter(|&&i| i >= first);
                moved.extend(needed.map(|&i| (i, places[i])));
            }
        }
        if moved.is_empty() {
            return None;
        }
        let mut behind: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (&index, &place) in &moved {
            behind.entry(place).or_default().push(index);
        }
        Some(Self { moved, behind })
    }
}

/// The nodes that make what is large of a node's inputs.
fn large_made<'a>(program: &'a Program, node: &'a Node) -> impl Iterator<Item = usize> + 'a {
    node.inputs.iter().filter_map(|&v| match program.def(v) {
        Def::Node { node, .. } if is_large(program.ty(v)) => Some(node as usize),
        _ => None,
    })
}

/// The nodes that must have run before this one.
fn dependencies(program: &Program, node: &Node, touched: &BTreeMap<u32, Touched>) -> Vec<usize> {
    let updates = node.op.rule().updates();
    let mut before = Vec::new();
    for (i, &value) in node.inputs.iter().enumerate() {
        match program.def(value) {
            Def::Node { node, .. } => before.push(node as usize),
            Def::Feed(_) => {}
            Def::Resident(tensor) => {
                let Some(own) = touched.get(&tensor) else {
                    continue;
                };
                let those = if updates.contains(&i) {
                    &own.by
                } else {
                    &own.written
                };
                before.extend(those);
            }
        }
    }
    before
}

fn note(program: &Program, node: &Node, index: usize, touched: &mut BTreeMap<u32, Touched>) {
    let updates = node.op.rule().updates();
    for (i, &value) in node.inputs.iter().enumerate() {
        if let Def::Resident(tensor) = program.def(value) {
            let own = touched.entry(tensor).or_default();
            own.by.push(index);
            if updates.contains(&i) {
                own.written.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::autodiff::differentiate;
    use super::super::super::graph::{Axis, Class, Feed, Value};
    use super::super::super::op::{
        ClipFactor, Constant, Epilogue, GradNorm, Machine, MatMul, Over, Reduce, ReduceKind, Sgd,
    };
    use super::super::super::types::{DType, Real};
    use super::super::super::{Builder, memory};
    use super::super::pipeline;
    use super::*;

    const WIDTH: u64 = 600;

    /// A step of the mean of `x W1ᵀ W2ᵀ W3ᵀ`, clipped or not.
    fn step(clips: bool) -> Program {
        let mut b = Builder::new("step");
        let mut x = b.feed(Feed::Feature {
            index: 0,
            width: WIDTH as u32,
            of: Axis::Tokens,
            stored: DType::F32,
        });
        let ty = TensorType::fixed(DType::F32, &[WIDTH, WIDTH]);
        let weights = ["a", "b", "c"].map(|name| b.resident(name, ty.clone(), Class::Trainable));
        let linear = MatMul::linear(Real::new(1.0), Epilogue::None);
        for weight in weights {
            x = b.push1(linear.clone(), &[x, weight]);
        }
        let mean = Reduce {
            kind: ReduceKind::Mean,
            over: Over::All,
        };
        let loss = b.push1(mean, &[x]);
        b.output("loss", loss);
        let grads = differentiate(&mut b, loss, &weights);
        let grads: Vec<Value> = grads.into_iter().flatten().collect();
        b.phase(Phase::Update);
        let parts: Vec<Value> = match clips {
            true => grads.clone(),
            false => grads.iter().map(|&g| b.push1(GradNorm, &[g])).collect(),
        };
        let norm = b.push1(GradNorm, &parts);
        b.output("grad_norm", norm);
        let one = Real::new(1.0);
        let dtype = DType::F32;
        let factor = match clips {
            true => b.push1(ClipFactor { max: one }, &[norm]),
            false => b.push1(Constant { value: one, dtype }, &[]),
        };
        let lr = b.feed(Feed::LearningRate);
        for (weight, grad) in weights.into_iter().zip(grads) {
            let rule = Sgd {
                momentum: Real::new(0.0),
                weight_decay: Real::new(0.0),
                nesterov: false,
            };
            b.push(rule, &[weight, grad, lr, factor]);
        }
        pipeline(b.finish()).unwrap().program().clone()
    }

    fn peak(program: &Program) -> u64 {
        let program = pipeline(program.clone()).unwrap();
        let sizes = Bindings::of_lengths([4]);
        memory::peak(
            program.program(),
            program.schedule(),
            &sizes,
            &Machine::cpu(2),
        )
        .bytes()
    }

    #[test]
    fn one_large_gradient_at_a_time_is_kept_where_nothing_clips() {
        let before = step(false);
        let after = early(&before);
        let one = WIDTH * WIDTH * 4;
        assert!(peak(&before) >= 3 * one);
        assert!(peak(&after) < 2 * one, "{} bytes", peak(&after));
    }

    #[test]
    fn a_weight_is_updated_behind_all_that_reads_it() {
        let after = early(&step(false));
        let updates = after.nodes.iter().enumerate();
        let updates = updates.filter(|(_, n)| matches!(n.op, crate::program::op::Op::Sgd(_)));
        let mut phases = Vec::new();
        for (index, update) in updates {
            phases.push(update.phase);
            let weight = update.inputs.first().unwrap();
            let later = after.nodes.get(index + 1..).unwrap();
            assert!(later.iter().all(|n| !n.inputs.contains(weight)));
        }
        // The first map's gradient is the last of the backward, so its update stands where it stood.
        assert_eq!(phases, [Phase::Backward, Phase::Backward, Phase::Update]);
    }

    #[test]
    fn a_step_that_clips_stays_as_it_is() {
        let before = step(true);
        assert_eq!(early(&before), before);
    }
}
