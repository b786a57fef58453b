//! Flags that `predict` and `chat` share: how a finished model is found and run, and what is noted beside.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Refusal, place};
use crate::base::visible;
use crate::cli::options::{Color, Common, error, ranks, threads};
use crate::cli::screen::{Screen, wrap};
use crate::cli::{exit, output};
use crate::exec::backend::Device;
use crate::program::op::Machine;

/// How a finished model is found and run.
#[derive(Debug, Args)]
pub(in crate::cli) struct Running {
    /// Device to compute on: cpu, cuda, cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads to compute with; all cores if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Where a recipe's finished stages are; `.peftc/store` beside it if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Processes that a recipe's trainings were shared among
    #[arg(long, value_name = "N", default_value = "1", value_parser = ranks)]
    ranks: u64,
    /// Override a `let` of a recipe
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
    /// Never reach for the network for a recipe; use the cache only
    #[arg(long)]
    offline: bool,
}

/// What is noted beside.
#[derive(Debug, Args)]
pub(in crate::cli) struct Noting {
    /// Print no notes
    #[arg(long)]
    pub(in crate::cli) quiet: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
}

impl Noting {
    /// Standard output as it is to be written to.
    pub(in crate::cli) fn screen(&self) -> Screen {
        Screen::out(self.color)
    }

    /// Prints a note, unless none is wanted.
    pub(in crate::cli) fn note(&self, text: &str) {
        if !self.quiet {
            let screen = Screen::err(self.color);
            let text = format!("note: {}", visible::line(text));
            output::note(&wrap(&text, screen.prose(), ""));
        }
    }
}

impl Running {
    /// Runs on the device and the threads that were asked for; gives the exit code.
    pub(in crate::cli) fn run(
        &self,
        noting: &Noting,
        work: impl FnOnce(Machine, Device) -> Result<(), Refusal> + Send,
    ) -> i32 {
        let named = self.device.parse::<Device>();
        let device = match named.and_then(|device| device.is_ready().map(|()| device)) {
            Ok(device) => device,
            Err(why) => {
                error(&format!("`--device {}`: {why}", self.device));
                return exit::WRONG;
            }
        };
        let machine = Machine::detect(self.threads);
        match self.common(noting).in_pool(|| work(machine, device)) {
            Ok(()) => exit::DONE,
            Err(refusal) => refusal.print(),
        }
    }

    /// Where the model is, of a stage or of the best variant by a metric where these are named.
    pub(in crate::cli) fn find(
        &self,
        path: &Path,
        (stage, best): (Option<&str>, Option<&str>),
        noting: &Noting,
    ) -> Result<place::Artifact, Refusal> {
        let place = place::find(&place::Asked {
            path,
            stage,
            best,
            store: self.store.as_deref(),
            ranks: self.ranks,
            common: &self.common(noting),
        })?;
        if let Some(note) = &place.note {
            noting.note(note);
        }
        Ok(place)
    }

    /// The flags that a recipe is read with.
    fn common(&self, noting: &Noting) -> Common {
        Common {
            device: "cpu".to_owned(),
            offline: self.offline,
            sets: self.sets.clone(),
            json: false,
            no_data_report: true,
            quiet: true,
            threads: self.threads,
            color: noting.color,
        }
    }
}
