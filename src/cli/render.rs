//! Diagnostics for people (miette) and programs (JSON).

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, SourceCode, SourceSpan,
    SpanContents,
};
use serde_json::{Value as Json, json};

use unicode_width::UnicodeWidthStr as _;

use super::options::Common;
use super::output;
use super::screen::Screen;
use crate::base::units::Count;
use crate::base::{Diag, Severity, Source, SourceId, Sources, Span, visible};

use excerpt::{Cropped, LEFT_OUT, Mark, Shifted, crop};

mod excerpt;

/// A diagnostic with its text attached, as miette wants it.
struct Shown<'a> {
    diag: &'a Diag,
    excerpt: Option<Excerpt<'a>>,
}

/// What is shown of a source, and the places in it.
struct Excerpt<'a> {
    text: &'a Text,
    /// Where its lines are too long for the terminal.
    cropped: Option<Cropped>,
    labels: Vec<(Mark, Option<String>)>,
}

/// A source as it may be shown: what would act on a terminal stands there as an escape.
struct Text {
    id: SourceId,
    name: String,
    shown: Shifted,
}

impl Text {
    fn new(id: SourceId, source: &Source) -> Self {
        let mut shown = Shifted::default();
        let mut chars = source.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                // The ends of lines on Windows.
                '\r' if chars.peek().is_some_and(|(_, next)| *next == '\n') => {}
                c if visible::acts(c) && !matches!(c, '\n' | '\t') => {
                    visible::push(&mut shown.text, c);
                }
                c => {
                    shown.text.push(c);
                    continue;
                }
            }
            shown.shifts.push((at + c.len_utf8(), shown.text.len()));
        }
        Self {
            id,
            name: visible::line(&source.name).into_owned(),
            shown,
        }
    }
}

impl<'a> Excerpt<'a> {
    /// That of a diagnostic, on a terminal of so many columns.
    fn new(diag: &Diag, text: &'a Text, columns: Option<usize>) -> Option<Self> {
        let main = diag.span?;
        let label = |span: Span, said: Option<&String>| {
            let said = said.map(|t| visible::line(t).into_owned());
            let start = text.shown.at(span.start as usize);
            let mark = Mark {
                start,
                end: text.shown.at(span.start as usize + span.len()).max(start),
                label: said.as_ref().map_or(0, |said| said.width()),
            };
            (mark, said)
        };
        // Places in other files cannot be shown in one excerpt; they are named in the help instead.
        let near = diag.related.iter().filter(|(s, _)| s.source == main.source);
        let own = Some(&diag.label).filter(|l| !l.is_empty());
        let labels: Vec<_> = std::iter::once(label(main, own))
            .chain(near.map(|(s, t)| label(*s, Some(t))))
            .collect();
        let marks: Vec<Mark> = labels.iter().map(|(mark, _)| *mark).collect();
        Some(Self {
            text,
            cropped: columns.and_then(|columns| crop(&text.shown.text, &marks, columns)),
            labels,
        })
    }
}

impl SourceCode for Excerpt<'_> {
    fn read_span<'s>(
        &'s self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'s> + 's>, MietteError> {
        let cropped = self.cropped.as_ref();
        let shown = cropped.map_or(&self.text.shown, |c| &c.shown);
        let inner = shown.text.as_str().read_span(span, before, after)?;
        // Columns are counted in bytes, and those of the file.
        let mut dropped = cropped.into_iter().flat_map(|c| &c.dropped);
        let dropped = dropped.find(|(line, _)| *line == inner.line() && inner.column() > 0);
        let column = dropped.map_or(inner.column(), |(_, n)| {
            (inner.column() + n).saturating_sub(LEFT_OUT.len_utf8())
        });
        let data = miette::MietteSpanContents::new_named(
            self.text.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            column,
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
        self.excerpt.as_ref().map(|e| e as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let excerpt = self.excerpt.as_ref()?;
        let places = excerpt.labels.iter().enumerate();
        Some(Box::new(places.map(|(i, (mark, said))| {
            let cropped = excerpt.cropped.as_ref();
            let mark = cropped.and_then(|c| c.marks.get(i)).unwrap_or(mark);
            LabeledSpan::new(said.clone(), mark.start, mark.end - mark.start)
        })))
    }
}

/// The diagnostics as people read them on a screen.
pub(super) fn render(diags: &[Diag], sources: &Sources, screen: Screen) -> String {
    let theme = if screen.colour() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(screen.prose());
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
        let excerpt = source.and_then(|text| Excerpt::new(diag, text, screen.width));
        let _ = handler.render_report(&mut text, &Shown { diag, excerpt });
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
    let first = shown.get(..MOST_SHOWN).unwrap_or(&shown);
    let mut text = render(first, sources, Screen::err(common.color));
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
