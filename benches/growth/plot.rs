//! The curves as one picture: a column for each axis, samples a second above, tensor bytes below.

use std::fmt::Write as _;

use peftc::base::units::Bytes;
use peftc::report::chart::{Axis, Frame};
use peftc::report::looks::Look;

use crate::Curve;
use crate::point::Point;

const PANEL: (f64, f64) = (270.0, 210.0);
const LEFT: f64 = 74.0;
const TOP: f64 = 82.0;
const BETWEEN: (f64, f64) = (82.0, 80.0);
/// What the picture uses of the page's style, beside its palette.
const CLASSES: [&str; 7] = [
    ".grid", ".axis,", ".tick", ".title", ".name", ".curve", ".point",
];

/// A logarithmic scale over some values, whose ends are ticks: powers of `base` times one of `between`.
fn log_scale(values: &[f64], base: f64, between: &[f64], label: impl Fn(f64) -> String) -> Axis {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let (first, last) = (least.log(base).floor(), most.log(base).ceil());
    let all: Vec<f64> = (first as i32..=last as i32)
        .flat_map(|power| between.iter().map(move |b| b * base.powi(power)))
        .collect();
    let low = all.iter().rposition(|&v| v <= least).unwrap_or(0);
    let high = all.iter().position(|&v| v >= most).unwrap_or(all.len() - 1);
    let ticks: Vec<(f64, String)> = all[low..=high.max(low + 1).min(all.len() - 1)]
        .iter()
        .map(|&v| (v.ln(), label(v)))
        .collect();
    Axis {
        lo: ticks[0].0,
        hi: ticks[ticks.len() - 1].0,
        ticks,
    }
}

/// Ticks at the measured values alone.
fn at(values: &[u64]) -> Axis {
    let ticks: Vec<(f64, String)> = values
        .iter()
        .map(|&v| ((v as f64).ln(), v.to_string()))
        .collect();
    let lo = ticks.first().map_or(0.0, |t| t.0);
    let hi = ticks.last().map_or(1.0, |t| t.0).max(lo + 0.1);
    Axis { lo, hi, ticks }
}

/// The page's palette, light and dark, and its rules for what a chart has.
fn style() -> String {
    let page = include_str!("../../src/report/page.css");
    let palette = page.split("\n*").next().unwrap_or_default();
    let mut out = format!("{palette}\ntext {{ font-family: system-ui, sans-serif; }}\n");
    out.push_str("rect { fill: var(--panel); }\n");
    for rule in page
        .lines()
        .filter(|l| CLASSES.iter().any(|c| l.starts_with(c)))
    {
        out.push_str(rule);
        out.push('\n');
    }
    out
}

/// Draws all curves; those of one axis share a panel.
pub(crate) fn svg(curves: &[Curve], methods: &[&str], about: &str) -> String {
    let mut axes: Vec<&crate::Sweep> = Vec::new();
    for curve in curves {
        if !axes.iter().any(|a| a.name == curve.sweep.name) {
            axes.push(&curve.sweep);
        }
    }
    let width = LEFT + axes.len() as f64 * (PANEL.0 + BETWEEN.0) - BETWEEN.0 + 24.0;
    let height = TOP + 2.0 * (PANEL.1 + BETWEEN.1) - BETWEEN.1 + 52.0;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' aria-label='{about}'>\n<style>\n{}</style>\n<rect width='{width}' height='{height}'/>\n",
        style()
    );
    for (i, method) in methods.iter().enumerate() {
        let x = LEFT + 110.0 * i as f64;
        let _ = writeln!(
            out,
            "<path class='curve' style='stroke:{}' d='M{x} 24h22'/><text class='name' x='{}' y='28'>{method}</text>",
            Look::of(i).colour(),
            x + 29.0
        );
    }
    let rates = |p: &Point| p.samples_per_s();
    let bytes = |p: &Point| p.measured;
    let every = |of: &dyn Fn(&Point) -> f64| -> Vec<f64> {
        curves.iter().flat_map(|c| &c.points).map(of).collect()
    };
    let plain = |v: f64| format!("{v}");
    let size = |v: f64| {
        let text = Bytes(v as u64).to_string();
        text.replace(".00 ", " ").replace(".0 ", " ")
    };
    let rows: [(&str, Axis, &dyn Fn(&Point) -> f64); 2] = [
        (
            "samples/s",
            log_scale(&every(&rates), 10.0, &[1.0, 2.0, 5.0], plain),
            &rates,
        ),
        (
            "tensor bytes",
            log_scale(&every(&bytes), 2.0, &[1.0], size),
            &bytes,
        ),
    ];
    for (column, axis) in axes.iter().enumerate() {
        for (row, (title, scale, of)) in rows.iter().enumerate() {
            let frame = Frame {
                left: LEFT + column as f64 * (PANEL.0 + BETWEEN.0),
                top: TOP + row as f64 * (PANEL.1 + BETWEEN.1),
                width: PANEL.0,
                height: PANEL.1,
                x: at(axis.values),
                y: scale.clone(),
            };
            let title = format!("{title}, {}", axis.fixed());
            out.push_str(&frame.axes(axis.name, &title));
            for curve in curves.iter().filter(|c| c.sweep.name == axis.name) {
                let own = methods.iter().position(|m| *m == curve.method);
                out.push_str(&line(
                    curve,
                    &frame,
                    *of,
                    &Look::of(own.unwrap_or(0)).colour(),
                ));
            }
            out.push('\n');
        }
    }
    out.push_str("</svg>\n");
    out
}

fn line(curve: &Curve, frame: &Frame, of: &dyn Fn(&Point) -> f64, colour: &str) -> String {
    let (mut d, mut dots) = (String::new(), String::new());
    for (i, point) in curve.points.iter().enumerate() {
        let along = curve.sweep.along(&point.size);
        let (x, y) = (frame.px((along as f64).ln()), frame.py(of(point).ln()));
        let _ = write!(d, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
        let _ = write!(
            dots,
            "<circle class='point' style='fill:{colour}' cx='{x:.1}' cy='{y:.1}' r='3.5'><title>{}, {} {along}: {:.1} samples/s, {}</title></circle>",
            curve.method,
            curve.sweep.name,
            point.samples_per_s(),
            Bytes(point.measured as u64)
        );
    }
    format!("<path class='curve' style='stroke:{colour}' d='{d}'/>{dots}")
}
