//! Learning curves: the loss over the steps, smoothed, and the metric on the dev split.

use std::fmt::Write as _;

use super::chart::{Axis, Frame, open, spread};
use super::page::{colour, escape};
use super::read::Logged;
use super::{Report, table};

/// Rows of one chart; more rows make more charts.
pub(super) const TOGETHER: usize = 8;
/// Points drawn of a curve.
const POINTS: usize = 240;

type Curve = Vec<(f64, f64)>;

/// A row's curves.
struct Line<'a> {
    name: &'a str,
    colour: String,
    /// One a run.
    runs: Vec<Curve>,
    /// What is drawn strongly.
    mean: Curve,
}

/// Running mean with the memory of a sixteenth of the curve, unbiased at its start.
fn smooth(log: &[Logged]) -> Curve {
    let window = (log.len() as f64 / 16.0).max(1.0);
    let keep = 1.0 - 1.0 / window;
    let (mut sum, mut weight) = (0.0, 0.0);
    let all: Curve = log
        .iter()
        .map(|l| {
            sum = keep * sum + l.loss;
            weight = keep * weight + 1.0;
            (l.step as f64, sum / weight)
        })
        .collect();
    let every = all.len().div_ceil(POINTS).max(1);
    let last = all.len().saturating_sub(1);
    all.into_iter()
        .enumerate()
        .filter(|(i, _)| i % every == 0 || *i == last)
        .map(|(_, p)| p)
        .collect()
}

/// The mean of curves over the steps all of them have.
fn mean(runs: &[Curve]) -> Curve {
    let Some((first, others)) = runs.split_first() else {
        return Vec::new();
    };
    first
        .iter()
        .filter_map(|&(x, y)| {
            let mut sum = y;
            for other in others {
                sum += other.iter().find(|p| p.0 == x)?.1;
            }
            Some((x, sum / runs.len() as f64))
        })
        .collect()
}

fn lines<'a>(report: &'a Report, from: usize, curve: &dyn Fn(&[Logged]) -> Curve) -> Vec<Line<'a>> {
    let rows = report.rows.iter().enumerate().skip(from).take(TOGETHER);
    rows.filter_map(|(i, row)| {
        let runs: Vec<Curve> = row
            .logs
            .iter()
            .map(|l| curve(l))
            .filter(|c| !c.is_empty())
            .collect();
        let mut mean = mean(&runs);
        if mean.is_empty() {
            mean = runs.first().cloned().unwrap_or_default();
        }
        (!runs.is_empty()).then(|| Line {
            name: &row.name,
            colour: colour(i),
            runs,
            mean,
        })
    })
    .collect()
}

/// The losses of the rows from `from` on.
#[must_use]
pub fn losses(report: &Report, from: usize) -> Option<String> {
    draw(
        &lines(report, from, &smooth),
        "training loss, smoothed",
        false,
    )
}

/// The main metric on the dev split, of the rows from `from` on.
#[must_use]
pub fn dev(report: &Report, from: usize) -> Option<String> {
    let main = report.main.as_deref()?;
    let curve = |log: &[Logged]| -> Curve {
        log.iter()
            .filter_map(|l| Some((l.step as f64, *l.dev.get(main)?)))
            .collect()
    };
    draw(
        &lines(report, from, &curve),
        &format!("{main} on the dev split"),
        true,
    )
}

fn path(frame: &Frame, curve: &Curve) -> String {
    let mut d = String::new();
    for (i, (x, y)) in curve.iter().enumerate() {
        let _ = write!(
            d,
            "{}{:.1} {:.1}",
            if i == 0 { 'M' } else { 'L' },
            frame.px(*x),
            frame.py(*y)
        );
    }
    d
}

fn draw(lines: &[Line<'_>], title: &str, points: bool) -> Option<String> {
    const W: f64 = 1040.0;
    const H: f64 = 340.0;
    const LABELS: f64 = 210.0;
    if lines.is_empty() {
        return None;
    }
    let every = || lines.iter().flat_map(|l| l.runs.iter().flatten());
    let mut xs: Vec<f64> = every().map(|p| p.0).collect();
    xs.push(0.0);
    let ys: Vec<f64> = every().map(|p| p.1).collect();
    let mut x = Axis::over(&xs, 1.0, "", 6.0);
    let last = xs.iter().copied().fold(1.0, f64::max);
    x.hi = last;
    x.ticks.retain(|t| t.0 <= last && t.0.fract() == 0.0);
    for tick in &mut x.ticks {
        tick.1 = crate::base::units::Count(tick.0 as u64).to_string();
    }
    let frame = Frame {
        left: 66.0,
        top: 40.0,
        width: W - 66.0 - LABELS,
        height: H - 40.0 - 54.0,
        x,
        y: Axis::over(&ys, 1.0, "", 5.0),
    };
    let mut out = open(W, H, &format!("{title} over the steps of training"));
    out.push_str(&frame.axes("step", title));
    for line in lines {
        if line.runs.len() > 1 {
            for run in &line.runs {
                let _ = write!(
                    out,
                    "<path class='run' style='stroke:{}' d='{}'/>",
                    line.colour,
                    path(&frame, run)
                );
            }
        }
        let _ = write!(
            out,
            "<path class='curve' style='stroke:{}' d='{}'><title>{}</title></path>",
            line.colour,
            path(&frame, &line.mean),
            escape(line.name)
        );
        if points {
            for (x, y) in &line.mean {
                let _ = write!(
                    out,
                    "<circle class='point' style='fill:{}' cx='{:.1}' cy='{:.1}' r='3.5'><title>{}: {y:.4} at step {x}</title></circle>",
                    line.colour,
                    frame.px(*x),
                    frame.py(*y),
                    escape(line.name)
                );
            }
        }
    }
    let ends: Vec<(f64, f64)> = lines
        .iter()
        .filter_map(|l| l.mean.last().copied())
        .collect();
    let wanted: Vec<f64> = ends.iter().map(|e| frame.py(e.1)).collect();
    let places = spread(&wanted, 17.0, frame.top, frame.top + frame.height);
    let edge = frame.left + frame.width;
    for ((line, end), y) in lines.iter().zip(&ends).zip(places) {
        let from = (frame.px(end.0), frame.py(end.1));
        let _ = write!(
            out,
            "<path class='leader' d='M{:.1} {:.1}L{:.1} {y:.1}'/><circle style='fill:{}' cx='{:.1}' cy='{y:.1}' r='4'/><text class='name' x='{:.1}' y='{:.1}'>{}  {}</text>",
            from.0 + 3.0,
            from.1,
            edge + 16.0,
            line.colour,
            edge + 20.0,
            edge + 29.0,
            y + 4.5,
            escape(&table::shorten(line.name, 18)),
            if end.1.abs() < 10.0 {
                format!("{:.3}", end.1)
            } else {
                format!("{:.1}", end.1)
            }
        );
    }
    out.push_str("</svg>");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_the_last_step() {
        let log: Vec<Logged> = (1..=1000)
            .map(|step| Logged {
                step,
                loss: 2.0,
                ..Logged::default()
            })
            .collect();
        let curve = smooth(&log);
        assert!(curve.len() <= POINTS + 1);
        assert!(curve.iter().all(|p| (p.1 - 2.0).abs() < 1e-12));
        assert_eq!(curve.last().map(|p| p.0), Some(1000.0));
        assert!(smooth(&[]).is_empty());
    }

    #[test]
    fn means_are_over_shared_steps() {
        let runs = [vec![(1.0, 1.0), (2.0, 2.0)], vec![(1.0, 3.0)]];
        assert_eq!(mean(&runs), [(1.0, 2.0)]);
    }
}
