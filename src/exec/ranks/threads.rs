//! Ranks that are threads of one process: for tests of what needs no MPI.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::{Ranks, Wire};
use crate::files::RunError;

/// A thread's ends of the channels to and from all threads.
#[derive(Debug)]
struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Wire for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn swap(
        &self,
        (to, sent): (usize, &[u8]),
        (from, buffer): (usize, &mut [u8]),
    ) -> Result<(), RunError> {
        self.send(to, sent)?;
        self.receive(from, buffer)
    }

    fn send(&self, to: usize, sent: &[u8]) -> Result<(), RunError> {
        let gone = |_| RunError::Device(format!("rank {to} is gone"));
        self.to[to].send(sent.to_vec()).map_err(gone)
    }

    fn receive(&self, from: usize, buffer: &mut [u8]) -> Result<(), RunError> {
        let gone = |_| RunError::Device(format!("rank {from} is gone"));
        let got = self.from[from].lock().expect("no panic").recv();
        buffer.copy_from_slice(&got.map_err(gone)?);
        Ok(())
    }
}

/// So many ranks, one for each of as many threads.
pub fn ranks(count: usize) -> Vec<Ranks> {
    let mut to: Vec<Vec<Sender<Vec<u8>>>> = vec![Vec::new(); count];
    let mut from: Vec<Vec<Mutex<Receiver<Vec<u8>>>>> = (0..count).map(|_| Vec::new()).collect();
    for sender in &mut to {
        for receiver in &mut from {
            let (give, take) = channel();
            sender.push(give);
            receiver.push(Mutex::new(take));
        }
    }
    let ends = to.into_iter().zip(from).enumerate();
    ends.map(|(rank, (to, from))| Ranks::over(Arc::new(Threads { rank, to, from })))
        .collect()
}
