//! The one way to lay out a recipe.
//!
//! **Invariant:** the result has the same tree and the same comments, and formatting it again
//! changes nothing. Only texts without syntax errors are formatted, so nothing can get lost.

use super::ast::{Ctor, Entry, File, Item, Value, ValueKind};
use super::parser::parse;
use super::scan::{self, Mark};
use crate::base::{Diags, SourceId, Span};
use inline::{inline_brackets, map_line, scalar};

mod inline;

/// Lines are at most this long where there is a choice.
const WIDTH: usize = 100;
/// Blanks for each level.
const INDENT: usize = 2;

/// The text in its canonical layout: two blanks per level, one entry or element per line unless the
/// brackets were written on one line and fit there, at most one blank line in a row, and one
/// between items of different kinds. A text that does not parse is not touched.
pub fn format(text: &str, source: SourceId) -> Result<String, Diags> {
    let (file, _) = parse(text, source).ok()?;
    let comments = scan::marks(text)
        .into_iter()
        .filter(|(mark, _)| *mark == Mark::Comment)
        .map(|(_, range)| Comment {
            start: range.start,
            end: range.end,
        })
        .collect();
    let mut printer = Printer {
        text,
        comments,
        next: 0,
        out: String::with_capacity(text.len()),
        last: 0,
    };
    printer.file(&file);
    Ok(printer.out)
}

#[derive(Clone, Copy)]
struct Comment {
    start: usize,
    end: usize,
}

/// Whether a blank line may, must or must not stand before a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// None: the line is the first inside its brackets.
    Never,
    /// One, if one was written.
    AsWritten,
    /// One: another kind of item follows.
    Always,
}

