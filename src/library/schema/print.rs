//! How values and kinds are printed: values as fingerprints are made of them and as a recipe writes them, kinds in words.

use std::fmt;

use super::{
    Bound, Checked, ClassWeights, Filled, Kind, Length, Portion, RefKind, Registry, Values,
};
use crate::base::units::Count;
use crate::library::placement::Pattern;
use crate::syntax::quote;

impl fmt::Display for Values {
    /// `{ key = value, … }`, keys sorted: the canonical form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<_> = self.iter().collect();
        keys.sort_by_key(|(k, _)| *k);
        f.write_str("{")?;
        for (i, (key, value)) in keys.iter().enumerate() {
            write!(f, "{} {key} = ", if i > 0 { "," } else { "" })?;
            fmt::Display::fmt(value, f)?;
        }
        f.write_str(" }")
    }
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        fmt::Display::fmt(&self.values, f)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs(n) => write!(f, "{n} epochs"),
            Self::Steps(n) => write!(f, "{n} steps"),
        }
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Steps(n) => write!(f, "{n} steps"),
            // Shares are decimal fractions: as percentages their denominators are powers of ten from 100 on.
            Self::Share(n, d) if f.alternate() && d >= 100 => {
                let (whole, rest) = (n / (d / 100), n % (d / 100));
                let places = (d / 100).ilog10() as usize;
                if places == 0 {
                    write!(f, "{whole}%")
                } else {
                    write!(f, "{whole}.{rest:0places$}%")
                }
            }
            Self::Share(n, d) if f.alternate() => {
                let (whole, rest, places) = (n / d, n % d, d.ilog10() as usize);
                if places == 0 {
                    write!(f, "{whole}")
                } else {
                    write!(f, "{whole}.{rest:0places$}")
                }
            }
            Self::Share(n, d) => write!(f, "{n}/{d}"),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |items: &[String]| {
            let items: Vec<String> = items.iter().map(|s| quote(s)).collect();
            format!("[{}]", items.join(", "))
        };
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::Tokens(n) => write!(f, "{n} tokens"),
            Self::Float(x) => write!(f, "{x:e}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Str(s) => f.write_str(&quote(s)),
            Self::Length(l) => write!(f, "{l}"),
            Self::Portion(p) => fmt::Display::fmt(p, f),
            Self::Ref(name, None) => f.write_str(name),
            Self::Ref(name, Some(split)) => write!(f, "{name}.{split}"),
            Self::Placement(p) => write!(f, "{p}"),
            Self::Entry(e) => fmt::Display::fmt(e, f),
            Self::Entries(list) => {
                f.write_str("[")?;
                for (i, entry) in list.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    fmt::Display::fmt(entry, f)?;
                }
                f.write_str("]")
            }
            Self::Names(list) => f.write_str(&texts(list)),
            Self::Map(map) => {
                let (open, close) = if f.alternate() {
                    ("{", "}")
                } else {
                    ("[", "]")
                };
                let pairs: Vec<String> = map
                    .iter()
                    .map(|(key, words)| match words.as_slice() {
                        [word] if f.alternate() => format!("{}: {}", quote(key), quote(word)),
                        words => format!("{}: {}", quote(key), texts(words)),
                    })
                    .collect();
                write!(f, "{open}{}{close}", pairs.join(", "))
            }
            Self::ClassWeights(weights) => write!(f, "{weights}"),
            Self::ByPlace(list) => {
                let one = |(place, value): &(Pattern, Self)| format!("{}: {value:#}", place.key());
                let pairs: Vec<String> = list.iter().map(one).collect();
                write!(f, "{{{}}}", pairs.join(", "))
            }
        }
    }
}

impl fmt::Display for ClassWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balanced => f.write_str("balanced"),
            Self::Each(list) => {
                let one = |(class, weight): &(String, f64)| format!("{}: {weight:e}", quote(class));
                let pairs: Vec<String> = list.iter().map(one).collect();
                write!(f, "{{{}}}", pairs.join(", "))
            }
        }
    }
}

impl fmt::Display for Kind {
    /// The kind in words, as `explain` and errors print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(1, u64::MAX) => f.write_str("a whole number, at least 1"),
            Self::Int(lo, u64::MAX) => write!(f, "a whole number, at least {lo}"),
            Self::Int(lo, hi) => write!(f, "a whole number from {} to {}", Count(*lo), Count(*hi)),
            Self::Batch(lo, hi) => write!(
                f,
                "a whole number from {} to {}, or tokens such as `8_192 tokens`",
                Count(*lo),
                Count(*hi)
            ),
            Self::Float(lo, hi) => {
                f.write_str("a number")?;
                match lo {
                    Bound::Incl(x) => write!(f, ", at least {x}")?,
                    Bound::Excl(x) => write!(f, ", above {x}")?,
                    Bound::None => {}
                }
                match hi {
                    Bound::Incl(x) => write!(f, ", at most {x}"),
                    Bound::Excl(x) => write!(f, ", below {x}"),
                    Bound::None => Ok(()),
                }
            }
            Self::Bool => f.write_str("`true` or `false`"),
            Self::Str => f.write_str("a string"),
            Self::Choice(names) => {
                let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
                write!(f, "one of {}", names.join(", "))
            }
            Self::Size => f.write_str("a size such as `6GiB`"),
            Self::Length => f.write_str("a length such as `5 epochs` or `300 steps`"),
            Self::Portion => f.write_str("a part such as `12%` or `300 steps`"),
            Self::Ref(RefKind::Model) => f.write_str("the name of a model"),
            Self::Ref(RefKind::Split) => {
                f.write_str("a data set and its split, such as `sst2.train`")
            }
            Self::Ref(RefKind::Prompt) => {
                f.write_str("the name of a prompt, or of a stage that chooses one")
            }
            Self::Ref(RefKind::Stage) => f.write_str("the name of a stage"),
            Self::Placement => f.write_str("a placement such as `attention.{key, query}`"),
            Self::Entry(r @ (Registry::Objective | Registry::Optimizer)) => write!(f, "an {r}"),
            Self::Entry(r) => write!(f, "a {r}"),
            Self::Entries(r) => write!(f, "a list of {r}s, or one"),
            Self::Texts => f.write_str("a string, or a list of strings"),
            Self::Names => f.write_str("a list of names"),
            Self::Numbers => f.write_str("a list of whole numbers, such as `[0, 2]`"),
            Self::Columns => f.write_str("a column, or a list of columns"),
            Self::Column => f.write_str("a column"),
            Self::Class => f.write_str("the name of a class"),
            Self::Verbalizer => f.write_str("a map from class to word"),
            Self::Labels => f.write_str("a list of names, or a map from label to name"),
            Self::ClassWeights => f.write_str(
                "`balanced`, or a map from class to weight such as `{ negative: 1, positive: 3 }`",
            ),
            Self::ByPlace(of) => write!(
                f,
                "a map from placement to {of}, such as `{{ \"layers[0..2].attention.query\": 16 }}`"
            ),
            Self::Share => f.write_str("a share such as `10%`"),
            Self::Block(schema) => {
                let keys: Vec<String> = schema
                    .keys
                    .iter()
                    .map(|k| format!("`{}`", k.name))
                    .collect();
                write!(f, "a block with {}", keys.join(", "))
            }
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method",
            Self::Schedule => "schedule",
            Self::Optimizer => "optimizer",
            Self::Metric => "metric",
            Self::Objective => "objective",
            Self::Stage => "stage kind",
            Self::Model => "model",
            Self::Source => "source",
            Self::Start => "way to start",
            Self::Export => "export",
        })
    }
}
