//! Memory over a step: what is held throughout, what comes and goes, and what the peak is made of.

use std::fmt::Write as _;

use super::chart::{Axis, Frame, open, spread};
use super::page::escape;
use super::read::{Classes, Point};
use super::{Row, table};
use crate::base::units::Bytes;

/// The classes from the bottom of the bar up: name, colour, bytes.
fn classes(c: &Classes) -> [(&'static str, &'static str, u64); 7] {
    [
        ("frozen weights", "var(--m1)", c.frozen_weights),
        ("trained weights", "var(--m2)", c.trainable_weights),
        ("optimizer state", "var(--m3)", c.optimizer),
        ("gradients", "var(--m4)", c.gradients),
        ("activations", "var(--m5)", c.activations),
        ("transient", "var(--m6)", c.transient),
        ("workspace", "var(--m7)", c.workspace),
    ]
}

/// Classes that are held throughout a step.
const HELD: usize = 3;

/// Part of the step an op belongs to, as its label says.
fn phase(op: &str) -> &str {
    if op.starts_with("evaluation: ") {
        return "evaluation";
    }
    let inner = op
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    match inner {
        Some(name @ ("forward" | "backward" | "update")) => name,
        _ => "start",
    }
}

/// A row's memory over a step; `None` where its result does not tell it.
#[must_use]
pub fn chart(row: &Row) -> Option<String> {
    const W: f64 = 560.0;
    const H: f64 = 270.0;
    let top = row
        .profile
        .iter()
        .map(|p| p.bytes)
        .max()
        .filter(|&n| n > 0)?;
    let frame = Frame {
        left: 70.0,
        top: 34.0,
        width: 258.0,
        height: H - 34.0 - 34.0,
        x: Axis {
            lo: 0.0,
            hi: row.profile.len() as f64,
            ticks: Vec::new(),
        },
        y: Axis::bytes(&[0.0, top as f64], 5.0),
    };
    let mut out = open(W, H, &format!("memory of {} over a step", row.name));
    out.push_str(&frame.axes("", "bytes alive"));
    let bottom = frame.top + frame.height;
    let right = frame.left + frame.width;
    // The whole walk, and over its foot what is held throughout.
    let mut d = format!("M{:.1} {bottom:.1}", frame.left);
    for (i, point) in row.profile.iter().enumerate() {
        let _ = write!(
            d,
            "V{:.1}H{:.1}",
            frame.py(point.bytes as f64),
            frame.px(i as f64 + 1.0)
        );
    }
    let _ = write!(out, "<path class='walk' d='{d}V{bottom:.1}Z'/>");
    let mut below = 0;
    for (name, colour, bytes) in classes(&row.classes)
        .into_iter()
        .take(HELD)
        .filter(|c| c.2 > 0)
    {
        let (y1, y0) = (frame.py((below + bytes) as f64), frame.py(below as f64));
        let _ = write!(
            out,
            "<rect style='fill:{colour}' x='{:.1}' y='{y1:.1}' width='{:.1}' height='{:.1}'><title>{name}: {}</title></rect>",
            frame.left,
            frame.width,
            y0 - y1,
            Bytes(bytes)
        );
        below += bytes;
    }
    out.push_str(&phases(&row.profile, &frame));
    if let Some((i, peak)) = row.profile.iter().enumerate().find(|(_, p)| p.bytes == top) {
        let (x, y) = (frame.px(i as f64 + 0.5), frame.py(top as f64));
        let (anchor, tx) = if x > frame.left + frame.width / 2.0 {
            ("end", x - 9.0)
        } else {
            ("start", x + 9.0)
        };
        let _ = write!(
            out,
            "<line class='peak' x1='{:.1}' x2='{:.1}' y1='{y:.1}' y2='{y:.1}'/><circle class='summit' cx='{x:.1}' cy='{y:.1}' r='4.5'><title>{}: {}</title></circle><text class='name front-name' x='{tx:.1}' y='{:.1}' text-anchor='{anchor}'>peak {}</text>",
            frame.left,
            right + 26.0,
            escape(&peak.op),
            Bytes(top),
            y - 7.0,
            Bytes(top)
        );
    }
    out.push_str(&bar(&row.classes, &frame));
    out.push_str("</svg>");
    Some(out)
}

/// Where forward, backward and update begin.
fn phases(profile: &[Point], frame: &Frame) -> String {
    let mut out = String::new();
    let mut begin = 0;
    let bottom = frame.top + frame.height;
    while let Some(first) = profile.get(begin) {
        let name = phase(&first.op);
        let count = profile
            .iter()
            .skip(begin)
            .take_while(|p| phase(&p.op) == name)
            .count();
        let (x0, x1) = (frame.px(begin as f64), frame.px((begin + count) as f64));
        if begin > 0 {
            let _ = write!(
                out,
                "<line class='phase' x1='{x0:.1}' x2='{x0:.1}' y1='{:.1}' y2='{:.1}'/>",
                frame.top,
                bottom + 6.0
            );
        }
        if x1 - x0 > name.len() as f64 * 6.4 {
            let _ = write!(
                out,
                "<text class='tick' x='{:.1}' y='{:.1}' text-anchor='middle'>{name}</text>",
                (x0 + x1) / 2.0,
                bottom + 18.0
            );
        }
        begin += count;
    }
    out
}

/// What the peak is made of, at the scale of the walk.
fn bar(c: &Classes, frame: &Frame) -> String {
    let list = classes(c);
    let total: u64 = list.iter().map(|c| c.2).sum();
    let (x, width) = (frame.left + frame.width + 26.0, 24.0);
    let mut out = String::new();
    let mut below = 0;
    let mut labels = Vec::new();
    for (name, colour, bytes) in list.into_iter().filter(|c| c.2 > 0) {
        let (y1, y0) = (frame.py((below + bytes) as f64), frame.py(below as f64));
        let _ = write!(
            out,
            "<rect class='part' style='fill:{colour}' x='{x:.1}' y='{y1:.1}' width='{width}' height='{:.1}'><title>{name}: {}</title></rect>",
            y0 - y1,
            Bytes(bytes)
        );
        if bytes * 50 >= total {
            labels.push((name, colour, bytes, (y0 + y1) / 2.0));
        }
        below += bytes;
    }
    let wanted: Vec<f64> = labels.iter().map(|l| l.3).collect();
    let places = spread(
        &wanted,
        15.0,
        frame.top + 2.0,
        frame.top + frame.height - 2.0,
    );
    for ((name, colour, bytes, from), y) in labels.into_iter().zip(places) {
        let _ = write!(
            out,
            "<path style='stroke:{colour}' class='leader' d='M{:.1} {from:.1}L{:.1} {y:.1}'/><text class='tick' x='{:.1}' y='{:.1}'>{name} {}</text>",
            x + width,
            x + width + 10.0,
            x + width + 13.0,
            y + 4.0,
            Bytes(bytes)
        );
    }
    out
}

/// Where the peak is, in words.
#[must_use]
pub fn words(row: &Row) -> String {
    let measured = row.measured.mean().map_or(String::new(), |_| {
        format!("; measured {}", table::sizes(&row.measured, false))
    });
    let at = if row.classes.peak_op.is_empty() {
        String::new()
    } else {
        format!("The peak is at {}", row.classes.peak_op)
    };
    format!("{at}{measured}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_tell_their_phase() {
        assert_eq!(phase("matmul a.b (backward)"), "backward");
        assert_eq!(phase("evaluation: matmul a.b (forward)"), "evaluation");
        assert_eq!(phase("singular value decomposition"), "start");
    }
}
