//! Filling a block: every key checked against the schema, defaults put in.

use std::collections::BTreeMap;

use super::borrowed;
use super::error::{DUPLICATE_KEY, MISSING_KEY, UNKNOWN_KEY};
use super::registry;
use super::scope::Scope;
use super::values;
use crate::base::{Diag, Diags, SourceId, Span};
use crate::library::schema::{Checked, Default, Filled, Key, Kind, Schema, Values};
use crate::library::words::{self, Means};
use crate::syntax::ast::{Ctor, Entry};
use crate::syntax::parse_value;

/// Checks a constructor against its schema; `None` after an error.
pub(super) fn fill(
    scope: &Scope<'_>,
    schema: &'static Schema,
    ctor: &Ctor,
    diags: &mut Diags,
) -> Option<Filled> {
    let (filled, whole) = fill_what_is_right(scope, schema, ctor, diags);
    whole.then_some(filled)
}

/// Checks a constructor against its schema: the values that are right, and whether all are.
pub(super) fn fill_what_is_right(
    scope: &Scope<'_>,
    schema: &'static Schema,
    ctor: &Ctor,
    diags: &mut Diags,
) -> (Filled, bool) {
    let mut ok = true;
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    let mut values = Values::default();
    for entry in &ctor.entries {
        let (name, at) = (entry.key.value.as_str(), entry.key.span);
        if let Some(first) = seen.insert(name, at) {
            diags.push(
                Diag::error(&DUPLICATE_KEY, at, format!("`{name}` is written twice"))
                    .label("again here")
                    .related(first, "first here"),
            );
            ok = false;
            continue;
        }
        let Some(key) = schema.key(name) else {
            let mut diag = Diag::error(
                &UNKNOWN_KEY,
                at,
                format!("`{}` has no key `{name}`", schema.name),
            )
            .label("unknown key");
            diag.help = Some(not_a_key(scope, schema, ctor, entry));
            diags.push(diag);
            ok = false;
            continue;
        };
        match values::check(scope, key, &entry.value, diags) {
            // Written or not, it is one recipe.
            Some(value) if is_tacit(schema, key, &value) => {}
            Some(value) => values.insert(name, value, entry.value.span, true),
            None => ok = false,
        }
    }
    for key in schema.keys.iter().filter(|k| !seen.contains_key(k.name)) {
        match key.default {
            Default::Required => {
                diags.push(
                    Diag::error(
                        &MISSING_KEY,
                        ctor.name.span,
                        format!("`{}` needs the key `{}`", schema.name, key.name),
                    )
                    .label(format!("`{}` is missing", key.name))
                    .help(format!("{}: {}; it takes {}", key.name, key.doc, key.kind)),
                );
                ok = false;
            }
            Default::Absent | Default::Tacit(_) => {}
            Default::Text(text) => {
                if let Some(value) = default_value(schema, key, text) {
                    values.insert(key.name, value, ctor.name.span, false);
                }
            }
        }
    }
    let filled = Filled {
        name: schema.name.to_owned(),
        values,
        span: ctor.span,
    };
    (filled, ok)
}

/// What to write instead of an entry whose key a block does not have.
fn not_a_key(scope: &Scope<'_>, schema: &Schema, ctor: &Ctor, entry: &Entry) -> String {
    let name = entry.key.value.as_str();
    if let Some(both) = borrowed::accumulated(scope, schema, ctor, name) {
        return both;
    }
    let off = scope
        .substitute(&entry.value)
        .is_some_and(|v| borrowed::is_off(&v));
    let known = words::for_key(name).filter(|_| !schema.keys.is_empty());
    match known.map(|word| &word.means) {
        Some(Means::Missing(_) | Means::Method(..) | Means::Entry(_)) if off => {
            return format!("`{name}` is off here: leave it out");
        }
        _ => {}
    }
    let value = borrowed::value(scope, schema, name, &entry.value);
    let inside = inside(schema, scope, entry);
    let all = registry::all();
    words::unknown_key(name, schema, value.as_deref(), inside.as_deref(), &all)
}

/// How a key of an entry that one of a block's own keys takes is written: `optimizer = adamw { weight_decay = 0.1 }`,
/// with `…` for a value that it does not take.
fn inside(schema: &Schema, scope: &Scope<'_>, written: &Entry) -> Option<String> {
    let name = written.key.value.as_str();
    schema.keys.iter().find_map(|key| {
        let (Kind::Entry(of) | Kind::Entries(of)) = key.kind else {
            return None;
        };
        let entries = registry::schemas(of);
        let (entry, inner) = entries.into_iter().find_map(|s| Some((s, s.key(name)?)))?;
        let fits = values::check(scope, inner, &written.value, &mut Diags::default()).is_some();
        let own = scope.substitute(&written.value).filter(|_| fits);
        let own = own.as_ref().and_then(borrowed::written);
        let own = own.as_deref().unwrap_or("…");
        Some(format!(
            "{} = {} {{ {name} = {own} }}",
            key.name, entry.name
        ))
    })
}

/// A default is written as a user would write it and checked the same way.
fn default_value(schema: &Schema, key: &Key, text: &str) -> Option<Checked> {
    let parsed = parse_value(text, SourceId(u32::MAX)).value;
    let checked =
        parsed.and_then(|v| values::check(&Scope::default(), key, &v, &mut Diags::default()));
    debug_assert!(
        checked.is_some(),
        "the default of `{}.{}` is not valid",
        schema.name,
        key.name
    );
    checked
}

/// Leaves out what is written as its default, so that a text with all values is filled as the recipe behind it was.
pub(super) fn without_defaults(schema: &Schema, ctor: &mut Ctor) {
    ctor.entries.retain(|entry| {
        let Some(key) = schema.key(&entry.key.value) else {
            return true;
        };
        let Default::Text(text) = key.default else {
            return true;
        };
        let own = values::check(&Scope::default(), key, &entry.value, &mut Diags::default());
        let usual = default_value(schema, key, text);
        own.zip(usual)
            .is_none_or(|(own, usual)| own.to_string() != usual.to_string())
    });
}

fn is_tacit(schema: &Schema, key: &Key, value: &Checked) -> bool {
    let Default::Tacit(text) = key.default else {
        return false;
    };
    // What a value is, not where it is written, counts.
    default_value(schema, key, text).is_some_and(|d| d.to_string() == value.to_string())
}