/// What stands on the lines between a pair of brackets.
enum Line<'a> {
    Entry(&'a Entry),
    Element(&'a Value),
    /// Text that is never broken, or the key of a pair; then the value after it.
    Text(String, Span, Option<&'a Value>),
}

struct Printer<'a> {
    text: &'a str,
    comments: Vec<Comment>,
    /// The first comment that is not printed yet.
    next: usize,
    out: String,
    /// Where the source text ends that has been printed so far.
    last: usize,
}

impl Printer<'_> {
    fn file(&mut self, file: &File) {
        let mut previous: Option<&str> = None;
        if let Some(version) = &file.version {
            self.before(keyword_start(self.text, version.span), 0, Gap::Never);
            self.out.push_str(&format!("peftc {}", version.value));
            self.after(version.span.end as usize);
            previous = Some("peftc");
        }
        for item in &file.items {
            let (kind, span) = kind_of(item);
            let gap = match previous {
                None => Gap::Never,
                Some(before) if before == kind => Gap::AsWritten,
                Some(_) => Gap::Always,
            };
            self.before(span.start as usize, 0, gap);
            self.item(item);
            self.after(span.end as usize);
            previous = Some(kind);
        }
        let gap = if self.out.is_empty() {
            Gap::Never
        } else {
            Gap::AsWritten
        };
        self.comments_before(self.text.len(), 0, gap);
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Import(import) => {
                self.out.push_str("import ");
                self.copy(import.path.span);
            }
            Item::Let(binding) => {
                self.out.push_str(&format!("let {} = ", binding.name));
                self.value(&binding.value, 0);
            }
            Item::Decl(decl) => {
                self.out
                    .push_str(&format!("{} {} ", decl.keyword, decl.name));
                if decl.body.name.span == decl.keyword.span {
                    self.block(&decl.body, decl.body.span, 0);
                } else {
                    self.out.push_str("= ");
                    self.ctor(&decl.body, 0);
                }
            }
        }
    }

    fn ctor(&mut self, ctor: &Ctor, depth: usize) {
        self.out.push_str(&ctor.name.value);
        if let Some(arg) = arg_text(self.text, ctor) {
            self.out.push(' ');
            self.out.push_str(&arg);
        }
        if let Some(span) = block_span(self.text, ctor) {
            if !ctor.name.value.is_empty() {
                self.out.push(' ');
            }
            self.block(ctor, span, depth);
        }
    }

    fn block(&mut self, ctor: &Ctor, span: Span, depth: usize) {
        self.brackets(
            '{',
            span,
            ctor.entries.iter().map(Line::Entry).collect(),
            depth,
        );
    }

    fn value(&mut self, value: &Value, depth: usize) {
        match &value.value {
            ValueKind::Ctor(ctor) => self.ctor(ctor, depth),
            ValueKind::List(list) => {
                self.brackets(
                    '[',
                    value.span,
                    list.iter().map(Line::Element).collect(),
                    depth,
                );
            }
            ValueKind::Map(pairs) => {
                let lines = pairs
                    .iter()
                    .map(|(key, value)| map_line(self.text, key, value))
                    .collect();
                self.brackets('{', value.span, lines, depth);
            }
            ValueKind::Set(paths) => {
                let lines = paths
                    .iter()
                    .map(|path| Line::Text(path.value.to_string(), path.span, None))
                    .collect();
                self.brackets('{', value.span, lines, depth);
            }
            ValueKind::Number { .. }
            | ValueKind::Str(_)
            | ValueKind::Bool(_)
            | ValueKind::Path(_) => {
                self.out.push_str(&scalar(self.text, value));
            }
        }
    }

    /// Brackets and what is between them, on one line if they were written so and fit.
    fn brackets(&mut self, open: char, span: Span, lines: Vec<Line<'_>>, depth: usize) {
        let start = span.start as usize;
        let end = span.end as usize;
        if !slice(self.text, span).contains('\n') {
            let inline = inline_brackets(self.text, open, &lines);
            if lines.is_empty() || self.column() + inline.chars().count() <= WIDTH {
                self.out.push_str(&inline);
                self.last = end;
                return;
            }
        }
        let open_at = start
            + self
                .text
                .get(start..)
                .and_then(|rest| rest.find(open))
                .unwrap_or(0);
        self.out.push(open);
        let bare = lines.is_empty()
            && self
                .comments
                .get(self.next)
                .is_none_or(|comment| comment.start >= end);
        if !bare {
            self.after(open_at + 1);
            self.lines(lines, depth + 1);
            self.comments_before(end - 1, (depth + 1) * INDENT, Gap::AsWritten);
            self.indent(depth * INDENT);
        }
        self.out.push(scan::closer(open));
        self.last = end;
    }

    fn lines(&mut self, lines: Vec<Line<'_>>, depth: usize) {
        let mut gap = Gap::Never;
        for line in lines {
            let span = line.span();
            self.before(span.start as usize, depth * INDENT, gap);
            match line {
                Line::Entry(entry) => {
                    self.out.push_str(&format!("{} = ", entry.key));
                    self.value(&entry.value, depth);
                }
                Line::Element(value) => self.value(value, depth),
                Line::Text(text, _, value) => {
                    self.out.push_str(&text);
                    if let Some(value) = value {
                        self.value(value, depth);
                    }
                }
            }
            self.after(span.end as usize);
            gap = Gap::AsWritten;
        }
    }

    /// Comments and blank line before something that starts at `start`, then its indentation.
    fn before(&mut self, start: usize, indent: usize, gap: Gap) {
        let printed = self.next;
        self.comments_before(start, indent, gap);
        let gap = match gap {
            // The blank line stands before the comments, and after them only if one was written there.
            _ if self.next > printed => Gap::AsWritten,
            gap => gap,
        };
        self.blank_line(start, gap);
        self.indent(indent);
    }

    /// Comments that start before `end`, each on its own line.
    fn comments_before(&mut self, end: usize, indent: usize, gap: Gap) {
        let mut gap = gap;
        while let Some(comment) = self
            .comments
            .get(self.next)
            .copied()
            .filter(|comment| comment.start < end)
        {
            self.blank_line(comment.start, gap);
            self.indent(indent);
            self.comment(comment);
            self.out.push('\n');
            gap = Gap::AsWritten;
        }
    }

    /// A comment on the line of what ends at `end`, then the end of the line.
    fn after(&mut self, end: usize) {
        self.last = end;
        if let Some(comment) = self.comments.get(self.next).copied() {
            let between = self.text.get(end..comment.start).unwrap_or("\n");
            // What is on the line between the two is a comma, or the next entry: then it belongs there.
            if between
                .chars()
                .all(|c| c.is_whitespace() && c != '\n' || c == ',' || c == '\u{FEFF}')
            {
                self.out.push_str("  ");
                self.comment(comment);
            }
        }
        self.out.push('\n');
    }

    fn comment(&mut self, comment: Comment) {
        self.out.push_str(
            self.text
                .get(comment.start..comment.end)
                .unwrap_or_default()
                .trim_end(),
        );
        self.last = comment.end;
        self.next += 1;
    }

    /// A blank line, if there is to be one between what was printed last and `start`.
    fn blank_line(&mut self, start: usize, gap: Gap) {
        let breaks = self
            .text
            .get(self.last..start)
            .unwrap_or_default()
            .matches('\n')
            .count();
        if gap == Gap::Always || gap == Gap::AsWritten && breaks > 1 {
            self.out.push('\n');
        }
    }

    fn indent(&mut self, blanks: usize) {
        self.out.extend(std::iter::repeat_n(' ', blanks));
    }

    fn column(&self) -> usize {
        self.out.chars().rev().take_while(|c| *c != '\n').count()
    }

    fn copy(&mut self, span: Span) {
        self.out.push_str(slice(self.text, span));
    }
}

