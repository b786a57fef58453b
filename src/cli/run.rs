//! `peftc run`: execute a recipe.

mod dry;
mod ranks;
mod submit;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use self::ranks::{Together, agree};
use super::check::{fitted, needed, verdict};
use super::exit;
use super::live::Ahead;
use super::logs::{self, Lines, Logged};
use super::options::{Common, Intent, Within, error, out_of, print, stem, store_of};
use super::output::note;
use super::progress::Progress;
use super::scores;
use super::screen::Screen;
use super::signals::{self, Asked};
use super::world::RealWorld;
use crate::exec::observe::Observer;
use crate::exec::ranks::Ranks;
use crate::exec::run::{Options, is_finished, run};
use crate::exec::store::Store;
use crate::files::RunError;
use crate::plan::{Plan, Stage};
use crate::program::op::Machine;

/// Columns of tables where there is no terminal.
const WIDE: usize = 100;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The recipe
    file: PathBuf,
    /// Memory that may be used: 6GiB, 8GB, 900MiB
    #[arg(long)]
    budget: Option<String>,
    /// Print the stages that would run, and why
    #[arg(long)]
    dry_run: bool,
    /// Run this stage and what it needs only; in a sweep all its variants, or one by its full name
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Print what the stages' runs spent on each op
    #[arg(long)]
    profile: bool,
    /// Submit a job for each stage that is not in the store; with `--dry-run`, print the scripts
    #[arg(long, value_enum, value_name = "ENGINE")]
    on: Option<Engine>,
    /// Processes that trainings are shared among: as many as `mpirun -n N` starts, or with `--on slurm` as each job is
    /// to start
    #[arg(long, value_name = "N", value_parser = super::options::ranks)]
    ranks: Option<u64>,
    /// Ignore the store for this recipe's stages
    #[arg(long)]
    fresh: bool,
    /// Whether stages that were interrupted go on from their checkpoints
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    resume: Resume,
    /// Where finished stages are kept; `.peftc/store` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where logs and results go; `.peftc/runs/RECIPE` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seconds between checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    checkpoint_every: Duration,
    /// Write curves for another tool: tensorboard=DIR, mlflow=DIR; may be given several times
    #[arg(long, value_name = "TOOL=DIR", value_parser = logs::wanted)]
    log: Vec<logs::Wanted>,
    /// How progress is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(flatten)]
    common: Common,
}

/// A recipe that can be run.
struct Ready {
    plan: Plan,
    machine: Machine,
    /// Its text and those of what it imports, each with its name.
    sources: Vec<(String, String)>,
}

/// What runs jobs.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Engine {
    /// SLURM, by its `sbatch`.
    Slurm,
}

/// How progress is written.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// An object of JSON a line.
    Json,
}

/// Whether to go on from checkpoints.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Resume {
    /// Where there are any.
    Auto,
    /// Never: an interrupted stage begins again.
    Never,
    /// Where there are any, and else from one of another number of ranks.
    Any,
}

/// A time between checkpoints.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "write a number of seconds, such as 30 or 0.5".to_owned())?;
    if number.is_nan() || number < 0.0 {
        return Err("that is no time; write a number of seconds, such as 30 or 0.5".to_owned());
    }
    // What is longer than any run means: at the end only.
    Ok(Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX))
}

impl Run {
    /// Whether progress is written as lines of JSON.
    pub(super) fn writes_lines(&self) -> bool {
        self.log_format == LogFormat::Json
    }

    pub(super) fn run(&self) -> i32 {
        match self.on {
            Some(Engine::Slurm) => self.submit(),
            None => match Together::join(self.ranks) {
                Ok(together) => {
                    let code = self.here(&together.ranks);
                    together.leave(code)
                }
                Err(code) => code,
            },
        }
    }

