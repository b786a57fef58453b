//! The live line of a run; plain lines where there is no terminal.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::Color;
use super::output::note;
use super::screen::Screen;
use super::signals::Asked;
use crate::base::units::{About, Bytes};
use crate::base::visible;
use crate::exec::observe::{Event, Observer};

/// Shows a run.
#[derive(Debug)]
pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    terminal: bool,
    asked: Arc<Asked>,
    stage: String,
    total: u64,
    last_line: Instant,
    /// When this process made its first step of the stage, and which.
    first: Option<(Instant, u64)>,
    /// Losses of the last steps.
    losses: VecDeque<f64>,
}

/// Steps that a shown loss is the mean of: one batch's says little.
const SMOOTHED: usize = 50;

impl Progress {
    pub(super) fn new(quiet: bool, asked: Arc<Asked>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            quiet,
            bar: None,
            terminal,
            asked,
            stage: String::new(),
            total: 0,
            last_line: Instant::now(),
            first: None,
            losses: VecDeque::new(),
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let text = Screen::err(Color::Auto).fold(text, 4);
        match &self.bar {
            Some(bar) => bar.println(visible::lines(&text)),
            None => {
                note(&format!("{text}\n"));
            }
        }
    }

    fn begin(&mut self, name: &str, kind: &str, total: u64, estimated: u64) {
        self.finish();
        (self.stage, self.total, self.last_line) = (name.to_owned(), total, Instant::now());
        self.first = None;
        self.losses.clear();
        self.line(&format!(
            "{name} ({kind}): {} of tensors at most",
            Bytes(estimated)
        ));
        if self.terminal && !self.quiet {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("  {bar:24} {pos}/{len} {wide_msg}") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }
}

impl Progress {
    /// The mean loss of the last steps, with how many these are.
    fn smoothed(&mut self, loss: f64) -> String {
        if self.losses.len() == SMOOTHED {
            self.losses.pop_front();
        }
        self.losses.push_back(loss);
        let n = self.losses.len();
        let mean = self.losses.iter().sum::<f64>() / n as f64;
        let of = if n > 1 {
            format!(" (mean of {n} steps)")
        } else {
            String::new()
        };
        format!("loss {mean:.4}{of}")
    }

    /// The time that is left after a step, by the steps of this process alone: what was done before an
    /// interruption took no time here.
    fn left(&mut self, step: u64) -> String {
        let Some((since, first)) = self.first else {
            self.first = Some((Instant::now(), step));
            return String::new();
        };
        let done = step.saturating_sub(first);
        if done == 0 || step >= self.total {
            return String::new();
        }
        let each = since.elapsed().as_secs_f64() / done as f64;
        format!("  {} left", About(each * (self.total - step) as f64))
    }
}

impl Progress {
    /// A step that is done: on the bar, or every ten seconds on a line.
    fn step(&mut self, step: u64, loss: f64, samples_per_s: f64, peak: u64) {
        let loss = self.smoothed(loss);
        let text = format!(
            "{loss}  {samples_per_s:.0} samples/s  {}{}",
            Bytes(peak),
            self.left(step)
        );
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text);
        } else if self.last_line.elapsed() >= Duration::from_secs(10) || step == self.total {
            self.last_line = Instant::now();
            self.line(&format!(
                "  {}: step {step}/{}  {text}",
                self.stage, self.total
            ));
        }
    }

    /// Examples whose features are kept, likewise.
    fn kept(&mut self, done: u64, total: u64) {
        let text = format!("frozen part: features of {done} of {total} examples kept");
        if let Some(bar) = &self.bar {
            bar.set_message(text);
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
            Event::Cached { name } => self.line(&format!("{name}: taken from the store")),
            Event::Resumed { name, step, of } => {
                self.line(&format!("{name}: resumes at step {step} of {of}"));
                if let Some(bar) = &self.bar {
                    bar.set_position(step);
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
                if let Some(bar) = self
                    .bar
                    .as_ref()
                    .filter(|b| b.position() < done && done <= self.total)
                {
                    bar.set_position(done);
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
                self.finish();
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
