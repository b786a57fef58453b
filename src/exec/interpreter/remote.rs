//! The interpreter of a device beside the processor: the same slots, freed by the same schedule, as blocks
//! of that device's memory. Residents have their home on the host and a mirror on the device; those that no
//! program changes and no checkpoint holds give up their elements at home once they are mirrored.
//!
//! **Invariant:** of a resident the newer side is known: host tensors carry a version, mirrors whether an
//! op has written them since. Nothing is copied that has not changed.

use std::ops::Range;

use super::{Meter, Outputs, Residents};
use crate::exec::backend::{Applied, Backend, Block, Blocks, Mark, Ticket};
use crate::files::RunError;
use crate::program::op::launch::{Missing, without_launches};
use crate::program::op::{OpError, Tensor};
use crate::program::together::launches;
use crate::program::{Bindings, Class, DType, Dim, Feed, Program, TensorType, Value, Verified};

/// A resident's copy on the device.
#[derive(Debug)]
struct Mirror {
    block: Block,
    bytes: u64,
    version: u64,
    written: bool,
}

/// Runs programs on a device.
#[derive(Debug)]
pub struct Remote {
    backend: Box<dyn Backend>,
    /// By the residents' places.
    mirrors: Vec<Option<Mirror>>,
    fault: Block,
    /// Whether a trained tensor or its optimizer's state was changed; the host says since when.
    pub changed: bool,
    /// Bytes of tensors and scratch on the device; what the backend holds for itself is not among them.
    pub meter: Meter,
}

/// A value's block and bytes.
type Slot = Option<(Block, u64)>;

/// The type of three words.
fn fault_type() -> TensorType {
    TensorType::fixed(DType::U32, &[3])
}

