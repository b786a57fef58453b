//! Cutting the parameters of side blocks out of the backbone's, as `library/prune.rs` says.

use std::collections::BTreeMap;

use crate::exec::interpreter::Meter;
use crate::files::RunError;
use crate::library::derive::BaseParam;
use crate::library::derive::prune::{
    Choice, Cut, Importance, best, column_scores, cut, row_scores,
};
use crate::library::net::Param;
use crate::program::DType;
use crate::program::op::Tensor;

/// Reads a parameter of the backbone in f32.
type Read<'a> = &'a dyn Fn(&BaseParam) -> Result<Tensor, RunError>;

/// Importances that were measured, by parameter.
pub(in crate::exec) type Importances = BTreeMap<String, Tensor>;

/// What pruning goes by.
#[derive(Debug)]
pub(in crate::exec) enum Guide {
    /// The weights, or what was measured of them.
    Importances(Importances),
    /// Nothing: a checkpoint will overwrite the values.
    Later,
}

impl Guide {
    /// For tensors that are pruned by the weights alone, or not at all.
    pub(in crate::exec) const fn nothing() -> Self {
        Self::Importances(Importances::new())
    }
}

/// The choices made so far.
#[derive(Debug)]
pub(in crate::exec) struct Pruning {
    guide: Guide,
    made: BTreeMap<String, Vec<u32>>,
}

impl Pruning {
    /// Before the first choice; what was measured is counted from here on.
    pub(in crate::exec) fn new(guide: Guide, meter: &mut Meter) -> Self {
        let pruning = Self {
            guide,
            made: BTreeMap::new(),
        };
        meter.alloc(pruning.held());
        pruning
    }

    /// After the last choice.
    pub(in crate::exec) fn done(self, meter: &mut Meter) {
        meter.free(self.held());
    }

    /// Bytes of what was measured.
    fn held(&self) -> u64 {
        match &self.guide {
            Guide::Importances(measured) => measured.values().map(Tensor::bytes).sum(),
            Guide::Later => 0,
        }
    }

    /// A parameter's value. What is held meanwhile is metered; the result is not.
    pub(in crate::exec) fn cut(
        &mut self,
        from: &Cut,
        param: &Param,
        read: Read<'_>,
        meter: &mut Meter,
    ) -> Result<Tensor, RunError> {
        if matches!(self.guide, Guide::Later) {
            let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
            return Ok(Tensor::zeros(DType::F32, &dims));
        }
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

    fn measured(&self, source: &BaseParam) -> Result<&[f32], RunError> {
        let found = match &self.guide {
            Guide::Importances(measured) => measured.get(&source.name),
            Guide::Later => None,
        };
        let missing = || RunError::bug(format!("`{}` was never measured", source.name));
        floats(found.ok_or_else(missing)?)
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
        let matrices: Vec<Tensor> = match choice.importance {
            Importance::Magnitude => choice.of.iter().map(read).collect::<Result<_, _>>()?,
            Importance::Fisher { .. } => Vec::new(),
        };
        let slices: Vec<&[f32]> = match choice.importance {
            Importance::Magnitude => matrices.iter().map(floats).collect::<Result<_, _>>()?,
            Importance::Fisher { .. } => choice
                .of
                .iter()
                .map(|source| self.measured(source))
                .collect::<Result<_, _>>()?,
        };
        let width = choice.of.first().and_then(|s| s.shape.get(1)).copied();
        let width = width.unwrap_or(1) as usize;
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
