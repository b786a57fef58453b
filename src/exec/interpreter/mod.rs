//! The interpreter: a slot per value, filled by kernels and freed by the program's own schedule. It runs programs on
//! any [`Backend`](super::backend::Backend); the processor is one.
//!
//! **Invariant:** it allocates nothing the schedule did not ask for; what it meters is what the
//! estimate summed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::exec::backend::{Applied, Block, Blocks, Cpu, Device, Open};
use crate::files::RunError;
use crate::program::memory::sized;
use crate::program::op::{Machine, Tensor};
use crate::program::rates::Rates;
use crate::program::{Bindings, Class, DType, Feed, Program, TensorType, Value, Verified};

mod awake;
mod beside;
mod meter;
mod outputs;
mod residents;

pub use awake::awake;
pub use beside::Run;
pub use meter::Meter;
pub use outputs::Outputs;
pub use residents::Residents;

/// Runs programs over one stage's residents.
#[derive(Debug)]
pub struct Runner {
    machine: Machine,
    device: Arc<dyn Open>,
    /// The stage's tensors.
    pub residents: Residents,
    /// Tensor bytes.
    pub meter: Meter,
    /// What some of the runs spent on each op.
    pub rates: Rates,
    runs: u64,
    /// Whether a trained tensor or its optimizer's state was changed since the last [`Runner::settle`].
    changed: bool,
}

/// One run in so many is timed.
const TIMED: u64 = 8;

/// A program being run on one batch.
struct Frame<'a> {
    verified: &'a Verified,
    sizes: &'a Bindings,
    /// Where those values are that are residents.
    places: Vec<Option<usize>>,
    /// The blocks of those that are not.
    slots: Vec<Option<Block>>,
    /// Operands of the nodes that are applied.
    inputs: Vec<Block>,
    outputs: Vec<Block>,
}

impl<'a> Frame<'a> {
    fn program(&self) -> &'a Program {
        self.verified.program()
    }

    fn put(&mut self, value: Value, block: Block) {
        if let Some(slot) = self.slots.get_mut(value.index()) {
            *slot = Some(block);
        }
    }

    fn take(&mut self, value: Value) -> Option<Block> {
        self.slots.get_mut(value.index())?.take()
    }
}

