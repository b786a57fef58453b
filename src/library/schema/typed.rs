//! Keys with the type of their values. A block declares each of its keys once, as a constant; the schema that recipes are
//! checked against and the look-up of values come from that constant. A look-up of a key that does not exist, or as
//! another type than it has, does not compile.

use std::marker::PhantomData;

use super::{
    Bound, Checked, ClassWeights, Default, Fallback, Filled, Key, Kind, Length, Portion, RefKind,
    Registry, Schema, Values,
};
use crate::base::Span;
use crate::library::placement::{Pattern, Placement};
use crate::library::stage::packing::Batch;

/// A reference to a declaration: its name and, for data, the split.
#[derive(Debug)]
pub struct Reference;

/// A map from placement to values, in the order written.
#[derive(Debug)]
pub struct ByPlace;

/// A map from class to words.
#[derive(Debug)]
pub struct Words;

/// What values of a key are in code.
pub trait Read {
    /// A value.
    type Out<'a>;

    /// The value, if a checked one is of this type.
    fn read(value: &Checked) -> Option<Self::Out<'_>>;
}

/// What values of a key are in code, where a number, a truth value or a name is its default.
pub trait Plain: Read {
    /// The default.
    type Default: Copy;

    /// The default as a value.
    fn plain<'a>(default: Self::Default) -> Self::Out<'a>;
}

macro_rules! read {
    ($($type:ty => $out:ty, $value:pat => $found:expr;)+) => {
        $(impl Read for $type {
            type Out<'a> = $out;

            fn read(value: &Checked) -> Option<Self::Out<'_>> {
                match value {
                    $value => Some($found),
                    _ => None,
                }
            }
        })+
    };
}

read! {
    u64 => u64, Checked::Int(n) => *n;
    f64 => f64, Checked::Float(x) => *x;
    bool => bool, Checked::Bool(truth) => *truth;
    str => &'a str, Checked::Str(text) => text.as_str();
    [String] => &'a [String], Checked::Names(list) => list.as_slice();
    Length => Length, Checked::Length(length) => *length;
    Portion => Portion, Checked::Portion(portion) => *portion;
    Reference => (&'a str, Option<&'a str>), Checked::Ref(name, split) => (name.as_str(), split.as_deref());
    Placement => &'a Placement, Checked::Placement(placement) => placement;
    Filled => &'a Filled, Checked::Entry(filled) => filled.as_ref();
    [Filled] => &'a [Filled], Checked::Entries(list) => list.as_slice();
    Words => &'a [(String, Vec<String>)], Checked::Map(map) => map.as_slice();
    ClassWeights => &'a ClassWeights, Checked::ClassWeights(weights) => weights;
    ByPlace => &'a [(Pattern, Checked)], Checked::ByPlace(list) => list.as_slice();
}

impl Read for Batch {
    type Out<'a> = Self;

    fn read(value: &Checked) -> Option<Self> {
        match value {
            Checked::Int(n) => Some(Self::Examples(*n)),
            Checked::Tokens(n) => Some(Self::Tokens(*n)),
            _ => None,
        }
    }
}

impl Plain for Batch {
    type Default = u64;

    fn plain<'a>(default: u64) -> Self::Out<'a> {
        Self::Examples(default)
    }
}

impl Read for Checked {
    type Out<'a> = &'a Self;

    fn read(value: &Checked) -> Option<&Self> {
        Some(value)
    }
}

macro_rules! plain {
    ($($type:ty, $default:ty;)+) => {
        $(impl Plain for $type {
            type Default = $default;

            fn plain<'a>(default: Self::Default) -> Self::Out<'a> {
                default
            }
        })+
    };
}

plain! {
    u64, u64;
    f64, f64;
    bool, bool;
    str, &'static str;
}

/// A kind, with the type of its values.
#[derive(Debug)]
pub struct Of<T: ?Sized>(Kind, PhantomData<fn() -> Box<T>>);

