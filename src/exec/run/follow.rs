//! The ranks behind the first: they wait for its trainings and make the steps of these with it. Stages that are not shared run on rank
//! 0 alone.

use super::{Entered, decide};
use crate::base::world::World;
use crate::exec::interpreter::Runner;
use crate::exec::observe::Observer;
use crate::exec::stage::{Options, Work, entry_name};
use crate::exec::store::Store;
use crate::files::RunError;
use crate::library::stage::job::Routine;
use crate::plan::{Plan, Stage};

/// Rank 0's word that a stage needs the others, or that it does not.
const WITH_ALL: [u8; 1] = [1];
const ALONE: [u8; 1] = [0];

/// Whether a stage's work is shared among ranks.
const fn is_shared(stage: &Stage) -> bool {
    matches!(stage.job.routine, Routine::Fit(_))
}

/// Tells the other ranks what there is to do of a stage.
pub(super) fn tell(options: &Options, stage: &Stage, entered: &Entered) -> Result<(), RunError> {
    let word = match entered {
        Entered::Open(_) if is_shared(stage) => WITH_ALL,
        Entered::Open(_) | Entered::Finished(_) => ALONE,
    };
    options.ranks.broadcast(word).map(drop)
}

/// Helps rank 0 with the stages that it asks for.
pub(super) fn follow(
    (plan, stages): (&Plan, &[&Stage]),
    store: &Store,
    options: &Options,
    world: &dyn World,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    for stage in stages.iter().copied() {
        if options.ranks.broadcast(ALONE)? != WITH_ALL {
            continue;
        }
        // What it waits for is in the store by now.
        let decided = decide(plan, stage, store, options)?;
        let stage = decided.as_ref().unwrap_or(stage);
        let Routine::Fit(fit) = &stage.job.routine else {
            return Err(RunError::bug("a stage that is not shared was meant to be"));
        };
        let work = Work {
            plan,
            stage,
            store,
            options,
            world,
            dir: store.path(&entry_name(stage)),
            first: false,
        };
        let mut runner = Runner::on(options.machine, &options.device)?;
        work.fit(fit, &mut runner, observer)?;
    }
    Ok(())
}
