//! From values as written to checked values, by the key's kind.

use super::borrowed;
use super::error::{
    OUT_OF_BOUNDS, UNKNOWN_CHOICE, UNKNOWN_ENTRY, UNKNOWN_ROLE, WRONG_TYPE, WRONG_UNIT,
};
use super::registry;
use super::scope::Scope;
use super::shape;
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::net::ROLES;
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Bound, Checked, ClassWeights, Key, Kind, Length, Portion, RefKind};
use crate::library::words;
use crate::syntax::ast::{Ctor, Path, Segment, Value, ValueKind};

/// Checks one value; `None` after a diagnostic.
pub(super) fn check(
    scope: &Scope<'_>,
    key: &Key,
    value: &Value,
    diags: &mut Diags,
) -> Option<Checked> {
    let from = scope.origin(value);
    let name = match &value.value {
        ValueKind::Path(path) => path.as_name().map(str::to_owned),
        _ => None,
    };
    let value = scope.substitute(value)?;
    let mut own = Diags::default();
    let found = checked(scope, key, &value, &mut own);
    for mut diag in own.into_list() {
        // What a `let` says is to blame where it stands, too.
        if let Some(from) = from
            && diag.span == Some(value.span)
        {
            if let (Some(name), Some(says)) = (&name, borrowed::written(&value)) {
                let own = format!("`{name}` is `{says}`");
                diag.label = match diag.label.as_str() {
                    "" => own,
                    label => format!("{label}: {own}"),
                };
            }
            if diag.related.is_empty() && from.source == value.span.source {
                diag = diag.related(from, "written here");
            }
        }
        diags.push(diag);
    }
    found
}

/// Checks a value that is no name of a `let`.
fn checked(scope: &Scope<'_>, key: &Key, value: &Value, diags: &mut Diags) -> Option<Checked> {
    let found = match (key.kind, &value.value) {
        (Kind::Int(lo, hi), ValueKind::Number { digits, unit }) => {
            return int(key, digits, unit.as_deref(), (lo, hi), value.span, diags);
        }
        (Kind::Float(lo, hi), ValueKind::Number { digits, unit }) => {
            return float(key, digits, unit.as_deref(), (lo, hi), value.span, diags);
        }
        (Kind::Size, ValueKind::Number { digits, unit }) => {
            return size(digits, unit.as_deref(), value.span, diags);
        }
        (Kind::Length, ValueKind::Number { digits, unit }) => {
            return length(key, digits, unit.as_deref(), value.span, diags);
        }
        (Kind::Portion, ValueKind::Number { digits, unit }) => {
            return portion(digits, unit.as_deref(), value.span, diags);
        }
        (Kind::Bool, ValueKind::Bool(b)) => Some(Checked::Bool(*b)),
        (Kind::Str | Kind::Column | Kind::Class, ValueKind::Str(s)) => {
            Some(Checked::Str(s.clone()))
        }
        (Kind::Class, ValueKind::Number { digits, unit: None }) => {
            Some(Checked::Str(digits.clone()))
        }
        (Kind::Class, ValueKind::Bool(truth)) => Some(Checked::Str(truth.to_string())),
        (Kind::Class, ValueKind::Path(p)) => p.as_name().map(|n| Checked::Str(n.to_owned())),
        (Kind::Column, ValueKind::Path(p)) => column(p).map(Checked::Str),
        (Kind::Block(schema), ValueKind::Ctor(ctor)) if ctor.name.value.is_empty() => {
            return super::block::fill(scope, schema, ctor, diags)
                .map(|f| Checked::Entry(Box::new(f)));
        }
        (Kind::Share, ValueKind::Number { digits, unit }) => {
            return share(key, digits, unit.as_deref(), value.span, diags);
        }
        (Kind::Labels, ValueKind::List(items)) => names(scope, items),
        (Kind::Labels, ValueKind::Map(pairs)) => class_map(scope, pairs),
        (Kind::Choice(names), ValueKind::Path(p)) => {
            return choice(names, &p.to_string(), value.span, diags);
        }
        (Kind::Choice(names), ValueKind::Str(s)) => return choice(names, s, value.span, diags),
        (Kind::Ref(kind), ValueKind::Path(p)) => reference(kind, p),
        (
            Kind::Placement,
            ValueKind::Path(_) | ValueKind::Set(_) | ValueKind::List(_) | ValueKind::Str(_),
        ) => {
            return placement(value, diags).map(Checked::Placement);
        }
        (Kind::Entry(registry), ValueKind::Path(p)) => {
            let name = p.to_string();
            let ctor = Ctor {
                name: crate::base::Spanned::new(name, value.span),
                arg: None,
                more: Vec::new(),
                entries: Vec::new(),
                span: value.span,
            };
            return entry(scope, registry, &ctor, diags);
        }
        (Kind::Entry(registry), ValueKind::Ctor(ctor)) => {
            return entry(scope, registry, ctor, diags);
        }
        (Kind::Entries(registry), ValueKind::List(items)) => {
            return entries(scope, registry, items, diags);
        }
        (Kind::Entries(registry), ValueKind::Ctor(_) | ValueKind::Path(_)) => {
            return entries(scope, registry, std::slice::from_ref(value), diags);
        }
        (Kind::Numbers, ValueKind::List(items)) => numbers(scope, items),
        (Kind::Numbers, ValueKind::Number { .. }) => numbers(scope, std::slice::from_ref(value)),
        (Kind::Names | Kind::Columns, ValueKind::List(items)) => names(scope, items),
        (Kind::Names | Kind::Columns, ValueKind::Path(_) | ValueKind::Str(_)) => {
            names(scope, std::slice::from_ref(value))
        }
        (Kind::Texts, ValueKind::List(items)) => texts(scope, items),
        (Kind::Texts, ValueKind::Str(_)) => texts(scope, std::slice::from_ref(value)),
        (Kind::Verbalizer, ValueKind::Map(pairs)) => verbalizer(pairs),
        (Kind::ClassWeights, ValueKind::Path(path)) => balanced(path.as_name()),
        (Kind::ClassWeights, ValueKind::Str(text)) => balanced(Some(text)),
        (Kind::ClassWeights, ValueKind::Map(pairs)) if !pairs.is_empty() => {
            return class_weights(scope, pairs, diags);
        }
        _ => None,
    };
    if found.is_none() {
        let takes = format!("`{}` takes {}", key.name, key.kind);
        let mut diag = Diag::error(&WRONG_TYPE, value.span, takes)
            .label(format!("this is {}", describe(&value.value)));
        diag.help = shape::remedy(scope, key, value);
        diags.push(diag);
    }
    found
}

