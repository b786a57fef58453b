//! Values that are derived from weights: made with the parts of their derivation, or taken from an adapter.

use super::{Loader, Made, missing};
use crate::exec::backend::alloc;
use crate::files::RunError;
use crate::library::derive::{BaseParam, Derivation, Derive};
use crate::library::net::Param;
use crate::program::op::Tensor;
use crate::program::{DType, Format};

impl<'a> Loader<'a> {
    /// A tensor that is computed from a weight: the adapter's, or one of those that are made together.
    pub(super) fn derived(
        &mut self,
        param: &'a Param,
        by: &'a Derivation,
        part: usize,
        stored: Format,
    ) -> Result<Tensor, RunError> {
        if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
            // An adapter of peft's holds no first values: they are made as peft made them.
            if param.keeps_start && self.keeps && self.sources.adapter.is_none() {
                let first = self.part_of(param, by, part)?;
                self.initial.insert(param.name.clone(), first);
            }
            return self.narrow(&param.name, tensor, stored);
        }
        if let (Some(file), false) = (&self.sources.adapter, param.is_remade()) {
            return Err(missing(file.path(), &param.name));
        }
        let tensor = self.part_of(param, by, part)?;
        if param.places {
            return Ok(tensor);
        }
        if param.keeps_start && self.keeps {
            self.initial.insert(param.name.clone(), tensor.clone());
        }
        if stored.blocks().is_some() {
            let unfit = |x| self.unfit(&param.name, x);
            return tensor.stored_as(stored).map_err(unfit);
        }
        self.narrow(&param.name, tensor, stored)
    }

    /// One of the tensors that a derivation makes.
    fn part_of(
        &mut self,
        param: &Param,
        by: &'a Derivation,
        part: usize,
    ) -> Result<Tensor, RunError> {
        if !self.made.iter().any(|made| made.by == by) {
            self.made.retain(|made| made.waits() > 0);
            let parts = self.make(by)?;
            // Aligned blocks of one derivation do not fit into the gaps that those of the last one left.
            alloc::release_freed_blocks();
            self.made.push(Made { by, parts });
        }
        let mut own = self.made.iter_mut().filter(|made| made.by == by);
        let part = own.next().and_then(|made| made.parts.get_mut(part));
        let Some(data) = part.and_then(Option::take) else {
            return Err(RunError::bug(format!("`{}` was not made", param.name)));
        };
        let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
        if param.places {
            let places: Vec<u32> = data.into_iter().map(f32::to_bits).collect();
            return Ok(Tensor::new(places, &dims));
        }
        Ok(Tensor::new(data, &dims))
    }

    /// All that is computed from a weight, or only what an earlier stage's adapter does not hold.
    fn make(&self, by: &Derivation) -> Result<Vec<Option<Vec<f32>>>, RunError> {
        let rule = by.rule();
        let source = rule.source();
        let weight = self.read_of(rule)?;
        let unfit = |why| {
            let what = format!("`{}` cannot be taken apart: {why}", source.name);
            match &self.sources.weights {
                Some(weights) => RunError::file(weights.path(), what),
                None => RunError::bug(what),
            }
        };
        let mut first = self.given_parts(by);
        if self.sources.adapter.is_none() && first.is_empty() {
            let parts = rule.make(weight).map_err(unfit)?;
            return Ok(parts.into_iter().map(Some).collect());
        }
        if first.is_empty() {
            for &wanted in rule.wanted_again() {
                first.push(self.started_with(by, wanted)?);
            }
        }
        let first: Vec<&[f32]> = first.iter().filter_map(Tensor::slice).collect();
        rule.again(weight, &first).map_err(unfit)
    }

    /// The parts of a derivation that others are made from, where an adapter of peft's holds all of them.
    fn given_parts(&self, by: &Derivation) -> Vec<Tensor> {
        let part = |part: &usize| {
            let own = |p: &&Param| p.derivation() == Some((by, *part));
            // What was trained since is no first value.
            let param = self.params.iter().find(own).filter(|p| !p.keeps_start)?;
            self.sources.given.get(&param.name).cloned()
        };
        let wanted = by.rule().wanted_again().iter();
        wanted.map(part).collect::<Option<_>>().unwrap_or_default()
    }

    /// What a derivation reads, in f32.
    fn read_of(&self, rule: &dyn Derive) -> Result<Vec<f32>, RunError> {
        let numbers = |of: &BaseParam| {
            let (name, param) = (&of.name, of.param());
            let tensor = match rule.exact() {
                true => self.in_file(name, &param, DType::F32.into())?,
                false => self.base(name, &param, DType::F32.into())?,
            };
            let wrong = || RunError::bug(format!("`{}` is not in f32", of.name));
            tensor.into_vec::<f32>().ok_or_else(wrong)
        };
        let others = rule.others();
        if others.is_empty() {
            return numbers(rule.source());
        }
        let all = std::iter::once(rule.source()).chain(others);
        let mut list = Vec::with_capacity(all.clone().map(|p| p.bytes() as usize / 4).sum());
        for of in all {
            list.extend_from_slice(&numbers(of)?);
        }
        Ok(list)
    }

    /// What a part of a derivation started with, by the adapter of an earlier stage.
    fn started_with(&self, by: &Derivation, part: usize) -> Result<Tensor, RunError> {
        let Some(file) = &self.sources.adapter else {
            return Err(RunError::bug("there is no adapter"));
        };
        let own = |p: &&Param| p.derivation() == Some((by, part));
        let Some(param) = self.params.iter().find(own) else {
            return Err(RunError::bug("a derivation lacks a parameter"));
        };
        let name = if param.keeps_start {
            format!("{}0", param.name)
        } else {
            param.name.clone()
        };
        if file.get(&name).is_none() {
            return Err(missing(file.path(), &name));
        }
        file.tensor(&name)
    }
}
