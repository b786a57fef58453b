//! `peftc status`: the stages of a recipe that was submitted, each with its job, its state and how far it is.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Common, Intent, Within, error, out_of, print, ranks, store_of};
use super::output::note;
use super::queue;
use super::screen::{BAD, GOOD, Screen};
use super::table::{Cell, Side, Table};
use crate::cluster::journal::Entry;
use crate::cluster::log;
use crate::cluster::queue::{Answer, Phase};
use crate::cluster::slurm::Setting;
use crate::exec::run::{entry_name, resumes_at};
use crate::exec::store::Store;
use crate::library::stage::job::Routine;
use crate::plan::{Plan, Stage};

/// Bytes of a log's end that are read.
const END: u64 = 64 << 10;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// The recipe
    file: PathBuf,
    /// The store that the jobs were given; `.peftc/store` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The OUT that the jobs were given; `.peftc/runs/RECIPE` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Processes that the recipe's trainings were shared among
    #[arg(long, value_name = "N", default_value = "1", value_parser = ranks)]
    ranks: u64,
    #[command(flatten)]
    common: Common,
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the store.
    Done,
    /// Its job runs.
    Running,
    /// Its job is in the queue.
    Waiting,
    /// Its job failed.
    Failed,
    /// Its job was cancelled.
    Cancelled,
    /// Neither the queue nor a log knows an end of its job.
    Gone,
    /// Its job's state is known to the queue alone, which cannot be asked.
    Unknown,
    /// It was not submitted.
    New,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::New => "not submitted",
        }
    }

    fn cell(self) -> Cell {
        match self {
            Self::Done => Cell::from(self.name()).styled(GOOD),
            Self::Failed | Self::Gone => Cell::from(self.name()).styled(BAD),
            _ => self.name().into(),
        }
    }

    /// Whether the next submission takes it up.
    const fn is_left(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Cancelled | Self::Gone | Self::New
        )
    }
}

/// A stage's line.
struct Line<'a> {
    stage: &'a Stage,
    state: State,
    job: Option<&'a str>,
    /// SLURM's word and reason.
    answer: Option<&'a Answer>,
    log: Option<PathBuf>,
    end: log::Progress,
    resumes: Option<u64>,
    /// Stages that it waits for.
    after: Vec<&'a str>,
}

/// What is known of all jobs.
struct Jobs {
    folder: PathBuf,
    submitted: Vec<Entry>,
    /// What the queue and the accounting tell; `None` where the queue cannot be asked.
    answer: Option<HashMap<String, Answer>>,
}

