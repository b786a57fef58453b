//! Which places of a text a head reads, where those are any number of its tokens.
//!
//! **Invariant:** how many places of an example there are is known before its tokens are read, by its length and its place in
//! the split, so that the planner knows every size.

use std::sync::Arc;

use super::super::data::tokens::{CONTINUES, EncodedExample, Target, plain};
use super::masked_lm::masking::{MaskDraw, Masking};
use crate::program::Bindings;

/// How the places are found.
#[derive(Clone, Debug, PartialEq)]
pub enum Reads {
    /// Some tokens are masked, and predicted from what is around them.
    Masked(Masking),
    /// Tokens are predicted from those before them: so many of each example of a split, in the order of the split; where that
    /// is not known, all but the first.
    Next(Arc<Vec<u32>>),
    /// Pieces of words are labelled: so many of each example of a split; where that is not known, all.
    Labelled(Arc<Vec<u32>>),
    /// Each token of a window may begin an answer, or end it: so many of each example of a split; where that is not known, all.
    Parts(Arc<Vec<u32>>),
    /// The first token of each example stands for it. Examples are options, those of a row behind each other.
    Options,
    /// The first token of each row's first text stands for the row, which is so many texts, behind each other.
    Anchors {
        /// Texts of a row.
        group: u32,
    },
    /// Tokens of a target are predicted from those before them and from its source: a text's last tokens, and one before them, are
    /// the target's.
    Targets {
        /// So many tokens of each example of a split.
        learned: Arc<Vec<u32>>,
        /// The most of an example, where that is not known.
        most: u32,
    },
}

/// A place of an example that a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPlace {
    /// Position in the example, special tokens counted.
    pub position: u32,
    /// What the model reads there.
    pub shown: u32,
    /// What is predicted: the token that stood there, the next one, or the class of what stands there.
    pub token: u32,
}

/// The places of an epoch, or those of every evaluation.
#[derive(Clone, Copy, Debug)]
pub enum ReadDraw<'a> {
    /// Masked ones, drawn at random.
    Masked(MaskDraw<'a>),
    /// All whose next token is learned.
    Next,
    /// All that have a label.
    Labelled,
    /// Those that may begin or end an answer: all but virtual ones.
    Parts,
    /// The first of each option.
    Options,
    /// The first of each row, which is so many texts.
    Anchors {
        /// Texts of a row.
        group: u32,
    },
    /// The next tokens of targets, which stand in a stream of their own.
    Targets,
}

impl Reads {
    /// The same of a split of whose examples so many tokens are learned.
    #[must_use]
    pub fn of(self, learned: Vec<u32>) -> Self {
        match self {
            Self::Next(_) => Self::Next(Arc::new(learned)),
            Self::Labelled(_) => Self::Labelled(Arc::new(learned)),
            Self::Parts(_) => Self::Parts(Arc::new(learned)),
            Self::Targets { .. } => Self::Targets {
                most: learned.iter().copied().max().unwrap_or(0),
                learned: Arc::new(learned),
            },
            own @ (Self::Masked(_) | Self::Options | Self::Anchors { .. }) => own,
        }
    }

    /// Places of the example `index` of the split, of `length` tokens, special ones counted.
    #[must_use]
    pub fn count(&self, index: u32, length: usize) -> usize {
        match self {
            Self::Masked(masking) => masking.count(length),
            Self::Next(learned) => {
                let most = length.saturating_sub(1);
                let own = learned.get(index as usize);
                own.map_or(most, |&own| most.min(own as usize))
            }
            Self::Labelled(labelled) | Self::Parts(labelled) => {
                let own = labelled.get(index as usize);
                own.map_or(length, |&own| length.min(own as usize))
            }
            Self::Options => length.min(1),
            Self::Anchors { group } => length.min(usize::from(leads(index, *group))),
            Self::Targets { learned, most } => {
                let own = learned.get(index as usize).unwrap_or(most);
                length.saturating_sub(2).min(*own as usize)
            }
        }
    }