impl Line<'_> {
    fn span(&self) -> Span {
        match self {
            Self::Entry(entry) => entry.key.span.to(entry.value.span),
            Self::Element(value) => value.span,
            Self::Text(_, span, value) => value.map_or(*span, |value| span.to(value.span)),
        }
    }
}

/// The string after a constructor's name, or its list of strings, as written.
fn arg_text(text: &str, ctor: &Ctor) -> Option<String> {
    let arg = ctor.arg.as_ref()?;
    let written = slice(text, arg.span);
    let Some(list) = written.strip_prefix('[') else {
        return Some(written.to_owned());
    };
    // Between the brackets are strings, commas and blanks; a string ends with the first quote that is not escaped.
    let (mut strings, mut open, mut escaped) = (Vec::new(), None, false);
    for (at, c) in list.char_indices() {
        match (open, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(start), '"') => {
                strings.extend(list.get(start..=at));
                open = None;
            }
            (None, '"') => open = Some(at),
            _ => {}
        }
    }
    Some(format!("[{}]", strings.join(", ")))
}

/// Where the braces of a constructor are, if it has any.
fn block_span(text: &str, ctor: &Ctor) -> Option<Span> {
    let start = ctor
        .arg
        .as_ref()
        .map_or(ctor.name.span.end, |arg| arg.span.end);
    let span = Span { start, ..ctor.span };
    slice(text, span).ends_with('}').then_some(span)
}

/// `peftc` stands before the version on the same line.
fn keyword_start(text: &str, version: Span) -> usize {
    text.get(..version.start as usize)
        .and_then(|before| before.rfind("peftc"))
        .unwrap_or_default()
}

fn kind_of(item: &Item) -> (&str, Span) {
    match item {
        Item::Import(import) => ("import", import.span),
        Item::Let(binding) => ("let", binding.span),
        Item::Decl(decl) => (&decl.keyword.value, decl.span),
    }
}

