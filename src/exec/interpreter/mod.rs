//! The interpreter: a slot per value, filled by kernels and freed by the program's own schedule.
//!
//! **Invariant:** it allocates nothing the schedule did not ask for; what it meters is what the
//! estimate summed.

use std::collections::BTreeMap;
use std::time::Instant;

use self::remote::{Remote, runnable};
use crate::exec::backend::{Device, Mark, Ticket};
use crate::files::RunError;
use crate::program::memory::sized;
use crate::program::op::{Io, Kernel, Machine, Tensor, TensorMut, TensorRef};
use crate::program::rates::Rates;
use crate::program::stored;
use crate::program::{Bindings, Class, Def, Feed, Node, Program, Value, Verified};

mod remote;

/// Tensor bytes as executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    live: u64,
    peak: u64,
}

impl Meter {
    /// Adds a block.
    pub fn alloc(&mut self, bytes: u64) {
        self.live += bytes;
        self.peak = self.peak.max(self.live);
    }

    /// Removes a block.
    pub fn free(&mut self, bytes: u64) {
        self.live = self.live.saturating_sub(bytes);
    }

    /// Notes scratch on top of what is live.
    pub fn scratch(&mut self, bytes: u64) {
        self.peak = self.peak.max(self.live + bytes);
    }

    /// Bytes live now.
    #[must_use]
    pub const fn live(&self) -> u64 {
        self.live
    }

    /// Most bytes live at once.
    #[must_use]
    pub const fn peak(&self) -> u64 {
        self.peak
    }
}

/// Tensors that live for the whole stage, by name.
#[derive(Debug, Default)]
pub struct Residents {
    /// A tensor that is on the device alone has its type and dimensions, and no elements.
    tensors: Vec<Tensor>,
    away: Vec<bool>,
    classes: Vec<Class>,
    /// Goes up whenever the host changes the tensor, so that copies elsewhere are known to be old.
    versions: Vec<u64>,
    index: BTreeMap<String, usize>,
}

