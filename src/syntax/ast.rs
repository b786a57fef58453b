//! The tree as written: names and literals with their spans, comments kept.
//!
//! **Invariant:** nothing here is checked beyond the grammar; meaning belongs to `resolve`.

use crate::base::{Span, Spanned};

/// A name as written.
pub type Ident = Spanned<String>;

/// A whole file.
#[derive(Clone, Debug)]
pub struct File {
    /// `peftc 1`: the language version, first line of the file, if given.
    pub version: Option<Spanned<u64>>,
    /// The items in order; broken ones are left out (their errors are in the outcome).
    pub items: Vec<Item>,
}

/// A top-level item.
#[derive(Clone, Debug)]
pub enum Item {
    /// `import "other.peft"`
    Import(Import),
    /// `let NAME = VALUE`
    Let(Let),
    /// `model|data|prompt|stage|… NAME = CTOR` or `prompt NAME { … }`
    Decl(Decl),
}

/// `import "other.peft"`
#[derive(Clone, Debug)]
pub struct Import {
    /// The path, relative to the importing file.
    pub path: Spanned<String>,
    /// The whole item.
    pub span: Span,
}

/// `let NAME = VALUE`
#[derive(Clone, Debug)]
pub struct Let {
    /// The name.
    pub name: Ident,
    /// The value.
    pub value: Value,
    /// The whole item.
    pub span: Span,
}

/// A declaration: `stage ladder = train { … }`.
#[derive(Clone, Debug)]
pub struct Decl {
    /// `model`, `data`, `prompt`, `stage`: not checked here.
    pub keyword: Ident,
    /// The declared name.
    pub name: Ident,
    /// The right-hand side. `prompt p { … }` has a constructor named like the keyword.
    pub body: Ctor,
    /// The whole item.
    pub span: Span,
}

/// A constructor: `train { … }`, `hub "org/name" { … }`, `k_lst { … }`, `local "dir"`.
#[derive(Clone, Debug)]
pub struct Ctor {
    /// The constructor's name; empty where entries stand alone: `split = { dev = 10% }`.
    pub name: Ident,
    /// The string after the name, if any; of several in a list the first, with the place of the list.
    pub arg: Option<Spanned<String>>,
    /// The other strings of a list.
    pub more: Vec<Spanned<String>>,
    /// The entries between braces; empty when there are none.
    pub entries: Vec<Entry>,
    /// The whole constructor.
    pub span: Span,
}

/// `key = value`
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Ident,
    /// The value.
    pub value: Value,
}

/// A value with its place.
pub type Value = Spanned<ValueKind>;

/// A value as written.
#[derive(Clone, Debug)]
pub enum ValueKind {
    /// `48_000`, `2e-4`, `12%`, `8GiB`, `5 epochs`: the number's text without underscores, and the unit.
    Number {
        /// The digits, sign, point and exponent, underscores removed.
        digits: String,
        /// The unit as written (`%`, `GiB`, `epochs`, …).
        unit: Option<String>,
    },
    /// `"text"`, escapes resolved.
    Str(String),
    /// `true`, `false`
    Bool(bool),
    /// `sst2.train`, `attention.{key, query}`, `layers[12..24].ffn.up`, `classify`, `linear`, `none`
    Path(Path),
    /// `lora { rank = 4 }`; a bare name without braces is a [`ValueKind::Path`].
    Ctor(Ctor),
    /// `[a, b]`
    List(Vec<Value>),
    /// `{ 0: "terrible", 1: "great" }`: keys are names, strings or numbers as text.
    Map(Vec<(Spanned<String>, Value)>),
    /// `{ attention.query, ffn.up }`: a set of paths.
    Set(Vec<Spanned<Path>>),
}

/// A dotted path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its segments.
    pub segments: Vec<Segment>,
}

/// A segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `attention`, or with a range `layers[3]`, `layers[12..24]`, `layers[..4]`
    Name(String, Option<IndexRange>),
    /// `*`
    Star,
    /// `{key, query}`: alternatives, each a path.
    Set(Vec<Path>),
}

/// `[a]`, `[a..b]`, `[..b]`, `[a..]`; negative numbers count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    /// First index.
    pub start: Option<i64>,
    /// One past the last index; for `[a]` it is `None` with `single` set.
    pub end: Option<i64>,
    /// `[a]`
    pub single: bool,
}

impl Path {
    /// The one plain name this path consists of, if so.
    #[must_use]
    pub fn as_name(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [Segment::Name(name, None)] => Some(name),
            _ => None,
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match segment {
                Segment::Name(name, None) => f.write_str(name)?,
                Segment::Name(name, Some(range)) => {
                    let end = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
                    if range.single {
                        write!(f, "{name}[{}]", end(range.start))?;
                    } else {
                        write!(f, "{name}[{}..{}]", end(range.start), end(range.end))?;
                    }
                }
                Segment::Star => f.write_str("*")?,
                Segment::Set(paths) => {
                    let list: Vec<String> = paths.iter().map(ToString::to_string).collect();
                    write!(f, "{{{}}}", list.join(", "))?;
                }
            }
        }
        Ok(())
    }
}
