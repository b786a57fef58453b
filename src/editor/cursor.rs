//! What stands at a place of a text that may be broken anywhere: the words before it decide, not the tree.
//!
//! **Invariant:** it agrees with the grammar on where strings and comments end, and that a line which begins an item
//! ends all brackets before it.

use std::ops::Range;

use super::analysis::declared_by;
use crate::library::schema::{Kind, Registry, Schema};
use crate::resolve::registry;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Letters, digits and underscores.
    Word,
    /// A string; one that is not closed ends with its line.
    Text,
    Comment,
    LineEnd,
    /// Any other character.
    Sign(char),
}

/// An open bracket, and what was written in it before the cursor.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// `[`, or `{`.
    list: bool,
    /// The constructor before the brace; empty where none stands.
    pub name: String,
    /// The keys that are written in it, the last one being that of the value at the cursor if `value`.
    pub keys: Vec<String>,
    /// Whether `=` was written since the last separator.
    value: bool,
    /// The path before the brace, with its point: `attention.` of `attention.{`.
    prefix: String,
}

/// The item that the cursor is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    /// Its words before `=` or a bracket.
    pub words: Vec<String>,
    /// Whether `=` was written.
    value: bool,
    /// The constructor: `train`, `local`; of `prompt p {` the keyword.
    pub ctor: String,
    /// The string behind the constructor.
    pub arg: Option<String>,
}

/// What may stand somewhere.
#[derive(Clone, Debug)]
pub(super) enum Spot {
    /// The first word of an item.
    Keyword,
    /// The name of what is declared.
    Name,
    /// The constructor behind `model NAME =`.
    Source(String),
    /// The value of a `let`.
    Let,
    /// A key of a block; `Kind` is what takes the block.
    Key(&'static Schema),
    /// A value of a key.
    Value(&'static Schema, String, Kind),
    /// An axis of a sweep.
    Axis,
    /// A value of an axis.
    AxisValue,
    /// The string behind a constructor.
    Argument,
    /// A comment, or what nothing is known of.
    Nothing,
}

/// A place in a text, and all that leads there.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// What may stand here.
    pub spot: Spot,
    /// The word or string that the place is in or behind.
    pub word: Range<usize>,
    /// The path before the word, with its last point: `sst2.`, `attention.`.
    pub path: String,
    /// Whether it is inside of a string.
    pub quoted: bool,
    /// The item.
    pub item: Item,
    /// The open brackets, the outermost first.
    pub frames: Vec<Frame>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All pieces of a text with the bytes they cover; blanks are none.
fn tokens(text: &str) -> Vec<(Token, Range<usize>)> {
    let mut list = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let mut end = at + c.len_utf8();
        let token = match c {
            '\n' => Token::LineEnd,
            c if c.is_whitespace() || c == '\u{feff}' => continue,
            '#' => {
                while let Some((i, d)) = chars.next_if(|(_, d)| *d != '\n') {
                    end = i + d.len_utf8();
                }
                Token::Comment
            }
            '"' => {
                let mut escaped = false;
                while let Some((i, d)) = chars.next_if(|(_, d)| *d != '\n') {
                    end = i + d.len_utf8();
                    if d == '"' && !escaped {
                        break;
                    }
                    escaped = d == '\\' && !escaped;
                }
                Token::Text
            }
            c if is_word(c) => {
                while let Some((i, d)) = chars.next_if(|(_, d)| is_word(*d)) {
                    end = i + d.len_utf8();
                }
                Token::Word
            }
            c => Token::Sign(c),
        };
        list.push((token, at..end));
    }
    list
}

/// Whether an item begins here: a word in the first column, with another behind it or none yet.
fn begins_item(text: &str, at: usize, list: &[(Token, Range<usize>)], index: usize) -> bool {
    let first = at == 0 || text.get(..at).is_some_and(|b| b.ends_with('\n'));
    let word = text.get(list.get(index).map_or(0..0, |(_, r)| r.clone()));
    let next = list.get(index + 1).map(|(token, _)| token);
    let known = matches!(word, Some("import" | "let" | "peftc" | "sweep"))
        || word.is_some_and(|w| declared_by(w).is_some());
    first && (known || next == Some(&Token::Word))
}

/// Follows a text up to a place.
struct Walk<'a> {
    text: &'a str,
    item: Item,
    frames: Vec<Frame>,
    /// The path that was read last, while nothing else came behind it.
    last: String,
}