impl Status {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return exit::WRONG;
        };
        let world = self.common.world();
        let dir = store_of(&self.file, self.store.as_deref());
        let known = Within {
            ranks: self.ranks,
            ..Within::alone(Some(dir.as_path()), asked.limit())
        };
        let compiled = self.common.compiled(&self.file, &asked, &world, known);
        let Some(plan) = &compiled.plan else {
            return exit::WRONG;
        };
        let store = Store::open(dir);
        let out = out_of(&self.file, self.out.as_deref());
        let jobs = match self.jobs(plan, &store, queue::folder(&out)) {
            Ok(jobs) => jobs,
            Err(why) => {
                error(&why);
                return exit::FAILED;
            }
        };
        let lines = jobs.lines(plan, &store);
        if self.common.json {
            let list: Vec<Json> = lines.iter().map(Line::json).collect();
            let recipe = self.file.display().to_string();
            print(&format!(
                "{:#}\n",
                json!({ "schema": 1, "recipe": recipe, "stages": list })
            ));
        } else {
            print(&self.text(&lines));
        }
        exit::DONE
    }

    /// The journal and what is known of its jobs.
    fn jobs(&self, plan: &Plan, store: &Store, folder: PathBuf) -> Result<Jobs, String> {
        let submitted = queue::submitted(&folder)?;
        let open = |entry: &&Entry| {
            store.finished(&entry.fingerprint).is_none()
                && plan.named(&entry.stage).next().is_some()
        };
        let open: Vec<&Entry> = submitted.iter().filter(open).collect();
        let answer = match open.is_empty() {
            true => Some(HashMap::new()),
            false => match queue::known() {
                Ok(mut answer) => {
                    let lost = open.iter().filter(|e| !answer.contains_key(&e.job));
                    let more = queue::ended(lost.map(|e| e.job.as_str()));
                    answer.extend(more);
                    Some(answer)
                }
                Err(why) => {
                    if !self.common.quiet {
                        note(&format!(
                            "note: {why}; what follows comes from the store and the logs\n"
                        ));
                    }
                    None
                }
            },
        };
        Ok(Jobs {
            folder,
            submitted,
            answer,
        })
    }

    fn text(&self, lines: &[Line<'_>]) -> String {
        let screen = Screen::out(self.common.color);
        let mut table = Table::new([
            ("stage", Side::Left),
            ("job", Side::Left),
            ("state", Side::Left),
            ("", Side::Left),
        ]);
        for line in lines {
            table.row(vec![
                line.stage.name.value.as_str().into(),
                line.job.unwrap_or("–").into(),
                line.state.cell(),
                line.detail().into(),
            ]);
        }
        let mut out = table.render(screen);
        for line in lines {
            let Some(why) = line.error() else {
                continue;
            };
            let log = line
                .log
                .as_ref()
                .map(|path| format!("; its log: {}", path.display()));
            let text = format!(
                "\n  {}: {why}{}\n",
                line.stage.name.value,
                log.unwrap_or_default()
            );
            out.push_str(&screen.fold(&text, 4));
        }
        if lines.iter().any(|line| line.state.is_left()) {
            let text = format!(
                "\n  what is left is submitted by `peftc run {} --on slurm`\n",
                self.file.display()
            );
            out.push_str(&screen.fold(&text, 4));
        }
        out
    }
}

impl Jobs {
    fn lines<'a>(&'a self, plan: &'a Plan, store: &Store) -> Vec<Line<'a>> {
        let mut last: HashMap<(&str, &str), &Entry> = HashMap::new();
        for entry in &self.submitted {
            last.insert((&entry.stage, &entry.fingerprint), entry);
        }
        let mut done: HashMap<&str, bool> = HashMap::new();
        let mut lines = Vec::new();
        for stage in &plan.stages {
            let print = entry_name(stage);
            let finished = stage.fingerprint.is_some() && store.finished(&print).is_some();
            done.insert(&stage.name.value, finished);
            let entry = last.get(&(stage.name.value.as_str(), print.as_str()));
            let after = stage.needs();
            let after = after.filter(|name| !done.get(name).copied().unwrap_or(false));
            lines.push(self.line(stage, entry.copied(), finished, (after.collect(), store)));
        }
        lines
    }

    fn line<'a>(
        &'a self,
        stage: &'a Stage,
        entry: Option<&'a Entry>,
        finished: bool,
        (after, store): (Vec<&'a str>, &Store),
    ) -> Line<'a> {
        let job = entry.map(|e| e.job.as_str());
        let answer = job.and_then(|job| self.answer.as_ref()?.get(job));
        let log = job.map(|job| Setting::log(&self.folder, &stage.declared, job));
        let log = log.filter(|path| path.is_file());
        let end = match &log {
            Some(path) if !finished => log::read(&tail(path)),
            _ => log::Progress::default(),
        };
        let state = match (entry, answer) {
            _ if finished => State::Done,
            (None, _) => State::New,
            (_, Some(answer)) => match answer.phase {
                Phase::Running => State::Running,
                Phase::Waiting => State::Waiting,
                Phase::Cancelled => State::Cancelled,
                Phase::Completed | Phase::Failed => State::Failed,
            },
            (_, None) => self.by_log(&end),
        };
        Line {
            stage,
            state,
            job,
            answer,
            log,
            end,
            resumes: (!finished).then(|| resumes_at(store, stage)).flatten(),
            after,
        }
    }

    /// What a log tells of a job that nothing else knows.
    const fn by_log(&self, end: &log::Progress) -> State {
        match (&end.failed, &self.answer) {
            (Some((_, Some(129 | 130 | 143))), _) => State::Cancelled,
            (Some(_), _) => State::Failed,
            (None, Some(_)) => State::Gone,
            (None, None) => State::Unknown,
        }
    }
}