/// The kinds, with the types of their values.
pub mod kind {
    use super::*;

    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident: $type:ty = $kind:expr;)+) => {
            $($(#[$doc])* pub const $name: Of<$type> = Of($kind, PhantomData);)+
        };
    }

    /// The widest rank, bottleneck or side of a block that a recipe may name, 1,048,576. Bytes of products of two such
    /// widths, of all layers, are far from the end of 64 bits.
    pub const WIDEST: u64 = 1 << 20;

    kinds! {
        /// [`Kind::Int`], a rank, a width, or what divides one
        WIDTH: u64 = Kind::Int(1, WIDEST);
        /// [`Kind::Int`], a number of steps, examples or places, of which there may be fewer
        COUNT: u64 = Kind::Int(1, u64::MAX);
        /// [`Kind::Int`], optimizer steps or walks over the data; what is drawn for a step takes its number with 32 bits
        STEPS: u64 = Kind::Int(1, u32::MAX as u64);
        /// [`Kind::Int`], a seed
        SEED: u64 = Kind::Int(0, u64::MAX);
        /// [`Kind::Bool`]
        BOOL: bool = Kind::Bool;
        /// [`Kind::Str`]
        STR: str = Kind::Str;
        /// [`Kind::Size`]
        SIZE: u64 = Kind::Size;
        /// [`Kind::Length`]
        LENGTH: Length = Kind::Length;
        /// [`Kind::Portion`]
        PORTION: Portion = Kind::Portion;
        /// [`Kind::Share`]
        SHARE: Portion = Kind::Share;
        /// [`Kind::Placement`]
        PLACEMENT: Placement = Kind::Placement;
        /// [`Kind::Texts`]
        TEXTS: [String] = Kind::Texts;
        /// [`Kind::Names`]
        NAMES: [String] = Kind::Names;
        /// [`Kind::Numbers`]
        NUMBERS: [String] = Kind::Numbers;
        /// [`Kind::Columns`]
        COLUMNS: [String] = Kind::Columns;
        /// [`Kind::Column`]
        COLUMN: str = Kind::Column;
        /// [`Kind::Class`]
        CLASS: str = Kind::Class;
        /// [`Kind::Verbalizer`]
        VERBALIZER: Words = Kind::Verbalizer;
        /// [`Kind::Labels`], a list or a map
        LABELS: Checked = Kind::Labels;
        /// [`Kind::ClassWeights`]
        CLASS_WEIGHTS: ClassWeights = Kind::ClassWeights;
    }

    /// [`Kind::Int`]
    #[must_use]
    pub const fn int(least: u64, most: u64) -> Of<u64> {
        Of(Kind::Int(least, most), PhantomData)
    }

    /// [`Kind::Batch`]
    #[must_use]
    pub const fn batch(least: u64, most: u64) -> Of<Batch> {
        Of(Kind::Batch(least, most), PhantomData)
    }

    /// [`Kind::Float`]
    #[must_use]
    pub const fn float(least: Bound, most: Bound) -> Of<f64> {
        Of(Kind::Float(least, most), PhantomData)
    }

    /// [`Kind::Choice`]
    #[must_use]
    pub const fn choice(names: &'static [&'static str]) -> Of<str> {
        Of(Kind::Choice(names), PhantomData)
    }

    /// [`Kind::Ref`]
    #[must_use]
    pub const fn reference(to: RefKind) -> Of<Reference> {
        Of(Kind::Ref(to), PhantomData)
    }

    /// [`Kind::Entry`]
    #[must_use]
    pub const fn entry(of: Registry) -> Of<Filled> {
        Of(Kind::Entry(of), PhantomData)
    }

    /// [`Kind::Entries`]
    #[must_use]
    pub const fn entries(of: Registry) -> Of<[Filled]> {
        Of(Kind::Entries(of), PhantomData)
    }

    /// [`Kind::ByPlace`]
    #[must_use]
    pub const fn by_place(of: &'static Kind) -> Of<ByPlace> {
        Of(Kind::ByPlace(of), PhantomData)
    }

    /// [`Kind::Block`]
    #[must_use]
    pub const fn block(schema: &'static Schema) -> Of<Filled> {
        Of(Kind::Block(schema), PhantomData)
    }
}

/// A key that has a value always: what is written, or its default.
#[derive(Debug)]
pub struct Given<T: ?Sized + Plain> {
    key: Key,
    default: T::Default,
}

