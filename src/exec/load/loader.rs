//! Where the first value of a parameter comes from: a checkpoint, an adapter, a derivation, its initialiser.

mod derived;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::init::{cast, initialise_as, out_of_range};
use super::prune::{Guide, Pruning};
use super::{Initial, Origins};
use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::files::weights::{Checkpoint, Kind};
use crate::library::derive::spread::{Dealt, Spread};
use crate::library::derive::{BaseParam, Derivation};
use crate::library::model::Model;
use crate::library::net::{Init, Owner, Param};
use crate::library::peft::Ready;
use crate::program::op::Tensor;
use crate::program::{DType, Dim, Format, Resident};

/// The error of an adapter without a tensor that its description promises.
fn missing(path: &Path, name: &str) -> RunError {
    RunError::file(
        path,
        format!("it holds no tensor `{name}`: it is damaged; run the stage that made it again"),
    )
}

/// Tensors that were made together, as far as nobody has taken them yet.
pub(super) struct Made<'a> {
    by: &'a Derivation,
    parts: Vec<Option<Vec<f32>>>,
}

impl Made<'_> {
    /// Bytes of what waits for sites that are still to be loaded.
    fn waits(&self) -> u64 {
        let waits = |_: &&Vec<f32>| self.by.rule().is_of_many();
        let parts = self.parts.iter().flatten().filter(waits);
        parts.map(|part| 4 * part.len() as u64).sum()
    }
}

/// Loads parameters, one at a time.
pub(super) struct Loader<'a> {
    /// Whether first values are wanted.
    pub(super) keeps: bool,
    pub(super) model: &'a dyn Model,
    pub(super) sources: &'a Origins,
    pub(super) params: &'a [Param],
    pub(super) made: Vec<Made<'a>>,
    /// The last list that was spread, which many parameters hold a part of.
    pub(super) dealt: Option<(Spread, Vec<u32>)>,
    pub(super) initial: Initial,
}

impl<'a> Loader<'a> {
    /// Loads what is measured of all of the backbone: matrices cut by importance, then places that are chosen. It comes
    /// first, while there is little else in memory.
    pub(super) fn measured(
        &mut self,
        runner: &mut Runner,
        wanted: &BTreeMap<&str, &Resident>,
        guide: Guide,
        seen: &mut BTreeSet<&'a str>,
    ) -> Result<(), RunError> {
        let mut pruning = Pruning::new(guide, &mut runner.meter);
        let read = |source: &BaseParam| self.base(&source.name, &source.param(), DType::F32.into());
        let moved = |source: &BaseParam| self.tuned(source);
        for param in self.params {
            let resident = wanted.get(param.name.as_str());
            if let (Init::Pruned(cut), Some(resident)) = (&param.init, resident)
                && !self.given(&param.name)
                && seen.insert(param.name.as_str())
            {
                if let Some(file) = &self.sources.adapter {
                    return Err(missing(file.path(), &param.name));
                }
                let tensor = pruning.cut(cut, param, &read, &mut runner.meter)?;
                let tensor = self.narrow(&param.name, tensor, resident.ty.stored)?;
                runner
                    .residents
                    .insert(&param.name, resident.class, tensor, &mut runner.meter);
                if param.only_on_device(resident.class) {
                    runner.send(&param.name)?;
                }
            }
        }
        for param in self.params {
            if let (Init::Chosen { by, part }, Some(resident)) =
                (&param.init, wanted.get(param.name.as_str()))
                && !self.given(&param.name)
                && seen.insert(param.name.as_str())
            {
                if let Some(file) = self.sources.adapter.as_ref().filter(|_| param.saved) {
                    return Err(missing(file.path(), &param.name));
                }
                let tensor =
                    pruning.chosen((by, *part), param, (&read, &moved), &mut runner.meter)?;
                runner
                    .residents
                    .insert(&param.name, resident.class, tensor, &mut runner.meter);
            }
        }
        for param in self.params {
            if let Some(resident) = wanted.get(param.name.as_str())
                && param.init.is_measured()
                && !self.given(&param.name)
                && seen.insert(param.name.as_str())
            {
                if let Some(file) = &self.sources.adapter {
                    return Err(missing(file.path(), &param.name));
                }
                let tensor = pruning.begun(param)?;
                runner
                    .residents
                    .insert(&param.name, resident.class, tensor, &mut runner.meter);
            }
        }
        pruning.done(&mut runner.meter);
        Ok(())
    }

