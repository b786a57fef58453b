//! Whether two results differ by more than chance would make them.

use super::{Row, Stat};

/// Metrics that are shares of rows, whose error is known from how many rows there were.
const SHARES: &[&str] = &["accuracy"];

/// How a row's main metric stands to the best one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Difference {
    /// It is the best, or differs by more than chance.
    Apart,
    /// A difference of this size is no surprise between equals, 95 times of 100.
    Within,
    /// Nothing tells how large chance is here: a single run, of a metric that is no share of rows.
    #[default]
    Unknown,
}

impl Difference {
    /// The name in JSON and CSV.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Within => "within_noise",
            Self::Unknown => "unknown",
        }
    }
}

/// The variance of a mean and the degrees of freedom it is known with: by its seeds where there are several,
/// else by the number of rows that a share is of.
fn error(stat: &Stat, metric: &str, rows: Option<u64>) -> Option<(f64, f64)> {
    if let Some(sd) = stat.sd() {
        let n = stat.n() as f64;
        return Some((sd * sd / n, n - 1.0));
    }
    let rows = rows.filter(|n| *n > 0 && SHARES.contains(&metric))? as f64;
    // Two hits and two misses more, so that a share of 1 is not taken for certain (Agresti and Coull).
    let share = (stat.mean()? * rows + 2.0) / (rows + 4.0);
    Some((share * (1.0 - share) / (rows + 4.0), f64::INFINITY))
}

/// Whether a row's metric can be told from another's: Welch's test, at 95 %, both sides.
#[must_use]
pub fn difference(one: &Row, other: &Row, metric: &str) -> Difference {
    let of = |row: &Row| {
        let stat = row.metrics.get(metric)?;
        let rows = row.scored_on.as_ref().and_then(|d| d.rows);
        Some((stat.mean()?, error(stat, metric, rows)))
    };
    let (Some((a, va)), Some((b, vb))) = (of(one), of(other)) else {
        return Difference::Unknown;
    };
    let (Some((va, da)), Some((vb, db))) = (va, vb) else {
        return Difference::Unknown;
    };
    let variance = va + vb;
    if variance == 0.0 {
        return if a == b {
            Difference::Within
        } else {
            Difference::Apart
        };
    }
    let freedom = variance.powi(2) / (va.powi(2) / da + vb.powi(2) / db);
    if (a - b).abs() <= quantile(freedom) * variance.sqrt() {
        Difference::Within
    } else {
        Difference::Apart
    }
}

/// What Student's t stays below 97.5 times of 100.
fn quantile(freedom: f64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    let freedom = freedom.max(1.0);
    let at = freedom as usize - 1;
    match (TABLE.get(at), TABLE.get(at + 1)) {
        (Some(low), Some(high)) => low + (high - low) * freedom.fract(),
        _ => 1.96 + 2.5 / freedom,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::Data;
    use super::*;

    fn row(values: &[f64], rows: u64) -> Row {
        let stat: Stat = values.iter().copied().collect();
        Row {
            metrics: [
                ("accuracy".to_owned(), stat.clone()),
                ("f1".to_owned(), stat),
            ]
            .into(),
            scored_on: Some(Data {
                rows: Some(rows),
                ..Data::default()
            }),
            ..Row::default()
        }
    }

    #[test]
    fn differences_are_told_as_welch_tells_them() {
        // scipy.stats.ttest_ind(a, b, equal_var = False): p = 0.0316 and p = 0.0548.
        let a = row(&[0.80, 0.82, 0.81], 400);
        assert_eq!(
            difference(&a, &row(&[0.86, 0.88, 0.84], 400), "f1"),
            Difference::Apart
        );
        assert_eq!(
            difference(&a, &row(&[0.85, 0.87, 0.83], 400), "f1"),
            Difference::Within
        );
        // Two seeds tell little.
        let two = row(&[0.80, 0.82], 400);
        assert_eq!(
            difference(&two, &row(&[0.84, 0.86], 400), "f1"),
            Difference::Within
        );
    }

    #[test]
    fn single_runs_are_told_by_the_rows_of_a_share_or_not_at_all() {
        let of = |share: f64, rows| row(&[share], rows);
        assert_eq!(
            difference(&of(0.85, 872), &of(0.84, 872), "accuracy"),
            Difference::Within
        );
        assert_eq!(
            difference(&of(0.85, 872), &of(0.79, 872), "accuracy"),
            Difference::Apart
        );
        assert_eq!(
            difference(&of(0.85, 872), &of(0.79, 872), "f1"),
            Difference::Unknown
        );
        assert_eq!(
            difference(&of(1.0, 4), &of(0.75, 4), "accuracy"),
            Difference::Within
        );
        assert_eq!(
            difference(&of(0.85, 0), &of(0.79, 0), "accuracy"),
            Difference::Unknown
        );
        assert_eq!(
            difference(&of(0.85, 872), &of(0.85, 872), "loss"),
            Difference::Unknown
        );
    }
}