macro_rules! given {
    ($($type:ty, $default:ty, $variant:ident;)+) => {
        $(impl Given<$type> {
            /// A key with a default, in code and as a recipe writes it.
            #[must_use]
            pub const fn new(
                name: &'static str,
                of: Of<$type>,
                (default, text): ($default, &'static str),
                doc: &'static str,
            ) -> Self {
                Self::with(name, of, (default, Default::Text(text)), doc)
            }

            /// The same, whose default is left out of the values ([`Default::Tacit`]).
            #[must_use]
            pub const fn tacit(
                name: &'static str,
                of: Of<$type>,
                (default, text): ($default, &'static str),
                doc: &'static str,
            ) -> Self {
                Self::with(name, of, (default, Default::Tacit(text)), doc)
            }

            const fn with(
                name: &'static str,
                of: Of<$type>,
                (default, text): ($default, Default),
                doc: &'static str,
            ) -> Self {
                let fallback = Some(Fallback::$variant(default));
                let key = Key { name, kind: of.0, default: text, doc, fallback };
                Self { key, default }
            }
        })+
    };
}

given! {
    u64, u64, Int;
    Batch, u64, Int;
    f64, f64, Float;
    bool, bool, Bool;
    str, &'static str, Str;
}

impl<T: ?Sized + Plain> Given<T> {
    /// Its value in a block.
    #[must_use]
    pub fn get<'a>(&self, values: &'a Values) -> T::Out<'a> {
        self.find(values).unwrap_or_else(|| T::plain(self.default))
    }

    /// Its value in a block that may not have the key.
    #[must_use]
    pub fn find<'a>(&self, values: &'a Values) -> Option<T::Out<'a>> {
        values.get(self.key.name).and_then(T::read)
    }
}

/// A key that may have no value, or one whose default is no number, truth value or name: that is put in where recipes
/// are checked.
#[derive(Debug)]
pub struct Maybe<T: ?Sized> {
    key: Key,
    of: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized + Read> Maybe<T> {
    /// A key that may be left out ([`Default::Absent`]).
    #[must_use]
    pub const fn new(name: &'static str, of: Of<T>, doc: &'static str) -> Self {
        Self::with(name, of, Default::Absent, doc)
    }

    /// A key that has to be written.
    #[must_use]
    pub const fn required(name: &'static str, of: Of<T>, doc: &'static str) -> Self {
        Self::with(name, of, Default::Required, doc)
    }

    /// A key with a default as a recipe writes it.
    #[must_use]
    pub const fn filled(
        name: &'static str,
        of: Of<T>,
        text: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::with(name, of, Default::Text(text), doc)
    }

    /// The same, whose default is left out of the values ([`Default::Tacit`]).
    #[must_use]
    pub const fn tacit(
        name: &'static str,
        of: Of<T>,
        text: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::with(name, of, Default::Tacit(text), doc)
    }

    const fn with(name: &'static str, of: Of<T>, default: Default, doc: &'static str) -> Self {
        let key = Key {
            name,
            kind: of.0,
            default,
            doc,
            fallback: None,
        };
        Self {
            key,
            of: PhantomData,
        }
    }

    /// Its value in a block, if it has one.
    #[must_use]
    pub fn get<'a>(&self, values: &'a Values) -> Option<T::Out<'a>> {
        values.get(self.key.name).and_then(T::read)
    }
}

macro_rules! common {
    ($type:ident: $($bound:path)?) => {
        impl<T: ?Sized $(+ $bound)?> $type<T> {
            /// Its row of the schema.
            #[must_use]
            pub const fn key(&self) -> Key {
                self.key
            }

            /// Its name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                self.key.name
            }

            /// Where its value was written; the block's place for a default.
            #[must_use]
            pub fn span(&self, values: &Values) -> Span {
                values.span(self.key.name)
            }

            /// Whether the user wrote it.
            #[must_use]
            pub fn is_written(&self, values: &Values) -> bool {
                values.written(self.key.name)
            }
        }
    };
}

common!(Given: Plain);
common!(Maybe:);
