//! `peftc runs`: the finished runs below a directory.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Color, error, print};
use super::screen::Screen;
use super::table::{Side, Table};
use crate::report::read::{RunResult, StageResult, read};

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub(super) struct Runs {
    /// Where to look: a recipe's directory, or one of results; the working directory if not given
    dirs: Vec<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long)]
    json: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
}

impl Runs {
    pub(super) fn run(&self) -> i32 {
        let found = match read(&self.places()) {
            Ok(found) => found,
            Err(why) => {
                error(&why.to_string());
                return why.exit_code();
            }
        };
        let mut found = found;
        found.sort_by_key(|run| std::cmp::Reverse(newest(run)));
        if self.json {
            let all: Vec<Json> = found.iter().map(json_of).collect();
            print(&format!("{:#}\n", json!({ "schema": 1, "runs": all })));
            return exit::DONE;
        }
        let mut table = Table::new([
            ("run", Side::Left),
            ("last", Side::Left),
            ("stages", Side::Right),
            ("recipe", Side::Left),
            ("scores", Side::Left),
        ]);
        for run in &found {
            table.row(vec![
                run.dir.display().to_string().into(),
                newest(run).unwrap_or_else(|| "?".to_owned()).into(),
                run.stages.len().to_string().into(),
                run.recipe.as_str().into(),
                scores(run).into(),
            ]);
        }
        print(&table.render(Screen::out(self.color)));
        exit::DONE
    }

    /// What is looked through: `.peftc/runs` of a directory where there is one.
    fn places(&self) -> Vec<PathBuf> {
        let here = [PathBuf::from(".")];
        let given = if self.dirs.is_empty() {
            &here
        } else {
            self.dirs.as_slice()
        };
        let inner = |dir: &PathBuf| {
            let dir = if dir.is_file() {
                dir.parent().map(PathBuf::from).unwrap_or_default()
            } else {
                dir.clone()
            };
            let runs = dir.join(".peftc").join("runs");
            if runs.is_dir() { runs } else { dir }
        };
        given.iter().map(inner).collect()
    }
}

/// When its last stage was finished.
fn newest(run: &RunResult) -> Option<String> {
    run.stages.iter().filter_map(|s| s.date.clone()).max()
}

/// What the last stage that has scores has.
fn scores(run: &RunResult) -> String {
    let scored = run.stages.iter().rev().find(|s| !s.metrics.is_empty());
    let of = |s: &StageResult| {
        let each = s
            .metrics
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!("{name} {value:.4}")));
        format!("{}: {}", s.name, each.collect::<Vec<_>>().join(", "))
    };
    scored.map(of).unwrap_or_default()
}

fn json_of(run: &RunResult) -> Json {
    let stage = |s: &StageResult| json!({ "name": s.name, "kind": s.kind, "fingerprint": s.fingerprint, "date": s.date, "metrics": s.metrics });
    json!({
        "dir": run.dir.display().to_string(), "recipe": run.recipe, "date": newest(run),
        "stages": run.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}
