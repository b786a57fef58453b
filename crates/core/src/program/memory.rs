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
    /// What the blocks of all these take above their bytes: nothing on the processor.
    pub rounding: u64,
    /// Index of the node at which it is reached.
    pub node: usize,
    /// The largest values alive there, with their bytes.
    pub largest: Vec<(Value, u64)>,
}

impl Peak {
    /// The sum.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.gradients + self.activations + self.transient + self.workspace + self.rounding
    }
}

/// The operands of a node under concrete sizes.
#[must_use]
pub fn sized(program: &Program, node: &Node, sizes: &Bindings) -> SizedCx {
    let types =
        |values: &[Value]| -> Vec<&TensorType> { values.iter().map(|&v| program.ty(v)).collect() };
    SizedCx::new(&types(&node.inputs), &types(&node.outputs), sizes)
}

/// Scratch of a kernel, or of several: its bytes, and what its blocks take.
#[derive(Clone, Copy, Default)]
struct Scratch {
    bytes: u64,
    blocks: u64,
}

/// Goes through a schedule; at each node `at` gets its index, its workspace, all values alive beside
/// the residents, and the sum of the blocks that these and the workspace take.
fn walk(
    program: &Program,
    schedule: &Schedule,
    sizes: &Bindings,
    machine: &Machine,
    mut at: impl FnMut(usize, Scratch, &BTreeMap<Value, u64>, u64),
) {
    let mut live: BTreeMap<Value, u64> = program
        .feeds()
        .map(|(_, v)| (v, program.ty(v).bytes(sizes)))
        .collect();
    let block = |bytes: u64| machine.device.block(bytes);
    let mut total: u64 = live.values().map(|&b| block(b)).sum();
    let on_host = matches!(machine.device, Device::Cpu);
    let alone = (0..program.nodes.len()).map(|i| i..i + 1);
    let groups: Vec<Range<usize>> = match on_host {
        true => alone.collect(),
        // Their outputs and scratch are all there before anything is freed.
        false => schedule.groups.clone(),
    };
    for group in groups {
        let mut scratch = Scratch::default();
        for (index, (node, step)) in nodes_of(program, schedule, &group) {
            if let Some(taken) = step.takes.and_then(|i| node.inputs.get(i)) {
                total -= live.remove(taken).map_or(0, block);
            }
            for &out in &node.outputs {
                let bytes = program.ty(out).bytes(sizes);
                live.insert(out, bytes);
                total += block(bytes);
            }
            if on_host {
                let bytes = workspace(&node.op, &sized(program, node, sizes), step.takes, machine);
                scratch = Scratch {
                    bytes,
                    blocks: bytes,
                };
            } else if index == group.start {
                let all = launches(program, &schedule.steps, group.clone(), sizes);
                let all = all.map(|l| l.scratch).unwrap_or_default();
                scratch = Scratch {
                    bytes: all.iter().sum(),
                    blocks: all.iter().map(|&bytes| block(bytes)).sum(),
                };
            }
            at(index, scratch, &live, total + scratch.blocks);
        }
        for (_, (_, step)) in nodes_of(program, schedule, &group) {
            for value in &step.frees {
                total -= live.remove(value).map_or(0, block);
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
    walk(
        program,
        schedule,
        sizes,
        machine,
        |_, workspace, live, _| {
            totals.push(live.values().sum::<u64>() + workspace.bytes);
        },
    );
    totals
}

/// The peak of a program beside its residents.
#[must_use]
pub fn peak(program: &Program, schedule: &Schedule, sizes: &Bindings, machine: &Machine) -> Peak {
    let (mut best, mut best_total) = (None, 0);
    walk(
        program,
        schedule,
        sizes,
        machine,
        |index, workspace, live, total| {
            if total > best_total || best.is_none() {
                best_total = total;
                best = Some((index, workspace, live.clone()));
            }
        },
    );
    best.map_or_else(Peak::default, |(node, workspace, live)| {
        classify(program, (node, workspace), &live, machine.device)
    })
}

fn classify(
    program: &Program,
    (at, workspace): (usize, Scratch),
    live: &BTreeMap<Value, u64>,
    device: Device,
) -> Peak {
    let above = |bytes: u64| device.block(bytes) - bytes;
    let gradients: BTreeSet<Value> = program.gradients.iter().map(|(_, g)| *g).collect();
    let read_later: BTreeSet<Value> = program
        .nodes
        .iter()
        .filter(|n| n.phase != Phase::Forward)
        .flat_map(|n| n.inputs.iter().copied())
        .collect();
    let mut peak = Peak {
        workspace: workspace.bytes,
        rounding: workspace.blocks - workspace.bytes
            + live.values().map(|&b| above(b)).sum::<u64>(),
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
