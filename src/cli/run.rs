//! `peftc run`: execute a recipe.

mod submit;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use super::check::{fitted, needed, verdict};
use super::exit;
use super::logs::{self, Lines, Logged};
use super::options::{Common, Intent, error, out_of, print, stem, store_of};
use super::output::note;
use super::progress::Progress;
use super::scores;
use super::screen::Screen;
use super::signals::{self, Asked};
use super::table::{Side, Table};
use crate::base::units::Bytes;
use crate::exec::observe::Observer;
use crate::exec::run::{Options, entry_name, run};
use crate::exec::store::{State, Store};
use crate::plan::{Plan, Stage};

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
    /// Processes that a stage is divided among; more than 1 are not built
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    ranks: u64,
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
    pub(super) fn run(&self) -> i32 {
        if self.ranks > 1 {
            error(&format!(
                "`--ranks {}`: a stage that is divided among several processes is not built; leave `--ranks` out. The points \
                 of a sweep run beside each other with `--on slurm`",
                self.ranks
            ));
            return exit::WRONG;
        }
        match self.on {
            Some(Engine::Slurm) => self.submit(),
            None => self.here(),
        }
    }

    /// Runs it in this process.
    fn here(&self) -> i32 {
        // From the beginning: SIGUSR1 would end a process that does not know it.
        let asked_for = match signals::watch(
            self.common.quiet || self.log_format == LogFormat::Json,
        ) {
            Ok(asked) => asked,
            Err(why) => {
                error(&format!(
                    "the system gives no thread to listen to signals with: {why}; raise its limit (`ulimit -u`)"
                ));
                return exit::FAILED;
            }
        };
        let budget = self.budget.as_deref();
        let Some(asked) = self.common.prepare(budget, Intent::Run) else {
            return exit::WRONG;
        };
        let (world, machine, budget) = (self.common.world(), asked.machine, asked.limit());
        let store = store_of(&self.file, self.store.as_deref());
        let known = Some(store.as_path()).filter(|_| !self.fresh);
        let compiled =
            self.common
                .compiled(&self.file, &asked.sets, &world, &machine, (known, budget));
        let Some(plan) = &compiled.plan else {
            error(&format!(
                "{} is rejected: nothing was executed",
                self.file.display()
            ));
            return exit::WRONG;
        };
        if let Err(why) = self.is_there(plan) {
            error(&why);
            return exit::WRONG;
        }
        let left = self.left(plan, &store);
        if let Some(budget) = budget.filter(|b| needed(&left) > *b) {
            error("over the budget; nothing was executed");
            note(&verdict(&left, budget, Screen::err(self.common.color)));
            return exit::TOO_LARGE;
        }
        if !self.common.quiet && self.log_format == LogFormat::Text {
            note(&fitted(plan));
        }
        let options = Options {
            recipe: self.file.clone(),
            store,
            out: out_of(&self.file, self.out.as_deref()),
            only: self.stage.clone(),
            fresh: self.fresh,
            resume: self.resume == Resume::Auto,
            checkpoint_every: self.checkpoint_every,
            machine,
            device: Arc::new(self.common.exec_device()),
            machine_name: super::doctor::machine(machine.threads),
            command: self.command(),
            sources: compiled
                .sources
                .iter()
                .map(|s| (s.name.clone(), s.text.clone()))
                .collect(),
        };
        if self.dry_run {
            print(&self.dry(plan, &options));
            return exit::DONE;
        }
        asked_for.run_begins();
        self.execute(plan, &options, &world, asked_for)
    }

    /// Says whether the stage that is asked for is there.
    fn is_there(&self, plan: &Plan) -> Result<(), String> {
        let missing = |n: &&String| plan.named(n).next().is_none();
        match self.stage.as_ref().filter(missing) {
            Some(name) => Err(format!("there is no stage `{name}`")),
            None => Ok(()),
        }
    }

    /// The stages that are asked for.
    fn asked<'a>(&self, plan: &'a Plan) -> Vec<&'a Stage> {
        match &self.stage {
            Some(name) => plan.needed(name),
            None => plan.stages.iter().collect(),
        }
    }

    /// Those of them that are executed: what is finished needs no memory.
    fn left<'a>(&self, plan: &'a Plan, store: &Path) -> Vec<&'a Stage> {
        let store = Store::open(store);
        let finished = |s: &&Stage| {
            !self.fresh && s.fingerprint.is_some() && store.finished(&entry_name(s)).is_some()
        };
        let mut stages = self.asked(plan);
        stages.retain(|s| !finished(s));
        stages
    }

    fn execute(
        &self,
        plan: &Plan,
        options: &Options,
        world: &super::world::RealWorld,
        asked: Arc<Asked>,
    ) -> i32 {
        let stem = stem(&self.file);
        let opened: Result<Vec<_>, _> = self.log.iter().map(|log| log.open(&stem)).collect();
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                error(&why);
                return exit::FAILED;
            }
        };
        let quiet = self.common.quiet;
        let (result, broken) = self.common.in_pool(|| {
            let mut lines = Lines::new(asked.clone());
            let mut progress = Progress::new(quiet, asked);
            let shown: &mut dyn Observer = match self.log_format {
                LogFormat::Text => &mut progress,
                LogFormat::Json => &mut lines,
            };
            let mut logged = Logged::new(shown, opened, plan);
            let result = run(plan, options, world, &mut logged);
            let broken = logged.finish();
            progress.finish();
            if let (LogFormat::Json, Err(why)) = (self.log_format, &result) {
                lines.line(
                    "failed",
                    None,
                    json!({ "message": why.to_string(), "exit_code": why.exit_code() }),
                );
            }
            (result, broken)
        });
        broken.iter().for_each(|why| error(why));
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
        let name = self.file.file_name().unwrap_or_default();
        let mut words = vec!["peftc run".to_owned(), summary::quoted(Path::new(name))];
        for set in &self.common.sets {
            words.push(format!("--set {}", summary::quoted(Path::new(set))));
        }
        if self.common.device != "cpu" {
            words.push(format!(
                "--device {}",
                summary::quoted(Path::new(&self.common.device))
            ));
        }
        words.join(" ")
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

    /// Says that a checkpoint is not used.
    fn note_stranded(&self, stage: &Stage, step: u64) {
        let text = format!(
            "note: a checkpoint of `{}` at step {step} is of another version of its recipe and is not used; to go on \
             from it, take back what was changed\n",
            stage.name.value
        );
        note(&Screen::err(self.common.color).fold(&text, 4));
    }

    /// The stages that would run, each with its reason.
    fn dry(&self, plan: &Plan, options: &Options) -> String {
        let store = Store::open(options.store.clone());
        let recipe = options.recipe.display().to_string();
        let mut list = Vec::new();
        for stage in self.asked(plan) {
            let key = entry_name(stage);
            let state = store.look(&key);
            let resumes = options.resumes_at(&store, stage);
            let reason = if self.fresh {
                "forced".to_owned()
            } else if stage.fingerprint.is_none() {
                "the identity of an input is unknown".to_owned()
            } else if let State::Finished(_) = state {
                continue;
            } else if let State::Damaged(damage) = state {
                format!("{damage}")
            } else if let Some(step) = resumes {
                format!("interrupted: resumes at {step}")
            } else {
                unfinished(&store, &recipe, stage)
            };
            let stranded = match resumes {
                None if !self.fresh => store.stranded(&options.recipe, &stage.name.value, &key),
                _ => Vec::new(),
            };
            list.push((
                stage,
                reason,
                resumes,
                stranded.into_iter().max_by_key(|(_, step)| *step),
            ));
        }
        for (stage, .., stranded) in &list {
            if let Some((_, step)) = stranded.as_ref().filter(|_| !self.common.quiet) {
                self.note_stranded(stage, *step);
            }
        }
        if self.common.json {
            let row = |(s, why, resumes, stranded): &(&Stage, String, _, Option<(String, u64)>)| {
                let stranded = stranded.as_ref().map(|(_, step)| *step);
                json!({
                    "name": s.name.value, "kind": s.filled.name, "reason": why, "resumes_at": resumes,
                    "stranded_at": stranded, "estimated_peak_bytes": s.estimate.peak(),
                })
            };
            let stages: Vec<Json> = list.iter().map(row).collect();
            let own = json!({ "schema": 1, "recipe": recipe, "would_run": stages });
            return format!("{own:#}\n");
        }
        if list.is_empty() {
            return "nothing would run: every stage is finished\n".to_owned();
        }
        // One line a stage and no other: programs read them.
        let mut table = Table::new([
            ("", Side::Left),
            ("", Side::Left),
            ("", Side::Right),
            ("", Side::Left),
        ]);
        for (stage, reason, ..) in list {
            table.row(vec![
                stage.name.value.as_str().into(),
                stage.filled.name.as_str().into(),
                Bytes(stage.estimate.peak()).to_string().into(),
                reason.into(),
            ]);
        }
        table.flush().render(Screen::out(self.common.color))
    }
}

/// Why a stage that is not in the store would run: what changed since it ran last, if it did.
fn unfinished(store: &Store, recipe: &str, stage: &Stage) -> String {
    match store.latest(recipe, &stage.name.value) {
        Some((_, parts)) if parts != stage.parts => {
            let differs = |k: &&String| parts.get(*k) != stage.parts.get(*k);
            let mut changed: Vec<&String> = stage
                .parts
                .keys()
                .chain(parts.keys())
                .filter(differs)
                .collect();
            changed.sort();
            changed.dedup();
            let names: Vec<String> = changed
                .iter()
                .map(|k| format!("`{}`", k.trim_start_matches("key ")))
                .collect();
            format!("changed: {}", names.join(", "))
        }
        Some(_) => "unfinished".to_owned(),
        None => "new".to_owned(),
    }
}
