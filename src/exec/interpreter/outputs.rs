//! What programs hand back.

use crate::exec::backend::{Download, Mark, Ticket};
use crate::program::op::Tensor;

/// One output.
#[derive(Debug)]
struct Output {
    name: String,
    tensor: Tensor,
    /// Where its elements will be, while they are being downloaded.
    pending: Option<Ticket>,
}

/// What a program handed back.
#[derive(Debug, Default)]
pub struct Outputs {
    list: Vec<Output>,
    /// Whether the run met a fault, and the moment when this and all outputs are here.
    end: Option<(Download, Mark)>,
    program: String,
}

impl Outputs {
    /// None yet, of a program.
    pub(super) fn of(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            ..Self::default()
        }
    }

    /// Adds one; `tensor` makes the tensor that a pending download fills.
    pub(super) fn push(&mut self, name: &str, from: Download, tensor: impl Fn() -> Tensor) {
        let (tensor, pending) = match from {
            Download::Done(tensor) => (tensor, None),
            Download::Pending(ticket) => (tensor(), Some(ticket)),
        };
        self.list.push(Output {
            name: name.to_owned(),
            tensor,
            pending,
        });
    }

    /// Says when all of them are here.
    pub(super) fn end_at(&mut self, end: Option<(Download, Mark)>) {
        self.end = end;
    }

    /// When they are all here, if that is still to be waited for.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.end.as_ref().map(|(_, mark)| *mark)
    }

    /// Where a fault is reported, once.
    pub(super) fn fault(&mut self) -> Option<Download> {
        self.end.take().map(|(fault, _)| fault)
    }

    /// The program's name.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    fn is_pending(&self) -> bool {
        self.list.iter().any(|output| output.pending.is_some())
    }

    /// Those that are being downloaded; they count as here from then on.
    pub(super) fn pending(&mut self) -> impl Iterator<Item = (Ticket, &mut Tensor)> {
        self.list
            .iter_mut()
            .filter_map(|output| Some((output.pending.take()?, &mut output.tensor)))
    }

    /// An output by name, if it is here.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        if self.is_pending() {
            return None;
        }
        let found = self.list.iter().find(|output| output.name == name);
        found.map(|output| &output.tensor)
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
        self.list.iter().map(|output| output.tensor.bytes()).sum()
    }

    /// Takes an output, if it is here.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        if self.is_pending() {
            return None;
        }
        let at = self.list.iter().position(|output| output.name == name)?;
        Some(self.list.swap_remove(at).tensor)
    }
}
