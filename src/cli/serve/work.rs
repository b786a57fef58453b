//! The thread that computes: it takes what waits, puts together what one batch can hold, and says what became of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use serde_json::{Map, Value as Json};
use tokio::sync::mpsc::UnboundedSender;

use super::Limits;
use super::labels;
use super::models::{Kind, Models, Named, Wanted};
use super::numbers::{Numbers, add};
use super::texts;
use crate::cli::predict::Refusal;
use crate::exec::generate::Ended;
use crate::exec::predict::Together;
use crate::library::generate::Settings;
use crate::library::rows::Record;

/// What a text is gone on from.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Text(String),
    Chat(Vec<Json>),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Rows {
        rows: Vec<Record>,
        all: bool,
    },
    Write {
        prompts: Vec<Input>,
        settings: Settings,
    },
    /// A model is to be served from now on.
    Add(Wanted),
    /// A model is not to be served any more.
    Remove(String),
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Job {
    /// The number of the model; 0 where it is about none that is there.
    pub(super) model: u64,
    pub(super) ask: Ask,
    pub(super) reply: UnboundedSender<Said>,
    /// When it is given up.
    pub(super) until: Instant,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// What is added to each row, and the tokens that were read of all.
    Labelled(Vec<Map<String, Json>>, u64),
    /// Its prompts are read: tokens of all.
    Begun(u64),
    /// What is new of a text.
    More(usize, String),
    /// A text is done: its place, all of it, its tokens.
    Made {
        of: usize,
        text: String,
        tokens: u64,
        ended: Ended,
    },
    /// The models are others now; of one that came, what it is.
    Changed(Option<Json>),
    /// A status of HTTP, and why.
    Failed(u16, String),
}

impl Job {
    pub(super) fn rows(&self) -> usize {
        match &self.ask {
            Ask::Rows { rows, .. } => rows.len(),
            Ask::Write { prompts, .. } => prompts.len(),
            Ask::Add(_) | Ask::Remove(_) => 0,
        }
    }

    /// Whether one batch may hold both.
    fn goes_with(&self, other: &Self, models: &Models) -> bool {
        match (&self.ask, &other.ask) {
            (Ask::Rows { .. }, Ask::Rows { .. }) => {
                let both = models.session(self.model).zip(models.session(other.model));
                self.model == other.model
                    || both.is_some_and(|(one, other)| Together::can_hold(one, other))
            }
            (Ask::Write { settings: a, .. }, Ask::Write { settings: b, .. }) => {
                self.model == other.model && a == b
            }
            _ => false,
        }
    }

    pub(super) fn say(&self, said: Said) {
        // Who does not listen any more misses nothing.
        let _ = self.reply.send(said);
    }

    /// Whether somebody still waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.until
    }
}

/// The answer to a request whose time is over.
pub(super) fn late() -> Said {
    Said::Failed(504, "the request took longer than `--timeout`".to_owned())
}

/// The status and the message of what was refused.
pub(super) fn status(refusal: Refusal) -> (u16, String) {
    match refusal {
        Refusal::Wrong(why) => (400, why),
        Refusal::Input(why) => (400, why.to_string()),
        Refusal::Failed(why) => (500, why.to_string()),
        Refusal::Output(why) => (500, why.to_string()),
    }
}

/// What computes.
pub(super) struct Worker<'a> {
    pub(super) models: Models,
    pub(super) limits: Limits,
    pub(super) numbers: Arc<Numbers>,
    /// Opens a model.
    pub(super) open: &'a dyn Fn(&Wanted) -> Result<Named, Refusal>,
}

impl Worker<'_> {
    /// Computes until nobody can ask any more.
    pub(super) fn work(&mut self, queue: &Receiver<Job>) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match queue.recv() {
                    Ok(job) => waiting.push_back(job),
                    Err(_) => return,
                }
                self.linger(&mut waiting, queue);
            }
            waiting.extend(queue.try_iter());
            let group = self.group(&mut waiting);
            self.answer(&group);
        }
    }

    /// Waits for others that the first can be computed with.
    fn linger(&self, waiting: &mut VecDeque<Job>, queue: &Receiver<Job>) {
        let until = Instant::now() + self.limits.linger;
        let rows = |waiting: &VecDeque<Job>| waiting.iter().map(Job::rows).sum::<usize>();
        while (1..self.limits.batch).contains(&rows(waiting)) {
            let left = until.saturating_duration_since(Instant::now());
            match queue.recv_timeout(left) {
                Ok(job) => waiting.push_back(job),
                Err(_) => return,
            }
        }
    }

    /// Takes the first that is wanted, and what goes with it into one batch.
    fn group(&self, waiting: &mut VecDeque<Job>) -> Vec<Job> {
        waiting.retain(Job::is_wanted);
        let Some(first) = waiting.pop_front() else {
            return Vec::new();
        };
        let mut rows = first.rows();
        let mut group = vec![first];
        let mut later = VecDeque::with_capacity(waiting.len());
        for job in waiting.drain(..) {
            let fits = rows + job.rows() <= self.limits.batch;
            let goes = |first: &Job| first.goes_with(&job, &self.models);
            if fits && group.first().is_some_and(goes) {
                rows += job.rows();
                group.push(job);
            } else {
                later.push_back(job);
            }
        }
        *waiting = later;
        group
    }

    fn answer(&mut self, group: &[Job]) {
        let Some(first) = group.first() else { return };
        match &first.ask {
            Ask::Add(wanted) => first.say(self.add(wanted)),
            Ask::Remove(name) => first.say(match self.models.remove(name) {
                Ok(()) => Said::Changed(None),
                Err(why) => Said::Failed(404, why),
            }),
            Ask::Rows { .. } => labels::answer(self, group),
            Ask::Write { .. } => {
                self.count(group);
                match self.models.get_mut(first.model).map(|own| &mut own.kind) {
                    Some(Kind::Writes(writer)) => texts::answer(writer, group, self.limits),
                    _ => group.iter().for_each(|job| job.say(gone())),
                }
            }
        }
        let peak = self.models.peak(first.model);
        self.numbers.peak.fetch_max(peak, Ordering::Relaxed);
    }

    fn add(&mut self, wanted: &Wanted) -> Said {
        let made = (self.open)(wanted).and_then(|named| self.models.add(named));
        match made {
            Ok(about) => Said::Changed(Some(about.json())),
            // What cannot be served is the request's fault.
            Err(why) => Said::Failed(400, status(why).1),
        }
    }

    /// Counts rows and batches of models.
    pub(super) fn count(&self, group: &[Job]) {
        let mut seen = Vec::new();
        for job in group {
            let Some(own) = self.models.get(job.model) else {
                continue;
            };
            add(&own.about.counts.rows, job.rows() as u64);
            if !seen.contains(&job.model) {
                seen.push(job.model);
                add(&own.about.counts.batches, 1);
            }
        }
    }
}

/// The answer to a request whose model was removed while it waited.
pub(super) fn gone() -> Said {
    Said::Failed(404, "the model was removed".to_owned())
}
