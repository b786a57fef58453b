//! Between the editor's protocol and recipes: addresses, places, diagnostics.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lsp_types::{
    Code, Diagnostic, DiagnosticRelatedInformation, DiagnosticSeverity, Location, Position, Range,
    Uri,
};

use crate::base::{Diag, Severity, SourceId, Sources, Span};
use crate::editor::{Lines, Place};

/// The file of an address. Of a text that is in no file, a file in the working directory that bears its name.
pub(super) fn path_of(uri: &Uri) -> PathBuf {
    let text = uri.0.as_str();
    let Some(rest) = text.strip_prefix("file://") else {
        let name = text.rsplit([':', '/']).next().unwrap_or("recipe");
        return std::env::current_dir()
            .unwrap_or_default()
            .join(decoded(name));
    };
    // A host may stand before the path.
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(rest);
    PathBuf::from(decoded(path))
}

/// The address of a file.
pub(super) fn uri_of(path: &Path) -> Uri {
    let mut text = String::from("file://");
    for byte in path.to_string_lossy().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Uri(text)
}

/// A text with its `%41`s replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let code = match (byte, ahead.next(), ahead.next()) {
            (b'%', Some(high), Some(low)) => {
                let digits = [high, low];
                let digits = std::str::from_utf8(&digits).ok();
                digits.and_then(|d| u8::from_str_radix(d, 16).ok())
            }
            _ => None,
        };
        match code {
            Some(code) => {
                bytes.push(code);
                rest = ahead;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A place as the protocol has it.
pub(super) const fn position(place: Place) -> Position {
    Position {
        line: place.line,
        character: place.unit,
    }
}

/// A place as an editor's position has it.
pub(super) const fn place(position: Position) -> Place {
    Place {
        line: position.line,
        unit: position.character,
    }
}

/// A range of bytes.
pub(super) fn range(text: &str, lines: &Lines, bytes: std::ops::Range<usize>) -> Range {
    Range {
        start: position(lines.place(text, bytes.start)),
        end: position(lines.place(text, bytes.end)),
    }
}

/// The place of a span in the text of its source.
pub(super) fn range_of(sources: &Sources, span: Span) -> Range {
    let text = sources.get(span.source).map_or("", |s| s.text.as_str());
    let lines = Lines::of(text);
    range(text, &lines, span.start as usize..span.end as usize)
}

/// Where a span is. `uri` gives the address of a file.
pub(super) fn location(
    sources: &Sources,
    span: Span,
    uri: &dyn Fn(&Path) -> Uri,
) -> Option<Location> {
    let source = sources.get(span.source)?;
    Some(Location {
        uri: uri(Path::new(&source.name)),
        range: range_of(sources, span),
    })
}

/// A diagnostic of a recipe, at its place in the recipe's own text. What is wrong in an imported file stands at the
/// import, and leads there.
pub(super) fn diagnostic(
    diag: &Diag,
    sources: &Sources,
    imports: &dyn Fn(SourceId) -> Option<Span>,
    uri: &dyn Fn(&Path) -> Uri,
) -> Diagnostic {
    let mut message = diag.message.clone();
    if !diag.label.is_empty() && !diag.message.contains(&diag.label) {
        let _ = write!(message, "\n{}", diag.label);
    }
    if let Some(help) = &diag.help {
        let _ = write!(message, "\nhelp: {help}");
    }
    let mut related: Vec<(Span, String)> = diag.related.clone();
    let own = match diag.span {
        Some(span) if span.source != SourceId(0) => {
            let name = sources.get(span.source).map_or("", |s| s.name.as_str());
            message = format!("{message}\nin {name}");
            related.insert(0, (span, "here".to_owned()));
            imports(span.source)
        }
        other => other,
    };
    let related: Vec<DiagnosticRelatedInformation> = related
        .into_iter()
        .filter_map(|(span, note)| {
            Some(DiagnosticRelatedInformation {
                location: location(sources, span, uri)?,
                message: note,
            })
        })
        .collect();
    Diagnostic {
        range: own.map_or_else(Range::default, |span| range_of(sources, span)),
        severity: Some(match diag.severity {
            Severity::Error => DiagnosticSeverity::Error,
            Severity::Warning => DiagnosticSeverity::Warning,
            Severity::Note => DiagnosticSeverity::Information,
        }),
        code: Some(Code::String(format!("peftc::{}", diag.code.name))),
        source: Some("peftc".to_owned()),
        message: message.into(),
        related_information: Some(related).filter(|r| !r.is_empty()),
        ..Diagnostic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_and_back() {
        for path in ["/a/b.peft", "/with blank/ü/100%.peft", "/a/x:y+z.peft"] {
            assert_eq!(path_of(&uri_of(Path::new(path))), Path::new(path));
        }
        let read = |uri: &str| path_of(&Uri(uri.to_owned()));
        assert_eq!(read("file:///a%20b/%C3%BC.peft"), Path::new("/a b/ü.peft"));
        assert_eq!(read("file://localhost/a.peft"), Path::new("/a.peft"));
        assert_eq!(read("file:///100%"), Path::new("/100%"));
        assert!(read("untitled:Untitled-1").ends_with("Untitled-1"));
    }
}
