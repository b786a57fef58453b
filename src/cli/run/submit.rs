//! `peftc run --on slurm`: the stages that are not in the store, as jobs.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value as Json, json};

use super::{Resume, Run};
use crate::cli::check::{needed, verdict};
use crate::cli::exit;
use crate::cli::options::{Intent, Within, error, out_of, print, stem, store_of};
use crate::cli::output::note;
use crate::cli::queue;
use crate::cli::screen::Screen;
use crate::cli::table::{Side, Table};
use crate::cluster::jobs::{self, Job, Standing};
use crate::cluster::journal::Entry;
use crate::cluster::queue::Answer;
use crate::cluster::site::{FILE, Site};
use crate::cluster::slurm::{Setting, clock, dependency};
use crate::exec::run::entry_name;
use crate::exec::store::Store;
use crate::files::{durable, settings};
use crate::plan::Stage;
use crate::program::device::Device;
use crate::program::op::Machine;

/// What ended a command early: its exit code, and what there is to say.
type Ended = (i32, String);

const fn wrong(what: String) -> Ended {
    (exit::WRONG, what)
}

const fn failed(what: String) -> Ended {
    (exit::FAILED, what)
}

/// A job that was submitted.
struct Submitted<'a> {
    job: &'a Job<'a>,
    number: String,
    waits: Option<String>,
}

impl Run {
    /// Submits what is left; gives the exit code.
    pub(super) fn submit(&self) -> i32 {
        match self.submitted() {
            Ok(()) => exit::DONE,
            Err((code, why)) => {
                if !why.is_empty() {
                    error(&why);
                }
                code
            }
        }
    }

    /// Flags that mean nothing in jobs.
    fn refuse_flags(&self) -> Result<(), Ended> {
        let refused = if self.fresh {
            Some(
                "`--fresh` cannot be given with `--on slurm`: every job would also run what it needs anew; give another \
                 store (`--store DIR`)",
            )
        } else if self.resume == Resume::Never {
            Some(
                "`--resume never` cannot be given with `--on slurm`: a job at its limit goes on from its checkpoint",
            )
        } else {
            None
        };
        refused.map_or(Ok(()), |why| Err(wrong(why.to_owned())))
    }

    fn submitted(&self) -> Result<(), Ended> {
        self.refuse_flags()?;
        let site = site().map_err(wrong)?;
        let silent = || (exit::WRONG, String::new());
        let mut asked = self
            .common
            .prepare(self.budget.as_deref(), Intent::Tell)
            .ok_or_else(silent)?;
        let cpus = self.common.threads.or(site.cpus);
        asked.machine = Machine::detect(cpus).on(asked.machine.device);
        let machine = asked.machine;
        let (world, store) = (
            self.common.world(),
            store_of(&self.file, self.store.as_deref()),
        );
        let known = Within {
            ranks: self.ranks.unwrap_or(1),
            ..Within::alone(Some(store.as_path()), asked.limit())
        };
        let compiled = self.common.compiled(&self.file, &asked, &world, known);
        let rejected = || {
            let file = self.file.display();
            wrong(format!("{file} is rejected: nothing was submitted"))
        };
        let plan = compiled.plan.as_ref().ok_or_else(rejected)?;
        super::is_there(plan, self.stage.as_ref()).map_err(wrong)?;
        let store = Store::open(store);
        let stages = self.asked(plan);
        let left = super::left(plan, store.dir(), self.stage.as_ref(), self.fresh);
        if let Some(budget) = asked.limit().filter(|b| needed(&left) > *b) {
            note(&verdict(&left, budget, Screen::err(self.common.color)));
            let why = "over the budget; nothing was submitted";
            return Err((exit::TOO_LARGE, why.to_owned()));
        }
        if let Some(stage) = left.iter().find(|s| s.fingerprint.is_none()) {
            return Err(wrong(format!(
                "the identity of an input of `{}` is unknown, so that no other job could take its result from the store; \
                 download what it reads first, or run it here",
                stage.name.value
            )));
        }
        let rates = store.rates(machine.threads);
        let times: HashMap<&str, Option<f64>> = self.common.in_pool(|| {
            let one = |stage: &&Stage| stage.seconds(&rates, &machine);
            let all = left.par_iter().map(|s| (s.name.value.as_str(), one(s)));
            all.collect()
        });
        let seconds = |stage: &Stage| times.get(stage.name.value.as_str()).copied().flatten();
        let setting = self.setting(&site, (&machine, jobs::beside(plan)), &seconds)?;
        let live = self.live(&left, &setting.jobs)?;
        let open: HashSet<&str> = left.iter().map(|s| s.name.value.as_str()).collect();
        let standing = |stage: &Stage| match live.get(stage.name.value.as_str()) {
            _ if !open.contains(stage.name.value.as_str()) => Standing::Finished,
            Some(job) => Standing::Queued(job.clone()),
            None => Standing::Open,
        };
        let jobs = jobs::group(&stages, &standing, site.array_size);
        if self.dry_run {
            print(&self.printed(&setting, &jobs, live.len()));
            return Ok(());
        }
        self.hand_on(&setting, &jobs, live.len())
    }

