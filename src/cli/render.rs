//! Diagnostics for people (miette) and programs (JSON).

use std::fmt;
use std::io::Write as _;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, SourceCode, SourceSpan,
    SpanContents,
};
use serde_json::{Value as Json, json};

use super::options::Common;
use super::screen::Screen;
use crate::base::{Diag, Severity, Source, Sources, Span};

/// A diagnostic with its text attached, as miette wants it.
struct Shown<'a> {
    diag: &'a Diag,
    source: Option<Named<'a>>,
}

#[derive(Clone, Copy)]
struct Named<'a>(&'a Source);

impl SourceCode for Named<'_> {
    fn read_span<'s>(
        &'s self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'s> + 's>, MietteError> {
        let inner = self.0.text.as_str().read_span(span, before, after)?;
        let data = miette::MietteSpanContents::new_named(
            self.0.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        );
        Ok(Box::new(data))
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diag.fmt(f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diag.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("peftc::{}", self.diag.code.name)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diag.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diag
            .help
            .as_ref()
            .map(|h| Box::new(h.clone()) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = self.diag.span?;
        let own = (!self.diag.label.is_empty()).then(|| self.diag.label.clone());
        let label = |span: Span, text: Option<String>| {
            LabeledSpan::new(text, span.start as usize, span.len())
        };
        // Places in other files cannot be shown in one excerpt; they are named in the help instead.
        let near = self
            .diag
            .related
            .iter()
            .filter(move |(s, _)| s.source == main.source);
        Some(Box::new(
            std::iter::once(label(main, own))
                .chain(near.map(move |(s, t)| label(*s, Some(t.clone())))),
        ))
    }
}

/// The diagnostics as people read them.
pub(super) fn render(diags: &[Diag], sources: &Sources, coloured: bool, width: usize) -> String {
    let theme = if coloured {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
    let mut text = String::new();
    for diag in diags {
        let source = diag.span.and_then(|s| sources.get(s.source)).map(Named);
        let _ = handler.render_report(&mut text, &Shown { diag, source });
    }
    text
}

/// Prints diagnostics to standard error.
pub(super) fn report(diags: &[Diag], sources: &Sources, common: &Common) {
    let shown: Vec<Diag> = diags
        .iter()
        .filter(|d| !common.quiet || d.severity == Severity::Error)
        .cloned()
        .collect();
    let width = Screen::err(common.color).prose();
    let _ =
        std::io::stderr().write_all(render(&shown, sources, common.coloured(), width).as_bytes());
}

/// A diagnostic as in `check --json`.
pub(super) fn json(diag: &Diag, sources: &Sources) -> Json {
    let source = diag.span.and_then(|s| Some((s, sources.get(s.source)?)));
    let (line, column) = source.map_or((0, 0), |(s, text)| text.line_column(s.start as usize));
    let severity = match diag.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    json!({
        "code": format!("peftc::{}", diag.code.name), "severity": severity, "message": diag.message,
        "file": source.map(|(_, t)| t.name.clone()), "line": line, "column": column,
        "length": diag.span.map_or(0, Span::len), "label": diag.label, "help": diag.help,
    })
}
