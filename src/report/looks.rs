//! How rows look in tables and charts: colour, line and mark, so that colour alone never distinguishes one.

use std::fmt::Write as _;

/// Colours, `--c1` and on in the page's style.
pub const COLOURS: usize = 9;
/// Lines, as dashes and gaps; the first is unbroken.
const DASHES: [&str; 5] = ["", "7 4", "2 3", "11 3 2 3", "14 5"];
/// Marks.
const SHAPES: usize = 7;

/// How a row looks, the same in every chart. Colours, lines and marks come round after 9, 5 and 7 rows: the
/// first 315 rows look unlike each other, and neighbours differ in all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    colour: usize,
    dash: usize,
    shape: usize,
}

impl Look {
    /// The look of a row by its place.
    #[must_use]
    pub const fn of(row: usize) -> Self {
        Self {
            colour: row % COLOURS,
            dash: row % DASHES.len(),
            shape: row % SHAPES,
        }
    }

    /// The colour in CSS.
    #[must_use]
    pub fn colour(self) -> String {
        format!("var(--c{})", self.colour + 1)
    }

    /// What a line of it is drawn with, for a `style`.
    #[must_use]
    pub fn line(self) -> String {
        let dash = DASHES.get(self.dash).copied().unwrap_or_default();
        let dash = if dash.is_empty() {
            String::new()
        } else {
            format!(";stroke-dasharray:{dash}")
        };
        format!("stroke:{}{dash}", self.colour())
    }

    /// The path of its mark around a point.
    #[must_use]
    pub fn mark(self, x: f64, y: f64, r: f64) -> String {
        let polygon = |points: &[(f64, f64)]| {
            let mut d = String::new();
            for (i, (dx, dy)) in points.iter().enumerate() {
                let to = if i == 0 { 'M' } else { 'L' };
                let _ = write!(d, "{to}{:.1} {:.1}", x + dx * r, y + dy * r);
            }
            d.push('Z');
            d
        };
        match self.shape {
            0 => format!(
                "M{:.1} {y:.1}a{r:.1} {r:.1} 0 1 0 {:.1} 0a{r:.1} {r:.1} 0 1 0 {:.1} 0Z",
                x - r,
                2.0 * r,
                -2.0 * r
            ),
            1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
            3 => polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
            4 => polygon(&[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)]),
            5 => polygon(&[
                (-0.35, -1.1),
                (0.35, -1.1),
                (0.35, -0.35),
                (1.1, -0.35),
                (1.1, 0.35),
                (0.35, 0.35),
                (0.35, 1.1),
                (-0.35, 1.1),
                (-0.35, 0.35),
                (-1.1, 0.35),
                (-1.1, -0.35),
                (-0.35, -0.35),
            ]),
            _ => polygon(&[
                (-0.6, -1.1),
                (0.6, -1.1),
                (1.2, 0.0),
                (0.6, 1.1),
                (-0.6, 1.1),
                (-1.2, 0.0),
            ]),
        }
    }

    /// A piece of its line with its mark, to stand beside a name.
    #[must_use]
    pub fn swatch(self) -> String {
        format!(
            "<svg class='swatch' viewBox='0 0 30 12' aria-hidden='true'><path d='M1 6H29' style='{}'/><path d='{}' style='fill:{}'/></svg>",
            self.line(),
            self.mark(15.0, 6.0, 4.0),
            self.colour()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn looks_do_not_come_again_soon_and_neighbours_differ_in_all() {
        let looks: Vec<Look> = (0..315).map(Look::of).collect();
        let unlike: HashSet<&Look> = looks.iter().collect();
        assert_eq!(unlike.len(), 315);
        for pair in looks.windows(2) {
            let same = pair[0].colour == pair[1].colour
                || pair[0].dash == pair[1].dash
                || pair[0].shape == pair[1].shape;
            assert!(!same, "{pair:?}");
        }
        let marks: HashSet<String> = looks.iter().map(|l| l.mark(0.0, 0.0, 4.0)).collect();
        assert_eq!(marks.len(), SHAPES);
    }

    /// Relative luminance (WCAG 2.2) of `#rrggbb`.
    fn luminance(colour: &str) -> f64 {
        let part = |i: usize| {
            let c = u8::from_str_radix(&colour[i..i + 2], 16).expect("a colour");
            let c = f64::from(c) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    /// Variables of a block of the style.
    fn variables(block: &str) -> Vec<(&str, &str)> {
        let pairs = block.split(';').filter_map(|line| line.split_once(": #"));
        pairs
            .map(|(name, _)| {
                let name = name.trim().trim_start_matches("--");
                let at = block.find(&format!("--{name}: ")).expect("it is there");
                let value = block[at..].split_once(": ").expect("a value").1;
                (name, value.split(';').next().expect("its end").trim())
            })
            .collect()
    }

    #[test]
    fn contrast_is_that_of_level_aa_in_light_and_dark() {
        let css = include_str!("page.css");
        let (light, dark) = css.split_once("prefers-color-scheme: dark").expect("both");
        let dark = dark.split_once("}\n}").expect("its end").0;
        let light = light.split_once('}').expect("its end").0;
        for (mode, block) in [("light", light), ("dark", dark)] {
            let all = variables(
                block
                    .split_once('{')
                    .expect("a block")
                    .1
                    .trim_start_matches([' ', '\n', ':', 'r', 'o', 't', '{']),
            );
            let of = |name: &str| {
                let found = all.iter().find(|(n, _)| *n == name);
                found.unwrap_or_else(|| panic!("{mode} has no --{name}")).1
            };
            let ratio = |a: &str, b: &str| {
                let (a, b) = (luminance(of(a)), luminance(of(b)));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            // Text needs 4.5, what is drawn 3.
            for (front, back) in [
                ("text", "panel"),
                ("text", "ground"),
                ("soft", "panel"),
                ("soft", "ground"),
                ("faint", "panel"),
                ("faint", "ground"),
                ("best-text", "best"),
            ] {
                let ratio = ratio(front, back);
                assert!(ratio >= 4.5, "{mode}: {front} on {back} has {ratio:.2}");
            }
            let drawn = (1..=COLOURS)
                .map(|i| format!("c{i}"))
                .chain((1..=7).map(|i| format!("m{i}")));
            for name in drawn.chain(["strong".to_owned(), "walk-edge".to_owned()]) {
                let ratio = ratio(&name, "panel");
                assert!(ratio >= 3.0, "{mode}: {name} has {ratio:.2}");
            }
        }
    }
}
