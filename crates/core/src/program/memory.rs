//! Peak memory of a program: a walk over its schedule under given sizes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;

use super::device::Device;
use super::graph::{Class, Def, Node, Phase, Program, Value};
use super::op::{Cost, Machine, SizedCx};
use super::schedule::{Schedule, Step};
use super::stored::workspace;
use super::together::launches;
use super::types::{Bindings, TensorType};

/// Bytes by class at the moment of the peak, residents not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Gradients of trainable tensors.
    pub gradients: u64,
    /// Forward values kept for the backward.
    pub activations: u64,
    /// Everything else alive: inputs, outputs, intermediates.
    pub transient: u64,
    /// Scratch of the kernel running.
    pub workspace: u64,
    /// By how much all blocks at once exceed these bytes at most, which may be at another node: nothing on the processor.
    pub rounding: u64,
    /// Index of the node at which it is reached.
    pub node: usize,
    /// The largest values alive there, with their bytes.
    pub largest: Vec<(Value, u64)>,
}

impl Peak {
    /// The sum.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.gradients + self.activations + self.transient + self.workspace
    }

    /// The most that blocks take.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.bytes() + self.rounding
    }
}

/// The operands of a node under concrete sizes.
#[must_use]
pub fn sized(program: &Program, node: &Node, sizes: &Bindings) -> SizedCx {
    let types =
        |values: &[Value]| -> Vec<&TensorType> { values.iter().map(|&v| program.ty(v)).collect() };
    SizedCx::new(&types(&node.inputs), &types(&node.outputs), sizes)
}

/// Memory of several tensors, or of a kernel's scratch: bytes, and what their blocks take.
#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    blocks: u64,
}

impl Sum {
    fn of(bytes: u64, device: Device) -> Self {
        let blocks = device.block(bytes);
        Self { bytes, blocks }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            blocks: self.blocks + other.blocks,
        }
    }

    const fn less(self, other: Self) -> Self {
        Self {
            bytes: self.bytes - other.bytes,
            blocks: self.blocks - other.blocks,
        }
    }
}

/// Goes through a schedule; at each node `at` gets its index, its workspace, all values alive beside
/// the residents, and the bytes of these and the workspace with what their blocks take.
fn walk(
    program: &Program,
    schedule: &Schedule,
    sizes: &Bindings,
    machine: &Machine,
    mut at: impl FnMut(usize, Sum, &BTreeMap<Value, u64>, Sum),
) {
    let mut live: BTreeMap<Value, u64> = program
        .feeds()
        .map(|(_, v)| (v, program.ty(v).bytes(sizes)))
        .collect();
    let one = |bytes: u64| Sum::of(bytes, machine.device);
    let mut total = live
        .values()
        .fold(Sum::default(), |sum, &b| sum.plus(one(b)));
    let on_host = matches!(machine.device, Device::Cpu);
    let alone = (0..program.nodes.len()).map(|i| i..i + 1);
    let groups: Vec<Range<usize>> = match on_host {
        true => alone.collect(),
        // Their outputs and scratch are all there before anything is freed.
        false => schedule.groups.clone(),
    };
    for group in groups {
        let mut scratch = Sum::default();
        for (index, (node, step)) in nodes_of(program, schedule, &group) {
            if let Some(taken) = step.takes.and_then(|i| node.inputs.get(i)) {
                total = total.less(live.remove(taken).map_or(Sum::default(), one));
            }
            for &out in &node.outputs {
                let bytes = program.ty(out).bytes(sizes);
                live.insert(out, bytes);
                total = total.plus(one(bytes));
            }
            if on_host {
                let bytes = workspace(&node.op, &sized(program, node, sizes), step.takes, machine);
                scratch = one(bytes);
            } else if index == group.start {
                let all = launches(program, &schedule.steps, group.clone(), sizes);
                let all = all.map(|l| l.scratch).unwrap_or_default();
                let all = all.into_iter().map(one);
                scratch = all.fold(Sum::default(), Sum::plus);
            }
            at(index, scratch, &live, total.plus(scratch));
        }
        for (_, (_, step)) in nodes_of(program, schedule, &group) {
            for value in &step.frees {
                total = total.less(live.remove(value).map_or(Sum::default(), one));
            }
        }
    }
}

/// The nodes of a group with their numbers and what happens around them.
fn nodes_of<'a>(
    program: &'a Program,
    schedule: &'a Schedule,
    group: &Range<usize>,
) -> impl Iterator<Item = (usize, (&'a Node, &'a Step))> {
    let nodes = program.nodes.get(group.clone()).unwrap_or_default();
    let steps = schedule.steps.get(group.clone()).unwrap_or_default();
    group.clone().zip(nodes.iter().zip(steps))
}

/// Bytes alive at each node of a program, workspace included, residents not.
#[must_use]
pub fn profile(
    program: &Program,
    schedule: &Schedule,
    sizes: &Bindings,
    machine: &Machine,
) -> Vec<u64> {
    let mut totals = Vec::with_capacity(program.nodes.len());
    walk(program, schedule, sizes, machine, |_, _, _, total| {
        totals.push(total.bytes)
    });
    totals
}

