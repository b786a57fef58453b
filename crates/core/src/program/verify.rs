//! Checks what the executor relies on:
//!
//! 1. every value is defined before it is read, and once;
//! 2. every output's type is what the op infers from its inputs;
//! 3. only residents are updated in place, and only trainable tensors, gradients, optimizer state and caches;
//! 4. resident names are unique;
//! 5. forward nodes come before backward nodes before updates;
//! 6. only frozen matrices are stored in blocks, and their rows are whole ones.

use std::collections::BTreeSet;

use super::graph::{Class, Def, Program, Resident, Value};
use super::schedule::Schedule;
use super::types::{DType, TensorType};

/// A program that was checked, with its schedule: the only thing the executor accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    program: Program,
    schedule: Schedule,
}

impl Verified {
    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// Its schedule.
    #[must_use]
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

/// Checks a program.
///
/// # Errors
/// The first broken rule, with the node: a bug of the pass that ran last.
pub fn verify(program: Program) -> Result<Verified, String> {
    let mut defined = vec![false; program.values.len()];
    for (i, value) in program.values.iter().enumerate() {
        if !matches!(value.def, Def::Node { .. }) {
            defined[i] = true;
        }
    }
    let names: BTreeSet<&str> = program.residents.iter().map(|r| r.name.as_str()).collect();
    if names.len() != program.residents.len() {
        return Err(format!("{}: two residents have one name", program.name));
    }
    let in_blocks = |r: &&Resident| r.ty.stored.blocks().is_some();
    for resident in program.residents.iter().filter(in_blocks) {
        if resident.class != Class::Frozen || !resident.ty.stored.holds(&resident.ty.shape) {
            let (name, stored) = (&resident.name, resident.ty.stored);
            return Err(format!(
                "{}: `{name}` cannot be stored as {stored}",
                program.name
            ));
        }
    }
    let mut phase = None;
    for (index, node) in program.nodes.iter().enumerate() {
        let fail = |why: &str| {
            Err(format!(
                "{}: node {index} ({}): {why}",
                program.name,
                node.op.name()
            ))
        };
        if node
            .inputs
            .iter()
            .any(|v| !defined.get(v.index()).copied().unwrap_or(false))
        {
            return fail("reads a value before it is defined");
        }
        let types = program.computed(&node.inputs);
        match node
            .op
            .rule()
            .infer(&types.iter().collect::<Vec<&TensorType>>())
        {
            Ok(outs) if outs == program.computed(&node.outputs) => {}
            Ok(_) => return fail("an output has another type than the op infers"),
            Err(why) => return fail(&why),
        }
        let held = |v: &Value| {
            let ty = program.ty(*v);
            !ty.is_narrow() || ty.dtype == DType::F32 && ty.stored.is_half()
        };
        if !node.outputs.iter().all(held) {
            return fail("an output is held in a type that cannot hold it");
        }
        for &i in node.op.rule().updates() {
            let class = node
                .inputs
                .get(i)
                .and_then(|&v| program.resident(v))
                .map(|r| r.class);
            if !matches!(
                class,
                Some(
                    Class::Trainable
                        | Class::Gradient
                        | Class::Optimizer
                        | Class::Cache
                        | Class::Chosen
                )
            ) {
                return fail("updates a resident that nothing may change");
            }
        }
        if phase > Some(node.phase) {
            return fail("is in an earlier phase than the node before it");
        }
        phase = Some(node.phase);
        for &Value(out) in &node.outputs {
            if std::mem::replace(&mut defined[out as usize], true) {
                return fail("defines a value twice");
            }
        }
    }
    if program
        .outputs
        .iter()
        .any(|(_, v)| !defined.get(v.index()).copied().unwrap_or(false))
    {
        return Err(format!("{}: an output is never defined", program.name));
    }
    let schedule = Schedule::of(&program);
    Ok(Verified { program, schedule })
}
