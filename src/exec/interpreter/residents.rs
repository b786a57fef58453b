//! Tensors that live for a whole stage. On the processor they are blocks of its memory, read and written where they
//! are. A device has copies of them: made once a program wants them, given up once the host changes the original.
//! What no program changes and no checkpoint holds can be on the device alone.
//!
//! **Invariant:** of a tensor with two copies the newer one is known: the host's change gives up the device's copy,
//! and a copy that an op has written is marked. Nothing is copied that has not changed.

use std::collections::BTreeMap;

use super::meter::Meter;
use crate::exec::backend::{Backend, Block};
use crate::files::RunError;
use crate::program::op::Tensor;
use crate::program::{Bindings, Class, Def, Dim, Format, Program, TensorType};

/// A tensor, wherever its elements are.
#[derive(Debug)]
struct Entry {
    class: Class,
    stored: Format,
    dims: Vec<usize>,
    /// The host's elements, where the host has some beside the device's memory.
    host: Option<Tensor>,
    /// Those in the device's memory.
    block: Option<Block>,
    /// Whether an op has written the block since the host last had the same.
    written: bool,
}

/// Tensors that live for the whole stage, by name.
#[derive(Debug)]
pub struct Residents {
    pub(super) backend: Box<dyn Backend>,
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
    /// Copies that are out of date.
    outdated: Vec<Block>,
    /// Whether what is loaded from now on stays on the host.
    settled: bool,
}