    /// Runs it in this process, and in the others that were started with it.
    fn here(&self, ranks: &Ranks) -> i32 {
        let quiet = self.common.quiet || self.log_format == LogFormat::Json || !ranks.leads();
        // From the beginning: SIGUSR1 would end a process that does not know it.
        let asked_for = match signals::watch(quiet) {
            Ok(asked) => asked,
            Err(why) => {
                error(&format!(
                    "the system gives no thread to listen to signals with: {why}; raise its limit (`ulimit -u`)"
                ));
                return exit::FAILED;
            }
        };
        let world = self.common.world();
        let ready = self.ready(&world, ranks);
        let own = ready.as_ref().map_err(|code| *code);
        if let Err(code) = agree(ranks, own.map(|ready| &ready.plan)) {
            return code;
        }
        let Ok(ready) = ready else {
            return exit::FAILED;
        };
        let Ready {
            plan,
            machine,
            sources,
        } = &ready;
        if !self.common.quiet && self.log_format == LogFormat::Text && ranks.leads() {
            note(&fitted(plan));
        }
        let options = Options {
            recipe: self.file.clone(),
            store: store_of(&self.file, self.store.as_deref()),
            out: out_of(&self.file, self.out.as_deref()),
            only: self.stage.clone(),
            fresh: self.fresh,
            resume: self.resume != Resume::Never,
            adopts: self.resume == Resume::Any,
            checkpoint_every: self.checkpoint_every,
            machine: *machine,
            device: Arc::new(self.common.exec_device()),
            ranks: ranks.clone(),
            machine_name: super::doctor::machine(machine.threads),
            command: self.command(),
            sources: sources.clone(),
        };
        if self.dry_run {
            if ranks.leads() {
                print(&self.dry(plan, &options));
            }
            return exit::DONE;
        }
        asked_for.run_begins();
        self.execute(plan, &options, &world, asked_for)
    }

    /// Compiles what is to be run; the exit code where nothing is to be executed, which rank 0 gives the reason for.
    fn ready(&self, world: &RealWorld, ranks: &Ranks) -> Result<Ready, i32> {
        let budget = self.budget.as_deref();
        let asked = self.common.prepare(budget, Intent::Run);
        let asked = asked.ok_or(exit::WRONG)?;
        let (machine, budget) = (asked.machine, asked.limit());
        let store = store_of(&self.file, self.store.as_deref());
        let within = Within {
            store: Some(store.as_path()).filter(|_| !self.fresh),
            budget,
            ranks: self.ranks.unwrap_or(ranks.count() as u64),
        };
        let common = &self.common;
        let compiled = common.compile(&self.file, &asked, world, within);
        let say = |text: &str| {
            if ranks.leads() {
                error(text);
            }
        };
        if ranks.leads() {
            super::render::report(&compiled.diags, &compiled.sources, common);
        }
        let Some(plan) = compiled.plan else {
            say(&format!(
                "{} is rejected: nothing was executed",
                self.file.display()
            ));
            return Err(exit::WRONG);
        };
        if let Err(why) = is_there(&plan, self.stage.as_ref()) {
            say(&why);
            return Err(exit::WRONG);
        }
        let left = left(&plan, &store, self.stage.as_ref(), self.fresh);
        let shared = left
            .iter()
            .find(|s| s.ranks != ranks.count() as u64 && s.trains());
        if let Some(stage) = shared.filter(|_| !self.dry_run) {
            let (name, n) = (&stage.name.value, stage.ranks);
            say(&format!(
                "`--ranks {n}`: `{name}` is to be shared among {n} processes, and this is one; start them with `mpirun -n {n} peftc \
                 run …`, or submit it with `--on slurm`"
            ));
            return Err(exit::WRONG);
        }
        if let Some(budget) = budget.filter(|b| needed(&left) > *b) {
            say("over the budget; nothing was executed");
            if ranks.leads() {
                note(&verdict(&left, budget, Screen::err(common.color)));
            }
            return Err(exit::TOO_LARGE);
        }
        let text = |s: &crate::base::Source| (s.name.clone(), s.text.clone());
        Ok(Ready {
            sources: compiled.sources.iter().map(text).collect(),
            plan,
            machine,
        })
    }