    /// What a parameter is to be made by, together with others, if that was not done for one of the others.
    fn to_make(&self, param: &'a Param) -> Option<&'a Derivation> {
        let (by, _) = param.derivation()?;
        let done = self.made.iter().any(|made| made.by == by);
        let again = self.sources.adapter.is_some();
        (!done && (!again || param.is_remade())).then_some(by)
    }

    /// Bytes held while a value is derived, before it is metered: the weight in f32, and what the derivation takes.
    pub(super) fn scratch(&self, param: &'a Param) -> u64 {
        let Some(by) = self.to_make(param) else {
            return 0;
        };
        let own = if self.sources.adapter.is_none() {
            by.rule().scratch_bytes()
        } else {
            by.rule().remake_bytes()
        };
        // In blocks it is made beside what is in f32.
        let blocks = param.format.and_then(Format::blocks);
        let packed = blocks.map_or(0, |blocks| blocks.bytes(param.elements()));
        let waiting: u64 = self.made.iter().map(Made::waits).sum();
        own + by.rule().read_bytes() + packed + waiting
    }

    pub(super) fn tensor(&mut self, param: &'a Param, stored: Format) -> Result<Tensor, RunError> {
        if param.keeps_start && self.keeps {
            self.first_value(param)?;
        }
        if let Init::Spread { by, part } = param.init {
            return Ok(self.spread(param, by, part));
        }
        if let Some((by, part)) = param.derivation() {
            return self.derived(param, by, part, stored);
        }
        if let Some(edits) = self.sources.edits.get(&param.name) {
            return self.edited(param, edits, stored);
        }
        if param.owner == Owner::Head {
            return self.head(param, stored, self.sources.fresh);
        }
        if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
            return self.narrow(&param.name, tensor, stored);
        }
        if param.owner == Owner::Base {
            return self.base(&param.name, param, stored);
        }
        if let Some(file) = &self.sources.adapter {
            return Err(missing(file.path(), &param.name));
        }
        if !self.sources.fresh {
            return Err(RunError::bug(format!("no file holds `{}`", param.name)));
        }
        initialise_as(param, self.sources.seed, stored)
    }

    /// What a parameter holds of a list that is spread over many.
    fn spread(&mut self, param: &Param, by: Spread, part: Dealt) -> Tensor {
        let dealt = match self.dealt.take().filter(|(of, _)| *of == by) {
            Some((_, dealt)) => dealt,
            None => by.indices(),
        };
        let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
        let tensor = match part {
            Dealt::Factors => Tensor::new(by.factors(&dealt), &dims),
            Dealt::Indices(first) => {
                let own = dealt.iter().skip(first as usize);
                let own: Vec<u32> = own.take(param.elements() as usize).copied().collect();
                Tensor::new(own, &dims)
            }
        };
        self.dealt = Some((by, dealt));
        tensor
    }

    /// A parameter that an adapter of peft's changes.
    fn edited(&self, param: &Param, edits: &[Ready], stored: Format) -> Result<Tensor, RunError> {
        let path = self.sources.weights.as_ref().map(Checkpoint::path);
        let path = path.unwrap_or_default();
        if stored.plain().is_none() {
            let what = format!(
                "the adapter changes `{}`, which is stored as {stored}; write `dtype = f32` in the model",
                param.name
            );
            return Err(RunError::file(path, what));
        }
        let plain = DType::F32.into();
        let mut tensor = match self.adapter_tensor(&param.name, param)? {
            Some(tensor) => tensor,
            None if param.owner == Owner::Head => self.head(param, plain, false)?,
            None => self.base(&param.name, param, plain)?,
        };
        let width = tensor.dims.last().copied().unwrap_or_default();
        if let Some(data) = tensor.slice_mut::<f32>() {
            for edit in edits {
                edit.apply(data, width)
                    .map_err(|why| RunError::file(&path, format!("`{}`: {why}", param.name)))?;
            }
        }
        self.narrow(&param.name, tensor, stored)
    }

