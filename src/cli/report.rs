//! `peftc report`: compare finished runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit;
use super::output::{error, note, print};
use crate::base::visible;
use crate::files::RunError;
use crate::files::durable::write_over;
use crate::report::{self, export, page, read::read, table};

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

    fn format(&self) -> Format {
        let ending = self.output.as_ref().and_then(|p| p.extension());
        let named = ending.and_then(|e| match e.to_str()? {
            "html" | "htm" => Some(Format::Html),
            "md" => Some(Format::Markdown),
            "csv" => Some(Format::Csv),
            "json" => Some(Format::Json),
            _ => None,
        });
        match self.format {
            Some(format) => format,
            None if self.json => Format::Json,
            None => named.unwrap_or(Format::Table),
        }
    }

    fn report(&self) -> Result<i32, RunError> {
        let results = read(&self.dirs)?;
        let report = report::Report::new(&results, self.by.as_deref());
        if let (Some(by), None) = (&self.by, &report.main) {
            error(&format!(
                "no result has a metric `{by}`; they have: {}",
                report.metrics.join(", ")
            ));
            return Ok(exit::WRONG);
        }
        if report.rows.is_empty() {
            return Err(RunError::file(
                self.dirs.first().cloned().unwrap_or_default(),
                "no training or evaluation is finished there yet; let `peftc run` go on",
            ));
        }
        if report.outdated && !self.quiet {
            note(
                "note: some results were written by an older peftc and do not say their methods or seeds; `peftc run` adds that without running finished stages again\n",
            );
        }
        let text = match self.format() {
            Format::Table => table::terminal(&report),
            Format::Markdown => table::markdown(&report),
            Format::Csv => export::csv(&report),
            Format::Json => export::json(&report),
            Format::Html => page::html(&report),
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
