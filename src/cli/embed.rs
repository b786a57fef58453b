//! The commands as functions, for programs that embed the compiler. What the crate's root offers is declared here.
//!
//! **Invariant:** nothing here prints, ends the process or listens to signals.

mod model;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

pub use model::{Model, Row, predict};

use super::options::{Color, Common, Prepared, Within, out_of, pool_of, store_of, unknown_device};
use super::world::RealWorld;
use super::{check as checking, doctor, gpu, plan as planning, run as running};
use crate::base::{Diag, Severity, Sources};
use crate::driver::Compiled;
use crate::exec::backend::Device as ExecDevice;
use crate::exec::observe::Observer;
use crate::exec::ranks::Ranks;
use crate::exec::run::{Options, is_finished, run as carry_out};
use crate::exec::store::Store;
use crate::files::RunError;
use crate::plan::Stage;
use crate::program::device::{Card, Device};
use crate::program::op::Machine;

/// A recipe, and what is asked of it: the flags of `peftc check`, `plan` and `run`.
///
/// ```no_run
/// let job = peftc::Job::new("recipe.peft").set("rank", "8").offline();
/// for stage in peftc::check(&job)?.stages {
///     println!("{} needs {} bytes", stage.name, stage.bytes);
/// }
/// # Ok::<(), peftc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Job {
    recipe: PathBuf,
    sets: Vec<(String, String)>,
    device: String,
    offline: bool,
    threads: Option<usize>,
    budget: Option<u64>,
    stage: Option<String>,
    fresh: bool,
    store: Option<PathBuf>,
    out: Option<PathBuf>,
    data_report: bool,
}

impl Job {
    /// That of a recipe, on the processor with all its threads. The store and the results are beside the recipe.
    pub fn new(recipe: impl Into<PathBuf>) -> Self {
        Self {
            recipe: recipe.into(),
            sets: Vec::new(),
            device: "cpu".to_owned(),
            offline: false,
            threads: None,
            budget: None,
            stage: None,
            fresh: false,
            store: None,
            out: None,
            data_report: true,
        }
    }

    /// Overrides a `let` of the recipe; the value is written as there.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sets.push((name.into(), value.into()));
        self
    }

    /// Plans for and runs on a device: `cpu`, `cuda`, `cuda:N`. [`check`] and [`plan`] take a card's name too.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = name.into();
        self
    }

    /// Never reaches for the network.
    #[must_use]
    pub const fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Computes with so many threads; at least one.
    #[must_use]
    pub const fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Bytes that a stage may need. Stages with `fit = auto` are made to fit; a run that needs more is refused.
    #[must_use]
    pub const fn budget(mut self, bytes: u64) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Runs this stage and what it needs only.
    #[must_use]
    pub fn stage(mut self, name: impl Into<String>) -> Self {
        self.stage = Some(name.into());
        self
    }

    /// Runs stages again that the store has finished.
    #[must_use]
    pub const fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Keeps finished stages in this folder.
    #[must_use]
    pub fn store(mut self, folder: impl Into<PathBuf>) -> Self {
        self.store = Some(folder.into());
        self
    }

    /// Leaves logs and results in this folder.
    #[must_use]
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = Some(folder.into());
        self
    }

    /// Does not look at the rows of data, so that nothing is warned of there.
    #[must_use]
    pub const fn without_data_report(mut self) -> Self {
        self.data_report = false;
        self
    }

    /// The flags as the command line has them.
    fn common(&self) -> Common {
        Common {
            device: self.device.clone(),
            offline: self.offline,
            sets: Vec::new(),
            json: true,
            quiet: true,
            threads: self.threads,
            no_data_report: !self.data_report,
            color: Color::Never,
        }
    }

    /// The device to run on, where the name is not that of a card to plan for.
    fn running_device(&self) -> Option<ExecDevice> {
        self.device.parse().ok()
    }

    fn machine(&self) -> Result<Machine, Error> {
        let machine = Machine::detect(self.threads);
        let device = match self.running_device() {
            Some(ExecDevice::Cuda(n)) => {
                Device::Cuda(gpu::find().gpus.get(n as usize).and_then(gpu::Gpu::card))
            }
            Some(ExecDevice::Cpu) => Device::Cpu,
            None => match Card::named(&self.device) {
                Some(card) => Device::Cuda(Some(card)),
                None => return Err(Error::Wrong(unknown_device(&self.device))),
            },
        };
        Ok(machine.on(device))
    }

    fn folder(&self) -> PathBuf {
        store_of(&self.recipe, self.store.as_deref())
    }

    /// Compiles it on a pool of its own.
    fn compiled(&self, (store, world): (Option<&Path>, &RealWorld)) -> Result<Ready, Error> {
        let machine = self.machine()?;
        let pool = pool_of(machine.threads).map_err(Error::Wrong)?;
        let asked = Prepared {
            sets: self.sets.clone(),
            budget: self.budget,
            machine,
        };
        let limit = asked.limit();
        let (common, within) = (self.common(), Within::alone(store, limit));
        let compiled = pool.install(|| common.compile_here(&self.recipe, &asked, world, within));
        Ok(Ready {
            machine,
            pool,
            limit,
            compiled,
        })
    }
}

