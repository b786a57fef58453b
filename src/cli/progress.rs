//! The live line of a run; plain lines where there is no terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::live::{Ahead, Live, Losses, Stages};
use super::options::Color;
use super::output::note;
use super::screen::Screen;
use super::signals::Asked;
use super::trace;
use crate::base::units::{About, Bytes};
use crate::exec::observe::{Event, Observer};

/// Shows a run.
#[derive(Debug)]
pub(super) struct Progress {
    quiet: bool,
    live: Option<Live>,
    terminal: bool,
    stages: Stages,
    asked: Arc<Asked>,
    stage: String,
    total: u64,
    last_line: Instant,
    /// When this process made its first step of the stage, and which.
    first: Option<(Instant, u64)>,
    losses: Losses,
    /// Most tensor bytes of the stage by the plan.
    estimated: u64,
}

impl Progress {
    /// Of a run that has these stages before it.
    pub(super) fn new(quiet: bool, asked: Arc<Asked>, stages: Vec<Ahead>) -> Self {
        // Lines that are drawn again and again would break the lines of `-v`.
        let terminal = std::io::stderr().is_terminal() && !trace::is_on();
        Self {
            quiet,
            live: None,
            terminal,
            stages: Stages::new(stages),
            asked,
            stage: String::new(),
            total: 0,
            last_line: Instant::now(),
            first: None,
            losses: Losses::default(),
            estimated: 0,
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(live) = self.live.take() {
            live.clear();
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let text = Screen::err(Color::Auto).fold(text, 4);
        match &self.live {
            Some(live) => live.line(&text),
            None => {
                note(&format!("{text}\n"));
            }
        }
    }

    fn begin(&mut self, name: &str, kind: &str, total: u64, estimated: u64) {
        self.finish();
        (self.stage, self.total, self.last_line) = (name.to_owned(), total, Instant::now());
        self.first = None;
        self.losses = Losses::default();
        self.estimated = estimated;
        self.stages.begin(name);
        self.line(&format!(
            "{name} ({kind}): {} of tensors at most",
            Bytes(estimated)
        ));
        if self.terminal && !self.quiet {
            self.live = Some(Live::new(total, &self.stages));
        }
    }
}

impl Progress {
    /// How long the stage takes and what of that is left after a step, in seconds, by the steps of this process alone: what was
    /// done before an interruption took no time here.
    fn times(&mut self, step: u64) -> Option<(f64, f64)> {
        let Some((since, first)) = self.first else {
            self.first = Some((Instant::now(), step));
            return None;
        };
        let done = step.saturating_sub(first);
        let each = since.elapsed().as_secs_f64() / done.max(1) as f64;
        let left = self.total.saturating_sub(step);
        (done > 0).then_some((each * self.total as f64, each * left as f64))
    }
}

impl Progress {
    /// A step that is done: on the bar, or every ten seconds on a line.
    fn step(&mut self, step: u64, loss: f64, samples_per_s: f64, peak: u64) {
        self.losses.push(loss);
        let times = self.times(step);
        let left = times.filter(|_| step < self.total);
        let left = left.map(|(_, left)| format!("{} left", About(left)));
        if let Some(live) = &mut self.live {
            let left = left.map_or_else(String::new, |left| format!("{left}  "));
            let text = format!(
                "{left}{samples_per_s:.0} samples/s  {} of {}",
                Bytes(peak),
                Bytes(self.estimated)
            );
            live.step(step, text, &self.losses);
            if let Some(times) = times {
                live.time(&self.stages, times);
            }
        } else if self.last_line.elapsed() >= Duration::from_secs(10) || step == self.total {
            self.last_line = Instant::now();
            let left = left.map_or_else(String::new, |left| format!("  {left}"));
            self.line(&format!(
                "  {}: step {step}/{}  {}  {samples_per_s:.0} samples/s  {}{left}",
                self.stage,
                self.total,
                self.losses.said(),
                Bytes(peak),
            ));
        }
    }

    /// Examples whose features are kept, likewise.
    fn kept(&mut self, done: u64, total: u64) {
        let text = format!("frozen part: features of {done} of {total} examples kept");
        if let Some(live) = &self.live {
            live.say(text);
        } else if self.last_line.elapsed() >= Duration::from_secs(10) || done == total {
            self.last_line = Instant::now();
            self.line(&format!("  {}: {text}", self.stage));
        }
    }
}

fn listed(metrics: &[(String, f64)]) -> String {
    metrics
        .iter()
        .map(|(n, v)| format!("{n} {v:.4}"))
        .collect::<Vec<_>>()
        .join("  ")
}

impl Observer for Progress {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Stage {
                name,
                kind,
                total,
                estimated,
            } => self.begin(name, kind, total, estimated),
            Event::Cached { name } => {
                self.stages.begin(name);
                self.line(&format!("{name}: taken from the store"));
            }
            Event::Resumed { name, step, of } => {
                self.line(&format!("{name}: resumes at step {step} of {of}"));
                if let Some(live) = &self.live {
                    live.reach(step);
                }
            }
            Event::Saved { step } => self.line(&format!(
                "  {}: checkpoint at step {step} of {} kept",
                self.stage, self.total
            )),
            Event::Stopped { step, of, patience } => self.line(&format!(
                "  {}: stops early at step {step} of {of}: {patience} evaluations without a better one",
                self.stage
            )),
            Event::Best {
                step,
                metric,
                value,
            } => self.line(&format!(
                "  {}: the state of step {step} is kept, the best by {metric} ({value:.4})",
                self.stage
            )),
            Event::Step {
                step,
                loss,
                samples_per_s,
                peak,
                ..
            } => self.step(step, loss, samples_per_s, peak),
            Event::Kept { done, total } => self.kept(done, total),
            Event::Scored { done } => {
                if let Some(live) = &self.live {
                    live.reach(done);
                }
            }
            Event::Evaluated {
                step,
                metrics,
                best,
            } => {
                let mark = if best { "  (best so far)" } else { "" };
                self.line(&format!(
                    "  {}: step {step}  dev {}{mark}",
                    self.stage,
                    listed(metrics)
                ));
            }
            Event::Done { name, metrics } => {
                let learned = self.live.is_some() && self.losses.mean().1 > 0;
                self.finish();
                if learned {
                    self.line(&format!("  {name}: {}", self.losses.said()));
                }
                if !metrics.is_empty() {
                    self.line(&format!("  {name}: {}", listed(metrics)));
                }
            }
            Event::Note(text) => self.line(text),
        }
    }

    fn interrupted(&self) -> Option<i32> {
        self.asked.end()
    }

    fn asked(&mut self) -> bool {
        self.asked.checkpoint()
    }
}