fn slice(text: &str, span: Span) -> &str {
    text.get(span.start as usize..span.end as usize)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        let once = format(text, SourceId(0)).unwrap_or_else(|diags| panic!("{text}\n{diags:#?}"));
        let twice = format(&once, SourceId(0)).unwrap_or_else(|diags| panic!("{once}\n{diags:#?}"));
        assert_eq!(once, twice, "formatting again changed something");
        once
    }

    #[test]
    fn blocks_on_several_lines_get_one_entry_per_line() {
        let text = "stage warm=mezo{\n model   = roberta, data = sst2.train\n\n\n  steps=48_000 , lr = 1e-6 # c\n}";
        let want = "stage warm = mezo {\n  model = roberta\n  data = sst2.train\n\n  steps = 48_000\n  lr = 1e-6  # c\n}\n";
        assert_eq!(formatted(text), want);
    }

    #[test]
    fn what_was_written_on_one_line_and_fits_stays_there() {
        let text = "stage s = eval {from=ladder,metrics=[accuracy,f1],}\n";
        assert_eq!(
            formatted(text),
            "stage s = eval { from = ladder, metrics = [accuracy, f1] }\n"
        );
        let long = format!("let x = [{}]\n", ["abcdefghi"; 12].join(", "));
        assert_eq!(
            formatted(&long),
            format!("let x = [\n{}]\n", "  abcdefghi\n".repeat(12))
        );
    }

    #[test]
    fn comments_stay_where_they_are() {
        let text = "# top\n\npeftc 1 # v\nlet a = [ # open\n  1, # one\n  # own\n\n\n  # last\n]\n# tail\n\n\n# end";
        let want = "# top\n\npeftc 1  # v\n\nlet a = [  # open\n  1  # one\n  # own\n\n  # last\n]\n# tail\n\n# end\n";
        assert_eq!(formatted(text), want);
        assert_eq!(
            formatted("prompt p {\n # only\n}"),
            "prompt p {\n  # only\n}\n"
        );
    }

    #[test]
    fn items_of_different_kinds_have_one_blank_line_between() {
        let text =
            "import \"a\"\nimport \"b\"\n# about x\nlet x = 1\n\n\n\nlet y = 2\nstage s = t {}\n";
        let want =
            "import \"a\"\nimport \"b\"\n\n# about x\nlet x = 1\n\nlet y = 2\n\nstage s = t {}\n";
        assert_eq!(formatted(text), want);
    }

    #[test]
    fn values_keep_their_spelling() {
        let text = "let v = { 0 : \"a\\u{41}\", k_1: [ 5epochs, 8 GiB, 12 %, 1_000, true ], \"s\": l { } }\n";
        let want =
            "let v = { 0: \"a\\u{41}\", k_1: [5 epochs, 8GiB, 12%, 1_000, true], \"s\": l {} }\n";
        assert_eq!(formatted(text), want);
        assert_eq!(
            formatted("let p = a.{b,c}\nlet q = {a[ 1 .. ],b}"),
            "let p = a.{b, c}\nlet q = { a[1..], b }\n"
        );
        assert_eq!(
            formatted("model m = local \"dir\" { }\nmodel n = local \"d\""),
            "model m = local \"dir\" {}\nmodel n = local \"d\"\n"
        );
        assert_eq!(
            formatted("let v = {\n 0: l {\n x = 1 }\n}"),
            "let v = {\n  0: l {\n    x = 1\n  }\n}\n"
        );
        assert_eq!(
            formatted(
                "data d = local [ \"a,\\\"b\",\"c\" , ] {split={dev=10 %,seed=1}}\nlet s = {\n dev=10%\n}"
            ),
            "data d = local [\"a,\\\"b\", \"c\"] { split = { dev = 10%, seed = 1 } }\n\nlet s = {\n  dev = 10%\n}\n"
        );
        assert_eq!(formatted(""), "");
    }

    #[test]
    fn broken_texts_are_not_touched() {
        assert!(format("let a =\n", SourceId(0)).is_err());
    }
}
