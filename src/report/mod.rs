//! A comparison of finished runs: rows, repetitions joined, the best marked.
//!
//! ```text
//! result.json … ─read▶ RunResult ─rows▶ Row ─groups▶ Report ─table, page▶ text
//! ```
//!
//! **Invariant:** rows are ranked, and a front is drawn, only among those that were scored on the same data.

pub mod chart;
pub mod classes;
pub mod curves;
pub mod export;
pub mod looks;
mod names;
pub mod noise;
pub mod page;
pub mod profile;
pub mod read;
pub mod rows;
pub mod scatter;
pub mod sweep;
pub mod table;

pub use rows::Row;

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};

use crate::base::units::Count;
use crate::base::visible;
use crate::library::metric::{METRICS, metric};
use noise::Difference;
use read::{Data, RunResult, StageResult, Text};

/// Repeated measurements of one quantity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stat(Vec<f64>);

impl Stat {
    /// Adds a measurement; what is not a number is left out.
    pub fn push(&mut self, value: Option<f64>) {
        self.0.extend(value.filter(|x| x.is_finite()));
    }

    /// How many there are.
    #[must_use]
    pub fn n(&self) -> usize {
        self.0.len()
    }

    /// The measurements.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Their mean.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / self.0.len() as f64)
    }

    /// Their standard deviation, of a sample (n − 1); needs two.
    #[must_use]
    pub fn sd(&self) -> Option<f64> {
        let mean = self.mean().filter(|_| self.0.len() > 1)?;
        let squares: f64 = self.0.iter().map(|x| (x - mean).powi(2)).sum();
        Some((squares / (self.0.len() - 1) as f64).sqrt())
    }
}

impl FromIterator<f64> for Stat {
    fn from_iter<I: IntoIterator<Item = f64>>(iter: I) -> Self {
        let mut stat = Self::default();
        iter.into_iter().for_each(|x| stat.push(Some(x)));
        stat
    }
}

/// A comparison.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rows that were scored on the same data, one group for each; only within a group is anything compared.
    pub groups: Vec<Group>,
    /// The results read.
    pub sources: Vec<String>,
    /// The recipes they came from, each text once.
    pub recipes: Vec<Text>,
    /// Whether some result lacks what rows are joined or grouped by.
    pub outdated: bool,
}

/// Rows that can be compared.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// What they were scored on; `None` where they were not.
    pub scored_on: Option<Data>,
    /// The rows, the best first.
    pub rows: Vec<Row>,
    /// Names of the metrics, in the order of their columns.
    pub metrics: Vec<String>,
    /// The metric that rows are sorted by.
    pub main: Option<String>,
    /// A metric that was asked for and cannot rank these rows.
    pub unlike: Option<Unlike>,
}

/// A metric that is not of the same class in all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    /// Its name.
    pub metric: String,
    /// The classes it is of.
    pub classes: Vec<String>,
}

impl Unlike {
    /// Of which classes a metric of some rows is, if these differ.
    fn of(rows: &[Row], name: &str) -> Option<Self> {
        let having = rows.iter().filter(|r| r.metrics.contains_key(name));
        let classes: IndexSet<Option<&String>> = having.map(|r| r.f1_of.get(name)).collect();
        (classes.len() > 1).then(|| Self {
            metric: name.to_owned(),
            classes: classes
                .into_iter()
                .map(|c| c.map_or_else(|| "unknown".to_owned(), |c| format!("`{c}`")))
                .collect(),
        })
    }

    /// That it ranks nothing, and what would.
    #[must_use]
    pub fn words(&self) -> String {
        let metric = visible::line(&self.metric);
        format!(
            "{metric} is of unlike classes here ({}): rows are not ranked by it, and no front is drawn; give all `eval` \
             stages one class (`positive = NAME`), or compare by f1_macro",
            visible::line(&self.classes.join(", "))
        )
    }
}

impl Report {
    /// Compares results, sorted by a metric; by the one most rows of a group have if none is given.
    #[must_use]
    pub fn new(results: &[RunResult], by: Option<&str>) -> Self {
        let old = |s: &StageResult| s.methods.is_none();
        let sources = results
            .iter()
            .map(|r| r.dir.join("result.json").display().to_string())
            .collect();
        let texts = results.iter().flat_map(|r| &r.sources);
        let recipes: IndexSet<&Text> = texts.collect();
        let groups = groups(rows::rows(results), by);
        let unsaid = |g: &Group| g.scored_on.as_ref().is_some_and(|d| d.hash.is_none());
        Self {
            outdated: results.iter().flat_map(|r| &r.stages).any(old) || groups.iter().any(unsaid),
            groups,
            sources,
            recipes: recipes.into_iter().cloned().collect(),
        }
    }

    /// All rows, group by group.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|g| &g.rows)
    }

    /// Names of all metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<&str> {
        let all = self.groups.iter().flat_map(|g| &g.metrics);
        let names: IndexSet<&str> = all.map(String::as_str).collect();
        names.into_iter().collect()
    }

    /// Whether rows stand for several runs.
    #[must_use]
    pub fn repeated(&self) -> bool {
        self.groups.iter().any(Group::repeated)
    }
}