    /// The stages that are asked for.
    fn asked<'a>(&self, plan: &'a Plan) -> Vec<&'a Stage> {
        asked(plan, self.stage.as_ref())
    }

    /// The stages that are asked for, with the seconds that each takes by the plan.
    fn ahead(&self, plan: &Plan, options: &Options) -> Vec<Ahead> {
        let rates = Store::open(&options.store).rates(options.machine.threads);
        let stages = self.asked(plan).into_iter();
        let ahead = stages.map(|stage| Ahead {
            name: stage.name.value.clone(),
            seconds: stage.seconds(&rates, &options.machine),
        });
        ahead.collect()
    }

    fn execute(
        &self,
        plan: &Plan,
        options: &Options,
        world: &super::world::RealWorld,
        asked: Arc<Asked>,
    ) -> i32 {
        let stem = stem(&self.file);
        let leads = options.ranks.leads();
        let logs = self.log.iter().filter(|_| leads);
        let opened: Result<Vec<_>, _> = logs.map(|log| log.open(&stem)).collect();
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                error(&why);
                return exit::FAILED;
            }
        };
        let quiet = self.common.quiet || !leads;
        let log_format = match leads {
            true => self.log_format,
            false => LogFormat::Text,
        };
        let (result, broken) = self.common.in_pool(|| {
            let mut lines = Lines::new(asked.clone());
            let mut progress = Progress::new(quiet, asked, self.ahead(plan, options));
            let shown: &mut dyn Observer = match log_format {
                LogFormat::Text => &mut progress,
                LogFormat::Json => &mut lines,
            };
            let mut logged = Logged::new(shown, opened, plan);
            let result = run(plan, options, world, &mut logged);
            let broken = logged.finish();
            progress.finish();
            if let (LogFormat::Json, Err(why)) = (log_format, &result) {
                lines.line(
                    "failed",
                    None,
                    json!({ "message": why.to_string(), "exit_code": why.exit_code() }),
                );
            }
            (result, broken)
        });
        broken.iter().for_each(|why| error(why));
        if !leads {
            return followed(result, &options.ranks);
        }
        match result {
            Ok(document) => {
                if self.common.json {
                    print(&format!("{document:#}\n"));
                } else {
                    let screen = Screen::out(self.common.color);
                    let own = self.own(plan, &document);
                    print(&summary::stages(&own, screen));
                    print(&scores::tables(&own, screen.width.unwrap_or(WIDE)));
                    print(&summary::choices(&own, screen));
                    print(&summary::repetitions(plan, &own, screen));
                    if self.profile {
                        print(&summary::profiles(&own, screen));
                    }
                    print(&summary::made(&own, &document, &options.out, screen));
                }
                if broken.is_empty() {
                    exit::DONE
                } else {
                    exit::FAILED
                }
            }
            Err(why) => {
                if self.log_format == LogFormat::Text {
                    error(&why.to_string());
                }
                why.exit_code()
            }
        }
    }

    /// The command, as it could be given beside the recipe.
    fn command(&self) -> String {
        command(&self.file, &self.common.sets, &self.common.device)
    }

    /// The document without the stages that this command did not ask for.
    fn own(&self, plan: &Plan, document: &Json) -> Json {
        let asked: Vec<&str> = self
            .asked(plan)
            .iter()
            .map(|s| s.name.value.as_str())
            .collect();
        let mut own = document.clone();
        if let Some(list) = own.get_mut("stages").and_then(Json::as_array_mut) {
            list.retain(|s| {
                s.get("name")
                    .and_then(Json::as_str)
                    .is_some_and(|n| asked.contains(&n))
            });
        }
        own
    }
}

/// Says whether the stage that is asked for is there.
pub(super) fn is_there(plan: &Plan, only: Option<&String>) -> Result<(), String> {
    let missing = |n: &&String| plan.named(n).next().is_none();
    match only.filter(missing) {
        Some(name) => Err(format!("there is no stage `{name}`")),
        None => Ok(()),
    }
}

/// The stages that are asked for.
fn asked<'a>(plan: &'a Plan, only: Option<&String>) -> Vec<&'a Stage> {
    match only {
        Some(name) => plan.needed(name),
        None => plan.stages.iter().collect(),
    }
}

/// Those of them that are executed: what is finished needs no memory.
pub(super) fn left<'a>(
    plan: &'a Plan,
    store: &Path,
    only: Option<&String>,
    fresh: bool,
) -> Vec<&'a Stage> {
    let store = Store::open(store);
    let mut stages = asked(plan, only);
    stages.retain(|stage| fresh || !is_finished(&store, stage));
    stages
}

/// The command that runs a recipe, as it could be given beside it.
pub(super) fn command(recipe: &Path, sets: &[String], device: &str) -> String {
    let name = recipe.file_name().unwrap_or_default();
    let mut words = vec!["peftc run".to_owned(), summary::quoted(Path::new(name))];
    for set in sets {
        words.push(format!("--set {}", summary::quoted(Path::new(set))));
    }
    if device != "cpu" {
        words.push(format!("--device {}", summary::quoted(Path::new(device))));
    }
    words.join(" ")
}

/// What a run came to on a rank behind the first, which says why all of them end; the exit code.
fn followed(result: Result<Json, RunError>, ranks: &Ranks) -> i32 {
    match result {
        Ok(_) => exit::DONE,
        Err(why) => {
            if !ranks.ends_together() {
                error(&format!("rank {}: {why}", ranks.rank()));
            }
            why.exit_code()
        }
    }
}
