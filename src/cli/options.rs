//! Flags that several commands share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::gpu;
pub(super) use super::output::{error, output_failed, print};
use super::world::RealWorld;
use crate::base::suggest;
use crate::driver::{Compiled, check_kernels, compile_with, decide, divide};
use crate::exec::backend::Device as ExecDevice;
use crate::exec::store::Store;
use crate::program::device::{CARDS, Card, Device};
use crate::program::op::Machine;
use crate::resolve::is_bare;

/// When to colour.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub(super) enum Color {
    /// On terminals.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Flags of every command that reads recipes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Device to plan for and run on: cpu, cuda, cuda:N; `check` and `plan` take a card's name too, such as
    /// rtx3070-8gb (`peftc list devices`)
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Never reach for the network; use the cache only
    #[arg(long)]
    pub offline: bool,
    /// Override a `let` of the recipe
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub sets: Vec<String>,
    /// Print one JSON document on standard output
    #[arg(long)]
    pub json: bool,
    /// Print no progress and no notes
    #[arg(long)]
    pub quiet: bool,
    /// Threads to compute with; all cores if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Do not look at the rows of data: no report of them, no warnings about them
    #[arg(long)]
    pub no_data_report: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    pub color: Color,
}

/// What a command does with its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Tells of it.
    Tell,
    /// Runs it.
    Run,
}

/// What had to be right before a recipe is read.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `--set NAME=VALUE`, split.
    pub sets: Vec<(String, String)>,
    /// `--budget`.
    pub budget: Option<u64>,
    /// The machine to plan for.
    pub machine: Machine,
}

/// What a plan is made within.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within<'a> {
    /// The store that prompts were chosen in before.
    pub store: Option<&'a Path>,
    /// Bytes that stages with `fit = auto` are made to fit.
    pub budget: Option<u64>,
    /// Processes that trainings are shared among.
    pub ranks: u64,
}

impl<'a> Within<'a> {
    /// One process.
    pub(super) const fn alone(store: Option<&'a Path>, budget: Option<u64>) -> Self {
        Self {
            store,
            budget,
            ranks: 1,
        }
    }
}

impl Prepared {
    /// Bytes that may be needed: the budget, and no more than a card has.
    pub(super) fn limit(&self) -> Option<u64> {
        let card = self.machine.device.card().map(Card::available);
        self.budget.into_iter().chain(card).min()
    }
}

impl Common {
    /// The real world under these flags.
    pub(super) fn world(&self) -> RealWorld {
        RealWorld::new(self.offline)
    }

    /// Compiles a recipe and prints what is to be said about it.
    pub(super) fn compiled(
        &self,
        file: &Path,
        asked: &Prepared,
        world: &RealWorld,
        within: Within<'_>,
    ) -> Compiled {
        let compiled = self.compile(file, asked, world, within);
        super::render::report(&compiled.diags, &compiled.sources, self);
        compiled
    }

    /// Compiles a recipe in the pool; prompts that were chosen before are taken from the store, and stages
    /// that say `fit = auto` are made to fit a budget.
    pub(super) fn compile(
        &self,
        file: &Path,
        asked: &Prepared,
        world: &RealWorld,
        within: Within<'_>,
    ) -> Compiled {
        self.in_pool(|| self.compile_here(file, asked, world, within))
    }

    /// The same in the pool of the caller.
    pub(super) fn compile_here(
        &self,
        file: &Path,
        asked: &Prepared,
        world: &RealWorld,
        within: Within<'_>,
    ) -> Compiled {
        let (sets, machine) = (&asked.sets, &asked.machine);
        let mut compiled = compile_with(file, sets, world, machine, !self.no_data_report);
        divide(&mut compiled, within.ranks, machine);
        let store = within.store.map(Store::open);
        if let Some(store) = &store {
            decide(&mut compiled, store, machine);
        }
        check_kernels(&mut compiled, store.as_ref(), machine);
        if let (Some(plan), Some(budget)) = (&mut compiled.plan, within.budget) {
            plan.fit(budget, machine);
        }
        compiled
    }

    /// `--set NAME=VALUE` split; an error is printed.
    fn sets(&self) -> Option<Vec<(String, String)>> {
        let split = |text: &String| match text.split_once('=') {
            Some((name, value)) => Some((name.trim().to_owned(), value.trim().to_owned())),
            None => {
                error(&format!(
                    "`--set {text}` lacks a `=`; write `--set NAME=VALUE`"
                ));
                None
            }
        };
        self.sets.iter().map(split).collect()
    }

    /// Where programs run, as asked for; the processor if that names nothing, which [`Self::prepare`] says.
    pub(super) fn exec_device(&self) -> ExecDevice {
        self.device.parse().unwrap_or_default()
    }

