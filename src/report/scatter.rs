//! The scatter of the main metric against memory: which methods are worth taking.

use std::fmt::Write as _;

use super::chart::{Axis, Frame, open};
use super::looks::Look;
use super::page::escape;
use super::{Group, Stat, higher_is_better, table};

/// Rows that are drawn, the best first, and those that have a label.
pub(super) const MOST: usize = 300;
const MOST_LABELS: usize = 40;

/// A rectangle: left, upper, right, lower edge.
type Area = (f64, f64, f64, f64);

fn overlap(a: Area, b: Area) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

/// Places a label beside a point clear of what is taken: the area, and how far out it went.
fn place(point: (f64, f64), width: f64, taken: &[Area], bounds: Area) -> (Area, f64) {
    const HIGH: f64 = 15.0;
    let at = |distance: f64, (dx, dy): (f64, f64)| {
        let (x, y) = (point.0 + dx * distance, point.1 + dy * distance);
        let left = x - width * (1.0 - dx.signum() * f64::from(dx.abs() > 0.3)) / 2.0;
        let top = y - HIGH * (1.0 - dy.signum() * f64::from(dy.abs() > 0.9)) / 2.0;
        (left, top, left + width, top + HIGH)
    };
    let sides = [
        (1.0, 0.0),
        (-1.0, 0.0),
        (0.0, -1.0),
        (0.0, 1.0),
        (0.7, -0.7),
        (0.7, 0.7),
        (-0.7, -0.7),
        (-0.7, 0.7),
    ];
    for distance in [11.0, 20.0, 32.0, 46.0, 62.0, 80.0] {
        for side in sides {
            let area = at(distance, side);
            let inside = area.0 >= bounds.0
                && area.1 >= bounds.1
                && area.2 <= bounds.2
                && area.3 <= bounds.3;
            if inside && !taken.iter().any(|t| overlap(area, *t)) {
                return (area, distance);
            }
        }
    }
    (at(11.0, (1.0, 0.0)), 11.0)
}

/// A dot of the scatter.
struct Dot<'a> {
    name: &'a str,
    memory: &'a Stat,
    metric: &'a Stat,
    at: (f64, f64),
    look: Look,
    front: bool,
}

/// The main metric against measured memory; `None` where there is nothing to draw.
#[must_use]
pub fn chart(group: &Group) -> Option<String> {
    const W: f64 = 1040.0;
    const H: f64 = 460.0;
    let main = group.main.as_deref()?;
    let mut dots: Vec<Dot<'_>> = Vec::new();
    for (i, row) in group.rows.iter().enumerate().take(MOST) {
        let Some(metric) = row.metrics.get(main) else {
            continue;
        };
        let (Some(x), Some(y)) = (row.measured.mean(), metric.mean()) else {
            continue;
        };
        dots.push(Dot {
            name: &row.name,
            memory: &row.measured,
            metric,
            at: (x, y),
            look: Look::of(i),
            front: row.pareto,
        });
    }
    if dots.is_empty() {
        return None;
    }
    let xs: Vec<f64> = dots.iter().map(|d| d.at.0).collect();
    let ys: Vec<f64> = dots
        .iter()
        .flat_map(|d| {
            let sd = d.metric.sd().unwrap_or(0.0);
            [d.at.1 - sd, d.at.1 + sd]
        })
        .collect();
    let frame = Frame {
        left: 66.0,
        top: 40.0,
        width: W - 66.0 - 30.0,
        height: H - 40.0 - 54.0,
        x: Axis::bytes(&padded(&xs), 7.0),
        y: Axis::over(&padded(&ys), 1.0, "", 6.0),
    };
    let up = higher_is_better(main);
    let mut out = open(W, H, &format!("{main} against measured memory of each row"));
    out.push_str(&frame.axes("peak of the tensors, measured", &mean_of(main, group)));
    out.push_str(&front(&dots, &frame, up));
    let corner = if up {
        ("↖", frame.top + 16.0)
    } else {
        ("↙", frame.top + frame.height - 10.0)
    };
    let _ = write!(
        out,
        "<text class='hint' x='{:.1}' y='{:.1}'>{} better for less</text>",
        frame.left + 8.0,
        corner.1,
        corner.0
    );
    for dot in &dots {
        mark(&mut out, dot, &frame, main);
    }
    out.push_str(&names(&dots, &frame));
    out.push_str("</svg>");
    Some(out)
}

