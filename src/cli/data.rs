//! `peftc data FILE`: what a file of data is: columns, classes with counts, lengths, doubtful rows.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use clap::Args;
use indexmap::IndexMap;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Color, error, print};
use super::screen::Screen;
use super::table::{Side, Table};
use super::world::RealWorld;
use crate::base::units::{Bytes, Count};
use crate::base::world::World as _;
use crate::library::data::report::says_nothing;
use crate::library::data::{Cell, DataError, FORMATS, Input, format_named, format_of};

/// Arguments of `data`.
#[derive(Debug, Args)]
pub(super) struct Data {
    /// The file: TSV, CSV, JSON, JSONL or Parquet, also packed with gzip or Zstandard
    file: PathBuf,
    /// Its format, if its name does not tell: tsv, csv, jsonl, json, parquet
    #[arg(long)]
    format: Option<String>,
    /// Print one JSON document on standard output
    #[arg(long)]
    json: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
}

/// Different values of a column that are counted; beyond, it holds no classes.
const MOST_VALUES: usize = 200;
/// Classes that are shown to people.
const MOST_SHOWN: usize = 20;
/// Rows whose places are named.
const MOST_PLACES: usize = 5;

/// What a column holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) name: String,
    /// Cells by what they are: texts, whole numbers, other numbers, truth values, lists.
    kinds: [u64; 5],
    /// Cells with nothing in them.
    pub(super) missing: u64,
    /// Texts that are empty or say nothing, as `null` does, with the lines of the first.
    pub(super) empty: u64,
    empty_at: Vec<u64>,
    /// Each value, how often; `None` once there are too many.
    pub(super) values: Option<IndexMap<String, u64>>,
    /// Characters of each text.
    lengths: Vec<u32>,
    /// Whether a text stands there that is no number.
    worded: bool,
    /// Whether lists hold objects, as conversations do.
    pub(super) nested: bool,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    pub(super) format: &'static str,
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
    /// Rows that stand in the file before, with the lines of the first.
    duplicates: u64,
    duplicates_at: Vec<u64>,
}

impl Column {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            values: Some(IndexMap::new()),
            ..Self::default()
        }
    }

    fn see(&mut self, cell: Cell, line: u64) {
        let kind = match &cell {
            Cell::Text(_) => 0,
            Cell::Int(_) => 1,
            Cell::Float(_) => 2,
            Cell::Bool(_) => 3,
            Cell::List(list) => {
                self.nested |= list.nested.is_some();
                4
            }
            Cell::Missing => {
                self.missing += 1;
                return;
            }
        };
        if let Some(count) = self.kinds.get_mut(kind) {
            *count += 1;
        }
        let Some(text) = cell.into_text() else {
            self.values = None;
            return;
        };
        if kind == 0 && (text.trim().is_empty() || says_nothing(&text)) {
            self.empty += 1;
            if self.empty_at.len() < MOST_PLACES {
                self.empty_at.push(line);
            }
        }
        self.worded |= kind == 0 && text.trim().parse::<f64>().is_err();
        self.lengths
            .push(u32::try_from(text.chars().count()).unwrap_or(u32::MAX));
        if let Some(values) = &mut self.values {
            *values.entry(text).or_insert(0) += 1;
            if values.len() > MOST_VALUES {
                self.values = None;
            }
        }
    }

    /// What its cells are, in a word.
    pub(super) fn kind(&self) -> &'static str {
        let [texts, whole, other, truth, lists] = self.kinds;
        let some = [texts, whole + other, truth, lists]
            .iter()
            .filter(|n| **n > 0)
            .count();
        match (some, texts, whole, other, truth, lists) {
            (0, ..) => "nothing",
            (1, 1.., ..) if !self.worded => "numbers",
            (1, 1.., ..) => "texts",
            (1, _, 1.., 0, ..) => "whole numbers",
            (1, _, _, 1.., ..) => "numbers",
            (1, _, _, _, 1.., _) => "true or false",
            (1, ..) if self.nested => "lists of objects",
            (1, ..) => "lists",
            _ => "several kinds",
        }
    }

    /// Whether it may hold classes: some values, each of them more than once in the mean.
    pub(super) fn is_classes(&self) -> bool {
        let total: u64 = self.kinds.iter().sum();
        let several = |v: &IndexMap<String, u64>| v.len() > 1 && (v.len() as u64) * 2 <= total;
        self.values.as_ref().is_some_and(several)
    }

    /// Whether all of it are numbers.
    pub(super) fn is_numbers(&self) -> bool {
        matches!(self.kind(), "numbers" | "whole numbers")
    }

    /// The middle length, that of all but the longest hundredth, and the longest, in characters.
    pub(super) fn lengths(&self) -> Option<[u32; 3]> {
        let mut sorted = self.lengths.clone();
        sorted.sort_unstable();
        let at = |share: usize| {
            let place = (sorted.len() * share).div_ceil(100).max(1) - 1;
            sorted.get(place).copied()
        };
        Some([at(50)?, at(99)?, at(100)?])
    }
}