impl Residents {
    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: &str, class: Class, tensor: Tensor, meter: &mut Meter) {
        meter.alloc(tensor.bytes());
        match self.index.get(name).copied() {
            Some(i) => {
                if let Some(slot) = self.tensors.get_mut(i) {
                    meter.free(slot.bytes());
                    *slot = tensor;
                }
                self.set_away(i, false);
                self.changed(i);
            }
            None => {
                self.index.insert(name.to_owned(), self.tensors.len());
                self.tensors.push(tensor);
                self.away.push(false);
                self.classes.push(class);
                self.versions.push(0);
            }
        }
    }

    fn changed(&mut self, at: usize) {
        if let Some(version) = self.versions.get_mut(at) {
            *version += 1;
        }
    }

    /// Where each value of a program is found that is a resident.
    ///
    /// # Errors
    /// One is not there, or of another type (a bug).
    pub(in crate::exec) fn places(
        &self,
        program: &Program,
    ) -> Result<Vec<Option<usize>>, RunError> {
        let mut resident = vec![None; program.values.len()];
        for (slot, value) in resident.iter_mut().zip(&program.values) {
            let Def::Resident(i) = value.def else {
                continue;
            };
            let Some(declared) = program.residents.get(i as usize) else {
                continue;
            };
            let found = self.index.get(&declared.name).copied();
            match found.and_then(|i| self.tensors.get(i)) {
                Some(t)
                    if t.dtype() == declared.ty.dtype
                        && t.dims == declared.ty.dims(&Bindings::default()) =>
                {
                    *slot = found
                }
                Some(t) => {
                    return Err(RunError::bug(format!(
                        "`{}` is held as {:?} but the program wants {}",
                        declared.name, t.dims, declared.ty
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
        Ok(resident)
    }

    /// The tensor at a place.
    pub(in crate::exec) fn at(&self, place: usize) -> Option<&Tensor> {
        self.tensors.get(place)
    }

    fn set_away(&mut self, place: usize, away: bool) {
        if let Some(slot) = self.away.get_mut(place) {
            *slot = away;
        }
    }

    /// Whether the tensor at a place is on the device alone.
    pub(in crate::exec) fn is_away(&self, place: usize) -> bool {
        self.away.get(place).copied().unwrap_or(false)
    }

    /// Whether a tensor of a name is held, here or on a device.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The place of a tensor.
    pub(in crate::exec) fn place(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Gives up the elements at a place: they are on the device.
    fn send_away(&mut self, place: usize, meter: &mut Meter) {
        if let Some(slot) = self.tensors.get_mut(place) {
            meter.free(slot.bytes());
            let dims = std::mem::take(&mut slot.dims);
            *slot = Tensor {
                dims,
                ..Tensor::zeros(slot.dtype(), &[0])
            };
            self.set_away(place, true);
        }
    }

    /// Makes room for the elements at a place that is away. They come from the device, which is no change.
    fn call_back(&mut self, place: usize, meter: &mut Meter) -> Option<&mut Tensor> {
        self.set_away(place, false);
        let slot = self.tensors.get_mut(place)?;
        *slot = Tensor::zeros(slot.dtype(), &slot.dims);
        meter.alloc(slot.bytes());
        Some(slot)
    }

    /// The version of the tensor at a place.
    pub(in crate::exec) fn version(&self, place: usize) -> u64 {
        self.versions.get(place).copied().unwrap_or(0)
    }

    /// The tensor at a place, to take up what a device made of it: that is no change of the host's.
    pub(in crate::exec) fn home(&mut self, place: usize) -> Option<&mut Tensor> {
        self.tensors.get_mut(place)
    }

    /// A tensor by name, if it is here.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let at = self.place(name).filter(|&at| !self.is_away(at))?;
        self.tensors.get(at)
    }

    /// A tensor by name, writable, if it is here.
    #[must_use]
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        let at = self.place(name).filter(|&at| !self.is_away(at))?;
        self.changed(at);
        self.tensors.get_mut(at)
    }

    /// Takes a tensor out; its place is lost.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.index.remove(name)?;
        self.set_away(at, false);
        self.changed(at);
        self.tensors
            .get_mut(at)
            .map(|slot| std::mem::replace(slot, Tensor::new(Vec::<f32>::new(), &[0])))
    }

    /// Removes the tensors that `keep` does not want.
    pub fn retain(&mut self, meter: &mut Meter, keep: impl Fn(&str, Class) -> bool) {
        let gone: Vec<String> = self
            .iter()
            .filter(|(name, class, _)| !keep(name, *class))
            .map(|(name, _, _)| name.to_owned())
            .collect();
        for name in gone {
            if let Some(tensor) = self.take(&name) {
                meter.free(tensor.bytes());
            }
        }
    }

    /// Names, classes and tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Class, &Tensor)> {
        self.index.iter().filter_map(|(name, &i)| {
            Some((name.as_str(), *self.classes.get(i)?, self.tensors.get(i)?))
        })
    }
}

/// Where each value of a program is found at run time.
#[derive(Debug)]
struct Binding {
    /// Index into the residents for values that are residents.
    resident: Vec<Option<usize>>,
}

/// Runs programs over one stage's residents.
#[derive(Debug)]
pub struct Runner {
    /// The machine's figures.
    pub machine: Machine,
    /// The stage's tensors.
    pub residents: Residents,
    /// Tensor bytes.
    pub meter: Meter,
    /// What some of the runs spent on each op.
    pub rates: Rates,
    runs: u64,
    device: Device,
    remote: Option<Remote>,
    /// Whether what is loaded from now on stays on the host.
    settled: bool,
}

/// One run in so many is timed.
const TIMED: u64 = 8;

/// What a program handed back.
#[derive(Debug, Default)]
pub struct Outputs {
    list: Vec<(String, Tensor)>,
    /// Where those of a device are while they are not here: one for each.
    tickets: Vec<Ticket>,
    /// Where it is told whether the run met an index outside its table, and when all are here.
    arrival: Option<(Ticket, Mark)>,
    program: String,
}

impl Outputs {
    /// None yet, of a program.
    pub(in crate::exec) fn of(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            ..Self::default()
        }
    }

    /// Adds one that is on its way.
    pub(in crate::exec) fn push(&mut self, name: &str, tensor: Tensor, ticket: Ticket) {
        self.list.push((name.to_owned(), tensor));
        self.tickets.push(ticket);
    }

    /// Says when all of them are here.
    pub(in crate::exec) fn arrive(&mut self, fault: Ticket, mark: Mark) {
        self.arrival = Some((fault, mark));
    }

    /// When they are all here, if they are on their way.
    pub(in crate::exec) fn arrival(&self) -> Option<Mark> {
        self.arrival.as_ref().map(|(_, mark)| *mark)
    }

    /// Where a fault is told, once.
    pub(in crate::exec) fn fault(&mut self) -> Option<Ticket> {
        self.arrival.take().map(|(ticket, _)| ticket)
    }

    /// The program's name.
    pub(in crate::exec) fn program(&self) -> &str {
        &self.program
    }

    /// Whether there are any that are on their way.
    pub(in crate::exec) const fn is_coming(&self) -> bool {
        !self.tickets.is_empty()
    }

    /// Those that are on their way; they count as here from then on.
    pub(in crate::exec) fn coming(&mut self) -> impl Iterator<Item = (Ticket, &mut Tensor)> {
        let tickets = std::mem::take(&mut self.tickets);
        tickets
            .into_iter()
            .zip(self.list.iter_mut().map(|(_, t)| t))
    }

    /// An output by name, if it is here.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        if self.is_coming() {
            return None;
        }
        self.list.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// An output's elements; empty if there is none of that name in f32, or it is not here yet.
    #[must_use]
    pub fn floats(&self, name: &str) -> &[f32] {
        let tensor = self.get(name);
        tensor.and_then(|t| t.slice::<f32>()).unwrap_or_default()
    }

    /// The first element of an output.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<f32> {
        self.floats(name).first().copied()
    }

    /// Bytes of all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.list.iter().map(|(_, t)| t.bytes()).sum()
    }

    /// Takes an output, if it is here.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        if self.is_coming() {
            return None;
        }
        let i = self.list.iter().position(|(n, _)| n == name)?;
        Some(self.list.swap_remove(i).1)
    }
}

