//! What data say of themselves before anything is learned from them: how many rows of which class, how
//! long they are, what is cut, unknown, empty or there twice.
//!
//! **Invariant:** it is gathered in the walk that tokenizes, and holds eight bytes a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::form::Supervision;
use super::set::{Example, Label};

/// What many programs write where there is nothing.
const NOTHING: &[&str] = &[
    "nan",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "null",
    "nil",
    "none",
    "undefined",
];

/// Whether a text is a word for nothing, such as `nan`, `NULL` or `n/a`.
#[must_use]
pub fn says_nothing(text: &str) -> bool {
    let text = text.trim();
    NOTHING.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// One row as it is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// Hash of its texts.
    pub text: u64,
    /// Its label.
    pub label: Option<Label>,
    /// Whether one of its texts is empty.
    pub empty: bool,
    /// Whether one of its texts is a word for nothing.
    pub null: bool,
    /// Its tokens, where a tokenizer is at hand.
    pub tokens: Option<Tokens>,
}

/// How a row was tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens before the cut, special ones included.
    pub uncut: u32,
    /// Tokens that are read, without the special ones.
    pub read: u32,
    /// How many of these the vocabulary does not hold.
    pub unknown: u32,
    /// Whether some were cut off.
    pub cut: bool,
}

impl Sight {
    /// What is to be seen of an example without a tokenizer.
    #[must_use]
    pub fn of(example: &Example) -> Self {
        let mut hasher = blake3::Hasher::new();
        for text in &example.texts {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let hash = hasher.finalize();
        let first = hash.as_bytes().first_chunk();
        Self {
            text: first.map_or(0, |eight| u64::from_le_bytes(*eight)),
            label: example.label.clone(),
            empty: example.texts.iter().any(|t| t.trim().is_empty()),
            null: example.texts.iter().any(|t| says_nothing(t)),
            tokens: None,
        }
    }
}

/// Smallest, mean and largest of the numbers to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// Their sum.
    pub sum: f64,
}

/// What was seen of a split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Rows.
    pub rows: u64,
    /// Rows of each class, by its place among the classes.
    pub classes: Vec<u64>,
    /// The numbers to be learned, where labels are numbers.
    pub numbers: Option<Numbers>,
    /// How many rows have so many tokens before the cut, special ones included.
    pub lengths: BTreeMap<u32, u64>,
    /// Rows of which tokens are cut off.
    pub cut: u64,
    /// Tokens that are read, without the special ones.
    pub tokens: u64,
    /// How many of these the vocabulary does not hold.
    pub unknown: u64,
    /// Rows with an empty text.
    pub empty: u64,
    /// Rows with a text that is a word for nothing.
    pub nulls: u64,
    /// Rows whose texts an earlier row of the split has, too.
    pub duplicates: u64,
    /// Stretches of rows of one class, in the order of the files.
    pub stretches: u64,
    /// What of the rows a language model learns.
    #[serde(default)]
    pub supervision: Option<Supervision>,
}

impl Findings {
    /// The middle length: of an even number of rows, the mean of the two in the middle.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let rows: u64 = self.lengths.values().sum();
        let (low, high) = (self.at(rows.div_ceil(2))?, self.at(rows / 2 + 1)?);
        Some(f64::midpoint(f64::from(low), f64::from(high)))
    }

    /// The smallest length that 99 % of the rows do not exceed.
    #[must_use]
    pub fn p99(&self) -> Option<u32> {
        let rows: u64 = self.lengths.values().sum();
        self.at((99 * rows).div_ceil(100))
    }

    /// The greatest length.
    #[must_use]
    pub fn longest(&self) -> Option<u32> {
        self.lengths.keys().next_back().copied()
    }

    /// The length of the `rank`th row, from 1, the shortest first.
    fn at(&self, rank: u64) -> Option<u32> {
        let mut before = 0;
        self.lengths.iter().find_map(|(length, rows)| {
            before += rows;
            (before >= rank.max(1)).then_some(*length)
        })
    }

    /// Share of the rows that are cut; `None` where nothing was tokenized.
    #[must_use]
    pub fn cut_share(&self) -> Option<f64> {
        (!self.lengths.is_empty()).then(|| share(self.cut, self.rows))
    }

    /// Share of the tokens that the vocabulary does not hold; `None` where nothing was tokenized.
    #[must_use]
    pub fn unknown_share(&self) -> Option<f64> {
        (!self.lengths.is_empty()).then(|| share(self.unknown, self.tokens))
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// What was seen of a split, and what its rows are known again by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// What was seen.
    pub findings: Findings,
    /// Hashes of the rows' texts, ascending.
    pub texts: Vec<u64>,
}

/// How many rows of one split another has, too; both are given as the hashes of their texts, ascending.
#[must_use]
pub fn shared(one: &[u64], other: &[u64]) -> u64 {
    let mut theirs = other.iter().peekable();
    let mut shared = 0;
    for own in one {
        while theirs.next_if(|text| *text < own).is_some() {}
        shared += u64::from(theirs.peek() == Some(&own));
    }
    shared
}

/// Takes in rows in the order of the files.
#[derive(Debug, Default)]
pub struct Surveyor {
    survey: Survey,
    last: Option<Label>,
}

