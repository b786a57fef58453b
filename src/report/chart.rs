//! What every chart is made of: scales with round ticks, a frame, labels at distances.

use std::fmt::Write as _;

use super::page::escape;

/// A scale with its ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// Its least value.
    pub lo: f64,
    /// Its largest value.
    pub hi: f64,
    /// Values with their labels.
    pub ticks: Vec<(f64, String)>,
}

/// The step among 1, 2 and 5 times a power of ten that cuts a span into about `count` parts.
fn step(span: f64, count: f64) -> f64 {
    let rough = (span / count).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|n| n * power);
    steps
        .into_iter()
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

impl Axis {
    /// A scale over some values in multiples of `unit`, about `count` round ticks; its ends are ticks.
    #[must_use]
    pub fn over(values: &[f64], unit: f64, suffix: &str, count: f64) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min) / unit;
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) / unit;
        let (low, high) = if low.is_finite() && high.is_finite() {
            (low, high)
        } else {
            (0.0, 1.0)
        };
        let (low, high) = if high - low < 1e-9 * high.abs().max(1e-9) {
            let pad = if high == 0.0 { 1.0 } else { high.abs() * 0.05 };
            (low - pad, high + pad)
        } else {
            (low, high)
        };
        let by = step(high - low, count);
        let (first, last) = ((low / by + 1e-9).floor(), (high / by - 1e-9).ceil());
        let digits = (-by.log10().floor()).max(0.0) as usize;
        let ticks = (0..=(last - first) as u64)
            .map(|i| (first + i as f64) * by)
            .map(|v| {
                let digits = if v == 0.0 { 0 } else { digits };
                (v * unit, format!("{v:.digits$}{suffix}"))
            })
            .collect();
        Self {
            lo: first * by * unit,
            hi: last * by * unit,
            ticks,
        }
    }

    /// A scale over bytes, in MiB or GiB.
    #[must_use]
    pub fn bytes(values: &[f64], count: f64) -> Self {
        let top = values.iter().copied().fold(0.0, f64::max);
        let units = [(30, " GiB"), (20, " MiB"), (10, " KiB"), (0, " B")];
        let (power, suffix) = units
            .into_iter()
            .find(|(power, _)| top >= 1.5 * 2f64.powi(*power))
            .unwrap_or((0, " B"));
        Self::over(values, 2f64.powi(power), suffix, count)
    }
}

/// Where a chart's data lie.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// The horizontal scale.
    pub x: Axis,
    /// The vertical scale.
    pub y: Axis,
}

impl Frame {
    /// Horizontal place of a value.
    #[must_use]
    pub fn px(&self, value: f64) -> f64 {
        self.left
            + self.width * (value - self.x.lo) / (self.x.hi - self.x.lo).max(f64::MIN_POSITIVE)
    }

    /// Vertical place of a value.
    #[must_use]
    pub fn py(&self, value: f64) -> f64 {
        let share = (value - self.y.lo) / (self.y.hi - self.y.lo).max(f64::MIN_POSITIVE);
        self.top + self.height * (1.0 - share)
    }

    /// Grid, ticks, and what the scales are.
    #[must_use]
    pub fn axes(&self, x_title: &str, y_title: &str) -> String {
        let mut out = String::new();
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for (value, label) in &self.y.ticks {
            let y = self.py(*value);
            let _ = write!(
                out,
                "<line class='grid' x1='{:.1}' x2='{right:.1}' y1='{y:.1}' y2='{y:.1}'/><text class='tick' x='{:.1}' y='{:.1}' text-anchor='end'>{label}</text>",
                self.left,
                self.left - 8.0,
                y + 4.0
            );
        }
        for (value, label) in &self.x.ticks {
            let x = self.px(*value);
            let _ = write!(
                out,
                "<line class='mark' x1='{x:.1}' x2='{x:.1}' y1='{bottom:.1}' y2='{:.1}'/><text class='tick' x='{x:.1}' y='{:.1}' text-anchor='middle'>{label}</text>",
                bottom + 4.0,
                bottom + 18.0
            );
        }
        let _ = write!(
            out,
            "<line class='axis' x1='{:.1}' x2='{right:.1}' y1='{bottom:.1}' y2='{bottom:.1}'/>",
            self.left
        );
        let _ = write!(
            out,
            "<text class='title' x='{:.1}' y='{:.1}'>{}</text><text class='title' x='{right:.1}' y='{:.1}' text-anchor='end'>{}</text>",
            self.left,
            self.top - 12.0,
            escape(y_title),
            bottom + 36.0,
            escape(x_title)
        );
        out
    }
}

/// Opens a chart of a size, with what it shows for those who do not see it.
#[must_use]
pub fn open(width: f64, height: f64, about: &str) -> String {
    format!(
        "<svg viewBox='0 0 {width} {height}' role='img' aria-label='{}'>",
        escape(about)
    )
}

/// Moves heights apart until neighbours are `gap` apart, within bounds; the order stays.
#[must_use]
pub fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let at = |i: usize| wanted.get(i).copied().unwrap_or(0.0);
    order.sort_by(|&a, &b| at(a).total_cmp(&at(b)));
    let mut places: Vec<f64> = Vec::with_capacity(order.len());
    for &i in &order {
        let least = places.last().map_or(low, |p| p + gap);
        places.push(at(i).max(least));
    }
    let mut most = high;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - gap;
    }
    let mut out = vec![0.0; wanted.len()];
    for (&i, &place) in order.iter().zip(&places) {
        if let Some(slot) = out.get_mut(i) {
            *slot = place;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_have_units() {
        let mib = f64::from(1 << 20);
        let axis = Axis::bytes(&[31.0 * mib, 88.0 * mib], 6.0);
        let labels: Vec<&str> = axis.ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(
            labels,
            [
                "30 MiB", "40 MiB", "50 MiB", "60 MiB", "70 MiB", "80 MiB", "90 MiB"
            ]
        );
        let axis = Axis::bytes(&[0.0, 2.6 * 1024.0 * mib], 6.0);
        assert_eq!(axis.ticks.last().map(|t| t.1.as_str()), Some("3.0 GiB"));
        let axis = Axis::over(&[0.5, 0.5], 1.0, "", 5.0);
        assert!(axis.lo < 0.5 && axis.hi > 0.5 && axis.ticks.len() > 2);
        assert!(Axis::over(&[], 1.0, "", 5.0).ticks.len() > 2);
    }

    #[test]
    fn heights_are_spread_in_their_order() {
        let places = spread(&[10.0, 11.0, 90.0, 12.0], 14.0, 0.0, 100.0);
        assert_eq!(places, [10.0, 24.0, 90.0, 38.0]);
        let places = spread(&[98.0, 99.0], 14.0, 0.0, 100.0);
        assert_eq!(places, [86.0, 100.0]);
    }
}