impl Runner {
    /// A runner without residents, on the processor.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            residents: Residents::default(),
            meter: Meter::default(),
            rates: Rates::default(),
            runs: 0,
            device: Device::Cpu,
            remote: None,
            settled: false,
        }
    }

    /// A runner on a device. Tensors are loaded on the host and follow once a program wants them.
    ///
    /// # Errors
    /// The device cannot be used.
    pub fn on(machine: Machine, device: Device) -> Result<Self, RunError> {
        let remote = device.open()?.map(Remote::new).transpose()?;
        Ok(Self {
            device,
            remote,
            ..Self::new(machine)
        })
    }

    /// Another runner on the same device.
    ///
    /// # Errors
    /// The device cannot be used.
    pub fn another(&self) -> Result<Self, RunError> {
        Self::on(self.machine, self.device)
    }

    /// Refuses programs that the device has no kernels for, before anything is loaded for them.
    ///
    /// # Errors
    /// Names the ops.
    pub fn accepts<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a Verified>,
    ) -> Result<(), RunError> {
        match self.remote {
            Some(_) => runnable(programs.into_iter().map(Verified::program)),
            None => Ok(()),
        }
    }

    /// Bytes free on the device; `None` on the processor.
    ///
    /// # Errors
    /// What the device says.
    pub fn free_bytes(&self) -> Result<Option<u64>, RunError> {
        let remote = self.remote.as_ref();
        remote.map(Remote::free_bytes).transpose()
    }

    /// Brings residents home that a device has changed: before anyone reads them but a program.
    ///
    /// # Errors
    /// What the device says.
    pub fn fetch(&mut self) -> Result<(), RunError> {
        match &mut self.remote {
            Some(remote) => remote.fetch(&mut self.residents),
            None => Ok(()),
        }
    }

    /// Sends a tensor that no program changes to the device, ahead of the first that reads it, and holds it
    /// there alone. On the processor it stays where it is.
    ///
    /// # Errors
    /// What the device says.
    pub fn send(&mut self, name: &str) -> Result<(), RunError> {
        let remote = self.remote.as_mut().filter(|_| !self.settled);
        let (Some(remote), Some(at)) = (remote, self.residents.place(name)) else {
            return Ok(());
        };
        remote.hold(&self.residents, at)?;
        self.residents.send_away(at, &mut self.meter);
        Ok(())
    }

    /// Gives up all residents, here and on the device.
    pub fn clear(&mut self) {
        self.residents.retain(&mut self.meter, |_, _| false);
        if let Some(remote) = &mut self.remote {
            remote.leave();
        }
    }

    /// Brings all residents home: before a whole model is written. The device's copies are given up, so that
    /// what is loaded then finds room.
    ///
    /// # Errors
    /// What the device says.
    pub fn come_home(&mut self) -> Result<(), RunError> {
        self.fetch()?;
        let Some(remote) = &mut self.remote else {
            return Ok(());
        };
        for at in 0..self.residents.tensors.len() {
            if self.residents.is_away(at)
                && let Some(tensor) = self.residents.call_back(at, &mut self.meter)
            {
                remote.take(at, tensor)?;
            }
        }
        remote.leave();
        self.settled = true;
        Ok(())
    }

    /// Counts what another runner held at most, on top of what is held now.
    pub fn note(&mut self, other: &Self) {
        self.meter.scratch(other.meter.peak());
        if let (Some(own), Some(other)) = (&mut self.remote, &other.remote) {
            own.meter.scratch(other.meter.peak());
        }
    }

    /// Most tensor bytes at once, where the programs run.
    #[must_use]
    pub fn peak(&self) -> u64 {
        let remote = self.remote.as_ref();
        remote.map_or(self.meter.peak(), |remote| remote.meter.peak())
    }

    /// Runs a program on one batch. Must be called inside the executor's thread pool.
    ///
    /// # Errors
    /// An index outside its table, or a bug of ours; never for lack of memory, which aborts.
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
    pub const fn runs_ahead(&self) -> bool {
        self.remote.is_some()
    }

    /// From now on a device counts as having changed nothing of what is trained.
    pub const fn settle(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.changed = false;
        }
    }

    /// Whether a device has changed something of what is trained since then.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| !remote.changed)
    }

    /// Waits for the outputs of runs that were started, for all of them at once, and for none started later. On the processor they are here.
    ///
    /// # Errors
    /// What a kernel met, what the device says.
    pub fn observe(&mut self, runs: &mut [Outputs]) -> Result<(), RunError> {
        match &mut self.remote {
            Some(remote) => remote.observe(runs),
            None => Ok(()),
        }
    }

    /// Starts a program on one batch; on the processor, runs it. On a device nothing is waited for, so that the
    /// next batch is packed and sent while this one is computed; what it hands back is to be observed before
    /// it is read. Must be called inside the executor's thread pool.
    ///
    /// # Errors
    /// An index outside its table, or a bug of ours; never for lack of memory, which aborts.
    pub fn start(
        &mut self,
        verified: &Verified,
        feeds: Vec<(Feed, Tensor)>,
        sizes: &Bindings,
    ) -> Result<Outputs, RunError> {
        let program = verified.program();
        if let Some(remote) = &mut self.remote {
            return remote.start(verified, feeds, sizes, &self.residents);
        }
        let binding = Binding {
            resident: self.residents.places(program)?,
        };
        let mut slots: Vec<Option<Tensor>> = Vec::new();
        slots.resize_with(program.values.len(), || None);
        let mut feeds: BTreeMap<Feed, Tensor> = feeds.into_iter().collect();
        for (feed, value) in program.feeds() {
            let Some(tensor) = feeds.remove(&feed) else {
                return Err(RunError::bug(format!(
                    "the program `{}` was not given `{}`",
                    program.name,
                    feed.name()
                )));
            };
            self.meter.alloc(tensor.bytes());
            put(&mut slots, value, tensor);
        }
        drop(feeds);
        // The first run of all touches memory for the first time: its times say nothing.
        let timed = self.runs % TIMED == 1;
        self.runs += 1;
        for (node, step) in program.nodes.iter().zip(&verified.schedule().steps) {
            let begun = timed.then(Instant::now);
            self.node(program, &binding, &mut slots, node, step.takes, sizes)?;
            if let Some(begun) = begun {
                let cost = node.op.rule().cost(&sized(program, node, sizes));
                let seconds = begun.elapsed().as_secs_f64();
                self.rates.note(node.op.kernel(), cost, seconds);
            }
            for &value in &step.frees {
                if let Some(dead) = slots.get_mut(value.index()).and_then(Option::take) {
                    self.meter.free(dead.bytes());
                }
            }
        }
        let outputs = program
            .outputs
            .iter()
            .filter_map(|(name, v)| Some((name.clone(), slots.get_mut(v.index())?.take()?)));
        let outputs: Vec<(String, Tensor)> = outputs.collect();
        for tensor in outputs.iter().map(|(_, t)| t).chain(slots.iter().flatten()) {
            self.meter.free(tensor.bytes());
        }
        Ok(Outputs {
            list: outputs,
            ..Outputs::default()
        })
    }

    fn node(
        &mut self,
        program: &Program,
        binding: &Binding,
        slots: &mut [Option<Tensor>],
        node: &Node,
        takes: Option<usize>,
        sizes: &Bindings,
    ) -> Result<(), RunError> {
        let updates = node.op.rule().updates();
        // Updated residents leave their table for the time of the kernel, so that nothing aliases them.
        let mut updated: Vec<(usize, Tensor)> = Vec::with_capacity(updates.len());
        for &i in updates {
            let at = node
                .inputs
                .get(i)
                .and_then(|v| binding.resident.get(v.index()).copied().flatten());
            let slot = at.and_then(|at| Some((at, self.residents.tensors.get_mut(at)?)));
            let Some((at, slot)) = slot else {
                return Err(RunError::bug(format!(
                    "{} updates something that is not resident",
                    node.op.name()
                )));
            };
            updated.push((
                at,
                std::mem::replace(
                    slot,
                    Tensor {
                        storage: candle_core::CpuStorage::U8(Vec::new()),
                        dims: Vec::new(),
                    },
                ),
            ));
        }
        let taken = takes
            .and_then(|i| node.inputs.get(i))
            .and_then(|v| slots.get_mut(v.index())?.take());
        let mut taken = taken;
        let mut outputs: Vec<Tensor> = Vec::with_capacity(node.outputs.len());
        for &out in &node.outputs {
            let tensor = match taken.take() {
                Some(tensor) => tensor,
                None => {
                    let ty = program.ty(out);
                    let tensor = Tensor::zeros(ty.stored, &ty.dims(sizes));
                    self.meter.alloc(tensor.bytes());
                    tensor
                }
            };
            outputs.push(tensor);
        }
        let kernel = Kernel::new(&self.machine);
        let result = {
            let view = |i: usize, v: &Value| -> Option<TensorRef<'_>> {
                if updates.contains(&i) || takes == Some(i) {
                    return None;
                }
                match binding.resident.get(v.index()).copied().flatten() {
                    Some(at) => self.residents.tensors.get(at).map(Tensor::view),
                    None => slots
                        .get(v.index())
                        .and_then(Option::as_ref)
                        .map(Tensor::view),
                }
            };
            let io = Io {
                inputs: node
                    .inputs
                    .iter()
                    .enumerate()
                    .map(|(i, v)| view(i, v))
                    .collect(),
                updates: updated
                    .iter_mut()
                    .map(|(_, t)| t.view_mut())
                    .collect::<Vec<TensorMut<'_>>>(),
                outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
                taken: takes,
            };
            stored::eval(&node.op, &kernel, io)
        };
        self.meter.scratch(kernel.take_peak());
        for (at, tensor) in updated {
            if let Some(slot) = self.residents.tensors.get_mut(at) {
                *slot = tensor;
            }
        }
        for (&value, tensor) in node.outputs.iter().zip(outputs) {
            put(slots, value, tensor);
        }
        result.map_err(|source| RunError::Op {
            op: node.op.name(),
            site: program
                .labels
                .get(node.label as usize)
                .cloned()
                .unwrap_or_default(),
            source,
        })
    }
}

fn put(slots: &mut [Option<Tensor>], value: Value, tensor: Tensor) {
    if let Some(slot) = slots.get_mut(value.index()) {
        *slot = Some(tensor);
    }
}
