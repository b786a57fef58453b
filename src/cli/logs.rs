//! What a run writes for other tools to look at while it goes on: one file and one row each.

mod lines;
mod mlflow;
mod tensorboard;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

pub(super) use self::lines::Lines;
use crate::exec::observe::{Event, Observer};
use crate::plan::Plan;

/// A tool that reads logs.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    open: fn(PathBuf, &str) -> io::Result<Box<dyn Sink>>,
}

/// Every tool.
const KINDS: &[Kind] = &[
    Kind {
        name: "tensorboard",
        open: tensorboard::open,
    },
    Kind {
        name: "mlflow",
        open: mlflow::open,
    },
];

/// Writes what one tool reads.
pub(super) trait Sink: fmt::Debug + Send {
    /// A stage begins, with its keys.
    fn begin(&mut self, stage: &str, keys: &[(String, String)]) -> io::Result<()>;

    /// Numbers of a step.
    fn numbers(&mut self, step: u64, numbers: &[(String, f64)]) -> io::Result<()>;

    /// The stage ends: done, or not.
    fn end(&mut self, done: bool) -> io::Result<()>;
}

/// A log that is asked for: `tensorboard=DIR`.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    kind: &'static Kind,
    dir: PathBuf,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name, self.dir.display())
    }
}

/// `--log KIND=DIR` read.
///
/// # Errors
/// What to write instead.
pub(super) fn wanted(text: &str) -> Result<Wanted, String> {
    let (kind, dir) = text
        .split_once('=')
        .ok_or("write `tensorboard=DIR` or `mlflow=DIR`")?;
    if kind == "wandb" {
        return Err(
            "the offline format of W&B belongs to its own program, and is not written; log to `tensorboard=DIR` or `mlflow=DIR` instead"
                .to_owned(),
        );
    }
    let known = KINDS.iter().find(|k| k.name == kind);
    let known = known.ok_or_else(|| {
        format!("there is no log `{kind}`; write `tensorboard=DIR` or `mlflow=DIR`")
    })?;
    if dir.is_empty() {
        return Err(format!("name a folder: `{kind}=DIR`"));
    }
    Ok(Wanted {
        kind: known,
        dir: dir.into(),
    })
}

impl Wanted {
    /// Opens it, for a recipe of a name.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(super) fn open(&self, recipe: &str) -> Result<Open, String> {
        let shown = format!("--log {}={}", self.kind.name, self.dir.display());
        match (self.kind.open)(self.dir.clone(), recipe) {
            Ok(sink) => Ok(Open {
                shown,
                sink,
                broken: None,
            }),
            Err(why) => Err(format!("`{shown}`: {why}")),
        }
    }
}

/// A log that is being written.
#[derive(Debug)]
pub(super) struct Open {
    shown: String,
    sink: Box<dyn Sink>,
    /// Why nothing is written any more.
    broken: Option<io::Error>,
}

/// Tells an observer and some logs what happens.
pub(super) struct Logged<'a> {
    shown: &'a mut dyn Observer,
    logs: Vec<Open>,
    keys: HashMap<String, Vec<(String, String)>>,
    /// Whether a stage has begun and not ended.
    within: bool,
    /// The last step.
    step: u64,
}

impl<'a> Logged<'a> {
    pub(super) fn new(shown: &'a mut dyn Observer, logs: Vec<Open>, plan: &Plan) -> Self {
        let written = |(key, value): (&str, &_)| (key.to_owned(), format!("{value:#}"));
        let of = |stage: &crate::plan::Stage| {
            (
                stage.name.value.clone(),
                stage.filled.values.iter().map(written).collect(),
            )
        };
        let keys = match logs.is_empty() {
            true => HashMap::new(),
            false => plan.stages.iter().map(of).collect(),
        };
        Self {
            shown,
            logs,
            keys,
            within: false,
            step: 0,
        }
    }

    /// Does the same in each log that is whole. A run does not end for a log's sake: what failed is said, then and at the end.
    fn each(&mut self, act: &mut dyn FnMut(&mut dyn Sink) -> io::Result<()>) {
        for log in &mut self.logs {
            if log.broken.is_some() {
                continue;
            }
            if let Err(why) = act(log.sink.as_mut()) {
                let note = format!(
                    "`{}` cannot be written: {why}; the run goes on without it",
                    log.shown
                );
                self.shown.event(Event::Note(&note));
                log.broken = Some(why);
            }
        }
    }

    fn numbers(&mut self, step: u64, numbers: &[(String, f64)]) {
        if !numbers.is_empty() {
            self.each(&mut |sink| sink.numbers(step, numbers));
        }
    }

    /// Ends the logs; gives what is not whole.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.within {
            self.each(&mut |sink| sink.end(false));
        }
        let broken = self
            .logs
            .into_iter()
            .filter_map(|log| Some((log.shown, log.broken?)));
        broken
            .map(|(shown, why)| format!("`{shown}` is not whole: {why}"))
            .collect()
    }
}

/// Metrics under a heading.
fn under(heading: &str, metrics: &[(String, f64)]) -> Vec<(String, f64)> {
    metrics
        .iter()
        .map(|(name, value)| (format!("{heading}/{name}"), *value))
        .collect()
}

impl Observer for Logged<'_> {
    fn event(&mut self, event: Event<'_>) {
        self.shown.event(event.clone());
        match event {
            Event::Stage { name, .. } => {
                let keys = self.keys.remove(name).unwrap_or_default();
                (self.within, self.step) = (true, 0);
                self.each(&mut |sink| sink.begin(name, &keys));
            }
            Event::Step {
                step,
                loss,
                lr,
                grad_norm,
                samples_per_s,
                peak,
            } => {
                self.step = step;
                let numbers = [
                    ("loss", loss),
                    ("lr", lr),
                    ("grad_norm", grad_norm),
                    ("samples_per_s", samples_per_s),
                    ("peak_bytes", peak as f64),
                ];
                self.numbers(step, &numbers.map(|(name, value)| (name.to_owned(), value)));
            }
            Event::Evaluated { step, metrics, .. } => self.numbers(step, &under("dev", metrics)),
            Event::Done { metrics, .. } => {
                self.numbers(self.step, &under("final", metrics));
                self.within = false;
                self.each(&mut |sink| sink.end(true));
            }
            _ => {}
        }
    }

    fn interrupted(&self) -> Option<i32> {
        self.shown.interrupted()
    }

    fn asked(&mut self) -> bool {
        self.shown.asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_with_their_folders() {
        let kind = |text| wanted(text).map(|w| (w.kind.name, w.dir));
        assert_eq!(
            kind("tensorboard=a=b"),
            Ok(("tensorboard", PathBuf::from("a=b")))
        );
        for text in ["tensorboard", "mlflow=", "tb=x", "wandb=x"] {
            assert!(kind(text).is_err(), "{text}");
        }
    }
}