/// A compiled job.
struct Ready {
    machine: Machine,
    pool: rayon::ThreadPool,
    limit: Option<u64>,
    compiled: Compiled,
}

/// Something that is to be said of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// What it is, as `peftc explain` knows it: `peftc::resolve::unknown_key`.
    pub code: String,
    /// How bad it is; a recipe with an error is rejected.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The file, if it is about a place in one.
    pub file: Option<String>,
    /// The place in the file, both from 1, columns in characters; 0 without one.
    pub line: usize,
    /// See `line`.
    pub column: usize,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:{}:{}: ", self.line, self.column)?;
        }
        write!(f, "{}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

fn messages(diags: &[Diag], sources: &Sources) -> Vec<Message> {
    let one = |diag: &Diag| {
        let source = diag.span.and_then(|s| Some((s, sources.get(s.source)?)));
        let place = source.map(|(span, text)| text.line_column(span.start as usize));
        let (line, column) = place.unwrap_or((0, 0));
        Message {
            code: format!("peftc::{}", diag.code.name),
            severity: diag.severity,
            message: diag.message.clone(),
            help: diag.help.clone(),
            file: source.map(|(_, text)| text.name.clone()),
            line,
            column,
        }
    };
    diags.iter().map(one).collect()
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe has mistakes; warnings are among the messages, too.
    #[error("the recipe is rejected: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rejected(Vec<Message>),
    /// What is asked for cannot be, whatever the recipe is.
    #[error("{0}")]
    Wrong(String),
    /// A stage that is to run needs more than it may.
    #[error("it needs {needs} bytes, and {limit} are there")]
    TooLarge {
        /// Bytes of the largest stage.
        needs: u64,
        /// Bytes of the budget or the card.
        limit: u64,
    },
    /// A run failed; the stages before are in the store, and the next run goes on behind them.
    #[error(transparent)]
    Failed(#[from] RunError),
}

impl Error {
    /// The exit code that the command line has for it.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Rejected(_) | Self::Wrong(_) => super::exit::WRONG,
            Self::TooLarge { .. } => super::exit::TOO_LARGE,
            Self::Failed(why) => why.exit_code(),
        }
    }
}

/// What a stage takes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Need {
    /// Its name; in a sweep with the values of its axes.
    pub name: String,
    /// Its kind: `train`, `eval`, …
    pub kind: String,
    /// Bytes of the process, or of the card, at its peak.
    pub bytes: u64,
    /// Parameters that it trains.
    pub trainable: u64,
    /// Its time by what is known of the machine; `None` where nothing tells it.
    pub seconds: Option<f64>,
    /// Whether the store has finished it.
    pub finished: bool,
}

/// What is known of a recipe before it runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Warnings and notes, in the order of the text.
    pub messages: Vec<Message>,
    /// Its stages, in the order in which they run.
    pub stages: Vec<Need>,
    /// Whether the largest stage fits the budget or the card, if there is one.
    pub fits: Option<bool>,
}

