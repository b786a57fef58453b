//! Numbers with their units: whole ones, fractions, sizes, lengths, parts and shares.

use super::super::error::{OUT_OF_BOUNDS, WRONG_UNIT};
use crate::base::{Diag, Diags, Span};
use crate::library::counts::to_u32;
use crate::library::schema::{Bound, Checked, Key, Kind, Length, Portion};

/// A number as it is written, and where.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) digits: &'a str,
    pub(super) unit: Option<&'a str>,
    pub(super) span: Span,
}

impl Written<'_> {
    /// The same without its unit.
    const fn plain(self) -> Self {
        Self { unit: None, ..self }
    }
}

/// A number under a key that takes numbers; `None` where it takes other values.
pub(super) fn number(
    key: &Key,
    written: Written<'_>,
    diags: &mut Diags,
) -> Option<Option<Checked>> {
    Some(match key.kind {
        Kind::Int(lo, hi) => int(key, written, (lo, hi), diags),
        Kind::Batch(lo, hi) => batch(key, written, (lo, hi), diags),
        Kind::Float(lo, hi) => float(key, written, (lo, hi), diags),
        Kind::Size => size(written, diags),
        Kind::Length => length(key, written, diags),
        Kind::Portion => portion(written, diags),
        Kind::Share => share(key, written, diags),
        _ => return None,
    })
}

fn wrong_unit(
    key: &str,
    unit: &str,
    wanted: &str,
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
    diags.push(
        Diag::error(
            &WRONG_UNIT,
            span,
            if unit.is_empty() {
                format!("{key} wants a unit")
            } else {
                format!("{key} does not take the unit `{unit}`")
            },
        )
        .label(if unit.is_empty() {
            "no unit"
        } else {
            "this unit"
        })
        .help(format!("write {wanted}")),
    );
    None
}

/// A number that its key takes, or the complaint about it.
fn within_bounds(
    key: &Key,
    digits: &str,
    value: Option<Checked>,
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
    if value.is_none() {
        diags.push(
            Diag::error(
                &OUT_OF_BOUNDS,
                span,
                format!("`{}` takes {}", key.name, key.kind),
            )
            .label(format!("{digits} is not")),
        );
    }
    value
}

fn int(
    key: &Key,
    written: Written<'_>,
    (lo, hi): (u64, u64),
    diags: &mut Diags,
) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    if let Some(unit) = unit.filter(|u| *u != key.name) {
        return wrong_unit(
            &format!("`{}`", key.name),
            unit,
            "a plain number",
            span,
            diags,
        );
    }
    let value = digits.parse::<u64>().ok().filter(|n| (lo..=hi).contains(n));
    within_bounds(key, digits, value.map(Checked::Int), span, diags)
}

fn batch(
    key: &Key,
    written: Written<'_>,
    bounds: (u64, u64),
    diags: &mut Diags,
) -> Option<Checked> {
    match written.unit {
        Some("tokens" | "token") => match int(key, written.plain(), (1, 1 << 40), diags)? {
            Checked::Int(n) => Some(Checked::Tokens(n)),
            other => Some(other),
        },
        Some("examples" | "sequences") => int(key, written.plain(), bounds, diags),
        _ => int(key, written, bounds, diags),
    }
}

fn float(
    key: &Key,
    written: Written<'_>,
    (lo, hi): (Bound, Bound),
    diags: &mut Diags,
) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    let scale = match unit {
        None => 1.0,
        Some("%") => 0.01,
        Some(unit) => {
            return wrong_unit(
                &format!("`{}`", key.name),
                unit,
                "a plain number",
                span,
                diags,
            );
        }
    };
    let value = digits.parse::<f64>().ok().map(|x| x * scale).filter(|x| {
        let above = match lo {
            Bound::Incl(b) => *x >= b,
            Bound::Excl(b) => *x > b,
            Bound::None => true,
        };
        let below = match hi {
            Bound::Incl(b) => *x <= b,
            Bound::Excl(b) => *x < b,
            Bound::None => true,
        };
        above && below && x.is_finite()
    });
    within_bounds(key, digits, value.map(Checked::Float), span, diags)
}

