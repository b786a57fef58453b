//! Learning curves: the loss over the steps, smoothed, and the metric on the dev split.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::chart::{Axis, Frame, open, spread};
use super::looks::{COLOURS, Look};
use super::page::escape;
use super::read::Logged;
use super::{Group, table};

/// Rows of one chart; more rows make more charts.
pub(super) const TOGETHER: usize = COLOURS;
/// Trainings that are so many times longer than the shortest of a chart get another one.
const UNLIKE: u64 = 4;
/// Points drawn of a curve.
const POINTS: usize = 240;

type Curve = Vec<(f64, f64)>;

/// A row's curves.
struct Line<'a> {
    name: &'a str,
    look: Look,
    /// One a run, each with the point that was kept.
    runs: Vec<(Curve, Option<(f64, f64)>)>,
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
fn mean(runs: &[(Curve, Option<(f64, f64)>)]) -> Curve {
    let Some(((first, _), others)) = runs.split_first() else {
        return Vec::new();
    };
    let others: Vec<HashMap<u64, f64>> = others
        .iter()
        .map(|(c, _)| c.iter().map(|p| (p.0.to_bits(), p.1)).collect())
        .collect();
    first
        .iter()
        .filter_map(|&(x, y)| {
            let mut sum = y;
            for other in &others {
                sum += other.get(&x.to_bits())?;
            }
            Some((x, sum / runs.len() as f64))
        })
        .collect()
}

/// The value of a curve at a step, between its points too.
fn at(curve: &Curve, step: f64) -> Option<(f64, f64)> {
    let after = curve.iter().position(|p| p.0 >= step)?;
    let (x1, y1) = curve.get(after).copied()?;
    match after.checked_sub(1).and_then(|i| curve.get(i).copied()) {
        Some((x0, y0)) if x1 > x0 => Some((step, y0 + (y1 - y0) * (step - x0) / (x1 - x0))),
        _ => (x1 == step).then_some((x1, y1)),
    }
}

/// The charts of a group's first rows: losses, then the main metric on the dev split, for rows of about the
/// same length.
#[must_use]
pub fn charts(group: &Group, most: usize) -> Vec<String> {
    let logged: Vec<usize> = (0..group.rows.len().min(most))
        .filter(|&i| group.rows.get(i).is_some_and(|r| !r.logs.is_empty()))
        .collect();
    let main = group.main.as_deref();
    let dev = |log: &[Logged]| -> Curve {
        let points = log
            .iter()
            .filter_map(|l| Some((l.step as f64, *l.dev.get(main?)?)));
        points.collect()
    };
    let mut out = Vec::new();
    for lot in alike(group, &logged) {
        for rows in lot.chunks(TOGETHER) {
            out.extend(draw(
                &lines(group, rows, &smooth),
                "training loss, smoothed",
                false,
            ));
            let title = format!("{} on the dev split", main.unwrap_or_default());
            out.extend(draw(&lines(group, rows, &dev), &title, true));
        }
    }
    out
}

/// Rows in lots whose lengths can be seen beside each other.
fn alike(group: &Group, rows: &[usize]) -> Vec<Vec<usize>> {
    let length = |i: usize| -> u64 {
        let logs = group.rows.get(i).into_iter().flat_map(|r| &r.logs);
        logs.filter_map(|(log, _)| Some(log.last()?.step))
            .max()
            .unwrap_or(0)
    };
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|&i| length(i));
    let mut lots: Vec<(u64, Vec<usize>)> = Vec::new();
    for i in sorted {
        match lots.last_mut() {
            Some((least, lot)) if length(i) <= UNLIKE * (*least).max(1) => lot.push(i),
            _ => lots.push((length(i), vec![i])),
        }
    }
    lots.into_iter()
        .map(|(_, mut lot)| {
            lot.sort_unstable();
            lot
        })
        .collect()
}

fn lines<'a>(
    group: &'a Group,
    rows: &[usize],
    curve: &dyn Fn(&[Logged]) -> Curve,
) -> Vec<Line<'a>> {
    let rows = rows.iter().filter_map(|&i| Some((i, group.rows.get(i)?)));
    rows.filter_map(|(i, row)| {
        let runs: Vec<(Curve, Option<(f64, f64)>)> = row
            .logs
            .iter()
            .map(|(log, kept)| {
                let curve = curve(log);
                let kept = kept.and_then(|step| at(&curve, step as f64));
                (curve, kept)
            })
            .filter(|(curve, _)| !curve.is_empty())
            .collect();
        let mut mean = mean(&runs);
        if mean.is_empty() {
            mean = runs.first().map(|r| r.0.clone()).unwrap_or_default();
        }
        (!runs.is_empty()).then(|| Line {
            name: &row.name,
            look: Look::of(i),
            runs,
            mean,
        })
    })
    .collect()
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