    /// The device to plan for; an error is printed, also where programs are to run there and cannot.
    fn device(&self, intent: Intent) -> Option<Device> {
        let name = self.device.as_str();
        match name.parse::<ExecDevice>() {
            Ok(ExecDevice::Cuda(index)) => {
                if let (Intent::Run, Err(why)) = (intent, ExecDevice::Cuda(index).is_ready()) {
                    error(&format!("`--device {name}`: {why}"));
                    return None;
                }
                let gpus = gpu::find().gpus;
                let found = gpus.get(index as usize).and_then(gpu::Gpu::card);
                return Some(Device::Cuda(found));
            }
            Ok(_) => return Some(Device::Cpu),
            Err(_) => {}
        }
        let card = Card::named(name);
        if card.is_some() && intent == Intent::Tell {
            return Some(Device::Cuda(card));
        }
        error(&match card {
            Some(_) => format!(
                "`--device {name}` names a card to plan for, with `check` and `plan`; what runs takes \
                 `cpu`, `cuda` or `cuda:N`"
            ),
            None => unknown_device(name),
        });
        None
    }

    /// What has to be right before a recipe is read: the device, `--set`, and a budget's size. An error
    /// is printed.
    pub(super) fn prepare(&self, budget: Option<&str>, intent: Intent) -> Option<Prepared> {
        let machine = Machine::detect(self.threads).on(self.device(intent)?);
        let sets = self.sets()?;
        let budget = match budget {
            Some(text) => Some(size(text)?),
            None => None,
        };
        Some(Prepared {
            sets,
            budget,
            machine,
        })
    }

    /// Runs a closure inside a pool of the machine's threads.
    pub(super) fn in_pool<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        pool(Machine::detect(self.threads).threads).install(f)
    }
}

/// Most processes that a training can be shared among.
const MOST_RANKS: u64 = 1024;

/// A number of processes that trainings are shared among.
pub(super) fn ranks(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if (1..=MOST_RANKS).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MOST_RANKS} is wanted")),
    }
}

/// Most threads that can be asked for.
const MOST_THREADS: usize = 1024;

/// A number of threads.
pub(super) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MOST_THREADS).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MOST_THREADS} is wanted")),
    }
}

/// A pool of threads. Where the system gives fewer, nothing can be done, and the process ends with an error.
pub(super) fn pool(threads: usize) -> rayon::ThreadPool {
    pool_of(threads).unwrap_or_else(|why| {
        error(&why);
        std::process::exit(super::exit::FAILED)
    })
}

/// A pool of threads, or why there is none.
pub(super) fn pool_of(threads: usize) -> Result<rayon::ThreadPool, String> {
    let made = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    made.map_err(|why| {
        format!(
            "the system does not start {threads} threads: {why}; give fewer (`--threads N`) or raise its limit (`ulimit -u`)"
        )
    })
}

/// What to say of a device that does not exist.
pub(super) fn unknown_device(name: &str) -> String {
    let valid = ["cpu", "cuda"].into_iter();
    let near = suggest::nearest(name, valid.chain(CARDS.iter().map(|c| c.name)));
    let hint = if near.is_empty() {
        "devices are `cpu`, `cuda`, `cuda:N` and the cards of `peftc list devices`".to_owned()
    } else {
        format!("did you mean `{}`?", near.join("` or `"))
    };
    format!("there is no device `{name}`; {hint}")
}

/// A size such as `6GiB`; an error is printed.
pub(super) fn size(text: &str) -> Option<u64> {
    let at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    if unit.is_empty() && is_bare(digits.trim()) {
        error(&format!(
            "`{text}` would be {text} bytes; write `{}GiB`, or `{text}B` if bytes are meant",
            digits.trim()
        ));
        return None;
    }
    let parsed =
        crate::resolve::parse_size(digits.trim(), if unit.is_empty() { "B" } else { unit });
    if parsed.is_none() {
        error(&format!(
            "`{text}` is not a size; write `6GiB`, `8GB` or `900MiB`"
        ));
    }
    parsed
}

/// The store that is asked for, or the one beside the recipe.
pub(super) fn store_of(recipe: &Path, asked: Option<&Path>) -> PathBuf {
    asked.map_or_else(|| beside(recipe, ".peftc/store"), Path::to_path_buf)
}

/// Where a recipe's logs and results go: where it is asked for, or beside the recipe.
pub(super) fn out_of(recipe: &Path, asked: Option<&Path>) -> PathBuf {
    let beside = || beside(recipe, &format!(".peftc/runs/{}", stem(recipe)));
    asked.map_or_else(beside, Path::to_path_buf)
}

/// A recipe's name without its ending.
pub(super) fn stem(recipe: &Path) -> String {
    let stem = recipe.file_stem();
    stem.map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A path beside a recipe.
pub(super) fn beside(recipe: &Path, rest: &str) -> PathBuf {
    recipe.parent().unwrap_or(Path::new("")).join(rest)
}