/// Rows by what they were scored on. Older results do not say it: theirs are compared within one recipe only.
fn groups(rows: Vec<Row>, by: Option<&str>) -> Vec<Group> {
    let mut found: IndexMap<String, Vec<Row>> = IndexMap::new();
    let mut rest = Vec::new();
    // Older results name their files alone; a newer one of the same files says which rows these are.
    let known = rows.iter().filter_map(|r| {
        let data = r.scored_on.as_ref()?;
        Some((data.hash.clone()?, data.rows_hash.clone()?))
    });
    let known: HashMap<String, String> = known.collect();
    for row in rows {
        let key = match &row.scored_on {
            Some(data) if data.key().is_some() => {
                let own = data.key().unwrap_or_default();
                known.get(own).map_or(own, String::as_str).to_owned()
            }
            Some(_) => format!("recipe {}", row.recipe),
            None => {
                rest.push(row);
                continue;
            }
        };
        found.entry(key).or_default().push(row);
    }
    // What was not scored cannot be ranked anywhere, but its memory can be compared with all.
    if !rest.is_empty() {
        let alone = found.len() == 1;
        match found.values_mut().next().filter(|_| alone) {
            Some(only) => only.extend(rest),
            None => drop(found.insert(String::new(), rest)),
        }
    }
    found
        .into_values()
        .map(|rows| Group::new(rows, by))
        .collect()
}

impl Group {
    /// Compares rows, sorted by a metric; by the one most of them have if none is given, or they lack it.
    fn new(mut rows: Vec<Row>, by: Option<&str>) -> Self {
        let mut having: IndexMap<String, usize> = IndexMap::new();
        for name in rows.iter().flat_map(|r| r.metrics.keys()) {
            *having.entry(name.clone()).or_default() += 1;
        }
        having.sort_by_cached_key(|name, _| (name.matches('.').count(), place(name)));
        // The first of those that most rows have, and that say the same of all of them.
        let like = having
            .iter()
            .filter(|(m, _)| Unlike::of(&rows, m).is_none());
        let usual = like.rev().max_by_key(|(_, n)| **n).map(|(m, _)| m.clone());
        let asked = by.filter(|by| having.contains_key(*by));
        let unlike = asked.and_then(|asked| Unlike::of(&rows, asked));
        let main = match asked {
            Some(_) if unlike.is_some() => None,
            Some(asked) => Some(asked.to_owned()),
            None => usual,
        };
        let first = asked.or(main.as_deref());
        if let Some(at) = first.and_then(|m| having.get_index_of(m)) {
            having.move_index(at, 0);
        }
        let scored_on = rows.iter().find_map(|r| r.scored_on.clone());
        if let Some(main) = &main {
            rank(&mut rows, main);
        }
        Self {
            scored_on,
            rows,
            metrics: having.into_keys().collect(),
            main,
            unlike,
        }
    }

    /// Whether rows stand for several runs.
    #[must_use]
    pub fn repeated(&self) -> bool {
        self.rows.iter().any(|r| r.runs > 1)
    }

    /// What it was scored on, in words: `d.test, 400 rows`; nothing where that is not known.
    #[must_use]
    pub fn title(&self) -> Option<String> {
        let data = self.scored_on.as_ref()?;
        let name = visible::line(&data.name);
        let rows = data.rows.map(|n| {
            let s = if n == 1 { "" } else { "s" };
            format!("{} row{s}", Count(n))
        });
        match (name.is_empty(), rows) {
            (true, _) => None,
            (false, None) => Some(name.into_owned()),
            (false, Some(rows)) => Some(format!("{name}, {rows}")),
        }
    }

    /// Rows on the front of main metric and memory.
    pub fn front(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.rows.iter().enumerate().filter(|(_, r)| r.pareto)
    }
}

/// Sorts rows by a metric, the best first, marks the front of metric and memory, and tells whose
/// difference to the best is none that chance would not make.
fn rank(rows: &mut [Row], main: &str) {
    let up = higher_is_better(main);
    let cost = |r: &Row| r.metric(main).map(|x| if up { -x } else { x });
    let memory = |r: &Row| r.measured.mean().unwrap_or(f64::INFINITY);
    rows.sort_by(|a, b| {
        let of = |r| cost(r).unwrap_or(f64::INFINITY);
        of(a)
            .total_cmp(&of(b))
            .then(memory(a).total_cmp(&memory(b)))
    });
    let mut points: Vec<(f64, f64, usize)> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        if let (Some(bytes), Some(cost)) = (row.measured.mean(), cost(row)) {
            points.push((bytes, cost, i));
        }
    }
    // From the least memory up: on the front is what beats all that needs less, or is equal to one of it.
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut last = (f64::NAN, f64::INFINITY);
    for (bytes, cost, i) in points {
        let front = cost < last.1 || (bytes, cost) == last;
        if front {
            last = (bytes, cost);
        }
        if let Some(row) = rows.get_mut(i) {
            row.pareto = front;
        }
    }
    let Some((best, others)) = rows.split_first_mut() else {
        return;
    };
    if best.metrics.contains_key(main) {
        best.difference = Difference::Apart;
        for row in others.iter_mut().filter(|r| r.metrics.contains_key(main)) {
            row.difference = noise::difference(row, best, main);
        }
    }
}

/// Place of a metric in the registry; `STAGE.metric` counts as `metric`.
fn place(name: &str) -> usize {
    let plain = plain(name);
    METRICS
        .iter()
        .position(|m| m.schema().name == plain)
        .unwrap_or(METRICS.len())
}

fn plain(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether more of a metric is better; so for metrics that are not known.
#[must_use]
pub fn higher_is_better(name: &str) -> bool {
    metric(plain(name)).is_none_or(|m| m.higher_is_better())
}

#[cfg(test)]
mod tests;