/// Bytes of a size such as `6GiB`; `None` if the unit is unknown or the number too large.
#[must_use]
pub fn parse_size(digits: &str, unit: &str) -> Option<u64> {
    let factor: u64 = match unit {
        "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor).filter(|n| *n < 1 << 63);
    }
    let bytes = digits.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

/// Whether a number without a unit is too small to be meant as bytes.
#[must_use]
pub fn is_bare(digits: &str) -> bool {
    const LEAST: f64 = 65536.0;
    digits.parse().is_ok_and(|n: f64| n > 0.0 && n < LEAST)
}

fn size(written: Written<'_>, diags: &mut Diags) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    if unit.is_none() && is_bare(digits) {
        let wanted = format!("`{digits}GiB`, or `{digits}B` if bytes are meant");
        return wrong_unit("a size", "", &wanted, span, diags);
    }
    match parse_size(digits, unit.unwrap_or("B")) {
        Some(bytes) => Some(Checked::Int(bytes)),
        None => wrong_unit(
            "a size",
            unit.unwrap_or(""),
            "a size such as `6GiB`, `8GB` or `900MiB`",
            span,
            diags,
        ),
    }
}

fn length(key: &Key, written: Written<'_>, diags: &mut Diags) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    let Some(n) = digits.parse::<u64>().ok().filter(|&n| n > 0) else {
        diags.push(Diag::error(
            &OUT_OF_BOUNDS,
            span,
            format!("`{}` takes whole epochs or steps, at least 1", key.name),
        ));
        return None;
    };
    match unit {
        Some("epochs" | "epoch") => Some(Checked::Length(Length::Epochs(n))),
        Some("steps" | "step") => Some(Checked::Length(Length::Steps(n))),
        other => wrong_unit(
            &format!("`{}`", key.name),
            other.unwrap_or(""),
            &format!("`{n} epochs` or `{n} steps`"),
            span,
            diags,
        ),
    }
}

fn portion(written: Written<'_>, diags: &mut Diags) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    if matches!(unit, Some("steps" | "step"))
        && let Ok(n) = digits.parse()
    {
        return Some(Checked::Portion(Portion::Steps(n)));
    }
    let scale = match unit {
        Some("%") => 100,
        None => 1,
        Some(unit) => return wrong_unit("a part", unit, "`12%` or `300 steps`", span, diags),
    };
    let share = decimal(digits)
        .map(|(n, d)| (n, d.saturating_mul(scale)))
        .filter(|(n, d)| n <= d);
    if share.is_none() {
        diags.push(
            Diag::error(&OUT_OF_BOUNDS, span, "a part lies between 0% and 100%")
                .label(format!("{digits}{} does not", unit.unwrap_or("")))
                .help("write a part such as `12%`, or a number of steps such as `300 steps`"),
        );
    }
    share.map(|(n, d)| Checked::Portion(Portion::Share(n, d)))
}

/// `12.5` as (125, 10): exact, so that a share of the steps rounds the same everywhere.
fn decimal(digits: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let denominator = 10_u64.pow(to_u32(fraction.len()));
    let numerator = format!("{whole}{fraction}").parse().ok()?;
    Some((numerator, denominator))
}

/// A share of rows.
fn share(key: &Key, written: Written<'_>, diags: &mut Diags) -> Option<Checked> {
    let Written { digits, unit, span } = written;
    let scale = match unit {
        Some("%") => 100,
        None => 1,
        Some(unit) => {
            let what = format!("`{}`", key.name);
            return wrong_unit(&what, unit, "a share such as `10%`", span, diags);
        }
    };
    let share = decimal(digits)
        .map(|(n, d)| (n, d.saturating_mul(scale)))
        .filter(|(n, d)| 0 < *n && n < d);
    if share.is_none() {
        diags.push(
            Diag::error(
                &OUT_OF_BOUNDS,
                span,
                format!("`{}` is a share between 0% and 100%", key.name),
            )
            .label(format!("{digits}{} is not", unit.unwrap_or("")))
            .help("write a share such as `10%`"),
        );
    }
    share.map(|(n, d)| Checked::Portion(Portion::Share(n, d)))
}
