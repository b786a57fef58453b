//! The progress of labelling.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::trace;

/// How many rows are done, on a terminal that shows nothing else.
pub(super) struct Shown(Option<ProgressBar>);

impl Shown {
    pub(super) fn new(quiet: bool) -> Self {
        let free =
            std::io::stderr().is_terminal() && !std::io::stdout().is_terminal() && !trace::is_on();
        Self((free && !quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            match ProgressStyle::with_template("  {human_pos} rows  {elapsed}  {per_sec}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        }))
    }

    pub(super) fn more(&mut self, rows: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(rows as u64);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