impl Line<'_> {
    /// Steps or rows in all, where the plan tells.
    fn total(&self) -> Option<u64> {
        match &self.stage.job.routine {
            Routine::Fit(fit) => Some(fit.steps),
            Routine::Score(_) => self.stage.splits.first()?.as_ref()?.lengths.count(),
            Routine::Choose(_) | Routine::Fold(_) => None,
        }
    }

    /// Steps or rows that its job has done.
    fn progress(&self) -> Option<u64> {
        self.end.step.or(self.end.scored)
    }

    /// A few words behind its state.
    fn detail(&self) -> String {
        let of = self.total().map(|n| format!(" of {n}")).unwrap_or_default();
        let resumes = || {
            let step = self.resumes;
            step.map(|n| format!("goes on at step {n}{of}"))
        };
        match self.state {
            State::Running => match (self.end.step, self.end.scored) {
                (Some(step), _) => {
                    let loss = self.end.loss.map(|loss| format!(", loss {loss:.4}"));
                    format!("step {step}{of}{}", loss.unwrap_or_default())
                }
                (None, Some(rows)) => format!("{rows}{of} rows"),
                (None, None) => "starts".to_owned(),
            },
            State::Waiting if !self.after.is_empty() => format!("for {}", self.after.join(", ")),
            State::Waiting => {
                let reason = self.answer.map(|t| t.reason.clone()).unwrap_or_default();
                match resumes() {
                    Some(resumes) if reason.is_empty() => resumes,
                    Some(resumes) => format!("{reason}; {resumes}"),
                    None => reason,
                }
            }
            State::Done => String::new(),
            _ => resumes().unwrap_or_default(),
        }
    }

    /// Why it is not done, where its job is at an end.
    fn error(&self) -> Option<String> {
        let said = self.end.failed.as_ref().map(|(why, _)| why.clone());
        let word = self.answer.map_or("", |t| t.word.as_str());
        match self.state {
            State::Failed => Some(match (word, said) {
                ("OUT_OF_MEMORY", _) => {
                    "its job was killed for memory; raise `memory_margin` in slurm.toml".to_owned()
                }
                ("COMPLETED", None) => {
                    "its job ended well, but this store has no result of this version of the recipe".to_owned()
                }
                (_, Some(said)) => said,
                ("", None) => "its job failed without a word".to_owned(),
                (word, None) => format!("its job ended as {word}, without a word"),
            }),
            State::Cancelled => {
                let needs = self.answer.is_some_and(|t| t.reason == "DependencyNeverSatisfied");
                Some(match said {
                    _ if needs => format!("what it needs failed: {}", self.after.join(", ")),
                    Some(said) => said,
                    None => "its job was cancelled before it ran".to_owned(),
                })
            }
            State::Gone => Some(match self.log.is_some() {
                true => "the queue does not know its job any more, and its log tells no end: it was killed".to_owned(),
                false => "the queue does not know its job any more, and there is no log".to_owned(),
            }),
            _ => None,
        }
    }

    fn json(&self) -> Json {
        let state = match self.state {
            State::New => "new",
            other => other.name(),
        };
        json!({
            "name": self.stage.name.value, "kind": self.stage.filled.name, "state": state, "job": self.job,
            "slurm": self.answer.map(|t| json!({ "state": t.word, "reason": t.reason })), "done": self.progress(),
            "total": self.total(), "loss": self.end.loss, "resumes_at": self.resumes, "waits_for": self.after,
            "error": self.error(), "log": self.log,
        })
    }
}

/// The end of a log; nothing where it cannot be read.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut bytes = Vec::new();
        file.take(END).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