/// Says how much memory a recipe takes; executes nothing.
///
/// # Errors
/// The recipe is rejected, with everything that is wrong; the device does not exist. That it does not fit a budget is no error.
pub fn check(job: &Job) -> Result<Checked, Error> {
    let (world, folder) = (RealWorld::new(job.offline), job.folder());
    let ready = job.compiled((Some(&folder), &world))?;
    let all = messages(&ready.compiled.diags, &ready.compiled.sources);
    let Some(plan) = &ready.compiled.plan else {
        return Err(Error::Rejected(all));
    };
    let store = Store::open(folder);
    let rates = store.rates(ready.machine.threads);
    let need = |stage: &Stage| Need {
        name: stage.name.value.clone(),
        kind: stage.filled.name.clone(),
        bytes: stage.estimate.needs(),
        trainable: stage.job.parameters().1,
        seconds: stage.seconds(&rates, &ready.machine),
        finished: is_finished(&store, stage),
    };
    let stages: Vec<Need> = plan.stages.iter().map(need).collect();
    let most = stages.iter().map(|s| s.bytes).max().unwrap_or(0);
    Ok(Checked {
        messages: all,
        stages,
        fits: ready.limit.map(|limit| most <= limit),
    })
}

/// The compiled plan, as `peftc plan --json` prints it (`docs/cli.md`).
///
/// # Errors
/// As of [`check`].
pub fn plan(job: &Job) -> Result<Json, Error> {
    let (world, folder) = (RealWorld::new(job.offline), job.folder());
    let ready = job.compiled((Some(&folder), &world))?;
    let Some(plan) = &ready.compiled.plan else {
        return Err(Error::Rejected(messages(
            &ready.compiled.diags,
            &ready.compiled.sources,
        )));
    };
    let name = job.recipe.display().to_string();
    let store = Store::open(folder);
    Ok(planning::json(
        plan,
        (&name, &job.device),
        &store,
        &ready.machine,
    ))
}

/// Executes a recipe; finished stages are taken from the store. Gives the document of `result.json` (`docs/cli.md`). The
/// observer hears of every step, and ends the run behind one, with a checkpoint, once its `interrupted` gives a signal.
///
/// Memory is measured where the program has [`Counting`](crate::exec::Counting) as its global allocator.
///
/// # Errors
/// As of [`check`]; what is to run does not fit; a stage failed.
pub fn run(job: &Job, observer: &mut (dyn Observer + Send)) -> Result<Json, Error> {
    // A name that nothing has is no card either.
    job.machine()?;
    let plans_only = || {
        let why = format!(
            "nothing runs on `{}`, which is a card to plan for; name `cpu`, `cuda` or `cuda:N`",
            job.device
        );
        Error::Wrong(why)
    };
    let device = job.running_device().ok_or_else(plans_only)?;
    let unready = |why: String| Error::Wrong(format!("`{}`: {why}", job.device));
    device.is_ready().map_err(unready)?;
    let (world, folder) = (RealWorld::new(job.offline), job.folder());
    let chosen_there = Some(folder.as_path()).filter(|_| !job.fresh);
    let ready = job.compiled((chosen_there, &world))?;
    let Some(plan) = &ready.compiled.plan else {
        return Err(Error::Rejected(messages(
            &ready.compiled.diags,
            &ready.compiled.sources,
        )));
    };
    let only = job.stage.as_ref();
    running::is_there(plan, only).map_err(Error::Wrong)?;
    let needs = checking::needed(&running::left(plan, &folder, only, job.fresh));
    if let Some(limit) = ready.limit.filter(|limit| needs > *limit) {
        return Err(Error::TooLarge { needs, limit });
    }
    let text = |s: &crate::base::Source| (s.name.clone(), s.text.clone());
    let options = Options {
        recipe: job.recipe.clone(),
        store: folder,
        out: out_of(&job.recipe, job.out.as_deref()),
        only: job.stage.clone(),
        fresh: job.fresh,
        resume: true,
        adopts: false,
        checkpoint_every: Duration::from_secs(30),
        machine: ready.machine,
        device: Arc::new(device),
        ranks: Ranks::default(),
        machine_name: doctor::machine(ready.machine.threads),
        command: running::command(&job.recipe, &sets(&job.sets), &job.device),
        sources: ready.compiled.sources.iter().map(text).collect(),
    };
    let done = ready
        .pool
        .install(|| carry_out(plan, &options, &world, observer));
    Ok(done?)
}

/// `--set`'s of values.
fn sets(sets: &[(String, String)]) -> Vec<String> {
    let one = |(name, value): &(String, String)| format!("{name}={value}");
    sets.iter().map(one).collect()
}