    /// The sizes of a batch of examples, by their places in the split and their lengths.
    #[must_use]
    pub fn sizes(&self, examples: impl IntoIterator<Item = (u32, usize)>) -> Bindings {
        let all: Vec<(u32, usize)> = examples.into_iter().collect();
        let places = self.places(all.iter().copied());
        let sizes = match self {
            Self::Masked(_)
            | Self::Next(_)
            | Self::Labelled(_)
            | Self::Parts(_)
            | Self::Options
            | Self::Anchors { .. } => Bindings::of_lengths(all.iter().map(|(_, n)| *n)),
            Self::Targets { .. } => Bindings::of_pairs(all.iter().map(|&(i, n)| self.pair(i, n))),
        };
        sizes.reading(places)
    }

    /// The tokens of an example's source and of its target.
    fn pair(&self, index: u32, length: usize) -> [usize; 2] {
        let target = self.count(index, length);
        [length.saturating_sub(target + 1), target]
    }

    /// Sizes that no batch of so many examples of a split with these lengths goes beyond.
    #[must_use]
    pub fn most_sizes(&self, lengths: &[u32], examples: u64) -> Bindings {
        let longest = |mut all: Vec<usize>| {
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(examples as usize);
            all
        };
        let sizes = match self {
            Self::Masked(_)
            | Self::Next(_)
            | Self::Labelled(_)
            | Self::Parts(_)
            | Self::Options
            | Self::Anchors { .. } => {
                Bindings::of_lengths(longest(lengths.iter().map(|&n| n as usize).collect()))
            }
            Self::Targets { .. } => {
                let pairs = (0_u32..).zip(lengths);
                let pairs: Vec<_> = pairs.map(|(i, &n)| self.pair(i, n as usize)).collect();
                let [sources, targets] =
                    [0, 1].map(|part| longest(pairs.iter().map(|pair| pair[part]).collect()));
                Bindings::of_pairs(sources.into_iter().zip(targets).map(|(a, b)| [a, b]))
            }
        };
        sizes.reading(self.most(lengths, examples))
    }

    /// Places of examples, by their places in the split and their lengths.
    #[must_use]
    pub fn places(&self, examples: impl IntoIterator<Item = (u32, usize)>) -> u64 {
        let examples = examples.into_iter();
        examples.map(|(index, n)| self.count(index, n) as u64).sum()
    }

    /// The most places that so many examples of a split with these lengths can have.
    #[must_use]
    pub fn most(&self, lengths: &[u32], examples: u64) -> u64 {
        if let Self::Anchors { group } = self {
            return examples
                .min(lengths.len() as u64)
                .div_ceil(u64::from(*group).max(1));
        }
        let all = (0_u32..).zip(lengths);
        let mut all: Vec<u64> = all
            .map(|(i, &n)| self.count(i, n as usize) as u64)
            .collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        (0..examples).zip(all).map(|(_, places)| places).sum()
    }

    /// Those of an epoch of a training.
    #[must_use]
    pub fn epoch(&self, seed: u64, epoch: u64) -> ReadDraw<'_> {
        match self {
            Self::Masked(masking) => ReadDraw::Masked(masking.epoch(seed, epoch)),
            Self::Next(_) => ReadDraw::Next,
            Self::Labelled(_) => ReadDraw::Labelled,
            Self::Parts(_) => ReadDraw::Parts,
            Self::Options => ReadDraw::Options,
            Self::Anchors { group } => ReadDraw::Anchors { group: *group },
            Self::Targets { .. } => ReadDraw::Targets,
        }
    }

    /// Those of every evaluation: they depend on no seed, so that stages can be compared.
    #[must_use]
    pub fn evaluation(&self) -> ReadDraw<'_> {
        match self {
            Self::Masked(masking) => ReadDraw::Masked(masking.evaluation()),
            Self::Next(_) => ReadDraw::Next,
            Self::Labelled(_) => ReadDraw::Labelled,
            Self::Parts(_) => ReadDraw::Parts,
            Self::Options => ReadDraw::Options,
            Self::Anchors { group } => ReadDraw::Anchors { group: *group },
            Self::Targets { .. } => ReadDraw::Targets,
        }
    }
}