impl Remote {
    /// Bytes free on the device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free_bytes(&self) -> Result<u64, RunError> {
        self.backend.free_bytes()
    }

    /// Runs on this device from now on.
    ///
    /// # Errors
    /// It has no memory left at all.
    pub fn new(mut backend: Box<dyn Backend>) -> Result<Self, RunError> {
        let fault = backend.alloc(&fault_type(), &Bindings::default())?;
        backend.upload(fault, &Tensor::zeros(DType::U32, &[3]))?;
        Ok(Self {
            backend,
            mirrors: Vec::new(),
            fault,
            changed: false,
            meter: Meter::default(),
        })
    }

    /// Starts a program on one batch. Nothing is waited for: its outputs hold zeros until they are observed.
    ///
    /// # Errors
    /// Too little memory, what the driver says, or a bug of ours.
    pub fn start(
        &mut self,
        verified: &Verified,
        feeds: Vec<(Feed, Tensor)>,
        sizes: &Bindings,
        residents: &Residents,
    ) -> Result<Outputs, RunError> {
        let program = verified.program();
        let places = residents.places(program)?;
        self.mirror(residents, &places)?;
        let mut slots: Vec<Slot> = vec![None; program.values.len()];
        for (feed, value) in program.feeds() {
            let Some((_, tensor)) = feeds.iter().find(|(f, _)| *f == feed) else {
                return Err(RunError::bug(format!(
                    "the program `{}` was not given `{}`",
                    program.name,
                    feed.name()
                )));
            };
            // The tensor's own dimensions: what a feed holds is the caller's to get right, and is checked.
            if tensor.dims != program.ty(value).dims(sizes) {
                return Err(RunError::bug(format!(
                    "`{}` has the dimensions {:?}",
                    feed.name(),
                    tensor.dims
                )));
            }
            let slot = self.block(program.ty(value), sizes)?;
            self.backend.upload(slot.0, tensor)?;
            put(&mut slots, value, slot);
        }
        for group in &verified.schedule().groups {
            self.apply(verified, &places, &mut slots, group, sizes)?;
            let own = verified.schedule().steps.get(group.clone());
            for value in own.unwrap_or_default().iter().flat_map(|step| &step.frees) {
                if let Some(slot) = slots.get_mut(value.index()).and_then(Option::take) {
                    self.release(slot);
                }
            }
        }
        let mut outputs = Outputs::of(&program.name);
        for (name, value) in &program.outputs {
            let ty = program.ty(*value);
            let slot = slots.get(value.index()).copied().flatten();
            let place = places.get(value.index()).copied().flatten();
            let mirror = place.and_then(|at| self.mirrors.get(at)?.as_ref().map(|m| m.block));
            if let Some(block) = slot.map(|(block, _)| block).or(mirror) {
                let ticket = self.backend.begin(block, ty.bytes(sizes))?;
                let tensor = Tensor::zeros(ty.stored, &ty.dims(sizes));
                outputs.push(name, tensor, ticket);
            }
        }
        for slot in slots.into_iter().flatten() {
            self.release(slot);
        }
        if outputs.is_coming() {
            let (fault, mark) = self.ask()?;
            outputs.arrive(fault, mark);
        }
        Ok(outputs)
    }

    /// Waits for the outputs of runs: once, for all of them, and for no run that was started later.
    ///
    /// # Errors
    /// An index outside its table, what the driver says of the runs.
    pub fn observe(&mut self, runs: &mut [Outputs]) -> Result<(), RunError> {
        let Some(last) = runs.iter().filter_map(Outputs::arrival).max() else {
            return Ok(());
        };
        self.backend.wait(last)?;
        for run in runs {
            for (ticket, tensor) in run.coming() {
                self.backend.collect(ticket, tensor)?;
            }
            if let Some(fault) = run.fault() {
                self.told(fault, run.program())?;
            }
        }
        Ok(())
    }

    /// Brings home what ops have written.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fetch(&mut self, residents: &mut Residents) -> Result<(), RunError> {
        for (at, mirror) in self.mirrors.iter_mut().enumerate() {
            let Some(mirror) = mirror.as_mut().filter(|m| m.written) else {
                continue;
            };
            if residents.version(at) == mirror.version
                && let Some(tensor) = residents.home(at)
            {
                self.backend.download(mirror.block, tensor)?;
            }
            mirror.written = false;
        }
        let (fault, mark) = self.ask()?;
        self.backend.wait(mark)?;
        self.told(fault, "residents")
    }

    /// Asks whether a kernel has met an index outside its table, and marks the moment.
    fn ask(&mut self) -> Result<(Ticket, Mark), RunError> {
        let bytes = fault_type().bytes(&Bindings::default());
        let ticket = self.backend.begin(self.fault, bytes)?;
        Ok((ticket, self.backend.mark()?))
    }

    /// What the answer is, once it is here.
    fn told(&mut self, fault: Ticket, program: &str) -> Result<(), RunError> {
        let mut words = Tensor::zeros(DType::U32, &[3]);
        self.backend.collect(fault, &mut words)?;
        match words.slice::<u32>() {
            Some(&[1, index, rows]) => Err(RunError::Op {
                op: "a kernel",
                site: format!("`{program}`"),
                source: OpError::Index {
                    index: index.into(),
                    rows: rows.into(),
                },
            }),
            _ => Ok(()),
        }
    }

    fn block(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<(Block, u64), RunError> {
        let block = self.backend.alloc(ty, sizes)?;
        let bytes = ty.bytes(sizes);
        self.meter.alloc(bytes);
        Ok((block, bytes))
    }

    fn release(&mut self, (block, bytes): (Block, u64)) {
        self.backend.free(block);
        self.meter.free(bytes);
    }

    /// Mirrors one resident.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn hold(&mut self, residents: &Residents, at: usize) -> Result<(), RunError> {
        self.mirror(residents, &[Some(at)])
    }

    /// Copies the mirror of a place that is on the device alone.
    ///
    /// # Errors
    /// What the driver says.
    pub fn take(&mut self, at: usize, tensor: &mut Tensor) -> Result<(), RunError> {
        match self.mirrors.get(at).and_then(Option::as_ref) {
            Some(mirror) => self.backend.download(mirror.block, tensor),
            None => Err(RunError::bug(
                "a resident is neither here nor on the device",
            )),
        }
    }

    /// Frees all mirrors.
    pub fn leave(&mut self) {
        for mirror in std::mem::take(&mut self.mirrors).into_iter().flatten() {
            self.release((mirror.block, mirror.bytes));
        }
    }

    /// Frees the mirrors of what the host has changed or lost, and makes those that a program wants.
    fn mirror(&mut self, residents: &Residents, places: &[Option<usize>]) -> Result<(), RunError> {
        for at in 0..self.mirrors.len() {
            let stale = |m: &Mirror| m.version != residents.version(at);
            if let Some(slot) = self.mirrors.get_mut(at)
                && slot.as_ref().is_some_and(stale)
                && let Some(old) = slot.take()
            {
                self.release((old.block, old.bytes));
            }
        }
        for &at in places.iter().flatten() {
            if self.mirrors.len() <= at {
                self.mirrors.resize_with(at + 1, || None);
            }
            let held = self.mirrors.get(at).is_some_and(Option::is_some);
            let Some(tensor) = residents.at(at).filter(|_| !held) else {
                continue;
            };
            if residents.is_away(at) {
                return Err(RunError::bug(
                    "a resident is neither here nor on the device",
                ));
            }
            let dims = tensor.dims.iter().map(|&n| Dim::from(n as u64));
            let ty = TensorType::new(tensor.dtype(), dims);
            let (block, bytes) = self.block(&ty, &Bindings::default())?;
            self.backend.upload(block, tensor)?;
            if let Some(slot) = self.mirrors.get_mut(at) {
                *slot = Some(Mirror {
                    block,
                    bytes,
                    version: residents.version(at),
                    written: false,
                });
            }
        }
        Ok(())
    }

    /// Applies a node, or several together.
    fn apply(
        &mut self,
        verified: &Verified,
        places: &[Option<usize>],
        slots: &mut [Slot],
        group: &Range<usize>,
        sizes: &Bindings,
    ) -> Result<(), RunError> {
        let (program, steps) = (verified.program(), &verified.schedule().steps);
        let launches = launches(program, steps, group.clone(), sizes)
            .ok_or_else(|| refused(&without_launches(program)))?;
        let nodes = program.nodes.get(group.clone()).unwrap_or_default();
        let around = steps.get(group.clone()).unwrap_or_default();
        let (mut applied, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for (node, step) in nodes.iter().zip(around) {
            let updates = node.op.rule().updates();
            for (i, value) in node.inputs.iter().enumerate() {
                let place = places.get(value.index()).copied().flatten();
                let class = program.resident(*value).map(|r| r.class);
                self.changed |= updates.contains(&i) && class != Some(Class::Gradient);
                let block = match place {
                    Some(at) => self.mirrors.get_mut(at).and_then(Option::as_mut).map(|m| {
                        m.written |= updates.contains(&i);
                        m.block
                    }),
                    None => slots.get(value.index()).copied().flatten().map(|s| s.0),
                };
                let block = block.ok_or_else(|| {
                    RunError::bug(format!("{} reads a value that is gone", node.op.name()))
                })?;
                inputs.push(block);
            }
            let taken = step.takes.and_then(|i| node.inputs.get(i));
            let mut taken = taken.and_then(|v| slots.get_mut(v.index())?.take());
            for &out in &node.outputs {
                let slot = match taken.take() {
                    Some(slot) => slot,
                    None => self.block(program.ty(out), sizes)?,
                };
                outputs.push(slot.0);
                put(slots, out, slot);
            }
            applied.push(Applied {
                op: &node.op,
                inputs: node.inputs.len(),
                outputs: node.outputs.len(),
            });
        }
        let mut scratch = Vec::with_capacity(launches.scratch.len());
        for &bytes in &launches.scratch {
            let words = TensorType::fixed(DType::U32, &[bytes.div_ceil(4)]);
            scratch.push(self.block(&words, sizes)?);
        }
        let blocks: Vec<Block> = scratch.iter().map(|s| s.0).collect();
        let result = self.backend.apply(
            &applied,
            &launches,
            &Blocks {
                inputs: &inputs,
                outputs: &outputs,
                scratch: &blocks,
                fault: self.fault,
            },
        );
        for slot in scratch {
            self.release(slot);
        }
        result
    }
}

/// Why a program is not run on a GPU. Plans are refused for it before (`plan/kernels.rs`); this is for what has
/// no plan.
fn refused(missing: &[Missing]) -> RunError {
    let list: Vec<String> = missing
        .iter()
        .map(|m| format!("`{}`: {}", m.op, m.why))
        .collect();
    RunError::Device(format!(
        "there is no kernel on a GPU for what this model needs ({}); use `--device cpu`",
        list.join("; ")
    ))
}

/// Refuses programs with ops that a GPU does not have, before anything is loaded.
///
/// # Errors
/// Names them.
pub fn runnable<'a>(programs: impl IntoIterator<Item = &'a Program>) -> Result<(), RunError> {
    for program in programs {
        let missing = without_launches(program);
        if !missing.is_empty() {
            return Err(refused(&missing));
        }
    }
    Ok(())
}

fn put(slots: &mut [Slot], value: Value, slot: (Block, u64)) {
    if let Some(place) = slots.get_mut(value.index()) {
        *place = Some(slot);
    }
}
