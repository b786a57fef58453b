//! Plans made behind the typing: one after the other, each given up once its text has changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::base::units::Bytes;
use crate::base::{Diag, Sources};
use crate::cli::options::{pool, store_of};
use crate::cli::world::RealWorld;
use crate::driver::{Compiled, check_kernels, compile_until, decide};
use crate::editor::{Overlay, Shown};
use crate::exec::run::is_finished;
use crate::exec::store::Store;
use crate::plan::solve::{Solution, solve};
use crate::plan::{Plan, Stage};
use crate::program::device::{Card, Device};
use crate::program::op::Machine;

/// The texts of an editor by their files.
pub(super) type Texts = Arc<BTreeMap<PathBuf, Arc<str>>>;

/// Something to be planned.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) path: PathBuf,
    pub(super) texts: Texts,
    pub(super) stopped: Arc<AtomicBool>,
    pub(super) wants: Wants,
}

/// What is wanted of a plan.
#[derive(Debug)]
pub(super) enum Wants {
    /// The estimate, and what is wrong.
    Estimate,
    /// Whether it fits a budget in bytes, or a card.
    Fits(Result<u64, &'static Card>),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    /// An estimate, unless the recipe is rejected, and all that is wrong with it.
    Estimate {
        path: PathBuf,
        shown: Option<Shown>,
        diags: Vec<Diag>,
        sources: Sources,
        stopped: Arc<AtomicBool>,
    },
    /// Something to be said.
    Said(String),
}

/// What every plan is made with.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) world: RealWorld,
    pub(super) machine: Machine,
    pub(super) store: Option<PathBuf>,
    pub(super) survey: bool,
}

/// Starts the thread that plans; jobs go in, and what came of them comes out.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(maker: Maker) -> std::io::Result<(Sender<Job>, Receiver<Done>)> {
    let (jobs, todo) = unbounded::<Job>();
    let (done, results) = unbounded::<Done>();
    let work = move || {
        let pool = pool(maker.machine.threads);
        for job in todo {
            if job.stopped.load(Ordering::Relaxed) {
                continue;
            }
            // A bug in planning one text must not end the editor's server.
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| maker.carry_out(&job))
            }));
            let made = made.unwrap_or_else(|_| {
                Done::Said(format!(
                    "a bug of peftc: planning {} failed; `peftc check` on it tells more",
                    job.path.display()
                ))
            });
            if done.send(made).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("plans".to_owned())
        .spawn(work)?;
    Ok((jobs, results))
}

impl Maker {
    fn compiled(&self, job: &Job, machine: &Machine) -> (Compiled, Store) {
        let overlay = Overlay::new(&self.world, job.texts.clone(), job.stopped.clone());
        let stopped = || job.stopped.load(Ordering::Relaxed);
        let mut compiled =
            compile_until(&job.path, &[], &overlay, machine, (self.survey, &stopped));
        let store = Store::open(store_of(&job.path, self.store.as_deref()));
        if !stopped() {
            decide(&mut compiled, &store, machine);
            check_kernels(&mut compiled, Some(&store), machine);
        }
        (compiled, store)
    }

    fn carry_out(&self, job: &Job) -> Done {
        let limit = match &job.wants {
            Wants::Estimate => {
                let (compiled, store) = self.compiled(job, &self.machine);
                let rates = store.rates(self.machine.threads);
                let finished = |stage: &Stage| is_finished(&store, stage);
                let plan = compiled.plan.as_ref();
                return Done::Estimate {
                    path: job.path.clone(),
                    shown: plan.map(|plan| Shown::of(plan, &finished, &rates, &self.machine)),
                    diags: compiled.diags,
                    sources: compiled.sources,
                    stopped: job.stopped.clone(),
                };
            }
            Wants::Fits(limit) => *limit,
        };
        let (machine, bytes, what) = match limit {
            Ok(bytes) => (
                self.machine.on(Device::Cpu),
                bytes,
                Bytes(bytes).to_string(),
            ),
            Err(card) => (
                self.machine.on(Device::Cuda(Some(card))),
                card.available(),
                format!(
                    "the {} that a {} leaves",
                    Bytes(card.available()),
                    card.name
                ),
            ),
        };
        let (compiled, _) = self.compiled(job, &machine);
        Done::Said(match &compiled.plan {
            Some(plan) => verdict(plan, bytes, &what, &machine),
            None => format!(
                "{}: it has mistakes, so nothing is estimated",
                name(&job.path)
            ),
        })
    }
}

/// A recipe's file name.
fn name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether a plan fits, and what would.
fn verdict(plan: &Plan, limit: u64, what: &str, machine: &Machine) -> String {
    let needs = |s: &&Stage| s.estimate.needs();
    let Some(largest) = plan.stages.iter().max_by_key(needs) else {
        return "there are no stages".to_owned();
    };
    let most = needs(&largest);
    if most <= limit {
        return format!(
            "It fits {what}: `{}` needs most, {}",
            largest.name.value,
            Bytes(most)
        );
    }
    let over: Vec<&Stage> = plan.stages.iter().filter(|s| needs(s) > limit).collect();
    let mut text = format!("It does not fit {what}.");
    for stage in over.iter().take(3) {
        text.push_str(&format!(
            " `{}` needs {}",
            stage.name.value,
            Bytes(needs(stage))
        ));
        let ways = ["micro_batch", "batch", "max_length", "rank"]
            .iter()
            .filter_map(|key| match solve(stage, key, limit, machine) {
                Solution::Fits { value, .. } => Some(format!("`{key} = {value}`")),
                Solution::Never { .. } | Solution::NotAKey => None,
            });
        let ways: Vec<String> = ways.collect();
        text.push_str(&if ways.is_empty() {
            "; neither a smaller batch nor shorter texts would do.".to_owned()
        } else {
            format!("; it would fit with {}.", ways.join(", or "))
        });
    }
    text
}
