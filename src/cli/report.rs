//! `peftc report`: compare finished runs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::exit;
use super::options::Color;
use super::output::{error, note, print};
use super::screen::Screen;
use crate::base::visible;
use crate::files::RunError;
use crate::files::durable::write_over;
use crate::report::{self, export, page, read::read, table};

/// Columns of a table where no terminal has its own.
const WIDTH: usize = 100;

/// How a comparison is written.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Format {
    /// For people, in 100 columns.
    Table,
    /// A Markdown table.
    Markdown,
    /// Plain numbers, sizes in bytes.
    Csv,
    /// A page of its own with charts.
    Html,
    /// For programs.
    Json,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Output directories of `run`, or directories that hold such, up to two levels down
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// How to write it; what the ending of --output says if not given, else a table
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The metric to sort by and to draw against memory; the one most rows have if not given
    #[arg(long, value_name = "METRIC")]
    by: Option<String>,
    /// Print one JSON document on standard output
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print no notes
    #[arg(long)]
    quiet: bool,
}

impl Report {
    pub(super) fn run(&self) -> i32 {
        match self.report() {
            Ok(code) => code,
            Err(why) => {
                error(&why.to_string());
                why.exit_code()
            }
        }
    }

    /// How to write it; `None` where the file's ending names no format.
    fn format(&self) -> Option<Format> {
        match (self.format, self.json, &self.output) {
            (Some(format), ..) => Some(format),
            (None, true, _) => Some(Format::Json),
            (None, false, None) => Some(Format::Table),
            (None, false, Some(path)) => {
                let ending = path.extension().map(|e| e.to_ascii_lowercase());
                match ending.as_ref().map(|e| e.to_str().unwrap_or("?")) {
                    Some("html" | "htm") => Some(Format::Html),
                    Some("md" | "markdown") => Some(Format::Markdown),
                    Some("csv") => Some(Format::Csv),
                    Some("json") => Some(Format::Json),
                    Some("txt") | None => Some(Format::Table),
                    Some(_) => None,
                }
            }
        }
    }

    fn report(&self) -> Result<i32, RunError> {
        let Some(format) = self.format() else {
            let path = self.output.as_deref().unwrap_or(Path::new(""));
            error(&format!(
                "no format has the ending of `--output {}`; write .html, .md, .csv, .json or .txt, or name one with `--format`",
                path.display()
            ));
            return Ok(exit::WRONG);
        };
        let results = read(&self.dirs)?;
        let report = report::Report::new(&results, self.by.as_deref());
        let known = report.metrics();
        if let Some(by) = self.by.as_deref().filter(|by| !known.contains(by)) {
            error(&format!(
                "no result has a metric `{by}`; they have: {}",
                known.join(", ")
            ));
            return Ok(exit::WRONG);
        }
        if report.groups.is_empty() {
            return Err(RunError::file(
                self.dirs.first().cloned().unwrap_or_default(),
                "no training or evaluation is finished there yet; let `peftc run` go on",
            ));
        }
        if report.outdated && !self.quiet {
            note(
                "note: some results were written by an older peftc and do not say their methods, their seeds or what they were scored on; `peftc run` adds that without running finished stages again\n",
            );
        }
        let screen = Screen::out(Color::Auto);
        let text = match (format, &self.output) {
            (Format::Table, Some(_)) => table::terminal(&report, WIDTH),
            (Format::Table, None) => {
                let width = screen.width.unwrap_or(WIDTH);
                screen.starred(&table::terminal(&report, width))
            }
            (Format::Markdown, _) => table::markdown(&report),
            (Format::Csv, _) => export::csv(&report),
            (Format::Json, _) => export::json(&report),
            (Format::Html, _) => page::html(&report),
        };
        match &self.output {
            None => print(&text),
            Some(path) => {
                write_over(path, text.as_bytes())?;
                if !self.quiet {
                    note(&format!(
                        "written: {}\n",
                        visible::line(&path.to_string_lossy())
                    ));
                }
            }
        }
        Ok(exit::DONE)
    }
}