impl Walk<'_> {
    fn take(&mut self, token: &Token, range: &Range<usize>) {
        let own = self.text.get(range.clone()).unwrap_or_default();
        match token {
            Token::Word => self.word(own),
            Token::Text => {
                if self.frames.is_empty() && !self.item.ctor.is_empty() {
                    let plain = own.trim_matches('"').to_owned();
                    self.item.arg.get_or_insert(plain);
                }
            }
            Token::Comment => {}
            Token::LineEnd | Token::Sign(',') => self.separator(*token == Token::LineEnd),
            Token::Sign('=') => self.equals(),
            Token::Sign(c @ ('{' | '[')) => self.open(*c == '['),
            Token::Sign('}' | ']') => {
                self.frames.pop();
                self.last.clear();
            }
            Token::Sign(c @ ('.' | '*')) => self.last.push(*c),
            Token::Sign(_) => self.last.clear(),
        }
    }

    fn word(&mut self, own: &str) {
        if self.last.ends_with('.') {
            self.last.push_str(own);
        } else {
            own.clone_into(&mut self.last);
        }
        if self.frames.is_empty() {
            if self.item.value {
                if self.item.ctor.is_empty() {
                    own.clone_into(&mut self.item.ctor);
                }
            } else {
                self.item.words.push(own.to_owned());
            }
        }
    }

    fn separator(&mut self, line: bool) {
        self.last.clear();
        match self.frames.last_mut() {
            Some(frame) => {
                frame.value &= frame.list;
            }
            None if line => self.item = Item::default(),
            None => {}
        }
    }

    fn equals(&mut self) {
        let key = std::mem::take(&mut self.last);
        match self.frames.last_mut() {
            Some(frame) if !frame.list => {
                frame.keys.push(key);
                frame.value = true;
            }
            Some(_) => {}
            None => self.item.value = true,
        }
    }

    fn open(&mut self, list: bool) {
        let before = std::mem::take(&mut self.last);
        let path = before.ends_with('.');
        if self.frames.is_empty() && !self.item.value {
            // `prompt p {`: the keyword is the constructor.
            self.item.value = true;
            self.item.ctor = self.item.words.first().cloned().unwrap_or_default();
        }
        let ctor = self.frames.is_empty().then(|| self.item.ctor.clone());
        self.frames.push(Frame {
            list,
            name: match ctor {
                Some(ctor) => ctor,
                None if path || list => String::new(),
                None => before.clone(),
            },
            prefix: if path { before } else { String::new() },
            ..Frame::default()
        });
    }

    /// What may stand here.
    fn spot(&self) -> Spot {
        let Some(keyword) = self.item.words.first() else {
            return Spot::Keyword;
        };
        if self.frames.is_empty() {
            return match (keyword.as_str(), self.item.value) {
                ("import" | "peftc", _) => Spot::Nothing,
                ("let", true) => Spot::Let,
                (_, false) => Spot::Name,
                (_, true) => Spot::Source(keyword.clone()),
            };
        }
        if keyword == "sweep" || keyword == "let" {
            return self.undeclared(keyword == "sweep");
        }
        let schema = declared_by(keyword).and_then(|declaration| {
            let all = declaration.schemas();
            all.into_iter().find(|s| s.name == self.item.ctor)
        });
        schema.map_or(Spot::Nothing, |schema| self.inside(schema, 0))
    }

    /// In a `let` or a sweep: a bracket is known by its own name only.
    fn undeclared(&self, sweep: bool) -> Spot {
        let named = |frame: &Frame| {
            let all = registry::all();
            all.into_iter()
                .find(|s| !frame.name.is_empty() && s.name == frame.name)
        };
        let skip = usize::from(sweep);
        for (depth, frame) in self.frames.iter().enumerate().skip(skip) {
            if let Some(schema) = named(frame) {
                return self.inside(schema, depth);
            }
        }
        match self.frames.first().filter(|_| sweep) {
            Some(Frame { value: true, .. }) => Spot::AxisValue,
            Some(_) => Spot::Axis,
            None => Spot::Let,
        }
    }

    /// Within the block of a schema that the frame at `depth` opened.
    fn inside(&self, mut schema: &'static Schema, depth: usize) -> Spot {
        let mut frames = self.frames.iter().skip(depth);
        let Some(mut frame) = frames.next() else {
            return Spot::Nothing;
        };
        loop {
            if !frame.value {
                return Spot::Key(schema);
            }
            let name = frame.keys.last().cloned().unwrap_or_default();
            let Some(key) = schema.key(&name) else {
                return Spot::Nothing;
            };
            let mut kind = key.kind;
            let mut block = None;
            for inner in frames.by_ref() {
                let found = match kind {
                    Kind::Block(own) if !inner.list => Some(own),
                    Kind::Entry(of) | Kind::Entries(of) if !inner.list => of_name(of, &inner.name),
                    Kind::ByPlace(of) if !inner.list => {
                        kind = *of;
                        None
                    }
                    _ => None,
                };
                if let Some(found) = found {
                    block = Some((found, inner));
                    break;
                }
            }
            match block {
                Some((found, inner)) => (schema, frame) = (found, inner),
                None => return Spot::Value(schema, name, kind),
            }
        }
    }
}

