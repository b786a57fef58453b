//! The peak of programs over the sizes of their batches, and what it is made of.

use std::collections::BTreeMap;

use super::{Estimate, Residence};
use crate::program::memory::{self, Peak};
use crate::program::op::{FEW_ROWS, Machine};
use crate::program::{Bindings, Class, Def, Program, Sym, Value, Verified};

/// The largest peak of some programs, each over its own sizes, with the residents of all.
pub(super) fn over(runs: &[(&Verified, &[Bindings])], machine: &Machine) -> Estimate {
    let classes: BTreeMap<Class, u64> = memory::residents(runs.iter().map(|(v, _)| v.program()));
    let of_class = |class| classes.get(&class).copied().unwrap_or(0);
    let mut best: Option<(Peak, &Program)> = None;
    let mut blocks = 0;
    let mut max_tokens = 0;
    let mut flops = 0;
    for (verified, sizes) in runs {
        for front in Bindings::pareto(sizes.iter().copied(), FEW_ROWS) {
            let peak = memory::peak(verified.program(), verified.schedule(), &front, machine);
            max_tokens = max_tokens.max(front.get(Sym::Tokens));
            flops = flops.max(memory::cost(verified.program(), &front).flops);
            blocks = blocks.max(peak.blocks());
            if best.as_ref().is_none_or(|(b, _)| peak.bytes() > b.bytes()) {
                best = Some((peak, verified.program()));
            }
        }
    }
    let (peak, program) = match best {
        Some((peak, program)) => (peak, Some(program)),
        None => (Peak::default(), None),
    };
    Estimate {
        frozen_weights: of_class(Class::Frozen) + of_class(Class::Chosen),
        trainable_weights: of_class(Class::Trainable),
        gradients: of_class(Class::Gradient) + peak.gradients,
        optimizer: of_class(Class::Optimizer),
        cache: of_class(Class::Cache),
        activations: peak.activations,
        transient: peak.transient,
        workspace: peak.workspace,
        rounding: blocks.saturating_sub(peak.bytes())
            + memory::residents_rounding(runs.iter().map(|(v, _)| v.program()), machine.device),
        residence: Residence::Cpu,
        peak_op: program
            .map(|p| describe_node(p, peak.node))
            .unwrap_or_default(),
        largest: program
            .map(|p| {
                peak.largest
                    .iter()
                    .map(|&(v, b)| (describe_value(p, v), b))
                    .collect()
            })
            .unwrap_or_default(),
        host: 0,
        flops_per_step: flops,
        max_tokens,
    }
}

pub(in crate::plan) fn describe_node(program: &Program, index: usize) -> String {
    let Some(node) = program.nodes.get(index) else {
        return String::new();
    };
    let label = program
        .labels
        .get(node.label as usize)
        .map(String::as_str)
        .unwrap_or_default();
    format!("{} {} ({:?})", node.op.name(), label, node.phase).to_lowercase()
}

fn describe_value(program: &Program, value: Value) -> String {
    match program.def(value) {
        Def::Resident(_) => program
            .resident(value)
            .map(|r| r.name.clone())
            .unwrap_or_default(),
        Def::Feed(feed) => feed.name().to_owned(),
        Def::Node { node, .. } => format!(
            "{}: {}",
            describe_node(program, node as usize),
            program.ty(value)
        ),
    }
}

/// Bytes of the gradient accumulators.
pub(super) fn gradients(runs: &[(&Verified, &[Bindings])]) -> u64 {
    let classes = memory::residents(runs.iter().map(|(v, _)| v.program()));
    classes.get(&Class::Gradient).copied().unwrap_or(0)
}
