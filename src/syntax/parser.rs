//! From text to tree.
//!
//! Parsing goes on after a mistake: a broken entry or item is left out of the tree, parsed once
//! more on its own for its message, and everything around it survives.
//! **Invariant:** only this file and its folder name the rules of `grammar/recipe.pest`.

use pest::Parser;
use pest::iterators::Pair;

use super::ast::{
    Ctor, Decl, Entry, File, Ident, Import, IndexRange, Item, Let, Path, Segment, Value, ValueKind,
};
use super::blame::{self, Piece};
use super::{error, literal, scan};
use crate::base::{Diags, Outcome, SourceId, Span, Spanned};

/// The parser that the grammar generates. In a module of its own because generated items have no docs.
mod generated {
    #[derive(pest_derive::Parser)]
    #[grammar = "grammar/recipe.pest"]
    pub(super) struct Recipe;
}
mod words;

use generated::{Recipe, Rule};
use words::stop_of;

/// Parses a whole recipe. The tree holds all that could be read: broken items and broken entries are
/// left out, and each has an error in the outcome.
pub fn parse(text: &str, source: SourceId) -> Outcome<File> {
    let mut reader = Reader::new(text, source);
    if let Some(range) = scan::too_deep(text, error::MAX_DEPTH) {
        reader
            .diags
            .push(error::too_deep(Span::new(source, range.start, range.end)));
        return Outcome::new(None, reader.diags);
    }
    let file = match Recipe::parse(Rule::file, text) {
        Ok(mut pairs) => pairs.next().map(|pair| reader.file(pair)),
        Err(stop) => {
            let piece = Piece {
                text,
                base: 0,
                source,
            };
            reader
                .diags
                .extend(blame::explain(piece, Some(stop_of(&stop, Rule::file))));
            None
        }
    };
    Outcome::new(file, reader.diags)
}

/// Parses a single value, such as the right-hand side of `--set NAME=VALUE`.
pub fn parse_value(text: &str, source: SourceId) -> Outcome<Value> {
    let mut reader = Reader::new(text, source);
    if let Some(range) = scan::too_deep(text, error::MAX_DEPTH) {
        reader
            .diags
            .push(error::too_deep(Span::new(source, range.start, range.end)));
        return Outcome::new(None, reader.diags);
    }
    let value = match Recipe::parse(Rule::lone_value, text) {
        Ok(mut pairs) => pairs
            .next()
            .and_then(|pair| reader.value(pair.into_inner().next()?)),
        Err(stop) => {
            let piece = Piece {
                text,
                base: 0,
                source,
            };
            reader.diags.extend(blame::explain(
                piece,
                Some(stop_of(&stop, Rule::lone_value)),
            ));
            None
        }
    };
    Outcome::new(value, reader.diags)
}

