//! The live line of a run; plain lines where there is no terminal. Signals become a flag.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::units::Bytes;
use crate::exec::observe::{Event, Observer};

/// Turns SIGINT and SIGTERM into a number that the run looks at after each step. A second one ends
/// the process at once.
pub(super) fn watch_signals() -> Arc<AtomicUsize> {
    let flag = Arc::new(AtomicUsize::new(0));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let second = Arc::new(std::sync::atomic::AtomicBool::new(false));
        // Order matters: the conditional exit looks at what the first signal set.
        let _ =
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, second.clone());
        let _ = signal_hook::flag::register(signal, second);
        let _ = signal_hook::flag::register_usize(signal, flag.clone(), signal as usize);
    }
    flag
}

/// Shows a run.
#[derive(Debug)]
pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    terminal: bool,
    flag: Arc<AtomicUsize>,
    stage: String,
    total: u64,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(quiet: bool, flag: Arc<AtomicUsize>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            quiet,
            bar: None,
            terminal,
            flag,
            stage: String::new(),
            total: 0,
            last_line: Instant::now(),
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
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    fn begin(&mut self, name: &str, kind: &str, total: u64, estimated: u64) {
        self.finish();
        (self.stage, self.total, self.last_line) = (name.to_owned(), total, Instant::now());
        self.line(&format!(
            "{name} ({kind}): {} of tensors at most",
            Bytes(estimated)
        ));
        if self.terminal && !self.quiet {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("  {bar:24} {pos}/{len} {wide_msg} {eta:>5} left")
            {
                bar.set_style(style);
            }
            self.bar = Some(bar);
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
            Event::Resumed { name, step } => {
                self.line(&format!("{name}: goes on from step {step}"))
            }
            Event::Step {
                step,
                loss,
                samples_per_s,
                peak,
            } => {
                let text = format!(
                    "loss {loss:.4}  {samples_per_s:.0} samples/s  {}",
                    Bytes(peak)
                );
                if let Some(bar) = &self.bar {
                    bar.set_position(step);
                    bar.set_message(text);
                } else if self.last_line.elapsed() >= Duration::from_secs(10) || step == self.total
                {
                    self.last_line = Instant::now();
                    self.line(&format!(
                        "  {}: step {step}/{}  {text}",
                        self.stage, self.total
                    ));
                }
            }
            Event::Kept { done, total } => {
                let text = format!("frozen part: features of {done} of {total} examples kept");
                if let Some(bar) = &self.bar {
                    bar.set_message(text);
                } else if self.last_line.elapsed() >= Duration::from_secs(10) || done == total {
                    self.last_line = Instant::now();
                    self.line(&format!("  {}: {text}", self.stage));
                }
            }
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
        match self.flag.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}