const W: f64 = 1040.0;
const H: f64 = 340.0;
/// Where the names of lines are written, right of the curves.
const LABELS: f64 = 210.0;

fn draw(lines: &[Line<'_>], title: &str, points: bool) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    let frame = frame(lines);
    let mut out = open(W, H, &format!("{title} over the steps of training"));
    out.push_str(&frame.axes("step", title));
    for line in lines {
        curve(&mut out, line, &frame, points);
    }
    labels(&mut out, lines, &frame);
    out.push_str("</svg>");
    Some(out)
}

/// The axes: steps, as whole numbers from 0, and the values of all runs.
fn frame(lines: &[Line<'_>]) -> Frame {
    let every = || lines.iter().flat_map(|l| l.runs.iter().flat_map(|r| &r.0));
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
    Frame {
        left: 66.0,
        top: 40.0,
        width: W - 66.0 - LABELS,
        height: H - 40.0 - 54.0,
        x,
        y: Axis::over(&ys, 1.0, "", 5.0),
    }
}

/// A line: its runs, their mean, and the steps whose weights were kept.
fn curve(out: &mut String, line: &Line<'_>, frame: &Frame, points: bool) {
    if line.runs.len() > 1 {
        for (run, _) in &line.runs {
            let _ = write!(
                out,
                "<path class='run' style='{}' d='{}'/>",
                line.look.line(),
                path(frame, run)
            );
        }
    }
    let _ = write!(
        out,
        "<path class='curve' style='{}' d='{}'><title>{}</title></path>",
        line.look.line(),
        path(frame, &line.mean),
        escape(line.name)
    );
    if points {
        for (x, y) in &line.mean {
            let _ = write!(
                out,
                "<path class='point' style='fill:{}' d='{}'><title>{}: {y:.4} at step {x}</title></path>",
                line.look.colour(),
                line.look.mark(frame.px(*x), frame.py(*y), 4.0),
                escape(line.name)
            );
        }
    }
    for (x, y) in line.runs.iter().filter_map(|r| r.1) {
        let _ = write!(
            out,
            "<circle class='kept' style='stroke:{}' cx='{:.1}' cy='{:.1}' r='5.5'><title>{}: the weights of step {x} were kept</title></circle>",
            line.look.colour(),
            frame.px(x),
            frame.py(y),
            escape(line.name)
        );
    }
}

/// The names of the lines with their last values, moved apart where they would meet.
fn labels(out: &mut String, lines: &[Line<'_>], frame: &Frame) {
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
            "<path class='leader' d='M{:.1} {:.1}L{:.1} {y:.1}'/><path style='fill:{}' d='{}'/><text class='name' x='{:.1}' y='{:.1}'>{}  {}</text>",
            from.0 + 3.0,
            from.1,
            edge + 16.0,
            line.look.colour(),
            line.look.mark(edge + 20.0, y, 4.0),
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
        let runs = [
            (vec![(1.0, 1.0), (2.0, 2.0)], None),
            (vec![(1.0, 3.0)], None),
        ];
        assert_eq!(mean(&runs), [(1.0, 2.0)]);
    }

    #[test]
    fn what_was_kept_is_marked_and_unlike_lengths_are_drawn_apart() {
        let curve = vec![(10.0, 1.0), (20.0, 3.0)];
        assert_eq!(at(&curve, 15.0), Some((15.0, 2.0)));
        assert_eq!(at(&curve, 10.0), Some((10.0, 1.0)));
        assert_eq!((at(&curve, 5.0), at(&curve, 21.0)), (None, None));
        let row = |steps: u64| {
            let log = (1..=steps).map(|step| Logged {
                step,
                loss: 1.0,
                ..Logged::default()
            });
            super::super::Row {
                logs: vec![(log.collect(), Some(steps / 2))],
                ..super::super::Row::default()
            }
        };
        let group = Group {
            rows: [50, 5000, 180, 60, 4000].map(row).to_vec(),
            ..Group::default()
        };
        assert_eq!(alike(&group, &[0, 1, 2, 3, 4]), [vec![0, 2, 3], vec![1, 4]]);
        let charts = charts(&group, 100);
        assert_eq!(charts.len(), 2);
        assert_eq!(
            charts
                .iter()
                .map(|c| c.matches("class='kept'").count())
                .sum::<usize>(),
            5
        );
    }
}