/// Whether an example of a split is the first text of its row.
const fn leads(index: u32, group: u32) -> bool {
    group == 0 || index.is_multiple_of(group)
}

impl ReadDraw<'_> {
    /// The places of the example `index` of the split, in order.
    #[must_use]
    pub fn places(&self, index: u32, example: &EncodedExample) -> Vec<ReadPlace> {
        match self {
            Self::Masked(draw) => draw.places(index, &example.ids),
            Self::Next | Self::Targets => {
                let token = |at: u32| example.ids.get(at as usize).map(|&id| plain(id));
                // A token is predicted where the one before it stands.
                let place = |at: u32| {
                    let position = at.checked_sub(1)?;
                    Some(ReadPlace {
                        position,
                        shown: example.ids.get(position as usize).copied()?,
                        token: token(at)?,
                    })
                };
                let learned = example.learned.iter().cloned().flatten();
                learned.filter_map(place).collect()
            }
            Self::Anchors { group } if !leads(index, *group) => Vec::new(),
            Self::Options | Self::Anchors { .. } => {
                let first = example.ids.first().map(|&shown| ReadPlace {
                    position: 0,
                    shown,
                    token: 0,
                });
                first.into_iter().collect()
            }
            Self::Labelled | Self::Parts => {
                let classes = match &example.label {
                    Target::Each(list) => list.as_slice(),
                    _ => &[],
                };
                let places = example.learned.iter().cloned().flatten();
                let place = |(position, class): (u32, &u32)| {
                    Some(ReadPlace {
                        position,
                        shown: example.ids.get(position as usize).copied()?,
                        token: class & !CONTINUES,
                    })
                };
                places.zip(classes).filter_map(place).collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::library::data::tokens::Target;

    #[test]
    fn a_target_and_its_source_are_two_streams() {
        let reads = Reads::Targets {
            learned: Arc::new(vec![3, 1]),
            most: 4,
        };
        // Sources of 6 and 2 tokens; one that is not known has the most that a target may have.
        let sizes = reads.sizes([(0, 10), (1, 4)]);
        assert_eq!(sizes, Bindings::of_pairs([[6, 3], [2, 1]]).reading(4));
        assert_eq!(
            reads.sizes([(9, 20)]),
            Bindings::of_pairs([[15, 4]]).reading(4)
        );
        let most = reads.most_sizes(&[5, 10], 1);
        assert!(reads.sizes([(0, 5)]).within(&most) && reads.sizes([(1, 10)]).within(&most));
    }

    #[test]
    fn learned_tokens_are_told_from_those_before_them() {
        let example = |learned| EncodedExample {
            ids: vec![7, 8, 9, 6],
            segments: vec![0; 4],
            mask: 0,
            label: Target::None,
            learned,
            task: 0,
        };
        let reads = Reads::Next(Arc::new(vec![3, 0, 2, 9]));
        let targets = |learned| {
            let places = reads.evaluation().places(3, &example(learned));
            let of = |p: &ReadPlace| (p.position, p.shown, p.token);
            places.iter().map(of).collect::<Vec<(u32, u32, u32)>>()
        };
        assert_eq!(targets(vec![1..4]), [(0, 7, 8), (1, 8, 9), (2, 9, 6)]);
        assert_eq!(targets(vec![1..2, 3..4]), [(0, 7, 8), (2, 9, 6)]);
        assert_eq!(targets(Vec::new()), []);
        // Beyond the split, and of a shorter text, no more than there is.
        assert_eq!(
            reads.places([(0, 5), (1, 5), (2, 2), (3, 4), (4, 4), (5, 0)]),
            3 + 1 + 3 + 3
        );
        assert_eq!(reads.most(&[5, 5, 5, 5], 2), 4 + 3);
    }
}
