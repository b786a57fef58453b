//! `let` names and their values.

use std::collections::BTreeMap;

use super::error::CYCLIC_LET;
use crate::base::{Diag, Diags};
use crate::syntax::ast::{Value, ValueKind};

/// The names that values may refer to.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    /// `let` values by name.
    pub lets: BTreeMap<&'a str, &'a Value>,
}

impl Scope<'_> {
    /// The value behind a name, if it is one of a `let`; the value itself otherwise. The place stays
    /// that of the use.
    pub(super) fn substitute(&self, value: &Value, diags: &mut Diags) -> Option<Value> {
        let mut current = value.clone();
        for _ in 0..=self.lets.len() {
            let ValueKind::Path(path) = &current.value else {
                return Some(current);
            };
            let Some(next) = path.as_name().and_then(|name| self.lets.get(name)) else {
                return Some(current);
            };
            current = Value {
                value: next.value.clone(),
                span: value.span,
            };
        }
        diags.push(
            Diag::error(&CYCLIC_LET, value.span, "this name is defined by itself")
                .label("goes in a circle"),
        );
        None
    }
}