impl Surveyor {
    /// Takes in a row.
    pub fn see(&mut self, sight: &Sight) {
        let seen = &mut self.survey.findings;
        seen.rows += 1;
        match &sight.label {
            Some(label @ (Label::Class(_) | Label::Classes(_) | Label::Each(_))) => {
                let classes = match label {
                    Label::Class(class) => std::slice::from_ref(class),
                    Label::Classes(list) | Label::Each(list) => list.as_slice(),
                    Label::Score(_) => &[],
                };
                for &class in classes {
                    let place = class as usize;
                    if seen.classes.len() <= place {
                        seen.classes.resize(place + 1, 0);
                    }
                    if let Some(rows) = seen.classes.get_mut(place) {
                        *rows += 1;
                    }
                }
                if self.last.as_ref() != Some(label) {
                    seen.stretches += 1;
                    self.last = Some(label.clone());
                }
            }
            &Some(Label::Score(score)) => {
                let score = f64::from(score);
                let own = Numbers {
                    least: score,
                    most: score,
                    sum: score,
                };
                seen.numbers = Some(seen.numbers.map_or(own, |so_far| Numbers {
                    least: so_far.least.min(score),
                    most: so_far.most.max(score),
                    sum: so_far.sum + score,
                }));
            }
            None => {}
        }
        seen.empty += u64::from(sight.empty);
        seen.nulls += u64::from(sight.null);
        if let Some(tokens) = sight.tokens {
            *seen.lengths.entry(tokens.uncut).or_default() += 1;
            seen.cut += u64::from(tokens.cut);
            seen.tokens += u64::from(tokens.read);
            seen.unknown += u64::from(tokens.unknown);
        }
        self.survey.texts.push(sight.text);
    }

    /// What was seen of a split with so many classes.
    #[must_use]
    pub fn finish(mut self, classes: usize) -> Survey {
        let Survey { findings, texts } = &mut self.survey;
        if findings.classes.len() < classes {
            findings.classes.resize(classes, 0);
        }
        texts.sort_unstable();
        let twice = texts.windows(2).filter(|pair| pair.first() == pair.last());
        findings.duplicates = twice.count() as u64;
        self.survey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, class: u32, uncut: u32) -> Sight {
        let example = Example {
            spoken: false,
            texts: vec![text.to_owned()],
            label: Some(Label::Class(class)),
            task: 0,
            row: 0,
        };
        Sight {
            tokens: Some(Tokens {
                uncut,
                read: uncut.min(8) - 2,
                unknown: u32::from(class == 1),
                cut: uncut > 8,
            }),
            ..Sight::of(&example)
        }
    }

    fn survey(rows: &[Sight]) -> Survey {
        let mut surveyor = Surveyor::default();
        rows.iter().for_each(|row| surveyor.see(row));
        surveyor.finish(3)
    }

    #[test]
    fn rows_are_counted_once_and_lengths_ranked() {
        let seen = survey(&[
            row("a", 0, 4),
            row("b", 0, 12),
            row("a", 1, 6),
            row(" ", 0, 3),
            row("a", 0, 4),
            row("NaN", 0, 9),
        ]);
        let findings = &seen.findings;
        assert_eq!(findings.rows, 6);
        assert_eq!(findings.classes, [5, 1, 0]);
        assert_eq!(
            (findings.duplicates, findings.empty, findings.nulls),
            (2, 1, 1)
        );
        assert_eq!((findings.cut, findings.stretches), (2, 3));
        // 3, 4, 4, 6, 9, 12
        assert_eq!(findings.median(), Some(5.0));
        assert_eq!((findings.p99(), findings.longest()), (Some(12), Some(12)));
        assert_eq!(findings.cut_share(), Some(2.0 / 6.0));
        assert_eq!(
            findings.unknown_share(),
            Some(1.0 / f64::from(2 + 6 + 4 + 1 + 2 + 6))
        );
        let one = survey(&[row("x", 0, 7)]);
        assert_eq!(
            (one.findings.median(), one.findings.p99()),
            (Some(7.0), Some(7))
        );
        assert_eq!(Findings::default().median(), None);
        assert_eq!(Findings::default().cut_share(), None);
    }

    #[test]
    fn of_a_hundred_rows_one_may_be_longer_than_p99() {
        let rows: Vec<Sight> = (1..=200).map(|n| row(&n.to_string(), 0, n + 2)).collect();
        assert_eq!(survey(&rows).findings.p99(), Some(200));
    }

    #[test]
    fn rows_that_two_splits_share_are_counted_in_each() {
        let one = survey(&[
            row("a", 0, 4),
            row("a", 1, 4),
            row("b", 0, 4),
            row("c", 0, 4),
        ]);
        let two = survey(&[row("d", 0, 4), row("a", 0, 4), row("c", 0, 4)]);
        let of = |a: &Survey, b: &Survey| shared(&a.texts, &b.texts);
        assert_eq!((of(&one, &two), of(&two, &one)), (3, 2));
        assert_eq!((of(&one, &one), of(&one, &Survey::default())), (4, 0));
    }

    #[test]
    fn texts_of_a_pair_do_not_run_into_each_other() {
        let of = |texts: [&str; 2]| {
            Sight::of(&Example {
                spoken: false,
                texts: texts.map(str::to_owned).to_vec(),
                label: None,
                task: 0,
                row: 0,
            })
        };
        assert_ne!(of(["ab", "c"]).text, of(["a", "bc"]).text);
        assert_eq!(of(["ab", "c"]), of(["ab", "c"]));
    }

    #[test]
    fn words_for_nothing_are_whole_texts() {
        for word in ["nan", "NaN", " NULL ", "n/a", "None", "<NA>"] {
            assert!(says_nothing(word), "{word}");
        }
        for word in ["", "nano", "no", "0", "nobody", "nonetheless"] {
            assert!(!says_nothing(word), "{word}");
        }
    }
}