impl Runner {
    /// A runner without residents, on the processor.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            device: Arc::new(Device::Cpu),
            residents: Residents::new(Box::new(Cpu::new(machine))),
            meter: Meter::default(),
            rates: Rates::default(),
            runs: 0,
            changed: false,
        }
    }

    /// A runner on a device. Tensors are loaded on the host and follow once a program wants them.
    ///
    /// # Errors
    /// The device cannot be used.
    pub fn on(machine: Machine, device: &Arc<dyn Open>) -> Result<Self, RunError> {
        let backend = device.open(machine)?;
        Ok(Self {
            device: device.clone(),
            meter: Meter::new(!backend.is_host()),
            residents: Residents::new(backend),
            ..Self::new(machine)
        })
    }

    /// Another runner on the same device.
    ///
    /// # Errors
    /// The device cannot be used.
    pub fn another(&self) -> Result<Self, RunError> {
        Self::on(self.machine, &self.device)
    }

    /// Refuses programs that the device has no kernels for, before anything is loaded for them, and has the kernels of the
    /// others compiled meanwhile.
    ///
    /// # Errors
    /// Names the ops.
    pub fn accepts<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a Verified>,
    ) -> Result<(), RunError> {
        let backend = &self.residents.backend;
        programs.into_iter().try_for_each(|verified| {
            backend.accepts(verified.program())?;
            backend.expects(verified);
            Ok(())
        })
    }

    /// Bytes free on the device; `None` on the processor.
    ///
    /// # Errors
    /// What the device says.
    pub fn free_bytes(&self) -> Result<Option<u64>, RunError> {
        self.residents.backend.free_bytes()
    }

    /// Downloads residents that programs have changed: before anyone reads them but a program.
    ///
    /// # Errors
    /// What the device says.
    pub fn fetch(&mut self) -> Result<(), RunError> {
        self.residents.fetch()?;
        let mut end = Outputs::of("residents");
        end.end_at(self.residents.backend.end()?);
        self.observe(std::slice::from_mut(&mut end))
    }

    /// Sends a tensor that no program changes to the device, ahead of the first that reads it, and keeps it
    /// there alone. On the processor it stays where it is.
    ///
    /// # Errors
    /// What the device says.
    pub fn send(&mut self, name: &str) -> Result<(), RunError> {
        self.residents.send(name, &mut self.meter)
    }

    /// Gives up all residents, on the host and on the device.
    pub fn clear(&mut self) {
        self.residents.clear(&mut self.meter);
    }

    /// Downloads all residents: before a whole model is written. The device's copies are given up, so that
    /// what is loaded then fits.
    ///
    /// # Errors
    /// What the device says.
    pub fn fetch_all(&mut self) -> Result<(), RunError> {
        self.fetch()?;
        self.residents.settle(&mut self.meter)
    }

    /// Counts what another runner had at most, on top of what is live now.
    pub fn note(&mut self, other: &Self) {
        self.meter.note(&other.meter);
    }

    /// Most tensor bytes at once, where the programs run.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.meter.peak()
    }

    /// Runs a program on one batch. Must be called inside the executor's thread pool.
    ///
    /// # Errors
    /// An index outside its table, or a bug of ours; on the processor never for lack of memory, which aborts.
    pub fn run(
        &mut self,
        verified: &Verified,
        feeds: Vec<(Feed, Tensor)>,
        sizes: &Bindings,
    ) -> Result<Outputs, RunError> {
        let mut outputs = self.start(verified, feeds, sizes)?;
        self.observe(std::slice::from_mut(&mut outputs))?;
        Ok(outputs)
    }

    /// Whether a run that was started goes on by itself, so that the next may be started before it is observed.
    #[must_use]
    pub fn runs_ahead(&self) -> bool {
        self.residents.backend.runs_ahead()
    }

    /// From now on nothing of what is trained counts as changed.
    pub const fn settle(&mut self) {
        self.changed = false;
    }

    /// Whether nothing of what is trained has changed since then.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !self.changed
    }

    /// Waits for the outputs of runs that were started, for all of them at once, and for none started later. On the
    /// processor they are here.
    ///
    /// # Errors
    /// What a kernel met, what the device says.
    pub fn observe(&mut self, runs: &mut [Outputs]) -> Result<(), RunError> {
        let backend = &mut self.residents.backend;
        let Some(last) = runs.iter().filter_map(Outputs::mark).max() else {
            return Ok(());
        };
        backend.wait(last)?;
        for run in runs {
            for (ticket, tensor) in run.pending() {
                backend.collect(ticket, tensor)?;
            }
            let fault = run.fault().map(|fault| backend.fault(fault));
            if let Some(source) = fault.transpose()?.flatten() {
                return Err(RunError::Op {
                    op: "a kernel",
                    site: format!("`{}`", run.program()),
                    source,
                });
            }
        }
        Ok(())
    }

    /// Starts a program on one batch; on the processor, runs it. On a device nothing is waited for, so that the
    /// next batch is packed and sent while this one is computed; what it hands back is to be observed before
    /// it is read. Must be called inside the executor's thread pool.
    ///
    /// # Errors
    /// Too little memory on a device, an index outside its table, or a bug of ours.
    pub fn start(
        &mut self,
        verified: &Verified,
        feeds: Vec<(Feed, Tensor)>,
        sizes: &Bindings,
    ) -> Result<Outputs, RunError> {
        let mut frame = self.frame(verified, sizes)?;
        let made = self
            .feed(&mut frame, feeds)
            .and_then(|()| self.walk(&mut frame))
            .and_then(|()| self.hand_back(&mut frame));
        self.end(frame);
        made
    }

    /// A program without its batch.
    fn frame<'a>(
        &mut self,
        verified: &'a Verified,
        sizes: &'a Bindings,
    ) -> Result<Frame<'a>, RunError> {
        let program = verified.program();
        let places = self.residents.places(program)?;
        self.residents.bind(&places, &mut self.meter)?;
        Ok(Frame {
            verified,
            sizes,
            places,
            slots: vec![None; program.values.len()],
            inputs: Vec::new(),
            outputs: Vec::new(),
        })
    }

    /// Gives up what a program has left.
    fn end(&mut self, frame: Frame<'_>) {
        for block in frame.slots.into_iter().flatten() {
            self.release(block);
        }
    }

    /// Frees the values that some nodes were the last to read.
    fn free_behind(&mut self, frame: &mut Frame<'_>, group: Range<usize>) {
        let steps = &frame.verified.schedule().steps;
        let own = steps.get(group).unwrap_or_default();
        for &value in own.iter().flat_map(|step| &step.frees) {
            if let Some(dead) = frame.take(value) {
                self.release(dead);
            }
        }
    }

    fn block(&mut self, frame: &Frame<'_>, value: Value) -> Result<Block, RunError> {
        let ty = frame.program().ty(value);
        let block = self.residents.backend.alloc(ty, frame.sizes)?;
        self.meter.device().alloc(block.bytes);
        Ok(block)
    }

    fn release(&mut self, block: Block) {
        self.meter.device().free(block.bytes);
        self.residents.backend.free(block);
    }

    /// Puts the batch into the slots of the program's inputs.
    fn feed(
        &mut self,
        frame: &mut Frame<'_>,
        mut feeds: Vec<(Feed, Tensor)>,
    ) -> Result<(), RunError> {
        let program = frame.program();
        for (feed, value) in program.feeds() {
            let Some(at) = feeds.iter().position(|(own, _)| *own == feed) else {
                return Err(RunError::bug(format!(
                    "the program `{}` was not given `{}`",
                    program.name,
                    feed.name()
                )));
            };
            let (_, tensor) = feeds.swap_remove(at);
            let dims = program.ty(value).dims(frame.sizes);
            if tensor.dims != dims {
                return Err(RunError::bug(format!(
                    "`{}` has the dimensions {:?}, and {dims:?} are wanted",
                    feed.name(),
                    tensor.dims
                )));
            }
            let block = match self.residents.backend.adopt(tensor) {
                Ok(block) => {
                    self.meter.device().alloc(block.bytes);
                    block
                }
                Err(tensor) => {
                    let block = self.block(frame, value)?;
                    self.residents.backend.upload(block, &tensor)?;
                    block
                }
            };
            frame.put(value, block);
        }
        Ok(())
    }

    /// Applies all nodes in their order and frees each value behind the last that reads it.
    fn walk(&mut self, frame: &mut Frame<'_>) -> Result<(), RunError> {
        let (program, schedule) = (frame.program(), frame.verified.schedule());
        // The first run of all touches memory for the first time: its times say nothing.
        let timed = !self.runs_ahead() && self.runs % TIMED == 1;
        self.runs += 1;
        let together = self.residents.backend.fuses();
        for group in &schedule.groups {
            let width = if together { group.len().max(1) } else { 1 };
            for first in group.clone().step_by(width) {
                let group = first..first + width;
                let begun = timed.then(Instant::now);
                self.apply(frame, &group)?;
                if let (Some(begun), Some(node)) = (begun, program.nodes.get(first)) {
                    let cost = node.op.rule().cost(&sized(program, node, frame.sizes));
                    let seconds = begun.elapsed().as_secs_f64();
                    self.rates.note(node.op.kernel(), cost, seconds);
                }
                self.free_behind(frame, group);
            }
        }
        Ok(())
    }

    /// Applies a node, or several together.
    fn apply(&mut self, frame: &mut Frame<'_>, group: &Range<usize>) -> Result<(), RunError> {
        let (program, steps) = (frame.program(), &frame.verified.schedule().steps);
        let backend = &self.residents.backend;
        let launches = backend.launches(program, steps, group.clone(), frame.sizes)?;
        let nodes = program.nodes.get(group.clone()).unwrap_or_default();
        let around = steps.get(group.clone()).unwrap_or_default();
        let mut applied = Vec::with_capacity(nodes.len());
        frame.inputs.clear();
        frame.outputs.clear();
        for (node, step) in nodes.iter().zip(around) {
            let updates = node.op.rule().updates();
            for (i, &value) in node.inputs.iter().enumerate() {
                let writes = updates.contains(&i);
                let Some(block) = self.operand(frame, value, writes) else {
                    return Err(RunError::bug(format!(
                        "{} reads a value that is gone",
                        node.op.name()
                    )));
                };
                frame.inputs.push(block);
            }
            let taken = step.takes.and_then(|i| node.inputs.get(i));
            let mut taken = taken.and_then(|&value| frame.take(value));
            for &value in &node.outputs {
                let block = match taken.take() {
                    Some(block) => block,
                    None => self.block(frame, value)?,
                };
                frame.outputs.push(block);
                frame.put(value, block);
            }
            let label = program.labels.get(node.label as usize);
            applied.push(Applied {
                op: &node.op,
                inputs: node.inputs.len(),
                outputs: node.outputs.len(),
                takes: step.takes,
                site: label.map_or("", String::as_str),
            });
        }
        let mut scratch = Vec::with_capacity(launches.scratch.len());
        for &bytes in &launches.scratch {
            let words = TensorType::fixed(DType::U32, &[bytes.div_ceil(4)]);
            let block = self.residents.backend.alloc(&words, frame.sizes)?;
            self.meter.device().alloc(block.bytes);
            scratch.push(block);
        }
        let blocks = Blocks {
            inputs: &frame.inputs,
            outputs: &frame.outputs,
            scratch: &scratch,
        };
        let backend = &mut self.residents.backend;
        let result = backend.apply(&applied, &launches, &blocks);
        for block in scratch {
            self.release(block);
        }
        self.meter.device().scratch(result?);
        Ok(())
    }

    /// The block of a value; `writes` if an op changes it in place.
    fn operand(&mut self, frame: &Frame<'_>, value: Value, writes: bool) -> Option<Block> {
        match frame.places.get(value.index()).copied().flatten() {
            Some(at) => {
                let class = frame.program().resident(value).map(|r| r.class);
                self.changed |= writes && class != Some(Class::Gradient);
                self.residents.block(at, writes)
            }
            None => frame.slots.get(value.index()).copied().flatten(),
        }
    }

    /// Begins to download what the program hands back.
    fn hand_back(&mut self, frame: &mut Frame<'_>) -> Result<Outputs, RunError> {
        let program = frame.program();
        let mut outputs = Outputs::of(&program.name);
        for (i, (name, value)) in program.outputs.iter().enumerate() {
            let ty = program.ty(*value);
            let later = program.outputs.get(i + 1..).unwrap_or_default();
            let is_last = !later.iter().any(|(_, other)| other == value);
            let Some(block) = self.operand(frame, *value, false) else {
                return Err(RunError::bug(format!("the output `{name}` is gone")));
            };
            // A resident stays, and what has a second name is still to be downloaded.
            let gives = is_last && frame.take(*value).is_some();
            let backend = &mut self.residents.backend;
            let download = if gives {
                self.meter.device().free(block.bytes);
                backend.download_and_free(block, ty, frame.sizes)?
            } else {
                backend.begin_download(block, ty, frame.sizes)?
            };
            outputs.push(name, download, || {
                Tensor::zeros(ty.stored, &ty.dims(frame.sizes))
            });
        }
        if !program.outputs.is_empty() {
            outputs.end_at(self.residents.backend.end()?);
        }
        Ok(outputs)
    }
}