/// Turns pairs into tree nodes and collects what is wrong on the way. A method gives `None` only
/// if a pair has not the shape that the grammar says, or if what it holds was reported as broken.
struct Reader<'a> {
    text: &'a str,
    source: SourceId,
    diags: Diags,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, source: SourceId) -> Self {
        Self {
            text,
            source,
            diags: Diags::default(),
        }
    }

    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        Span::new(self.source, pair.as_span().start(), pair.as_span().end())
    }

    fn ident(&self, pair: &Pair<'_, Rule>) -> Ident {
        Spanned::new(pair.as_str().to_owned(), self.span(pair))
    }

    fn file(&mut self, file: Pair<'_, Rule>) -> File {
        let mut tree = File {
            version: None,
            items: Vec::new(),
        };
        for pair in file.into_inner() {
            match pair.as_rule() {
                Rule::header => tree.version = self.header(pair),
                Rule::junk_item => self.broken(&pair, Rule::lone_item),
                _ => tree.items.extend(self.item(pair)),
            }
        }
        tree
    }

    fn header(&mut self, header: Pair<'_, Rule>) -> Option<Spanned<u64>> {
        let version = header
            .into_inner()
            .find(|pair| pair.as_rule() == Rule::version)?;
        let span = self.span(&version);
        match version.as_str().parse() {
            Ok(error::VERSION) => Some(Spanned::new(error::VERSION, span)),
            _ => {
                self.diags
                    .push(error::unsupported_version(span, version.as_str()));
                None
            }
        }
    }

    fn item(&mut self, pair: Pair<'_, Rule>) -> Option<Item> {
        let start = self.span(&pair);
        match pair.as_rule() {
            Rule::import => {
                let string = pair
                    .into_inner()
                    .find(|part| part.as_rule() == Rule::string)?;
                let path = self.string(string)?;
                let span = start.to(path.span);
                Some(Item::Import(Import { path, span }))
            }
            Rule::binding => {
                let mut parts = meaningful(pair);
                let name = self.ident(&parts.next()?);
                let value = self.value(parts.next()?)?;
                // From the parts, because a pair may include the blanks after it.
                let span = Span {
                    end: value.span.end,
                    ..start
                };
                Some(Item::Let(Let { name, value, span }))
            }
            Rule::declaration => self.declaration(pair).map(Item::Decl),
            _ => None,
        }
    }

    fn declaration(&mut self, pair: Pair<'_, Rule>) -> Option<Decl> {
        let mut parts = meaningful(pair);
        let keyword = self.ident(&parts.next()?);
        let name = self.ident(&parts.next()?);
        let right = parts.next()?;
        let body = if right.as_rule() == Rule::block {
            let span = self.span(&right);
            Ctor {
                name: keyword.clone(),
                arg: None,
                more: Vec::new(),
                entries: self.entries(right),
                span,
            }
        } else {
            self.constructor(right)?
        };
        let span = keyword.span.to(body.span);
        Some(Decl {
            keyword,
            name,
            body,
            span,
        })
    }

    fn constructor(&mut self, pair: Pair<'_, Rule>) -> Option<Ctor> {
        let mut parts = pair.into_inner();
        let name = self.ident(&parts.next()?);
        let mut ctor = Ctor {
            span: name.span,
            name,
            arg: None,
            more: Vec::new(),
            entries: Vec::new(),
        };
        for part in parts {
            let span = self.span(&part);
            ctor.span = ctor.span.to(span);
            match part.as_rule() {
                Rule::string => ctor.arg = self.string(part),
                Rule::texts => {
                    let mut texts = meaningful(part).filter_map(|text| self.string(text));
                    // The place is that of the whole list.
                    ctor.arg = texts.next().map(|text| Spanned::new(text.value, span));
                    ctor.more = texts.collect();
                }
                _ => ctor.entries = self.entries(part),
            }
        }
        Some(ctor)
    }

    /// `{ key = value }`: a constructor whose name nobody has to write.
    fn settings(&mut self, pair: Pair<'_, Rule>) -> Option<Ctor> {
        let block = meaningful(pair).next()?;
        let span = self.span(&block);
        let start = Span {
            end: span.start,
            ..span
        };
        Some(Ctor {
            name: Spanned::new(String::new(), start),
            arg: None,
            more: Vec::new(),
            entries: self.entries(block),
            span,
        })
    }

    fn entries(&mut self, block: Pair<'_, Rule>) -> Vec<Entry> {
        let mut entries = Vec::new();
        for slot in meaningful(block) {
            if slot.as_rule() == Rule::junk_entry {
                self.broken(&slot, Rule::lone_entry);
                continue;
            }
            let mut parts = meaningful(slot);
            let key = parts.next().map(|key| self.ident(&key));
            let value = parts.next().and_then(|value| self.value(value));
            entries.extend(key.zip(value).map(|(key, value)| Entry { key, value }));
        }
        entries
    }

    fn value(&mut self, pair: Pair<'_, Rule>) -> Option<Value> {
        let pair = if pair.as_rule() == Rule::value {
            pair.into_inner().next()?
        } else {
            pair
        };
        let mut span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::string => ValueKind::Str(self.string(pair)?.value),
            Rule::boolean => ValueKind::Bool(pair.as_str() == "true"),
            Rule::number => self.number(pair)?,
            Rule::list => ValueKind::List(
                meaningful(pair)
                    .filter_map(|element| self.value(element))
                    .collect(),
            ),
            Rule::map => ValueKind::Map(
                meaningful(pair)
                    .filter_map(|pair| self.pair(pair))
                    .collect(),
            ),
            Rule::path_set => ValueKind::Set(
                meaningful(pair)
                    .map(|path| self.spanned_path(path))
                    .collect(),
            ),
            Rule::settings => ValueKind::Ctor(self.settings(pair)?),
            Rule::path => ValueKind::Path(self.path(pair)),
            Rule::constructor => {
                let ctor = self.constructor(pair)?;
                span = ctor.span;
                ValueKind::Ctor(ctor)
            }
            _ => return None,
        };
        Some(Spanned::new(kind, span))
    }

    fn string(&mut self, pair: Pair<'_, Rule>) -> Option<Spanned<String>> {
        let span = self.span(&pair);
        let body = pair.into_inner().next()?;
        let text = literal::unescape(
            body.as_str(),
            body.as_span().start(),
            self.source,
            &mut self.diags,
        );
        Some(Spanned::new(text, span))
    }

    fn number(&mut self, pair: Pair<'_, Rule>) -> Option<ValueKind> {
        let mut parts = pair.into_inner();
        let digits = self.digits(&parts.next()?);
        let unit = parts.next().map(|unit| unit.as_str().to_owned());
        Some(ValueKind::Number { digits, unit })
    }

    /// The digits without underscores; reported when no number type could hold them.
    fn digits(&mut self, numeral: &Pair<'_, Rule>) -> String {
        let digits: String = numeral.as_str().chars().filter(|c| *c != '_').collect();
        if !literal::fits(&digits) {
            self.diags.push(error::number_out_of_range(
                self.span(numeral),
                numeral.as_str(),
            ));
        }
        digits
    }

    fn pair(&mut self, pair: Pair<'_, Rule>) -> Option<(Spanned<String>, Value)> {
        let mut parts = meaningful(pair);
        let written = parts.next()?.into_inner().next()?;
        let key = match written.as_rule() {
            Rule::string => self.string(written)?,
            Rule::numeral => Spanned::new(self.digits(&written), self.span(&written)),
            _ => self.ident(&written),
        };
        Some((key, self.value(parts.next()?)?))
    }

    fn spanned_path(&mut self, pair: Pair<'_, Rule>) -> Spanned<Path> {
        let span = self.span(&pair);
        Spanned::new(self.path(pair), span)
    }

    fn path(&mut self, pair: Pair<'_, Rule>) -> Path {
        let mut segments = Vec::new();
        for part in pair.into_inner() {
            segments.push(match part.as_rule() {
                Rule::star => Segment::Star,
                Rule::alternatives => {
                    Segment::Set(meaningful(part).map(|path| self.path(path)).collect())
                }
                _ => self.segment(part),
            });
        }
        Path { segments }
    }

    fn segment(&mut self, pair: Pair<'_, Rule>) -> Segment {
        let mut name = String::new();
        let mut range = None;
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::index => {
                    range = meaningful(part)
                        .next()
                        .and_then(|inside| self.range(inside))
                }
                _ => part.as_str().clone_into(&mut name),
            }
        }
        Segment::Name(name, range)
    }

    fn range(&mut self, pair: Pair<'_, Rule>) -> Option<IndexRange> {
        if pair.as_rule() == Rule::integer {
            return Some(IndexRange {
                start: self.integer(&pair),
                end: None,
                single: true,
            });
        }
        let mut range = IndexRange {
            start: None,
            end: None,
            single: false,
        };
        for end in pair.into_inner() {
            let first = end.as_rule() == Rule::first;
            let number = end
                .into_inner()
                .next()
                .and_then(|integer| self.integer(&integer));
            *(if first {
                &mut range.start
            } else {
                &mut range.end
            }) = number;
        }
        Some(range)
    }

    fn integer(&mut self, pair: &Pair<'_, Rule>) -> Option<i64> {
        let digits: String = pair.as_str().chars().filter(|c| *c != '_').collect();
        let number = digits.parse().ok();
        if number.is_none() {
            self.diags
                .push(error::number_out_of_range(self.span(pair), pair.as_str()));
        }
        number
    }

    /// Reports what is wrong with a piece that recovery skipped, by parsing it on its own.
    fn broken(&mut self, junk: &Pair<'_, Rule>, rule: Rule) {
        let base = junk.as_span().start();
        let text = self
            .text
            .get(base..junk.as_span().end())
            .unwrap_or_default();
        let piece = Piece {
            text,
            base,
            source: self.source,
        };
        match Recipe::parse(rule, text) {
            Err(stop) => self
                .diags
                .extend(blame::explain(piece, Some(stop_of(&stop, rule)))),
            Ok(pairs) => match pairs.flatten().find(|pair| pair.as_rule() == Rule::header) {
                Some(header) => {
                    let span =
                        Span::new(self.source, base, base + header.as_str().trim_end().len());
                    self.diags.push(error::misplaced_header(span));
                }
                None => self.diags.extend(blame::explain(piece, None)),
            },
        }
    }
}

/// The pairs inside `pair` without punctuation.
fn meaningful(pair: Pair<'_, Rule>) -> impl Iterator<Item = Pair<'_, Rule>> {
    pair.into_inner()
        .filter(|pair| !is_punctuation(pair.as_rule()))
}

const fn is_punctuation(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::equals
            | Rule::colon
            | Rule::close_brace
            | Rule::close_bracket
            | Rule::separator
            | Rule::inner_break
            | Rule::line_end
            | Rule::slot_end
            | Rule::kw_peftc
            | Rule::kw_import
            | Rule::kw_let
            | Rule::EOI
    )
}

#[cfg(test)]
mod tests;
