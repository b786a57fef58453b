//! The processes that `mpirun` or `srun` starts a run as.

use crate::cli::exit;
use crate::cli::output::error;
use crate::exec::ranks::Ranks;
#[cfg(feature = "mpi")]
use crate::exec::ranks::open_mpi::Member;
use crate::plan::Plan;

/// What launchers say in the environment: how many processes there are, this one's number, who says it.
const LAUNCHERS: [[&str; 3]; 4] = [
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun"],
    ["MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "mpirun"],
    ["PMI_SIZE", "PMI_RANK", "mpirun"],
    ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"],
];

/// A launcher that started several processes.
struct Launched {
    by: &'static str,
    count: u64,
    /// Whether this is the one that talks.
    first: bool,
}

/// The launcher that started this process with others, if one did.
fn launched(variable: &dyn Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
    LAUNCHERS.iter().find_map(|[size, rank, by]| {
        let count = number(size).filter(|count| *count > 1)?;
        let first = number(rank).unwrap_or(0) == 0;
        Some(Launched { by, count, first })
    })
}

/// This process among those that run the recipe.
pub(super) struct Together {
    /// The others, as the run sees them.
    pub(super) ranks: Ranks,
    #[cfg(feature = "mpi")]
    member: Option<Member>,
}

impl Together {
    /// Joins the processes that were started with this one; the exit code where that cannot be, which is said once.
    pub(super) fn join(asked: Option<u64>) -> Result<Self, i32> {
        let launched = launched(&|name| std::env::var(name).ok());
        let first = launched.as_ref().is_none_or(|launched| launched.first);
        Self::among(launched, asked).map_err(|why| {
            if first {
                error(&why);
            }
            exit::WRONG
        })
    }

    fn among(launched: Option<Launched>, asked: Option<u64>) -> Result<Self, String> {
        let Some(launched) = launched else {
            // What it would have to share is refused once it is known.
            return Ok(Self {
                ranks: Ranks::default(),
                #[cfg(feature = "mpi")]
                member: None,
            });
        };
        let Launched { by, count, .. } = launched;
        if let Some(asked) = asked.filter(|asked| *asked != count) {
            return Err(format!(
                "`--ranks {asked}`, and `{by}` started {count} processes; leave `--ranks` out, or start as many"
            ));
        }
        Self::over_mpi(by, count)
    }

    #[cfg(feature = "mpi")]
    fn over_mpi(by: &str, count: u64) -> Result<Self, String> {
        let member = Member::join()?;
        let found = member.count() as u64;
        if found != count {
            return Err(format!(
                "`{by}` started {count} processes, and MPI knows of {found}: each would run the recipe by itself; start them with \
                 `mpirun`, or with `srun --mpi=pmix` (`srun --mpi=list` says what there is)"
            ));
        }
        Ok(Self {
            ranks: Ranks::over(std::sync::Arc::new(member.wire())),
            member: Some(member),
        })
    }

    #[cfg(not(feature = "mpi"))]
    fn over_mpi(by: &str, count: u64) -> Result<Self, String> {
        Err(format!(
            "`{by}` started this as one of {count} processes, and this `peftc` was built without MPI: each would run the whole \
             recipe by itself; build it with `cargo build --release --features mpi`, or start one process"
        ))
    }

    /// Leaves the others, which end for the same reason, or else ends them; gives the exit code.
    pub(super) fn leave(self, code: i32) -> i32 {
        #[cfg(feature = "mpi")]
        if let Some(member) = &self.member
            && code != exit::DONE
            && !self.ranks.ends_together()
        {
            member.end_all(code);
        }
        code
    }
}

/// Whether all ranks are to run the same plan, or end for the same reason; the exit code where they cannot go on.
pub(super) fn agree(ranks: &Ranks, own: Result<&Plan, i32>) -> Result<(), i32> {
    if ranks.count() == 1 {
        return own.map(drop);
    }
    let hash = match own {
        Ok(plan) => identity(plan),
        Err(_) => [0; 32],
    };
    let stranger = match ranks.stranger(hash) {
        Ok(stranger) => stranger,
        Err(why) => {
            error(&why.to_string());
            return Err(exit::FAILED);
        }
    };
    ranks_go_on(ranks, own, stranger)
}

fn ranks_go_on(ranks: &Ranks, own: Result<&Plan, i32>, stranger: Option<usize>) -> Result<(), i32> {
    match (own, stranger) {
        (Ok(_), None) => Ok(()),
        (own, _) => {
            ranks.all_end();
            if let (Some(rank), Ok(_), true) = (stranger, own, ranks.leads()) {
                error(&format!(
                    "rank {rank} does not see the recipe, the data or the store that rank 0 sees; start all ranks in a folder \
                     that their machines share"
                ));
            }
            Err(own.err().unwrap_or(exit::FAILED))
        }
    }
}

/// What all stages of a plan are.
fn identity(plan: &Plan) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for stage in &plan.stages {
        hasher.update(format!("{}\u{1e}{:?}\u{1e}", stage.name.value, stage.parts).as_bytes());
        hasher.update(&[u8::from(stage.open.is_some())]);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_is_known_by_its_variables() {
        let of = |list: &'static [(&str, &str)]| {
            launched(&move |name| {
                let found = list.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[]).is_none());
        assert!(of(&[("OMPI_COMM_WORLD_SIZE", "1")]).is_none());
        let mpirun = of(&[("OMPI_COMM_WORLD_SIZE", "3"), ("OMPI_COMM_WORLD_RANK", "2")]);
        let mpirun = mpirun.expect("one of three");
        assert_eq!(
            (mpirun.by, mpirun.count, mpirun.first),
            ("mpirun", 3, false)
        );
        let srun = of(&[("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "0")]);
        let srun = srun.expect("one of two");
        assert_eq!((srun.by, srun.count, srun.first), ("srun", 2, true));
    }

    #[test]
    fn processes_that_cannot_train_together_are_refused() {
        let of = |count: Option<u64>, asked| {
            let launched = count.map(|count| Launched {
                by: "mpirun",
                count,
                first: true,
            });
            Together::among(launched, asked).err().unwrap_or_default()
        };
        assert_eq!(of(None, None), "");
        assert_eq!(of(None, Some(1)), "");
        assert_eq!(of(None, Some(2)), "");
        assert!(of(Some(2), Some(3)).contains("started 2 processes"));
        #[cfg(not(feature = "mpi"))]
        assert!(of(Some(2), None).contains("--features mpi"));
    }
}