impl Survey {
    /// Looks at all rows of a file.
    pub(super) fn of(
        path: &Path,
        named: Option<&str>,
        world: &RealWorld,
    ) -> Result<Self, DataError> {
        let format = match named {
            Some(name) => format_named(name),
            None => format_of(path),
        };
        let Some(format) = format else {
            let all: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
            let message = "its format is not known";
            return Err(DataError::new(path.display().to_string(), message)
                .help(format!("say it: `--format {}`", all.join("|"))));
        };
        let input = Input::open(path, world)?;
        let names = (format.columns)(&input)?;
        let mut survey = Self {
            format: format.name,
            rows: 0,
            columns: names.iter().map(|n| Column::new(n)).collect(),
            duplicates: 0,
            duplicates_at: Vec::new(),
        };
        let mut seen: HashSet<u64> = HashSet::new();
        (format.read)(&input, &names, &mut |row| {
            survey.rows += 1;
            let mut hasher = DefaultHasher::new();
            format!("{:?}", row.cells).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                survey.duplicates += 1;
                if survey.duplicates_at.len() < MOST_PLACES {
                    survey.duplicates_at.push(row.line);
                }
            }
            for (column, cell) in survey.columns.iter_mut().zip(row.cells) {
                column.see(cell, row.line);
            }
            true
        })?;
        Ok(survey)
    }

    fn json(&self, path: &Path) -> Json {
        let column = |c: &Column| {
            let lengths = c.lengths();
            json!({
                "name": c.name, "kind": c.kind(), "missing": c.missing, "empty": c.empty, "empty_lines": c.empty_at,
                "values": c.values.as_ref().filter(|_| c.is_classes()),
                "characters": lengths.map(|[median, p99, max]| json!({ "median": median, "p99": p99, "max": max })),
            })
        };
        json!({
            "schema": 1, "file": path.display().to_string(), "format": self.format, "rows": self.rows,
            "columns": self.columns.iter().map(column).collect::<Vec<_>>(),
            "duplicates": self.duplicates, "duplicate_lines": self.duplicates_at,
        })
    }

    fn text(&self, path: &Path, bytes: Option<u64>, screen: Screen) -> String {
        let size = bytes.map_or_else(String::new, |b| format!(", {}", Bytes(b)));
        let mut text = format!(
            "{}: {}{size}, {} rows\n\n",
            path.display(),
            self.format,
            Count(self.rows)
        );
        let mut table = Table::new([
            ("column", Side::Left),
            ("holds", Side::Left),
            ("missing", Side::Right),
            ("characters", Side::Right),
            ("99 %", Side::Right),
            ("most", Side::Right),
            ("different", Side::Right),
        ]);
        for column in &self.columns {
            let [median, p99, max] = match column.lengths() {
                Some(lengths) => lengths.map(|n| n.to_string()),
                None => [String::new(), String::new(), String::new()],
            };
            let some = |n: u64| {
                if n == 0 {
                    String::new()
                } else {
                    Count(n).to_string()
                }
            };
            let different = match &column.values {
                Some(values) => values.len().to_string(),
                None if column.lengths.is_empty() => String::new(),
                None => format!("over {MOST_VALUES}"),
            };
            table.row(vec![
                column.name.as_str().into(),
                column.kind().into(),
                some(column.missing).into(),
                median.into(),
                p99.into(),
                max.into(),
                different.into(),
            ]);
        }
        text.push_str(&table.without_empty().render(screen));
        for column in self.columns.iter().filter(|c| c.is_classes()) {
            text.push_str(&screen.fold(&format!("\n  {}: {}\n", column.name, column.counts()), 4));
        }
        text.push_str(&screen.fold(&self.doubts(), 4));
        text
    }

    /// Rows that may not be meant.
    fn doubts(&self) -> String {
        let lines = |at: &[u64], all: u64| {
            let list: Vec<String> = at.iter().map(u64::to_string).collect();
            let more = if all > at.len() as u64 { ", …" } else { "" };
            format!("{}{more}", list.join(", "))
        };
        let mut text = String::new();
        for c in self.columns.iter().filter(|c| c.empty > 0) {
            text.push_str(&format!(
                "\n  {}: {} texts are empty or say nothing (lines {})\n",
                c.name,
                Count(c.empty),
                lines(&c.empty_at, c.empty)
            ));
        }
        if self.duplicates > 0 {
            text.push_str(&format!(
                "\n  {} rows stand in the file before (lines {})\n",
                Count(self.duplicates),
                lines(&self.duplicates_at, self.duplicates)
            ));
        }
        text
    }
}

impl Column {
    /// Its values with their counts, the most frequent first.
    fn counts(&self) -> String {
        let mut list: Vec<(&String, &u64)> = self.values.iter().flatten().collect();
        list.sort_by(|a, b| b.1.cmp(a.1));
        let shown = list.iter().take(MOST_SHOWN);
        let shown: Vec<String> = shown.map(|(v, n)| format!("{v} {}", Count(**n))).collect();
        let more = list.len().saturating_sub(MOST_SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{}{more}", shown.join(", "))
    }
}

impl Data {
    pub(super) fn run(&self) -> i32 {
        let world = RealWorld::new(true);
        let survey = match Survey::of(&self.file, self.format.as_deref(), &world) {
            Ok(survey) => survey,
            Err(why) => {
                let help = why.help.as_ref().map(|h| format!("; {h}"));
                error(&format!("{why}{}", help.unwrap_or_default()));
                return exit::FAILED;
            }
        };
        if self.json {
            print(&format!("{:#}\n", survey.json(&self.file)));
        } else {
            let bytes = world.open(&self.file).ok().map(|(_, bytes)| bytes);
            print(&survey.text(&self.file, bytes, Screen::out(self.color)));
        }
        exit::DONE
    }
}
