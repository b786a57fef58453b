//! MPI as the wire between ranks, by `rsmpi` (feature `mpi`).
//!
//! Messages are sent from one rank to another and nothing else: MPI's own sums promise no order, and its other collective
//! operations may send more than is planned. An error of MPI ends all ranks, as MPI's usual handler has it.

use std::time::Duration;

use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::send_receive_into;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, Destination as _, Source as _};

use super::Wire;
use crate::files::RunError;

/// Longest time between two looks at whether a message has come.
const LONGEST: Duration = Duration::from_millis(5);

/// This process among those that MPI started. Dropping it leaves them, once all do.
pub struct Member {
    _universe: Universe,
}

impl Member {
    /// Joins the others.
    ///
    /// # Errors
    /// MPI was joined before, or cannot be used by a thread that is not the first.
    pub fn join() -> Result<Self, String> {
        match mpi::initialize_with_threading(Threading::Serialized) {
            None => Err("MPI was started twice".to_owned()),
            Some((_, given)) if given < Threading::Serialized => Err(format!(
                "this MPI gives {given:?} where calls from any thread, one at a time, are needed"
            )),
            Some((universe, _)) => Ok(Self {
                _universe: universe,
            }),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        World.ranks()
    }

    /// Messages between them.
    #[must_use]
    pub const fn wire(&self) -> impl Wire + use<> {
        World
    }

    /// Ends all of them.
    pub fn end_all(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }
}

/// All processes that were started together.
#[derive(Clone, Copy, Debug)]
struct World;

impl Wire for World {
    fn rank(&self) -> usize {
        usize::try_from(SimpleCommunicator::world().rank()).unwrap_or(0)
    }

    fn ranks(&self) -> usize {
        usize::try_from(SimpleCommunicator::world().size()).unwrap_or(1)
    }

    fn swap(
        &self,
        (to, sent): (usize, &[u8]),
        (from, buffer): (usize, &mut [u8]),
    ) -> Result<(), RunError> {
        let world = SimpleCommunicator::world();
        let [to, from] = [to, from].map(number);
        let (to, from) = (world.process_at_rank(to?), world.process_at_rank(from?));
        send_receive_into(sent, &to, buffer, &from);
        Ok(())
    }

    fn send(&self, to: usize, sent: &[u8]) -> Result<(), RunError> {
        let world = SimpleCommunicator::world();
        world.process_at_rank(number(to)?).send(sent);
        Ok(())
    }

    fn receive(&self, from: usize, buffer: &mut [u8]) -> Result<(), RunError> {
        let world = SimpleCommunicator::world();
        let from = world.process_at_rank(number(from)?);
        // MPI waits by asking again and again, which would take the processor from the one that is waited for.
        let mut pause = Duration::from_micros(50);
        while from.immediate_probe().is_none() {
            std::thread::sleep(pause);
            pause = (2 * pause).min(LONGEST);
        }
        from.receive_into(buffer);
        Ok(())
    }
}

fn number(rank: usize) -> Result<i32, RunError> {
    i32::try_from(rank).map_err(|_| RunError::bug("a rank has no number"))
}
