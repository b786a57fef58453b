//! Diagnostics for people (miette) and programs (JSON).

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, SourceCode, SourceSpan,
    SpanContents,
};
use serde_json::{Value as Json, json};

use super::options::Common;
use super::output;
use super::screen::Screen;
use crate::base::units::Count;
use crate::base::{Diag, Severity, Source, SourceId, Sources, Span, visible};

/// A diagnostic with its text attached, as miette wants it.
struct Shown<'a> {
    diag: &'a Diag,
    source: Option<&'a Text>,
}

/// A source as it may be shown: what would act on a terminal stands there as an escape.
struct Text {
    id: SourceId,
    name: String,
    text: String,
    /// Where the shown text goes on after each change, by the place in the source.
    shifts: Vec<(usize, usize)>,
}

impl Text {
    fn new(id: SourceId, source: &Source) -> Self {
        let mut text = String::with_capacity(source.text.len());
        let mut shifts = Vec::new();
        let mut chars = source.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                // The ends of lines on Windows.
                '\r' if chars.peek().is_some_and(|(_, next)| *next == '\n') => {}
                c if visible::acts(c) && !matches!(c, '\n' | '\t') => visible::push(&mut text, c),
                c => {
                    text.push(c);
                    continue;
                }
            }
            shifts.push((at + c.len_utf8(), text.len()));
        }
        Self {
            id,
            name: visible::line(&source.name).into_owned(),
            text,
            shifts,
        }
    }

    /// The place in the shown text of one in the source.
    fn at(&self, offset: usize) -> usize {
        let before = self.shifts.partition_point(|(from, _)| *from <= offset);
        let (from, to) = before
            .checked_sub(1)
            .and_then(|i| self.shifts.get(i).copied())
            .unwrap_or_default();
        to + (offset - from)
    }
}

impl SourceCode for Text {
    fn read_span<'s>(
        &'s self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'s> + 's>, MietteError> {
        let inner = self.text.as_str().read_span(span, before, after)?;
        let data = miette::MietteSpanContents::new_named(
            self.name.clone(),
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
        f.write_str(&visible::line(&self.diag.message))
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
        let help = self.diag.help.as_ref()?;
        Some(Box::new(visible::line(help)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let main = self.diag.span?;
        let own = Some(&self.diag.label).filter(|l| !l.is_empty());
        let source = self.source;
        let label = move |span: Span, text: Option<&String>| {
            let (start, end) = (span.start as usize, span.start as usize + span.len());
            let place = |offset| source.map_or(offset, |s| s.at(offset));
            let text = text.map(|t| visible::line(t).into_owned());
            LabeledSpan::new(text, place(start), place(end) - place(start))
        };
        // Places in other files cannot be shown in one excerpt; they are named in the help instead.
        let near = self
            .diag
            .related
            .iter()
            .filter(move |(s, _)| s.source == main.source);
        Some(Box::new(
            std::iter::once(label(main, own)).chain(near.map(move |(s, t)| label(*s, Some(t)))),
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
    let mut texts: Vec<Text> = Vec::new();
    for id in diags.iter().filter_map(|d| Some(d.span?.source)) {
        if let Some(source) = sources.get(id).filter(|_| texts.iter().all(|t| t.id != id)) {
            texts.push(Text::new(id, source));
        }
    }
    for diag in diags {
        let source = diag
            .span
            .and_then(|s| texts.iter().find(|t| t.id == s.source));
        let _ = handler.render_report(&mut text, &Shown { diag, source });
    }
    text
}

/// Most diagnostics that are shown to people; programs get all of them.
const MOST_SHOWN: usize = 200;

/// Prints diagnostics to standard error.
pub(super) fn report(diags: &[Diag], sources: &Sources, common: &Common) {
    let shown: Vec<Diag> = diags
        .iter()
        .filter(|d| !common.quiet || d.severity == Severity::Error)
        .cloned()
        .collect();
    let width = Screen::err(common.color).prose();
    let first = shown.get(..MOST_SHOWN).unwrap_or(&shown);
    let mut text = render(first, sources, common.coloured(), width);
    let more = shown.len() - first.len();
    if more > 0 {
        text.push_str(&format!(
            "{} more like these are not shown; `check --json` prints all\n",
            Count(more as u64)
        ));
    }
    output::note(&text);
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