impl Residents {
    /// None yet, of a device.
    pub(super) fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend,
            entries: Vec::new(),
            index: BTreeMap::new(),
            outdated: Vec::new(),
            settled: false,
        }
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: &str, class: Class, tensor: Tensor, meter: &mut Meter) {
        meter.alloc(tensor.bytes());
        let (stored, dims) = (tensor.format(), tensor.dims.clone());
        let (block, host) = match self.backend.adopt(tensor) {
            Ok(block) => (Some(block), None),
            Err(tensor) => (None, Some(tensor)),
        };
        let mut entry = Entry {
            class,
            stored,
            dims,
            host,
            block,
            written: false,
        };
        match self.index.get(name).copied() {
            Some(at) => {
                if let Some(old) = self.give_up(at) {
                    meter.free(old.bytes());
                }
                if let Some(slot) = self.entries.get_mut(at) {
                    entry.class = slot.class;
                    *slot = entry;
                }
            }
            None => {
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// Gives up an entry's elements, and its copy on the device; gives those the host had, or could see.
    fn give_up(&mut self, at: usize) -> Option<Tensor> {
        let entry = self.entries.get_mut(at)?;
        let host = entry.host.take();
        let block = entry.block.take();
        let seen = block.and_then(|block| self.backend.take(block));
        if seen.is_none() {
            self.outdated.extend(block);
        }
        host.or(seen)
    }

    /// Where each value of a program is found that is a resident.
    ///
    /// # Errors
    /// One is not there, or of another type (a bug).
    pub(super) fn places(&self, program: &Program) -> Result<Vec<Option<usize>>, RunError> {
        let mut places = vec![None; program.values.len()];
        for (slot, value) in places.iter_mut().zip(&program.values) {
            let Def::Resident(i) = value.def else {
                continue;
            };
            let Some(declared) = program.residents.get(i as usize) else {
                continue;
            };
            let found = self.index.get(&declared.name).copied();
            match found.and_then(|at| self.entries.get(at)) {
                Some(entry)
                    if entry.stored == declared.ty.stored
                        && entry.dims == declared.ty.dims(&Bindings::default()) =>
                {
                    *slot = found;
                }
                Some(entry) => {
                    return Err(RunError::bug(format!(
                        "`{}` is loaded as {:?} but the program wants {}",
                        declared.name, entry.dims, declared.ty
                    )));
                }
                None => {
                    return Err(RunError::bug(format!(
                        "`{}` was never loaded",
                        declared.name
                    )));
                }
            }
        }
        Ok(places)
    }

    /// Frees copies that are out of date and makes those that a program wants.
    ///
    /// # Errors
    /// Too little memory, or what the device says.
    pub(super) fn bind(
        &mut self,
        places: &[Option<usize>],
        meter: &mut Meter,
    ) -> Result<(), RunError> {
        self.free_outdated(meter);
        for &at in places.iter().flatten() {
            let Some(entry) = self.entries.get_mut(at).filter(|e| e.block.is_none()) else {
                continue;
            };
            let Some(tensor) = &entry.host else {
                return Err(lost());
            };
            let dims = entry.dims.iter().map(|&n| Dim::from(n as u64));
            let ty = TensorType::new(entry.stored.dtype(), dims).stored_as(entry.stored);
            let block = self.backend.alloc(&ty, &Bindings::default())?;
            meter.device().alloc(block.bytes);
            entry.block = Some(block);
            entry.written = false;
            self.backend.upload(block, tensor)?;
        }
        Ok(())
    }

    fn free_outdated(&mut self, meter: &mut Meter) {
        for block in std::mem::take(&mut self.outdated) {
            meter.device().free(block.bytes);
            self.backend.free(block);
        }
    }

    /// The block of a tensor that is bound; `writes` if an op changes it.
    pub(super) fn block(&mut self, at: usize, writes: bool) -> Option<Block> {
        let entry = self.entries.get_mut(at)?;
        entry.written |= writes;
        entry.block
    }

    /// Whether a tensor of a name is there, on the host or on a device.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Sends a tensor to the device and gives up the host's elements. Where the host sees the device's memory it
    /// stays as it is.
    ///
    /// # Errors
    /// Too little memory, or what the device says.
    pub(super) fn send(&mut self, name: &str, meter: &mut Meter) -> Result<(), RunError> {
        let Some(at) = self.index.get(name).copied().filter(|_| !self.settled) else {
            return Ok(());
        };
        self.bind(&[Some(at)], meter)?;
        if let Some(tensor) = self.entries.get_mut(at).and_then(|e| e.host.take()) {
            meter.free(tensor.bytes());
        }
        Ok(())
    }

    /// Downloads what ops have written.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn fetch(&mut self) -> Result<(), RunError> {
        for entry in self.entries.iter_mut().filter(|e| e.written) {
            if let (Some(block), Some(tensor)) = (entry.block, &mut entry.host) {
                self.backend.download(block, tensor)?;
            }
            entry.written = false;
        }
        Ok(())
    }

    /// Downloads what is on the device alone and gives up the device's copies; what is loaded from now on stays on the
    /// host.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn settle(&mut self, meter: &mut Meter) -> Result<(), RunError> {
        for entry in &mut self.entries {
            let Some(block) = entry.block else {
                continue;
            };
            if self.backend.host(block).is_some() {
                continue;
            }
            if entry.host.is_none() {
                let mut tensor = Tensor::zeros(entry.stored, &entry.dims);
                meter.alloc(tensor.bytes());
                self.backend.download(block, &mut tensor)?;
                entry.host = Some(tensor);
            }
            self.outdated.extend(entry.block.take());
        }
        self.free_outdated(meter);
        self.settled = true;
        Ok(())
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(name)?)
    }

    fn seen<'a>(&'a self, entry: &'a Entry) -> Option<&'a Tensor> {
        let block = || self.backend.host(entry.block?);
        entry.host.as_ref().or_else(block)
    }

    /// A tensor by name, if the host has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.seen(self.entry(name)?)
    }

    /// A tensor by name, writable, if the host has it.
    #[must_use]
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        let entry = self.entries.get_mut(*self.index.get(name)?)?;
        match &mut entry.host {
            Some(tensor) => {
                self.outdated.extend(entry.block.take());
                Some(tensor)
            }
            None => self.backend.host_mut(entry.block?),
        }
    }

    /// Gives a tensor another name, which no other has.
    pub(in crate::exec) fn rename(&mut self, name: &str, new: String) {
        if let Some(at) = self.index.remove(name) {
            self.index.insert(new, at);
        }
    }

    /// Takes a tensor out, if the host has it; its place is lost.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.index.remove(name)?;
        self.give_up(at)
    }

    /// Removes the tensors that `keep` does not want.
    pub fn retain(&mut self, meter: &mut Meter, keep: impl Fn(&str, Class) -> bool) {
        let class = |at: &usize| self.entries.get(*at).map(|entry| entry.class);
        let gone: Vec<String> = self
            .index
            .iter()
            .filter(|(name, at)| class(at).is_some_and(|class| !keep(name, class)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(tensor) = self.take(&name) {
                meter.free(tensor.bytes());
            }
        }
    }

    /// Removes all, on the host and on the device.
    pub(super) fn clear(&mut self, meter: &mut Meter) {
        self.retain(meter, |_, _| false);
        self.free_outdated(meter);
    }

    /// Names, classes and tensors of those that the host has, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Class, &Tensor)> {
        self.index.iter().filter_map(|(name, &at)| {
            let entry = self.entries.get(at)?;
            Some((name.as_str(), entry.class, self.seen(entry)?))
        })
    }
}

/// What must not be: a tensor without elements anywhere.
fn lost() -> RunError {
    RunError::bug("a resident is neither on the host nor on the device")
}