    /// A parameter of the head: the adapter's, the checkpoint's, or a fresh one.
    fn head(&self, param: &Param, stored: Format, fresh: bool) -> Result<Tensor, RunError> {
        if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
            return self.narrow(&param.name, tensor, stored);
        }
        // An adapter holds its head, whatever head lies below it.
        if let (false, Some(file)) = (fresh, &self.sources.adapter) {
            return Err(missing(file.path(), &param.name));
        }
        let names = self.model.checkpoint_names(&param.name);
        let weights = self.sources.weights.as_ref();
        let shape = weights.and_then(|w| names.iter().find_map(|n| w.info(n)));
        if let (Some(weights), Some((_, shape))) = (weights, shape)
            && (shape == param.shape || !fresh)
            && !self.sources.fresh_head
            && let Some(tensor) = weights.read(&names, &param.shape, stored)?
        {
            return Ok(tensor);
        }
        if fresh {
            return initialise_as(param, self.sources.seed, stored);
        }
        Err(match weights {
            Some(weights) => RunError::file(
                weights.path(),
                format!(
                    "there is no tensor `{}`: the model has no trained head of this kind; train one first",
                    param.name
                ),
            ),
            None => RunError::bug(format!("no file holds `{}`", param.name)),
        })
    }

    /// A tensor in the type it is held in, if its numbers are in that type's range.
    fn narrow(&self, name: &str, tensor: Tensor, stored: Format) -> Result<Tensor, RunError> {
        let Some(dtype) = stored.plain() else {
            // What an adapter holds was trained or computed: it is never rounded to blocks.
            let what = format!("`{name}` is stored as {stored}, and an adapter holds it");
            return Err(RunError::bug(what));
        };
        let narrower = tensor.format() != stored;
        match out_of_range(name, &tensor, dtype).filter(|_| narrower) {
            None => Ok(cast(tensor, dtype)),
            Some(why) => {
                let adapter = self.sources.adapter.as_ref().map(|f| f.path().to_owned());
                let weights = self.sources.weights.as_ref().map(Checkpoint::path);
                let path = adapter.or(weights).unwrap_or_default();
                Err(RunError::file(path, format!("cannot be held: {why}")))
            }
        }
    }

    /// One of the model's own matrices in f32 as what is stored of it decodes: of a frozen one in blocks, not what the
    /// file holds.
    fn decoded(&self, name: &str, param: &Param, mut tensor: Tensor) -> Result<Tensor, RunError> {
        let shape: Vec<Dim> = param.shape.iter().map(|&n| n.into()).collect();
        let frozen = param.owner == Owner::Base && !param.trainable;
        let storage = self.sources.storage.of(name);
        if let (Some(packed), true) = (storage.blocks(), frozen && storage.holds(&shape))
            && !self.is_in_file(name, storage)
            && let Some(numbers) = tensor.slice_mut::<f32>()
        {
            packed.round(numbers).map_err(|x| self.unfit(name, x))?;
        }
        Ok(tensor)
    }

    /// Whether the file has a matrix as it is stored, so that what was read is what its blocks decode to.
    fn is_in_file(&self, name: &str, stored: Format) -> bool {
        let names = self.model.checkpoint_names(name);
        let weights = self.sources.weights.as_ref();
        let found = weights.and_then(|w| names.iter().find_map(|n| w.info(n)));
        found.is_some_and(|(kind, _)| *kind == Kind::Stored(stored))
    }

    /// A number that blocks do not hold.
    fn unfit(&self, name: &str, x: f32) -> RunError {
        let path = self.sources.weights.as_ref().map(Checkpoint::path);
        let storage = self.sources.storage.of(name);
        Checkpoint::unfit(path.unwrap_or_default(), name, x, storage)
    }

    /// Whether the stage starts from an adapter that holds a tensor.
    fn given(&self, name: &str) -> bool {
        let earlier = self.sources.adapter.as_ref();
        earlier.is_some_and(|file| file.get(name).is_some())
            || self.sources.given.contains_key(name)
    }

    fn adapter_tensor(&self, name: &str, param: &Param) -> Result<Option<Tensor>, RunError> {
        let found = match &self.sources.adapter {
            Some(file) if file.get(name).is_some() => Some(file.tensor(name)?),
            _ => self.sources.given.get(name).cloned(),
        };
        // Places that were read of another format come as numbers with their bits.
        let found = found.map(|tensor| match tensor.slice::<f32>() {
            Some(bits) if param.places => {
                let places: Vec<u32> = bits.iter().map(|x| x.to_bits()).collect();
                Tensor::new(places, &tensor.dims)
            }
            _ => tensor,
        });
        match found {
            Some(tensor)
                if tensor
                    .dims
                    .iter()
                    .map(|&d| d as u64)
                    .ne(param.shape.iter().copied()) =>
            {
                let what = format!(
                    "the adapter holds `{name}` as {:?}, {:?} is wanted",
                    tensor.dims, param.shape
                );
                Err(match &self.sources.adapter {
                    Some(file) => {
                        RunError::file(file.path(), format!("{what}; run the stage again"))
                    }
                    None => RunError::bug(what),
                })
            }
            found => Ok(found),
        }
    }

    /// One of the model's own parameters, as the model computes with it.
    fn base(&self, name: &str, param: &Param, stored: Format) -> Result<Tensor, RunError> {
        let read = self.in_file(name, param, stored)?;
        self.decoded(name, param, read)
    }

    /// The same as the file holds it.
    fn in_file(&self, name: &str, param: &Param, stored: Format) -> Result<Tensor, RunError> {
        let made = || {
            let plain = Param {
                name: name.to_owned(),
                ..param.clone()
            };
            initialise_as(&plain, self.sources.weights_seed, stored)
        };
        let weights = self.sources.weights.as_ref();
        let Some(weights) = weights.filter(|_| !param.is_made()) else {
            return made();
        };
        let names = self.model.checkpoint_names(name);
        let read = weights.read(&names, &param.shape, stored)?;
        if read.is_none() && param.is_buffer() {
            return made();
        }
        read.ok_or_else(|| {
            let have: Vec<&str> = weights.names().take(3).collect();
            RunError::file(weights.path(), format!("there is no tensor `{}` (there are `{}`, …): the weights belong to another model", names.join("` or `"), have.join("`, `")))
        })
    }

    /// A weight in f32 as another training left it.
    fn tuned(&self, source: &BaseParam) -> Result<Tensor, RunError> {
        let Some(weights) = &self.sources.tuned else {
            return Err(RunError::bug("no other training is compared with"));
        };
        let names = self.model.checkpoint_names(&source.name);
        let read = weights.read(&names, &source.shape, DType::F32)?;
        read.ok_or_else(|| {
            let what = format!(
                "there is no tensor `{}`: it is of another model",
                source.name
            );
            RunError::file(weights.path(), what)
        })
    }

    /// Keeps the first value of a tensor that an earlier stage trained, where its adapter holds it.
    fn first_value(&mut self, param: &Param) -> Result<(), RunError> {
        let name = format!("{}0", param.name);
        if let Some(file) = &self.sources.adapter
            && file.get(&name).is_some()
        {
            let first = file.tensor(&name)?;
            self.initial.insert(param.name.clone(), first);
        }
        Ok(())
    }
}
