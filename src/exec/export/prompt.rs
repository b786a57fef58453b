//! Prompts and prefixes in peft's format: one matrix, whatever made it in the training.

use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::library::method::{Method, Tuning};
use crate::library::net::Site;
use crate::library::schema::Values;
use crate::library::stage::network;
use crate::program::op::{Machine, Tensor};
use crate::program::{Bindings, Class};

/// Types of adapters whose file is such a matrix.
pub(super) const KINDS: &[&str] = &["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"];

/// Its rows and columns, and its elements.
pub(super) type Matrix = (Vec<usize>, Vec<f32>);

/// The matrix of a method at its sites, made of tensors in memory; `None` where peft has no equal of it.
///
/// # Errors
/// What a kernel refuses.
pub(super) fn matrix(
    (method, values): (&dyn Method, &Values),
    sites: &[&Site],
    tuning: &Tuning,
    runner: &Runner,
) -> Result<Option<Matrix>, RunError> {
    let Some(program) = network::prompt((method, values), sites, tuning) else {
        return Ok(None);
    };
    let mut own = Runner::new(Machine::cpu(1));
    for resident in &program.program().residents {
        let tensor = runner.residents.get(&resident.name).cloned();
        let tensor =
            tensor.ok_or_else(|| RunError::bug(format!("`{}` is not in memory", resident.name)))?;
        let residents = &mut own.residents;
        residents.insert(&resident.name, Class::Frozen, tensor, &mut own.meter);
    }
    let mut outputs = own.run(&program, Vec::new(), &Bindings::default())?;
    let names = program.program().outputs.iter();
    let parts: Vec<Tensor> = names.filter_map(|(name, _)| outputs.take(name)).collect();
    Ok(beside(&parts))
}

/// Matrices with as many rows, one beside the other.
fn beside(parts: &[Tensor]) -> Option<Matrix> {
    let count = parts.first()?.dims.first().copied()?;
    let mut data = Vec::new();
    for row in 0..count {
        for part in parts {
            let width = part.dims.get(1).copied()?;
            let own = part.slice::<f32>()?;
            data.extend_from_slice(own.get(row * width..(row + 1) * width)?);
        }
    }
    let width = data.len() / count.max(1);
    Some((vec![count, width], data))
}
