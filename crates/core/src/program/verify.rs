//! Checks what the executor relies on:
//!
//! 1. every value is defined before it is read, and once;
//! 2. every output's type is what the op infers from its inputs;
//! 3. only residents are updated in place, and only trainable tensors, gradients, optimizer state and caches;
//! 4. resident names are unique;
//! 5. forward nodes come before backward nodes before updates;
//! 6. only frozen matrices are stored in blocks, and their rows are whole ones.

use std::collections::BTreeSet;

use super::graph::{Class, Def, Node, Phase, Program, Resident, Value};
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
    residents(&program).map_err(|why| format!("{}: {why}", program.name))?;
    let defined = program.values.iter();
    let mut defined: Vec<bool> = defined
        .map(|value| !matches!(value.def, Def::Node { .. }))
        .collect();
    let mut phase = None;
    for (index, node) in program.nodes.iter().enumerate() {
        check(&program, node, &mut defined, phase).map_err(|why| {
            let op = node.op.name();
            format!("{}: node {index} ({op}): {why}", program.name)
        })?;
        phase = Some(node.phase);
    }
    let is_defined = |v: &Value| defined.get(v.index()).copied().unwrap_or(false);
    if !program.outputs.iter().all(|(_, v)| is_defined(v)) {
        return Err(format!("{}: an output is never defined", program.name));
    }
    let schedule = Schedule::of(&program);
    Ok(Verified { program, schedule })
}

/// Names and formats of the residents.
fn residents(program: &Program) -> Result<(), String> {
    let names: BTreeSet<&str> = program.residents.iter().map(|r| r.name.as_str()).collect();
    if names.len() != program.residents.len() {
        return Err("two residents have one name".to_owned());
    }
    let in_blocks = |r: &&Resident| r.ty.stored.blocks().is_some();
    for resident in program.residents.iter().filter(in_blocks) {
        if resident.class != Class::Frozen || !resident.ty.stored.holds(&resident.ty.shape) {
            let (name, stored) = (&resident.name, resident.ty.stored);
            return Err(format!("`{name}` cannot be stored as {stored}"));
        }
    }
    Ok(())
}

/// A node, under the values that are defined before it and the phase of the one before it.
fn check(
    program: &Program,
    node: &Node,
    defined: &mut [bool],
    before: Option<Phase>,
) -> Result<(), String> {
    let is_defined = |v: &Value| defined.get(v.index()).copied().unwrap_or(false);
    if !node.inputs.iter().all(is_defined) {
        return Err("reads a value before it is defined".to_owned());
    }
    let types = program.computed(&node.inputs);
    let types: Vec<&TensorType> = types.iter().collect();
    if node.op.rule().infer(&types)? != program.computed(&node.outputs) {
        return Err("an output has another type than the op infers".to_owned());
    }
    let can_hold = |v: &Value| {
        let ty = program.ty(*v);
        !ty.is_narrow() || ty.dtype == DType::F32 && ty.stored.is_half()
    };
    if !node.outputs.iter().all(can_hold) {
        return Err("an output is held in a type that cannot hold it".to_owned());
    }
    for &i in node.op.rule().updates() {
        let updated = node.inputs.get(i).and_then(|&v| program.resident(v));
        if updated.is_none_or(|r| r.class == Class::Frozen) {
            return Err("updates a resident that nothing may change".to_owned());
        }
    }
    if before > Some(node.phase) {
        return Err("is in an earlier phase than the node before it".to_owned());
    }
    for &Value(out) in &node.outputs {
        if std::mem::replace(&mut defined[out as usize], true) {
            return Err("defines a value twice".to_owned());
        }
    }
    Ok(())
}
