//! Diagnostics: what is wrong with a recipe, where, and what to type instead.
//!
//! **Invariant:** a diagnostic holds spans, never source text; rendering attaches the text.

use super::span::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Note,
    /// Odd, but it can be honoured as written.
    Warning,
    /// The recipe is rejected.
    Error,
}

/// A kind of diagnostic, documented where it is declared; `peftc explain CODE` prints the doc.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `layer::snake_case`.
    pub name: &'static str,
    /// What the rule is, why it exists and what to do.
    pub doc: &'static str,
}

/// Declares the codes of a layer: `codes! { /// doc \n NAME = "layer::name"; … }` makes one constant
/// for each and a list `CODES` of them all.
#[macro_export]
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $id:ident = $name:literal;)+) => {
        $($(#[doc = $doc])+ pub const $id: $crate::base::Code =
            $crate::base::Code { name: $name, doc: concat!($($doc, "\n"),+) };)+
        /// Every code of this layer.
        pub const CODES: &[&$crate::base::Code] = &[$(&$id),+];
    };
}

/// One reported problem.
#[derive(Clone, Debug)]
pub struct Diag {
    /// What kind.
    pub code: &'static Code,
    /// How bad.
    pub severity: Severity,
    /// The fact: lower case, no full stop, names in backticks.
    pub message: String,
    /// Where; `None` when no place in a recipe is to blame.
    pub span: Option<Span>,
    /// What is wrong at `span`.
    pub label: String,
    /// Further places with a note each.
    pub related: Vec<(Span, String)>,
    /// What to type instead.
    pub help: Option<String>,
}

impl Diag {
    /// An error at a place.
    pub fn error(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            label: String::new(),
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// A note at a place.
    pub fn note(code: &'static Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            ..Self::error(code, span, message)
        }
    }

    /// Says what is wrong at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to type instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at another place too.
    #[must_use]
    pub fn related(mut self, span: Span, note: impl Into<String>) -> Self {
        self.related.push((span, note.into()));
        self
    }
}

/// Collects diagnostics.
#[derive(Clone, Debug, Default)]
pub struct Diags {
    list: Vec<Diag>,
}

impl Diags {
    /// Adds one.
    pub fn push(&mut self, diag: Diag) {
        self.list.push(diag);
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Keeps those that a rule keeps.
    pub fn retain(&mut self, rule: impl FnMut(&Diag) -> bool) {
        self.list.retain(rule);
    }

    /// Whether any is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// Vouches for what these are all the findings about: `None` if an error is among them.
    pub fn sound<T>(&self, value: T) -> Option<Sound<T>> {
        (!self.has_errors()).then_some(Sound(value))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In source order (those without a place last), duplicates removed.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Diag> {
        self.list
            .sort_by_key(|d| (d.span.is_none(), d.span, d.code.name));
        let mut seen = std::collections::HashSet::new();
        self.list
            .retain(|d| seen.insert((d.code.name, d.span, d.message.clone())));
        self.list
    }

    /// As collected.
    #[must_use]
    pub fn into_list(self) -> Vec<Diag> {
        self.list
    }

    /// As collected.
    pub fn iter(&self) -> impl Iterator<Item = &Diag> {
        self.list.iter()
    }
}

/// Something that no error was found with. Only [`Diags::sound`] makes one, so a function that takes it cannot be
/// called on what an earlier phase has refused.
#[derive(Clone, Debug)]
pub struct Sound<T>(T);

impl<T> Sound<T> {
    /// The thing itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Sound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A phase's product, if it could be made, and all diagnostics found on the way.
#[must_use]
#[derive(Debug)]
pub struct Outcome<T> {
    /// The product; may be present although there are errors (partial).
    pub value: Option<T>,
    /// What was found.
    pub diags: Diags,
}

impl<T> Outcome<T> {
    /// A product and what was found.
    pub const fn new(value: Option<T>, diags: Diags) -> Self {
        Self { value, diags }
    }

    /// The product, only if there was no error.
    pub fn ok(self) -> Result<(T, Diags), Diags> {
        match self.value {
            Some(value) if !self.diags.has_errors() => Ok((value, self.diags)),
            _ => Err(self.diags),
        }
    }
}