/// An entry of a registry.
fn of_name(of: Registry, name: &str) -> Option<&'static Schema> {
    registry::schemas(of).into_iter().find(|s| s.name == name)
}

impl Cursor {
    /// The place of a byte; it belongs to the word that ends there.
    pub(super) fn at(text: &str, offset: usize) -> Self {
        let list = tokens(text);
        let mut walk = Walk {
            text,
            item: Item::default(),
            frames: Vec::new(),
            last: String::new(),
        };
        let mut here = None;
        for (index, (token, range)) in list.iter().enumerate() {
            if range.start >= offset {
                break;
            }
            if *token == Token::Word && begins_item(text, range.start, &list, index) {
                (walk.item, walk.frames) = (Item::default(), Vec::new());
                walk.last.clear();
            }
            // What the place is in, or behind without a blank, is not before it.
            let open = *token == Token::Text
                && (range.end == range.start + 1
                    || !text.get(range.clone()).is_some_and(|t| t.ends_with('"')));
            let within = match token {
                Token::Word => range.end >= offset,
                Token::Text => range.end > offset || open && range.end >= offset,
                Token::Comment => range.end >= offset,
                Token::LineEnd | Token::Sign(_) => false,
            };
            if within {
                here = Some((token, range.clone()));
                break;
            }
            walk.take(token, range);
        }
        walk.finish(here, offset)
    }
}

impl Walk<'_> {
    fn finish(self, here: Option<(&Token, Range<usize>)>, offset: usize) -> Cursor {
        let quoted = matches!(here, Some((Token::Text, _)));
        let spot = match here {
            Some((Token::Comment, _)) => Spot::Nothing,
            Some((Token::Text, _)) if self.frames.is_empty() && self.item.arg.is_none() => {
                Spot::Argument
            }
            _ => self.spot(),
        };
        let outer = self.frames.last().map_or("", |f| f.prefix.as_str());
        let path = match self.last.rfind('.') {
            Some(at) if self.last.ends_with('.') => {
                format!("{outer}{}", self.last.get(..=at).unwrap_or_default())
            }
            _ => outer.to_owned(),
        };
        Cursor {
            spot,
            word: here.map_or(offset..offset, |(_, range)| range),
            path,
            quoted,
            item: self.item,
            frames: self.frames,
        }
    }
}

/// The word or string around a byte.
pub(super) fn around(text: &str, offset: usize) -> Option<Range<usize>> {
    let list = tokens(text);
    let touches = |r: &Range<usize>| r.start <= offset && offset <= r.end;
    let is = |t: &Token| matches!(t, Token::Word | Token::Text);
    // Of two that touch the place, the one that begins there is meant.
    let mut found = list.iter().filter(|(t, r)| is(t) && touches(r));
    found.next_back().map(|(_, r)| r.clone())
}