fn describe(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Number { .. } => "a number",
        ValueKind::Str(_) => "a string",
        ValueKind::Bool(_) => "a truth value",
        ValueKind::Path(_) => "a name",
        ValueKind::Ctor(_) => "a block",
        ValueKind::List(_) => "a list",
        ValueKind::Map(_) => "a map",
        ValueKind::Set(_) => "a set of paths",
    }
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

fn int(
    key: &Key,
    digits: &str,
    unit: Option<&str>,
    (lo, hi): (u64, u64),
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
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
    value.map(Checked::Int)
}

fn float(
    key: &Key,
    digits: &str,
    unit: Option<&str>,
    (lo, hi): (Bound, Bound),
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
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
    value.map(Checked::Float)
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

fn size(digits: &str, unit: Option<&str>, span: Span, diags: &mut Diags) -> Option<Checked> {
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

fn length(
    key: &Key,
    digits: &str,
    unit: Option<&str>,
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
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

fn portion(digits: &str, unit: Option<&str>, span: Span, diags: &mut Diags) -> Option<Checked> {
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
    let denominator = 10_u64.pow(fraction.len() as u32);
    let numerator = format!("{whole}{fraction}").parse().ok()?;
    Some((numerator, denominator))
}

fn choice(names: &[&str], written: &str, span: Span, diags: &mut Diags) -> Option<Checked> {
    if names.contains(&written) {
        return Some(Checked::Str(written.to_owned()));
    }
    let mut diag = Diag::error(
        &UNKNOWN_CHOICE,
        span,
        format!("`{written}` is not one of the choices here"),
    );
    diag.help = words::unknown_name(written, names.iter().copied());
    diags.push(diag);
    None
}

fn reference(kind: RefKind, path: &Path) -> Option<Checked> {
    match (kind, path.segments.as_slice()) {
        (_, [Segment::Name(name, None)]) => Some(Checked::Ref(name.clone(), None)),
        (RefKind::Split, [Segment::Name(name, None), Segment::Name(split, None)]) => {
            Some(Checked::Ref(name.clone(), Some(split.clone())))
        }
        _ => None,
    }
}

fn entry(
    scope: &Scope<'_>,
    which: crate::library::schema::Registry,
    ctor: &Ctor,
    diags: &mut Diags,
) -> Option<Checked> {
    if ctor.name.value.is_empty() {
        diags.push(nameless(which, ctor));
        return None;
    }
    let Some(schema) = registry::schema(which, &ctor.name.value) else {
        let mut diag = Diag::error(
            &UNKNOWN_ENTRY,
            ctor.name.span,
            format!("there is no {which} `{}`", ctor.name.value),
        )
        .label("unknown");
        diag.help = words::unknown_name(&ctor.name.value, registry::names(which));
        diags.push(diag);
        return None;
    };
    super::block::fill(scope, schema, ctor, diags).map(|f| Checked::Entry(Box::new(f)))
}

/// The error of a block where an entry's name is missing before it.
fn nameless(which: crate::library::schema::Registry, ctor: &Ctor) -> Diag {
    let has_all = |s: &&crate::library::schema::Schema| {
        ctor.entries.iter().all(|e| s.key(&e.key.value).is_some())
    };
    let fitting: Vec<String> = registry::schemas(which)
        .into_iter()
        .filter(has_all)
        .take(4)
        .map(|s| format!("`{} {{ … }}`", s.name))
        .collect();
    let message = format!("the name of the {which} is missing before its `{{`");
    let diag = Diag::error(&UNKNOWN_ENTRY, ctor.span, message).label("whose keys are these?");
    match fitting.as_slice() {
        [] => diag.help(format!(
            "write it before them: `NAME {{ … }}`; `peftc list {which}s` names what there is"
        )),
        list => diag.help(format!("write {}", list.join(" or "))),
    }
}

fn entries(
    scope: &Scope<'_>,
    which: crate::library::schema::Registry,
    items: &[Value],
    diags: &mut Diags,
) -> Option<Checked> {
    let key = Key {
        name: "",
        kind: Kind::Entry(which),
        default: crate::library::schema::Default::Required,
        doc: "",
        fallback: None,
    };
    let checked: Vec<Option<Checked>> = items
        .iter()
        .map(|item| check(scope, &key, item, diags))
        .collect();
    let list: Option<Vec<_>> = checked
        .into_iter()
        .map(|c| match c {
            Some(Checked::Entry(filled)) => Some(*filled),
            _ => None,
        })
        .collect();
    list.map(Checked::Entries)
}

fn names(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
    let list: Option<Vec<String>> = items
        .iter()
        // A name that goes in a circle is reported there.
        .filter_map(|item| scope.substitute(item))
        .map(|item| match item.value {
            ValueKind::Str(s) => Some(s),
            ValueKind::Path(p) => column(&p),
            ValueKind::Bool(truth) => Some(truth.to_string()),
            ValueKind::Number { digits, unit: None } => Some(digits),
            _ => None,
        })
        .collect();
    list.map(Checked::Names)
}

/// Whole numbers, also in quotes: an artifact's description has them so.
fn numbers(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
    let plain = |n: &String| n.parse().is_ok_and(|k: u64| k.to_string() == *n);
    match names(scope, items)? {
        Checked::Names(list) if list.iter().all(plain) => Some(Checked::Names(list)),
        _ => None,
    }
}

/// A column as a bare path: `data.text`, `annotations[0].label`.
fn column(path: &Path) -> Option<String> {
    let plain = |segment: &Segment| match segment {
        Segment::Name(_, range) => range.is_none_or(|r| r.single && r.start >= Some(0)),
        _ => false,
    };
    path.segments.iter().all(plain).then(|| path.to_string())
}

/// Which label stands for which class.
fn class_map(
    scope: &Scope<'_>,
    pairs: &[(crate::base::Spanned<String>, Value)],
) -> Option<Checked> {
    let list: Option<Vec<(String, Vec<String>)>> = pairs
        .iter()
        .map(
            |(label, class)| match names(scope, std::slice::from_ref(class)) {
                Some(Checked::Names(name)) if name.len() == 1 => Some((label.value.clone(), name)),
                _ => None,
            },
        )
        .collect();
    list.filter(|list| !list.is_empty()).map(Checked::Map)
}

/// A share of rows.
fn share(
    key: &Key,
    digits: &str,
    unit: Option<&str>,
    span: Span,
    diags: &mut Diags,
) -> Option<Checked> {
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

fn texts(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
    let list: Option<Vec<String>> = items
        .iter()
        // A name that goes in a circle is reported there.
        .filter_map(|item| scope.substitute(item))
        .map(|item| match item.value {
            ValueKind::Str(s) => Some(s),
            _ => None,
        })
        .collect();
    list.map(Checked::Names)
}

fn verbalizer(pairs: &[(crate::base::Spanned<String>, Value)]) -> Option<Checked> {
    let word = |value: &Value| match &value.value {
        ValueKind::Str(s) => Some(s.clone()),
        _ => None,
    };
    let list: Option<Vec<(String, Vec<String>)>> = pairs
        .iter()
        .map(|(class, value)| match &value.value {
            ValueKind::List(items) => Some((
                class.value.clone(),
                items.iter().map(word).collect::<Option<_>>()?,
            )),
            _ => Some((class.value.clone(), vec![word(value)?])),
        })
        .collect();
    list.map(Checked::Map)
}

fn balanced(name: Option<&str>) -> Option<Checked> {
    (name == Some("balanced")).then_some(Checked::ClassWeights(ClassWeights::Balanced))
}

/// A weight for each class.
fn class_weights(
    scope: &Scope<'_>,
    pairs: &[(crate::base::Spanned<String>, Value)],
    diags: &mut Diags,
) -> Option<Checked> {
    let (least, most) = ClassWeights::BOUNDS;
    let each = pairs.iter().map(|(class, weight)| {
        let key = Key {
            name: "",
            kind: Kind::Float(Bound::Incl(least), Bound::Incl(most)),
            default: crate::library::schema::Default::Required,
            doc: "",
            fallback: None,
        };
        let mut own = Diags::default();
        let found = check(scope, &key, weight, &mut own);
        for mut diag in own.into_list() {
            diag.message = format!("the weight of `{}` is {}", class.value, key.kind);
            diags.push(diag);
        }
        match found {
            Some(Checked::Float(x)) => Some((class.value.clone(), x)),
            _ => None,
        }
    });
    let each: Vec<Option<(String, f64)>> = each.collect();
    let list: Option<Vec<_>> = each.into_iter().collect();
    list.map(|list| Checked::ClassWeights(ClassWeights::Each(list)))
}

/// Expands a placement as written into its alternatives.
fn placement(value: &Value, diags: &mut Diags) -> Option<Placement> {
    let mut any = Vec::new();
    let mut ok = true;
    match &value.value {
        ValueKind::Str(raw) => any.push(Pattern {
            layers: None,
            path: raw.clone(),
            raw: true,
        }),
        ValueKind::Path(path) => ok &= expand(path, value.span, &mut any, diags),
        ValueKind::Set(paths) => {
            for path in paths {
                ok &= expand(&path.value, path.span, &mut any, diags);
            }
        }
        ValueKind::List(items) => {
            for item in items {
                match placement(item, diags) {
                    Some(more) => any.extend(more.any),
                    None => ok = false,
                }
            }
        }
        _ => return None,
    }
    ok.then_some(Placement { any })
}

type Layers = Option<(Option<i64>, Option<i64>)>;

/// Most alternatives that a path with sets in it may stand for: sets behind sets multiply.
const MOST_ALTERNATIVES: u64 = 1000;

/// The alternatives that some segments stand for.
fn alternatives(segments: &[Segment]) -> u64 {
    let of = |segment: &Segment| match segment {
        Segment::Set(paths) => paths
            .iter()
            .fold(0u64, |n, p| n.saturating_add(alternatives(&p.segments))),
        _ => 1,
    };
    segments.iter().map(of).fold(1, u64::saturating_mul)
}

/// Most names in a row of a path; no role has more than two behind its blocks.
const MOST_NAMES: usize = 16;

/// The most names in a row that some segments come to.
fn names_in_a_row(segments: &[Segment]) -> usize {
    let of = |segment: &Segment| match segment {
        Segment::Set(paths) => {
            let each = paths.iter().map(|p| names_in_a_row(&p.segments));
            each.max().unwrap_or(0)
        }
        _ => 1,
    };
    segments.iter().map(of).sum()
}

fn expand(path: &Path, span: Span, any: &mut Vec<Pattern>, diags: &mut Diags) -> bool {
    let row = names_in_a_row(&path.segments);
    if row > MOST_NAMES {
        let message = format!("there is no role of {row} names");
        diags.push(
            Diag::error(&UNKNOWN_ROLE, span, message)
                .help("a role is two names, such as `attention.{key, query}`"),
        );
        return false;
    }
    let many = alternatives(&path.segments);
    if many > MOST_ALTERNATIVES {
        let message =
            format!("the placement stands for {many} paths; {MOST_ALTERNATIVES} are the most");
        diags.push(
            Diag::error(&OUT_OF_BOUNDS, span, message)
                .label("sets behind sets multiply")
                .help("a role is two names, such as `attention.{key, query}`"),
        );
        return false;
    }
    let mut list = Vec::new();
    if !walk(&path.segments, None, String::new(), &mut list) {
        diags.push(
            Diag::error(&UNKNOWN_ROLE, span, format!("`{path}` is not a placement"))
                .help("a range stands only after `layers`, and `layers[a..b]` only at the start"),
        );
        return false;
    }
    let mut ok = true;
    for (layers, role) in list {
        // `layers[a..b]` alone means everything adaptable in those blocks.
        let role = if role.is_empty() {
            "*.*".to_owned()
        } else {
            role
        };
        let pattern = Pattern {
            layers,
            path: role.clone(),
            raw: false,
        };
        if ROLES.iter().any(|(_, known)| role_fits(&role, known)) {
            any.push(pattern);
        } else {
            let mut diag = Diag::error(&UNKNOWN_ROLE, span, format!("there is no role `{role}`"))
                .label("in this placement");
            diag.help = suggest::did_you_mean(&role, ROLES.iter().map(|(_, p)| *p));
            diags.push(diag);
            ok = false;
        }
    }
    ok
}

fn role_fits(pattern: &str, role: &str) -> bool {
    let mut parts = role.split('.');
    pattern.split('.').all(|p| match parts.next() {
        Some(part) => p == "*" || p == part,
        None => p == "*",
    }) && parts.next().is_none()
        || pattern == "*"
}

fn walk(
    segments: &[Segment],
    layers: Layers,
    role: String,
    out: &mut Vec<(Layers, String)>,
) -> bool {
    let join = |role: &str, part: &str| {
        if role.is_empty() {
            part.to_owned()
        } else {
            format!("{role}.{part}")
        }
    };
    match segments.split_first() {
        None => {
            out.push((layers, role));
            true
        }
        Some((Segment::Name(name, Some(range)), rest))
            if name == "layers" && layers.is_none() && role.is_empty() =>
        {
            let range = match (range.single, range.start) {
                // `[-1]` ends at the last block: one past -1 would be 0, the first.
                (true, Some(-1)) => (Some(-1), None),
                (true, Some(n)) => (Some(n), Some(n.saturating_add(1))),
                _ => (range.start, range.end),
            };
            walk(rest, Some(range), role, out)
        }
        Some((Segment::Name(_, Some(_)), _)) => false,
        Some((Segment::Name(name, None), rest)) => walk(rest, layers, join(&role, name), out),
        Some((Segment::Star, rest)) => walk(rest, layers, join(&role, "*"), out),
        Some((Segment::Set(paths), rest)) => paths.iter().all(|path| {
            let all: Vec<Segment> = path.segments.iter().chain(rest).cloned().collect();
            walk(&all, layers, role.clone(), out)
        }),
    }
}