    /// What the jobs of this command have in common.
    fn setting<'a>(
        &self,
        site: &'a Site,
        (machine, beside): (&Machine, u64),
        seconds: &'a dyn Fn(&Stage) -> Option<f64>,
    ) -> Result<Setting<'a>, Ended> {
        let gone = |e: std::io::Error| failed(format!("the working directory is gone: {e}"));
        let folder = std::env::current_dir().map_err(gone)?;
        let own = |e: std::io::Error| failed(format!("the path of this program is unknown: {e}"));
        let program = match &site.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(own)?.display().to_string(),
        };
        let setting = Setting {
            site,
            recipe: stem(&self.file),
            jobs: folder.join(queue::folder(&out_of(&self.file, self.out.as_deref()))),
            folder,
            cpus: machine.threads,
            beside,
            program,
            arguments: self.arguments(machine),
            seconds,
        };
        setting.check().map_err(wrong)?;
        Ok(setting)
    }

    /// The arguments of each job: those of this command, but for what says where it runs.
    fn arguments(&self, machine: &Machine) -> Vec<String> {
        let mut words = vec!["run".to_owned(), self.file.display().to_string()];
        let mut add = |flag: &str, value: Option<String>| {
            words.extend(
                value
                    .map(|value| [flag.to_owned(), value])
                    .into_iter()
                    .flatten(),
            );
        };
        let path = |path: &PathBuf| path.display().to_string();
        for set in &self.common.sets {
            add("--set", Some(set.clone()));
        }
        let on_card = machine.device != Device::Cpu;
        let device = match self.common.device.as_str() {
            own if own.starts_with("cuda") => own,
            // A card's name says what to plan for.
            _ => "cuda",
        };
        add("--device", on_card.then(|| device.to_owned()));
        add("--threads", Some(machine.threads.to_string()));
        add("--ranks", self.ranks.map(|n| n.to_string()));
        let any = self.resume == Resume::Any;
        add("--resume", any.then(|| "any".to_owned()));
        add("--budget", self.budget.clone());
        add("--store", self.store.as_ref().map(path));
        add("--out", self.out.as_ref().map(path));
        let every = self.checkpoint_every.as_secs_f64();
        add(
            "--checkpoint-every",
            (every != 30.0).then(|| every.to_string()),
        );
        for log in &self.log {
            add("--log", Some(log.to_string()));
        }
        let flags = [
            (self.profile, "--profile"),
            (self.common.offline, "--offline"),
            (self.common.no_data_report, "--no-data-report"),
        ];
        words.extend(flags.iter().filter(|f| f.0).map(|f| f.1.to_owned()));
        words
    }

    /// The stages that a job is still to run, or runs, with its number.
    fn live(&self, left: &[&Stage], jobs: &Path) -> Result<HashMap<String, String>, Ended> {
        let submitted = queue::submitted(jobs).map_err(failed)?;
        let prints = left.iter().map(|s| (s.name.value.as_str(), entry_name(s)));
        let prints: HashMap<&str, String> = prints.collect();
        let own = |e: &&Entry| prints.get(e.stage.as_str()) == Some(&e.fingerprint);
        let own: Vec<&Entry> = submitted.iter().filter(own).collect();
        if own.is_empty() {
            return Ok(HashMap::new());
        }
        let known = match queue::known() {
            Ok(known) => known,
            Err(why) if self.dry_run => {
                note(&format!(
                    "note: {why}; stages that are in the queue are printed too\n"
                ));
                HashMap::new()
            }
            Err(why) => {
                return Err(failed(format!(
                    "{why}; jobs of this recipe were submitted before, and without the queue nothing tells whether they \
                     still run"
                )));
            }
        };
        let live = |job: &str| known.get(job).is_some_and(Answer::is_live);
        let live = own.into_iter().filter(|entry| live(&entry.job));
        Ok(live.map(|e| (e.stage.clone(), e.job.clone())).collect())
    }

    /// Writes the scripts, submits them and notes each.
    fn hand_on(&self, setting: &Setting<'_>, jobs: &[Job<'_>], live: usize) -> Result<(), Ended> {
        let io = |e: crate::files::RunError| failed(e.to_string());
        if !jobs.is_empty() {
            durable::create_dirs(&setting.jobs).map_err(io)?;
        }
        let mut all: Vec<Submitted<'_>> = Vec::new();
        for job in jobs {
            let path = setting.path(job);
            durable::write_bytes(&path, setting.script(job).as_bytes()).map_err(io)?;
            let number = |at: usize| all.get(at).map_or_else(String::new, |s| s.number.clone());
            let waits = dependency(job, &number);
            let given = queue::submit(&path, waits.clone()).map_err(|why| {
                let before = all.iter().map(|s| s.number.as_str()).collect::<Vec<_>>();
                let before = match before.is_empty() {
                    true => "nothing was submitted; `--dry-run` prints the scripts".to_owned(),
                    false => format!(
                        "{} were submitted before; the same command goes on behind them",
                        before.join(", ")
                    ),
                };
                failed(format!("{}: {why}; {before}", path.display()))
            })?;
            queue::note(&setting.jobs, &entries(job, &given)).map_err(failed)?;
            all.push(Submitted {
                job,
                number: given,
                waits,
            });
        }
        if self.common.json {
            let list: Vec<Json> = all.iter().map(|s| s.json(setting)).collect();
            let recipe = self.file.display().to_string();
            let own = json!({ "schema": 1, "recipe": recipe, "in_queue": live, "jobs": list });
            print(&format!("{own:#}\n"));
        } else {
            print(&self.table(setting, &all, live));
        }
        Ok(())
    }

    /// The scripts for people, or for `sh`.
    fn printed(&self, setting: &Setting<'_>, jobs: &[Job<'_>], live: usize) -> String {
        if self.common.json {
            let name = |at: usize| jobs.get(at).map_or_else(String::new, |j| j.name.clone());
            let one = |job: &Job<'_>| {
                let mut own = json_of(job, setting);
                if let Some(map) = own.as_object_mut() {
                    map.insert("waits_for".to_owned(), json!(dependency(job, &name)));
                    map.insert("script".to_owned(), json!(setting.script(job)));
                }
                own
            };
            let list: Vec<Json> = jobs.iter().map(one).collect();
            let recipe = self.file.display().to_string();
            let own = json!({ "schema": 1, "recipe": recipe, "in_queue": live, "jobs": list });
            return format!("{own:#}\n");
        }
        match jobs.is_empty() {
            true => nothing(live),
            false => setting.by_hand(jobs),
        }
    }

    fn table(&self, setting: &Setting<'_>, all: &[Submitted<'_>], live: usize) -> String {
        if all.is_empty() {
            return nothing(live);
        }
        let mut table = Table::new([
            ("job", Side::Left),
            ("stage", Side::Left),
            ("memory", Side::Right),
            ("time", Side::Right),
            ("waits for", Side::Left),
        ]);
        for one in all {
            let asked = setting.asked(one.job);
            let count = one.job.stages.len();
            let stage = match one.job.stages.first() {
                Some(stage) if count == 1 => stage.name.value.clone(),
                _ => format!("{} × {count}", one.job.name),
            };
            table.row(vec![
                one.number.as_str().into(),
                stage.into(),
                format!("{} MiB", asked.memory).into(),
                asked.time.map_or("–".to_owned(), clock).into(),
                one.waits.as_deref().unwrap_or("–").into(),
            ]);
        }
        let screen = Screen::out(self.common.color);
        format!(
            "{}\n{}",
            table.render(screen),
            screen.fold(
                &format!("  follow with `peftc status {}`\n", self.file.display()),
                4
            )
        )
    }
}

