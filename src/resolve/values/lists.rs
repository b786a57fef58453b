//! Lists of names and maps by class.

use super::super::scope::Scope;
use super::check;
use crate::base::Diags;
use crate::library::schema::{Bound, Checked, ClassWeights, Key, Kind};
use crate::syntax::ast::{Path, Segment, Value, ValueKind};

pub(super) fn names(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
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
pub(super) fn numbers(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
    let plain = |n: &String| n.parse().is_ok_and(|k: u64| k.to_string() == *n);
    match names(scope, items)? {
        Checked::Names(list) if list.iter().all(plain) => Some(Checked::Names(list)),
        _ => None,
    }
}

/// A column as a bare path: `data.text`, `annotations[0].label`.
pub(super) fn column(path: &Path) -> Option<String> {
    let plain = |segment: &Segment| match segment {
        Segment::Name(_, range) => range.is_none_or(|r| r.single && r.start >= Some(0)),
        _ => false,
    };
    path.segments.iter().all(plain).then(|| path.to_string())
}

/// Which label stands for which class.
pub(super) fn class_map(
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

pub(super) fn texts(scope: &Scope<'_>, items: &[Value]) -> Option<Checked> {
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

pub(super) fn verbalizer(pairs: &[(crate::base::Spanned<String>, Value)]) -> Option<Checked> {
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

pub(super) fn balanced(name: Option<&str>) -> Option<Checked> {
    (name == Some("balanced")).then_some(Checked::ClassWeights(ClassWeights::Balanced))
}

/// A weight for each class.
pub(super) fn class_weights(
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
