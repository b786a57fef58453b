//! A comparison of finished runs: rows, repetitions joined, the best marked.
//!
//! ```text
//! result.json … ─read▶ RunResult ─rows▶ Row ─Report::new▶ Report ─table, page▶ text
//! ```

pub mod chart;
pub mod curves;
pub mod export;
mod names;
pub mod page;
pub mod profile;
pub mod read;
pub mod rows;
pub mod scatter;
pub mod sweep;
pub mod table;

pub use rows::Row;

use crate::library::metric::{METRICS, metric};
use read::RunResult;

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
    /// The rows, the best first.
    pub rows: Vec<Row>,
    /// Names of the metrics, in the order of their columns.
    pub metrics: Vec<String>,
    /// The metric that rows are sorted by.
    pub main: Option<String>,
    /// The results read.
    pub sources: Vec<String>,
    /// Whether some result lacks what rows are joined by.
    pub outdated: bool,
}

impl Report {
    /// Compares results, sorted by a metric; by the one most rows have if none is given.
    #[must_use]
    pub fn new(results: &[RunResult], by: Option<&str>) -> Self {
        let outdated = results
            .iter()
            .flat_map(|r| &r.stages)
            .any(|s| s.methods.is_none());
        let sources = results
            .iter()
            .map(|r| r.dir.join("result.json").display().to_string())
            .collect();
        Self {
            sources,
            outdated,
            ..Self::of_rows(rows::rows(results), by)
        }
    }

    /// Compares rows, sorted by a metric; by the one most rows have if none is given.
    fn of_rows(mut rows: Vec<Row>, by: Option<&str>) -> Self {
        let mut metrics: Vec<String> = Vec::new();
        for name in rows.iter().flat_map(|r| r.metrics.keys()) {
            if !metrics.contains(name) {
                metrics.push(name.clone());
            }
        }
        metrics.sort_by_key(|name| (name.matches('.').count(), place(name)));
        let having = |name: &&String| {
            rows.iter()
                .filter(|r| r.metrics.contains_key(*name))
                .count()
        };
        let main = match by {
            Some(name) => metrics.iter().find(|m| *m == name).cloned(),
            // The first of those that most rows have.
            None => metrics.iter().rev().max_by_key(having).cloned(),
        };
        if let Some(at) = main
            .as_ref()
            .and_then(|m| metrics.iter().position(|n| n == m))
        {
            let first = metrics.remove(at);
            metrics.insert(0, first);
        }
        if let Some(main) = &main {
            let key = |r: &Row| {
                r.metric(main)
                    .map(|x| if higher_is_better(main) { -x } else { x })
            };
            let memory = |r: &Row| r.measured.mean().unwrap_or(f64::INFINITY);
            rows.sort_by(|a, b| {
                let of = |r| key(r).unwrap_or(f64::INFINITY);
                of(a)
                    .total_cmp(&of(b))
                    .then(memory(a).total_cmp(&memory(b)))
            });
            let points: Vec<Option<(f64, f64)>> = rows
                .iter()
                .map(|r| Some((r.measured.mean()?, key(r)?)))
                .collect();
            for (i, row) in rows.iter_mut().enumerate() {
                row.pareto = points.get(i).copied().flatten().is_some_and(|own| {
                    !points.iter().flatten().any(|other| dominates(*other, own))
                });
            }
        }
        Self {
            rows,
            metrics,
            main,
            ..Self::default()
        }
    }

    /// Whether rows stand for several runs.
    #[must_use]
    pub fn repeated(&self) -> bool {
        self.rows.iter().any(|r| r.runs > 1)
    }
}

/// Whether one (memory, cost) is at least as good as another in both and better in one.
fn dominates(one: (f64, f64), other: (f64, f64)) -> bool {
    one.0 <= other.0 && one.1 <= other.1 && one != other
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
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let stat: Stat = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0, f64::NAN]
            .into_iter()
            .collect();
        assert_eq!(stat.n(), 8);
        assert_eq!(stat.mean(), Some(5.0));
        let sd = stat.sd().expect("a deviation");
        assert!((sd - (32.0f64 / 7.0).sqrt()).abs() < 1e-12, "{sd}");
        let one: Stat = [3.0].into_iter().collect();
        assert_eq!((one.mean(), one.sd()), (Some(3.0), None));
        assert_eq!(Stat::default().mean(), None);
    }

    #[test]
    fn a_point_dominates_what_is_nowhere_better() {
        assert!(dominates((1.0, 1.0), (2.0, 1.0)));
        assert!(!dominates((1.0, 2.0), (2.0, 1.0)));
        assert!(!dominates((1.0, 1.0), (1.0, 1.0)));
    }
}
