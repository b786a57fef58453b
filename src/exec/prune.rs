//! Cutting the parameters of side blocks out of the backbone's, as `library/prune.rs` says.

use std::collections::BTreeMap;

use super::machine::Meter;
use crate::files::RunError;
use crate::library::prune::{Choice, Cut, Source, best, column_scores, cut, row_scores};
use crate::program::op::Tensor;

/// Reads a parameter of the backbone in f32.
type Read<'a> = &'a dyn Fn(&Source) -> Result<Tensor, RunError>;

/// The choices made so far.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    made: BTreeMap<String, Vec<u32>>,
}

impl Pruning {
    /// A parameter's value. What is held meanwhile is metered; the result is not.
    pub(super) fn cut(
        &mut self,
        from: &Cut,
        read: Read<'_>,
        meter: &mut Meter,
    ) -> Result<Tensor, RunError> {
        self.choose(&from.rows, read, meter)?;
        if let Some(columns) = &from.columns {
            self.choose(columns, read, meter)?;
        }
        let made = |choice: &Choice| self.made.get(choice.name()).map(Vec::as_slice);
        let rows = made(&from.rows).unwrap_or_default();
        let columns = from.columns.as_deref().and_then(made);
        let whole = read(&from.of)?;
        let width = whole.dims.get(1).copied().unwrap_or(1);
        let data = cut(floats(&whole)?, width, rows, columns);
        let dims: Vec<usize> = std::iter::once(rows.len())
            .chain(columns.map(<[u32]>::len))
            .collect();
        let tensor = Tensor::new(data, &dims);
        meter.scratch(whole.bytes() + tensor.bytes());
        Ok(tensor)
    }

    /// Makes a choice, and first the one it leans on.
    fn choose(
        &mut self,
        choice: &Choice,
        read: Read<'_>,
        meter: &mut Meter,
    ) -> Result<(), RunError> {
        if self.made.contains_key(choice.name()) {
            return Ok(());
        }
        if let Some(within) = &choice.within {
            self.choose(within, read, meter)?;
        }
        let matrices: Vec<Tensor> = choice.of.iter().map(read).collect::<Result<_, _>>()?;
        let slices: Vec<&[f32]> = matrices.iter().map(floats).collect::<Result<_, _>>()?;
        let width = matrices
            .first()
            .and_then(|m| m.dims.get(1))
            .copied()
            .unwrap_or(1);
        let scores = match &choice.within {
            Some(within) => {
                let columns = self.made.get(within.name()).map(Vec::as_slice);
                row_scores(&slices, width, columns.unwrap_or_default())
            }
            None => column_scores(slices.first().copied().unwrap_or_default(), width),
        };
        let held: u64 = matrices.iter().map(Tensor::bytes).sum();
        meter.scratch(held + 8 * scores.len() as u64);
        self.made.insert(
            choice.name().to_owned(),
            best(&scores, choice.keep as usize),
        );
        Ok(())
    }
}

fn floats(tensor: &Tensor) -> Result<&[f32], RunError> {
    tensor
        .slice::<f32>()
        .ok_or_else(|| RunError::bug("a weight to prune is not f32"))
}
