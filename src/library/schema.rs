//! Schemas: the keys of a block, with types, units, defaults and bounds, declared once beside the
//! thing they configure. The resolver checks recipes against them, `peftc explain` prints them.

use indexmap::IndexMap;

use super::placement::{Pattern, Placement};

mod print;
mod typed;

pub use typed::{ByPlace, Given, Maybe, Of, Reference, Words, kind};

/// What a named thing of a registry is.
#[derive(Debug)]
pub struct Schema {
    /// The name written in recipes.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// A paragraph or two: formula, when to use, caveats.
    pub doc: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl PartialEq for Schema {
    /// Schemas are declared once each.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// One key of a block.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it is when not written.
    pub default: Default,
    /// One line.
    pub doc: &'static str,
    /// The default as code has it, where it is a number, a truth value or a name.
    pub fallback: Option<Fallback>,
}

/// A default as code has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fallback {
    /// A whole number.
    Int(u64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A name.
    Str(&'static str),
}

/// Registries whose entries can be values (`adapter = lora { … }`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registry {
    /// Adaptation methods.
    Method,
    /// Learning-rate schedules.
    Schedule,
    /// Optimizers.
    Optimizer,
    /// Metrics.
    Metric,
    /// Objectives.
    Objective,
    /// Stage kinds.
    Stage,
    /// Model architectures.
    Model,
    /// Model and data sources (`hub`, `local`).
    Source,
    /// What side networks begin with.
    Start,
    /// What models and adapters are exported as.
    Export,
}

/// Declarations a key can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefKind {
    /// `model NAME = …`
    Model,
    /// `data NAME = …`, with a split: `sst2.train`
    Split,
    /// `prompt NAME { … }`, or a stage that chooses one
    Prompt,
    /// `stage NAME = …`
    Stage,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number within bounds (inclusive).
    Int(u64, u64),
    /// A whole number of examples within bounds, or of tokens: `8_192 tokens`.
    Batch(u64, u64),
    /// A number within bounds; the flags say whether each end belongs to it.
    Float(Bound, Bound),
    /// `true` or `false`.
    Bool,
    /// A string.
    Str,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// A size in bytes: `6GiB`.
    Size,
    /// A length of training: `5 epochs`, `300 steps`; a bare number takes the key's own unit.
    Length,
    /// A part of the training: `12%`, or `300 steps`.
    Portion,
    /// A reference to a declaration.
    Ref(RefKind),
    /// Where a method acts.
    Placement,
    /// A constructor of a registry: `lora { rank = 4 }`.
    Entry(Registry),
    /// A list of such.
    Entries(Registry),
    /// A string or a list of strings.
    Texts,
    /// A list of strings or bare names.
    Names,
    /// A list of whole numbers from 0, kept as texts.
    Numbers,
    /// One name or a list of them; a column name may be a string or a bare name.
    Columns,
    /// One column.
    Column,
    /// The name of a class, as a string or a bare name; a number and a truth value are names, too.
    Class,
    /// A map from class to word(s).
    Verbalizer,
    /// Names of classes in a list, or a map from label to class.
    Labels,
    /// `balanced`, or a weight for each class.
    ClassWeights,
    /// A share of rows: `10%`.
    Share,
    /// A block of keys without a name.
    Block(&'static Schema),
    /// A map from placement to a value of this kind: `{ "attention.query": 16 }`. The first placement that matches counts.
    ByPlace(&'static Self),
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Belongs to the range.
    Incl(f64),
    /// Does not.
    Excl(f64),
    /// Unbounded.
    None,
}

/// What a key is when not written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// It has to be written.
    Required,
    /// Absent means absent: the block works without it, as its doc says.
    Absent,
    /// The value, written as in a recipe; parsed and checked like the user's own.
    Text(&'static str),
    /// The same, but left out of the values: for a key that came after recipes without it had results,
    /// whose fingerprints must stand.
    Tacit(&'static str),
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// Walks over the data.
    Epochs(u64),
    /// Optimizer updates.
    Steps(u64),
}

/// A part of a training: a rational share, so that `ceil` of it is exact, or a number of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Portion {
    /// `numerator / denominator` of all steps.
    Share(u64, u64),
    /// Steps.
    Steps(u64),
}

impl Portion {
    /// Steps out of `total`, rounded up.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Share(n, d) => {
                (u128::from(total) * u128::from(n)).div_ceil(u128::from(d.max(1))) as u64
            }
            Self::Steps(n) => n,
        }
    }
}