impl Submitted<'_> {
    fn json(&self, setting: &Setting<'_>) -> Json {
        let mut own = json_of(self.job, setting);
        if let Some(map) = own.as_object_mut() {
            map.insert("job".to_owned(), json!(self.number));
            map.insert("waits_for".to_owned(), json!(self.waits));
            map.insert("script".to_owned(), json!(setting.path(self.job)));
        }
        own
    }
}

/// What is said where no job is left to submit.
fn nothing(live: usize) -> String {
    match live {
        0 => "nothing to submit: every stage is finished\n".to_owned(),
        n => {
            format!("nothing to submit: {n} stages are in the queue, every other one is finished\n")
        }
    }
}

/// A job for programs.
fn json_of(job: &Job<'_>, setting: &Setting<'_>) -> Json {
    let asked = setting.asked(job);
    let stages: Vec<&str> = job.stages.iter().map(|s| s.name.value.as_str()).collect();
    json!({
        "name": job.name, "stages": stages, "memory_bytes": asked.memory << 20, "time_s": asked.time,
        "cpus": setting.cpus,
    })
}

/// The journal's lines of a job.
fn entries(job: &Job<'_>, number: &str) -> Vec<Entry> {
    let entry = |(element, stage): (usize, &&Stage)| Entry {
        job: match job.is_array() {
            true => format!("{number}_{element}"),
            false => number.to_owned(),
        },
        fingerprint: entry_name(stage),
        stage: stage.name.value.clone(),
    };
    job.stages.iter().enumerate().map(entry).collect()
}

/// The site's defaults; those of nobody where there is no file.
fn site() -> Result<Site, String> {
    let Some(path) = settings(FILE) else {
        return Ok(Site::default());
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Site::read(&text).map_err(|why| format!("{}: {why}", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Site::default()),
        Err(e) => Err(durable::failed(&path, "read", &e).to_string()),
    }
}
