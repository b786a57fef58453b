//! From values as written to checked values, by the key's kind.

mod lists;
mod numbers;
mod placement;

use super::borrowed;
use super::error::{UNKNOWN_CHOICE, UNKNOWN_ENTRY, WRONG_TYPE};
use super::registry;
use super::scope::Scope;
use super::shape;
use std::borrow::Cow;

use crate::base::{Diag, Diags, Span, Spanned};
use crate::library::schema::{Checked, Key, Kind, RefKind, Schema};
use crate::library::words;
use crate::syntax::ast::{Ctor, Entry, Path, Segment, Value, ValueKind};
use lists::{balanced, class_map, class_weights, column, names, numbers, texts, verbalizer};
use numbers::{Written, number};
use placement::{by_place, placement};

pub use numbers::{is_bare, parse_size};

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
#[expect(clippy::too_many_lines, reason = "an arm for each kind of value")]
fn checked(scope: &Scope<'_>, key: &Key, value: &Value, diags: &mut Diags) -> Option<Checked> {
    if let ValueKind::Number { digits, unit } = &value.value {
        let (unit, span) = (unit.as_deref(), value.span);
        if let Some(found) = number(key, Written { digits, unit, span }, diags) {
            return found;
        }
    }
    let found = match (key.kind, &value.value) {
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
        (Kind::ByPlace(of), ValueKind::Map(pairs)) if !pairs.is_empty() => {
            return by_place(scope, *of, pairs, diags);
        }
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
    let ctor = with_text(schema, ctor, diags)?;
    super::block::fill(scope, schema, &ctor, diags).map(|f| Checked::Entry(Box::new(f)))
}

/// An entry whose string behind the name is written as the key that it is.
fn with_text<'c>(schema: &Schema, ctor: &'c Ctor, diags: &mut Diags) -> Option<Cow<'c, Ctor>> {
    let Some(arg) = &ctor.arg else {
        return Some(Cow::Borrowed(ctor));
    };
    let (Some(key), true) = (schema.text_key(), ctor.more.is_empty()) else {
        let takes = match schema.text_key() {
            Some(_) => "one string",
            None => "no string",
        };
        let message = format!("`{}` takes {takes}", schema.name);
        diags.push(Diag::error(&WRONG_TYPE, arg.span, message).label("remove this"));
        return None;
    };
    let mut ctor = ctor.clone();
    ctor.arg = None;
    ctor.entries.push(Entry {
        key: Spanned::new(key.name.to_owned(), arg.span),
        value: Spanned::new(ValueKind::Str(arg.value.clone()), arg.span),
    });
    Some(Cow::Owned(ctor))
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