/// How much each class weighs.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassWeights {
    /// As much as its rows are few.
    Balanced,
    /// By name.
    Each(Vec<(String, f64)>),
}

impl ClassWeights {
    /// The least and the most that a class may weigh: sums of weights stay exact enough in f32.
    pub const BOUNDS: (f64, f64) = (1e-6, 1e6);
}

/// A checked value. `Display` is canonical: fingerprints are made of it. The alternate form, `{:#}`, is how a recipe
/// writes it: parsed and checked by the same key it is the same value.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// [`Kind::Int`] and [`Kind::Size`].
    Int(u64),
    /// [`Kind::Batch`], of tokens; of examples it is a whole number.
    Tokens(u64),
    /// [`Kind::Float`].
    Float(f64),
    /// [`Kind::Bool`].
    Bool(bool),
    /// [`Kind::Str`], [`Kind::Choice`], [`Kind::Column`].
    Str(String),
    /// [`Kind::Length`].
    Length(Length),
    /// [`Kind::Portion`], [`Kind::Share`].
    Portion(Portion),
    /// [`Kind::Ref`]: the declaration's name and, for data, the split.
    Ref(String, Option<String>),
    /// [`Kind::Placement`].
    Placement(Placement),
    /// [`Kind::Entry`], [`Kind::Block`].
    Entry(Box<Filled>),
    /// [`Kind::Entries`].
    Entries(Vec<Filled>),
    /// [`Kind::Names`], [`Kind::Numbers`], [`Kind::Columns`], [`Kind::Texts`], [`Kind::Labels`].
    Names(Vec<String>),
    /// [`Kind::Verbalizer`], [`Kind::Labels`].
    Map(Vec<(String, Vec<String>)>),
    /// [`Kind::ClassWeights`].
    ClassWeights(ClassWeights),
    /// [`Kind::ByPlace`].
    ByPlace(Vec<(Pattern, Self)>),
}

/// A constructor with all its keys checked and filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The entry's name.
    pub name: String,
    /// Its values.
    pub values: Values,
    /// Where it was written.
    pub span: crate::base::Span,
}

/// The values of a block: every key with a default is present.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    map: IndexMap<String, (Checked, crate::base::Span)>,
    written: Vec<String>,
}

impl Values {
    /// Adds a value; `written` tells whether the user wrote it.
    pub fn insert(&mut self, key: &str, value: Checked, span: crate::base::Span, written: bool) {
        self.map.insert(key.to_owned(), (value, span));
        if written {
            self.written.push(key.to_owned());
        }
    }

    /// Takes a value away.
    pub fn remove(&mut self, key: &str) {
        self.map.shift_remove(key);
        self.written.retain(|k| k != key);
    }

    /// A value, if present.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Checked> {
        self.map.get(key).map(|(v, _)| v)
    }

    /// A value of a type, if it is present: for names that come from a row of a schema. Code that knows the key reads
    /// it by the key's constant ([`Given::get`], [`Maybe::get`]).
    #[must_use]
    pub fn find<T: ?Sized + typed::Read>(&self, key: &str) -> Option<T::Out<'_>> {
        self.get(key).and_then(T::read)
    }

    /// Where a key's value was written; the block's place for defaults.
    #[must_use]
    pub fn span(&self, key: &str) -> crate::base::Span {
        self.map.get(key).map(|(_, s)| *s).unwrap_or_default()
    }

    /// Whether the user wrote the key.
    #[must_use]
    pub fn written(&self, key: &str) -> bool {
        self.written.iter().any(|k| k == key)
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Checked)> {
        self.map.iter().map(|(k, (v, _))| (k.as_str(), v))
    }
}

impl Schema {
    /// A key by name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// The key whose value may be written as a string behind the name: the first, where it is a text that has to be there.
    #[must_use]
    pub fn text_key(&self) -> Option<&'static Key> {
        let first = self.keys.first()?;
        let text = matches!(first.kind, Kind::Str) && matches!(first.default, Default::Required);
        text.then_some(first)
    }
}
