//! `let` names and their values.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::error::CYCLIC_LET;
use crate::base::{Diag, Diags, Span};
use crate::syntax::ast::{Value, ValueKind};

/// The names that values may refer to.
#[derive(Debug, Default)]
pub(super) struct Scope<'a> {
    /// `let` values by name.
    pub lets: BTreeMap<&'a str, &'a Value>,
    /// The `let`s that are swept.
    pub swept: BTreeSet<&'a str>,
    /// Those of them that were looked up since this was last taken.
    pub used: RefCell<BTreeSet<String>>,
    /// Where chains end that were followed.
    pub ends: RefCell<BTreeMap<&'a str, Option<End<'a>>>>,
}

/// Where a chain of `let`s ends.
#[derive(Clone, Debug)]
pub(super) struct End<'a> {
    value: &'a Value,
    /// The swept ones on the way.
    swept: Rc<[&'a str]>,
}

impl<'a> Scope<'a> {
    /// The value behind a name, if it is one of a `let`; the value itself otherwise. The place stays
    /// that of the use. `None` for a name that goes in a circle: [`Self::check_circles`] reports it.
    pub(super) fn substitute(&self, value: &Value) -> Option<Value> {
        let Some((name, _)) = self.next(value) else {
            return Some(value.clone());
        };
        let end = self.end(name)?;
        let swept = end.swept.iter().map(|s| (*s).to_owned());
        self.used.borrow_mut().extend(swept);
        Some(Value {
            value: end.value.value.clone(),
            span: value.span,
        })
    }

    /// Where the value stands that a name of a `let` is; `None` for what is no such name.
    pub(super) fn origin(&self, value: &Value) -> Option<Span> {
        let (name, _) = self.next(value)?;
        Some(self.end(name)?.value.span)
    }

    /// The end of a chain, each link of which is followed once; `None` where there is none.
    fn end(&self, name: &'a str) -> Option<End<'a>> {
        let mut chain: Vec<(&'a str, &'a Value)> = Vec::new();
        let mut seen: BTreeSet<&'a str> = BTreeSet::new();
        let mut at = name;
        let mut end = loop {
            if let Some(known) = self.ends.borrow().get(at) {
                break known.clone();
            }
            if !seen.insert(at) {
                break None;
            }
            let Some(&value) = self.lets.get(at) else {
                break None;
            };
            chain.push((at, value));
            match self.next(value) {
                Some((next, _)) => at = next,
                None => {
                    let swept = Rc::from([]);
                    break Some(End { value, swept });
                }
            }
        };
        for (name, _) in chain.into_iter().rev() {
            if let Some(end) = end.as_mut().filter(|_| self.swept.contains(name)) {
                end.swept = end.swept.iter().copied().chain([name]).collect();
            }
            self.ends.borrow_mut().insert(name, end.clone());
        }
        end
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
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for (&name, &value) in &self.lets {
            let mut chain: Vec<(&str, &Value)> = Vec::new();
            let mut places: BTreeMap<&str, usize> = BTreeMap::new();
            let mut at = Some((name, value));
            while let Some((name, value)) = at.filter(|(name, _)| done.insert(name)) {
                places.insert(name, chain.len());
                chain.push((name, value));
                at = self.next(value);
            }
            let Some(&first) = at.and_then(|(name, _)| places.get(name)) else {
                continue;
            };
            let circle = chain.get(first..).unwrap_or_default();
            let Some(at) = (0..circle.len()).min_by_key(|&i| circle.get(i).map(|(_, v)| v.span))
            else {
                continue;
            };
            let around = circle.iter().cycle().skip(at).take(circle.len() + 1);
            let names: Vec<&str> = around.map(|(name, _)| *name).collect();
            if let Some((name, value)) = circle.get(at) {
                diags.push(
                    Diag::error(
                        &CYCLIC_LET,
                        value.span,
                        format!("`{name}` is defined by itself: {}", in_short(&names)),
                    )
                    .label("goes in a circle")
                    .help("give one of them a value of its own"),
                );
            }
        }
    }
}

/// Names with arrows between them; of very many the first and the last.
fn in_short(names: &[&str]) -> String {
    const MOST: usize = 12;
    match names {
        [first @ .., last] if names.len() > MOST => {
            let first = first.get(..MOST - 2).unwrap_or_default();
            let between = names.len() - MOST + 1;
            format!("{} → … {between} more … → {last}", first.join(" → "))
        }
        _ => names.join(" → "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SourceId;
    use crate::syntax::ast::Item;
    use crate::syntax::parse;

    /// Runs `of` over the `let`s of a text.
    fn with(text: &str, of: impl FnOnce(&Scope<'_>)) {
        let file = parse(text, SourceId(0)).value.unwrap();
        let mut scope = Scope::default();
        for item in &file.items {
            if let Item::Let(l) = item {
                scope.lets.insert(&l.name.value, &l.value);
            }
        }
        of(&scope);
    }

    #[test]
    fn a_long_chain_is_followed_once() {
        const MANY: usize = 20_000;
        let mut text = "let a0 = 7\n".to_owned();
        for i in 1..MANY {
            text.push_str(&format!("let a{i} = a{}\n", i - 1));
        }
        with(&text, |scope| {
            let mut diags = Diags::default();
            scope.check_circles(&mut diags);
            assert!(diags.is_empty());
            for value in scope.lets.values() {
                let end = scope.substitute(value).unwrap();
                assert!(matches!(end.value, ValueKind::Number { .. }));
            }
        });
    }

    #[test]
    fn a_circle_is_reported_once_at_its_first_place_and_has_no_end() {
        let text = "let c = b\nlet b = a\nlet a = d\nlet d = b\nlet e = e\nlet f = 1\n";
        with(text, |scope| {
            let mut diags = Diags::default();
            scope.check_circles(&mut diags);
            let found: Vec<&str> = diags.iter().map(|d| d.message.as_str()).collect();
            assert_eq!(
                found,
                [
                    "`b` is defined by itself: b → a → d → b",
                    "`e` is defined by itself: e → e"
                ]
            );
            for name in ["a", "b", "c", "d", "e"] {
                assert!(scope.end(name).is_none(), "{name}");
            }
            assert!(scope.end("f").is_some());
        });
    }
}
