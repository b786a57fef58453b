//! Cutting the parameters of side blocks out of the backbone's, as `library/prune.rs` says.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::exec::interpreter::Meter;
use crate::files::RunError;
use crate::library::derive::BaseParam;
use crate::library::derive::places::{self, Chosen, Measure, Part, Score, Summed};
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
    /// The last choice of places.
    places: Option<(Arc<places::Choice>, Chosen)>,
}

impl Pruning {
    /// Before the first choice; what was measured is counted from here on.
    pub(in crate::exec) fn new(guide: Guide, meter: &mut Meter) -> Self {
        let pruning = Self {
            guide,
            made: BTreeMap::new(),
            places: None,
        };
        meter.alloc(pruning.reserved());
        pruning
    }

    /// After the last choice.
    pub(in crate::exec) fn done(self, meter: &mut Meter) {
        meter.free(self.reserved());
    }

    /// Bytes of what was measured.
    fn reserved(&self) -> u64 {
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

    /// What a parameter holds of a choice of places. What is in memory meanwhile is metered; the result is not.
    pub(in crate::exec) fn chosen(
        &mut self,
        (by, part): (&Arc<places::Choice>, Part),
        param: &Param,
        (read, moved): (Read<'_>, Read<'_>),
        meter: &mut Meter,
    ) -> Result<Tensor, RunError> {
        let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
        if matches!(self.guide, Guide::Later) {
            let reserved = match part {
                Part::Moved => DType::F32,
                Part::Places | Part::Bounds | Part::Bits(_) => DType::U32,
            };
            return Ok(Tensor::zeros(reserved, &dims));
        }
        if self.places.as_ref().is_none_or(|(of, _)| of != by) {
            meter.scratch(by.scratch_bytes());
            self.places = Some((by.clone(), self.choose_places(by, (read, moved))?));
        }
        let Some((_, made)) = &self.places else {
            return Err(RunError::bug("places were not chosen"));
        };
        let list = match part {
            Part::Moved => {
                let numbers = moved_at(by, made, (read, moved))?;
                return Ok(Tensor::new(numbers, &dims));
            }
            Part::Places => made.places.clone(),
            Part::Bounds => made.bounds.clone(),
            Part::Bits(matrix) => {
                let size = by.of.get(matrix).map_or(0, |m| by.places_of(m));
                made.bits(matrix, size)
            }
        };
        if list.len() != dims.iter().product::<usize>() {
            let what = format!(
                "`{}` has {} places, {dims:?} are wanted",
                param.name,
                list.len()
            );
            return Err(RunError::bug(what));
        }
        Ok(Tensor::new(list, &dims))
    }

    /// What a parameter begins with of what the backbone was measured to have.
    pub(in crate::exec) fn begun(&self, param: &Param) -> Result<Tensor, RunError> {
        let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
        match &self.guide {
            Guide::Later => Ok(Tensor::zeros(DType::F32, &dims)),
            Guide::Importances(measured) => measured
                .get(&param.name)
                .cloned()
                .ok_or_else(|| RunError::bug(format!("`{}` was never measured", param.name))),
        }
    }

    fn choose_places(
        &self,
        by: &places::Choice,
        (read, moved): (Read<'_>, Read<'_>),
    ) -> Result<Chosen, RunError> {
        let scores = |source: &BaseParam| -> Result<Vec<f32>, RunError> {
            let weight = || -> Result<Vec<f32>, RunError> {
                let own = read(source)?.into_vec::<f32>();
                own.ok_or_else(|| RunError::bug("a weight to rank is not in f32"))
            };
            let data = match by.score {
                Score::Random { .. } => Vec::new(),
                Score::Magnitude | Score::Smallest => weight()?,
                Score::Moved => {
                    let (mut weight, to) = (weight()?, moved(source)?);
                    weight
                        .iter_mut()
                        .zip(floats(&to)?)
                        .for_each(|(w, to)| *w = to - *w);
                    weight
                }
                Score::Gradient(Measure {
                    of: Summed::Weighted,
                    ..
                }) => {
                    let mut weight = weight()?;
                    let sums = self.measured(source)?;
                    weight.iter_mut().zip(sums).for_each(|(w, g)| *w *= g);
                    weight
                }
                Score::Gradient(Measure {
                    of: Summed::Moving, ..
                }) => {
                    let mut weight = weight()?;
                    let sums = self.measured(source)?;
                    weight.iter_mut().zip(sums).for_each(|(w, g)| *w *= -g);
                    weight
                }
                Score::Gradient(_) => self.measured(source)?.to_vec(),
            };
            Ok(by.scores(source, data))
        };
        if let Score::Random { seed } = by.score {
            return Ok(by.draw(seed));
        }
        // One matrix is read once, of several one at a time, and again.
        let only = match by.of.as_slice() {
            [only] => Some(scores(only)?),
            _ => None,
        };
        let chosen = by.choose::<RunError>(&mut |take: &mut dyn FnMut(usize, &[f32])| {
            if let Some(only) = &only {
                take(0, only);
                return Ok(());
            }
            for (index, source) in by.of.iter().enumerate() {
                take(index, &scores(source)?);
            }
            Ok(())
        })?;
        let name = by.of.first().map(|s| s.name.as_str()).unwrap_or_default();
        chosen.ok_or_else(|| RunError::NotFinite {
            what: format!(
                "a number that the places of `{name}` and others are ranked by is not finite"
            ),
        })
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
        let reserved: u64 = matrices.iter().map(Tensor::bytes).sum();
        meter.scratch(reserved + 8 * scores.len() as u64);
        self.made.insert(
            choice.name().to_owned(),
            best(&scores, choice.keep as usize),
        );
        Ok(())
    }
}

/// How far the weights at chosen places moved.
fn moved_at(
    by: &places::Choice,
    made: &Chosen,
    (read, moved): (Read<'_>, Read<'_>),
) -> Result<Vec<f32>, RunError> {
    let mut numbers = Vec::with_capacity(made.places.len());
    let ranges = made.bounds.iter().zip(made.bounds.iter().skip(1));
    for (source, (&from, &to)) in by.of.iter().zip(ranges) {
        let (before, after) = (read(source)?, moved(source)?);
        let (before, after) = (floats(&before)?, floats(&after)?);
        let own = made.places.get(from as usize..to as usize);
        for &place in own.unwrap_or_default() {
            let both = (before.get(place as usize), after.get(place as usize));
            let (Some(before), Some(after)) = both else {
                return Err(RunError::bug("a chosen place is outside of its matrix"));
            };
            numbers.push(after - before);
        }
    }
    Ok(numbers)
}

fn floats(tensor: &Tensor) -> Result<&[f32], RunError> {
    tensor
        .slice::<f32>()
        .ok_or_else(|| RunError::bug("a weight to prune is not f32"))
}
