//! `let` names and their values.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::error::CYCLIC_LET;
use crate::base::{Diag, Diags};
use crate::syntax::ast::{Value, ValueKind};

/// The names that values may refer to.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    /// `let` values by name.
    pub lets: BTreeMap<&'a str, &'a Value>,
    /// Those that were looked up since this was last taken.
    pub used: RefCell<BTreeSet<String>>,
}

impl<'a> Scope<'a> {
    /// The value behind a name, if it is one of a `let`; the value itself otherwise. The place stays
    /// that of the use. `None` for a name that goes in a circle: [`Self::check_circles`] reports it.
    pub(super) fn substitute(&self, value: &Value) -> Option<Value> {
        let mut current = value.clone();
        for _ in 0..=self.lets.len() {
            let Some(next) = self.next(&current) else {
                return Some(current);
            };
            self.used.borrow_mut().insert(next.0.to_owned());
            current = Value {
                value: next.1.value.clone(),
                span: value.span,
            };
        }
        None
    }

    /// The `let` that a value names, if it names one.
    fn next(&self, value: &Value) -> Option<(&'a str, &'a Value)> {
        let ValueKind::Path(path) = &value.value else {
            return None;
        };
        let (name, value) = self.lets.get_key_value(path.as_name()?)?;
        Some((name, value))
    }

    /// Reports each circle of `let`s once, at the one that stands first.
    pub(super) fn check_circles(&self, diags: &mut Diags) {
        for (&name, &value) in &self.lets {
            let mut circle = vec![name];
            let mut first = value.span;
            let mut at = self.next(value);
            while let Some((next, value)) = at.filter(|(next, _)| !circle.contains(next)) {
                circle.push(next);
                first = first.min(value.span);
                at = self.next(value);
            }
            let closed = at.is_some_and(|(next, _)| next == name);
            if closed && first == value.span {
                circle.push(name);
                diags.push(
                    Diag::error(
                        &CYCLIC_LET,
                        value.span,
                        format!("`{name}` is defined by itself: {}", circle.join(" → ")),
                    )
                    .label("goes in a circle")
                    .help("give one of them a value of its own"),
                );
            }
        }
    }
}