/// The peak of a program beside its residents.
#[must_use]
pub fn peak(program: &Program, schedule: &Schedule, sizes: &Bindings, machine: &Machine) -> Peak {
    let (mut best, mut most) = (None, Sum::default());
    walk(
        program,
        schedule,
        sizes,
        machine,
        |index, workspace, live, total| {
            most.blocks = most.blocks.max(total.blocks);
            if total.bytes > most.bytes || best.is_none() {
                most.bytes = total.bytes;
                best = Some((index, workspace, live.clone()));
            }
        },
    );
    best.map_or_else(Peak::default, |(node, workspace, live)| {
        classify(program, (node, workspace), &live, most)
    })
}

fn classify(
    program: &Program,
    (at, workspace): (usize, Sum),
    live: &BTreeMap<Value, u64>,
    most: Sum,
) -> Peak {
    let gradients: BTreeSet<Value> = program.gradients.iter().map(|(_, g)| *g).collect();
    let read_later: BTreeSet<Value> = program
        .nodes
        .iter()
        .filter(|n| n.phase != Phase::Forward)
        .flat_map(|n| n.inputs.iter().copied())
        .collect();
    let mut peak = Peak {
        workspace: workspace.bytes,
        rounding: most.blocks - most.bytes,
        node: at,
        ..Peak::default()
    };
    for (&value, &bytes) in live {
        let forward = matches!(program.def(value), Def::Node { node, .. }
            if program.nodes.get(node as usize).is_some_and(|n| n.phase == Phase::Forward));
        if gradients.contains(&value) {
            peak.gradients += bytes;
        } else if forward && read_later.contains(&value) {
            peak.activations += bytes;
        } else {
            peak.transient += bytes;
        }
    }
    let mut largest: Vec<(Value, u64)> = live.iter().map(|(&v, &b)| (v, b)).collect();
    largest.sort_by_key(|&(v, b)| (std::cmp::Reverse(b), v));
    largest.truncate(5);
    peak.largest = largest;
    peak
}

/// Bytes of the residents of some programs of one stage, each name once, by class.
#[must_use]
pub fn residents<'a>(programs: impl IntoIterator<Item = &'a Program>) -> BTreeMap<Class, u64> {
    let mut seen = BTreeSet::new();
    let mut classes = BTreeMap::new();
    for resident in programs.into_iter().flat_map(|p| &p.residents) {
        if seen.insert(resident.name.as_str()) {
            *classes.entry(resident.class).or_insert(0) += resident.ty.bytes(&Bindings::default());
        }
    }
    classes
}

/// What the blocks of the residents of some programs take above their bytes, each name once.
#[must_use]
pub fn residents_rounding<'a>(
    programs: impl IntoIterator<Item = &'a Program>,
    device: Device,
) -> u64 {
    let mut seen = BTreeSet::new();
    let residents = programs.into_iter().flat_map(|p| &p.residents);
    residents
        .filter(|r| seen.insert(r.name.as_str()))
        .map(|r| r.ty.bytes(&Bindings::default()))
        .map(|bytes| device.block(bytes) - bytes)
        .sum()
}

/// Arithmetic and traffic of one run.
#[must_use]
pub fn cost(program: &Program, sizes: &Bindings) -> Cost {
    program.nodes.iter().fold(Cost::default(), |sum, node| {
        let cost = node.op.rule().cost(&sized(program, node, sizes));
        Cost {
            flops: sum.flops + cost.flops,
            bytes: sum.bytes + cost.bytes,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::graph::{Axis, Feed};
    use super::super::op::{Add, Epilogue, MatMul};
    use super::super::passes::pipeline;
    use super::super::types::{DType, Real};
    use super::super::{Builder, TensorType};
    use super::*;

    /// A wide result, then many narrow ones at once, whose blocks are larger than they are.
    fn program() -> Program {
        let mut b = Builder::new("evaluate");
        let feed = Feed::Feature {
            index: 0,
            width: 130,
            of: Axis::Tokens,
            stored: DType::F32,
        };
        let x = b.feed(feed);
        let map = |b: &mut Builder, name: &str, columns: u64| {
            let ty = TensorType::fixed(DType::F32, &[columns, 130]);
            let weight = b.resident(name, ty, Class::Frozen);
            b.push1(MatMul::linear(Real::new(1.0), Epilogue::None), &[x, weight])
        };
        let wide = map(&mut b, "wide", 4);
        b.output("wide", wide);
        let narrow: Vec<Value> = (0..4).map(|i| map(&mut b, &format!("n{i}"), 1)).collect();
        let sum = narrow
            .into_iter()
            .reduce(|sum, one| b.push1(Add, &[sum, one]));
        b.output("narrow", sum.expect("some"));
        b.finish()
    }

    #[test]
    fn bytes_and_blocks_each_have_their_own_largest_node() {
        let program = pipeline(program()).unwrap();
        let machine = Machine {
            device: Device::Cuda(None),
            ..Machine::cpu(2)
        };
        for tokens in 1..40 {
            let sizes = Bindings::of_lengths([tokens]);
            let (walked, schedule) = (program.program(), program.schedule());
            let each = profile(walked, schedule, &sizes, &machine);
            let own = peak(walked, schedule, &sizes, &machine);
            assert_eq!(Some(own.bytes()), each.into_iter().max(), "{tokens} tokens");
            assert!(own.blocks() >= own.bytes());
        }
    }
}
