//! Placements as written, expanded into the alternatives that they stand for.

use super::super::error::{OUT_OF_BOUNDS, UNKNOWN_ROLE};
use super::super::scope::Scope;
use super::check;
use crate::base::{Diag, Diags, SourceId, Span, Spanned, suggest};
use crate::library::net::ROLES;
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Checked, Default, Key, Kind};
use crate::syntax::ast::{Path, Segment, Value, ValueKind};
use crate::syntax::parse_value;

/// A map from placement to values of a kind.
pub(super) fn by_place(
    scope: &Scope<'_>,
    kind: Kind,
    pairs: &[(Spanned<String>, Value)],
    diags: &mut Diags,
) -> Option<Checked> {
    let mut list = Vec::new();
    let mut ok = true;
    for (place, value) in pairs {
        let key = Key {
            name: "",
            kind,
            default: Default::Required,
            doc: "",
            fallback: None,
        };
        let mut own = Diags::default();
        let found = check(scope, &key, value, &mut own);
        for mut diag in own.into_list() {
            diag.message = format!("the value of `{}` is {kind}", place.value);
            diags.push(diag);
        }
        match found {
            Some(value) => list.extend(at(&place.value).into_iter().map(|p| (p, value.clone()))),
            None => ok = false,
        }
    }
    ok.then_some(Checked::ByPlace(list))
}

/// The alternatives of a placement in quotes: roles where its text says such, else the path of a module.
fn at(text: &str) -> Vec<Pattern> {
    if let Some(value) = parse_value(text, SourceId::default()).value
        && let ValueKind::Path(path) = &value.value
    {
        let mut any = Vec::new();
        if expand(path, value.span, &mut any, &mut Diags::default()) {
            return any;
        }
    }
    vec![Pattern {
        layers: None,
        path: text.to_owned(),
        raw: true,
    }]
}

/// Expands a placement as written into its alternatives.
pub(super) fn placement(value: &Value, diags: &mut Diags) -> Option<Placement> {
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