/// A dot with its deviation, filled where it is on the front.
fn mark(out: &mut String, d: &Dot<'_>, frame: &Frame, main: &str) {
    let (x, y) = (frame.px(d.at.0), frame.py(d.at.1));
    if let Some(sd) = d.metric.sd() {
        let (a, b) = (frame.py(d.at.1 + sd), frame.py(d.at.1 - sd));
        let _ = write!(
            out,
            "<path class='error' style='stroke:{}' d='M{x:.1} {a:.1}V{b:.1}M{:.1} {a:.1}h8M{:.1} {b:.1}h8'/>",
            d.look.colour(),
            x - 4.0,
            x - 4.0
        );
    }
    let colour = d.look.colour();
    let fill = if d.front {
        colour.as_str()
    } else {
        "var(--panel)"
    };
    let radius = if d.front { 7.0 } else { 5.0 };
    let _ = write!(
        out,
        "<path d='{}' style='fill:{fill};stroke:{colour}' class='dot'><title>{}: {main} {}, {}</title></path>",
        d.look.mark(x, y, radius),
        escape(d.name),
        table::decimal(d.metric),
        table::sizes(d.memory, true),
        main = escape(main)
    );
}

/// What an axis of a metric is called.
pub(super) fn mean_of(metric: &str, group: &Group) -> String {
    let less = if higher_is_better(metric) {
        ""
    } else {
        " (less is better)"
    };
    let mean = if group.repeated() {
        ", mean ± standard deviation"
    } else {
        ""
    };
    format!("{metric}{mean}{less}")
}

fn padded(values: &[f64]) -> Vec<f64> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let pad = if high > low {
        (high - low) * 0.08
    } else {
        high.abs() * 0.05
    };
    vec![(low - pad).max(low.min(0.0)), high + pad]
}

/// The staircase of the front: beyond it nothing was reached.
fn front(dots: &[Dot<'_>], frame: &Frame, up: bool) -> String {
    let mut list: Vec<(f64, f64)> = dots.iter().filter(|d| d.front).map(|d| d.at).collect();
    list.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (right, top, bottom) = (
        frame.left + frame.width,
        frame.top,
        frame.top + frame.height,
    );
    let worst = if up { bottom } else { top };
    let Some(first) = list.first() else {
        return String::new();
    };
    let mut line = format!("M{:.1} {worst:.1}", frame.px(first.0));
    for (x, y) in &list {
        let _ = write!(line, "H{:.1}V{:.1}", frame.px(*x), frame.py(*y));
    }
    let _ = write!(line, "H{right:.1}");
    format!("<path class='beaten' d='{line}V{worst:.1}Z'/><path class='front' d='{line}'/>")
}

/// The labels: those of the front first, each clear of the others and of the dots.
fn names(dots: &[Dot<'_>], frame: &Frame) -> String {
    let mut taken: Vec<Area> = Vec::new();
    for d in dots {
        let (x, y) = (frame.px(d.at.0), frame.py(d.at.1));
        taken.push((x - 8.0, y - 8.0, x + 8.0, y + 8.0));
        if let Some(sd) = d.metric.sd() {
            taken.push((
                x - 5.0,
                frame.py(d.at.1 + sd),
                x + 5.0,
                frame.py(d.at.1 - sd),
            ));
        }
    }
    let bounds = (
        frame.left + 2.0,
        frame.top,
        frame.left + frame.width + 26.0,
        frame.top + frame.height - 2.0,
    );
    taken.push((frame.left, frame.top, frame.left + 124.0, frame.top + 22.0));
    let mut order: Vec<&Dot<'_>> = dots.iter().collect();
    order.sort_by_key(|d| !d.front);
    order.truncate(MOST_LABELS);
    let mut out = String::new();
    for d in order {
        let text = table::shorten(d.name, 34);
        let width = text.chars().count() as f64 * if d.front { 7.2 } else { 6.7 };
        let (x, y) = (frame.px(d.at.0), frame.py(d.at.1));
        let (area, distance) = place((x, y), width, &taken, bounds);
        taken.push(area);
        let middle = ((area.0 + area.2) / 2.0, (area.1 + area.3) / 2.0);
        if distance > 30.0 {
            let end = (x.clamp(area.0, area.2), y.clamp(area.1, area.3));
            let _ = write!(
                out,
                "<line class='leader' x1='{x:.1}' y1='{y:.1}' x2='{:.1}' y2='{:.1}'/>",
                end.0, end.1
            );
        }
        // Anchored where the point is, so that a wrong guess of the width does no harm.
        let (anchor, at) = if area.0 >= x {
            ("start", area.0)
        } else if area.2 <= x {
            ("end", area.2)
        } else {
            ("middle", middle.0)
        };
        let _ = write!(
            out,
            "<text class='{}' x='{at:.1}' y='{:.1}' text-anchor='{anchor}'>{}</text>",
            if d.front { "name front-name" } else { "name" },
            middle.1 + 4.5,
            escape(&text)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_find_clear_places() {
        let bounds = (0.0, 0.0, 300.0, 200.0);
        let mut taken = Vec::new();
        for _ in 0..10 {
            let (area, _) = place((150.0, 100.0), 60.0, &taken, bounds);
            assert!(!taken.iter().any(|t| overlap(area, *t)));
            taken.push(area);
        }
    }
}
