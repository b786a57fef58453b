//! The order splits are walked in, and packed batches.

use super::super::model::Positions;
use super::super::task::{BEGINS, ENDS, ReadDraw, ReadPlace};
use super::tokens::{
    EncodedExample, EncodedSet, Target, Unread, marked, own_id, plain, virtual_ones,
};
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::program::op::{Element, Tensor};
use crate::program::{Axis, Bindings, Feed, Mark, Pick, Sym, TargetKind};

/// The inputs of one program run.
#[derive(Debug)]
pub struct Packed {
    /// Its sizes.
    pub sizes: Bindings,
    /// Its tensors.
    pub feeds: Vec<(Feed, Tensor)>,
    /// The places that are read, each with the index of its example.
    pub read: Vec<(u32, ReadPlace)>,
}

/// The order in which an epoch walks over `n` examples.
#[must_use]
pub fn order(n: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
    if shuffle {
        Stream::new(seed, &format!("shuffle/{epoch}")).permutation(n)
    } else {
        (0..to_u32(n)).collect()
    }
}

/// Packs examples without padding, with the places that a head reads where it reads any number of them, making the wanted
/// inputs. Scalars (loss scale, step, rate), weights of classes and kept values of the frozen prefix are the caller's.
///
/// # Errors
/// Tokens cannot be read back.
pub fn pack(
    set: &EncodedSet,
    indices: &[u32],
    positions: Positions,
    reads: Option<ReadDraw<'_>>,
    want: &[Feed],
) -> Result<Packed, Unread> {
    let batch = Batch::of(set, indices, reads)?;
    let feeds = want
        .iter()
        .filter_map(|&feed| Some((feed, batch.feed(feed, positions)?)))
        .collect();
    Ok(Packed {
        sizes: batch.sizes(),
        feeds,
        read: batch.read.into_iter().map(|(_, i, p)| (i, p)).collect(),
    })
}

/// The examples of a batch, with their indices.
struct Batch {
    examples: Vec<(u32, EncodedExample)>,
    /// Row of each example's first token.
    starts: Vec<u32>,
    tokens: usize,
    /// Each place that is read, with its row and the index of its example.
    read: Vec<(u32, u32, ReadPlace)>,
    /// Tokens of the examples' sources, where they stand in a stream of their own.
    sources: Option<Vec<Vec<u32>>>,
    /// Whether examples are options, each of which is compared with the right one of its row.
    options: bool,
    /// Whether places are compared with those of the answer in their example.
    parts: bool,
    /// Whether the first text of each row is compared with the second ones.
    anchors: bool,
}

/// A tensor of so many rows. Its memory is counted, so it is made in its size.
fn rows<T: Element>(count: usize, width: usize, of: impl Iterator<Item = T>) -> Tensor {
    let mut list = Vec::with_capacity(count * width);
    list.extend(of);
    if width == 1 {
        Tensor::new(list, &[count])
    } else {
        Tensor::new(list, &[count, width])
    }
}

impl Batch {
    fn of(set: &EncodedSet, indices: &[u32], reads: Option<ReadDraw<'_>>) -> Result<Self, Unread> {
        let examples: Result<Vec<(u32, EncodedExample)>, Unread> =
            indices.iter().map(|&i| Ok((i, set.get(i)?))).collect();
        let mut examples = examples?;
        let (mut starts, mut tokens) = (Vec::with_capacity(examples.len()), 0);
        let mut read = Vec::new();
        let mut sources = matches!(reads, Some(ReadDraw::Targets)).then(Vec::new);
        for (index, example) in &mut examples {
            let start = to_u32(tokens);
            let mut places = reads.map(|reads| reads.places(*index, example));
            if let Some(sources) = &mut sources {
                let empty = EncodedExample {
                    ids: Vec::new(),
                    segments: Vec::new(),
                    mask: 0,
                    label: Target::None,
                    learned: Vec::new(),
                    task: 0,
                };
                let (source, own) = std::mem::replace(example, empty).streams();
                for place in places.iter_mut().flatten() {
                    place.position = place.position.saturating_sub(to_u32(source.len()));
                }
                sources.push(source);
                *example = own;
            }
            if let Some(places) = places {
                let put = virtual_ones(&example.ids);
                // A place is given by its position among the text's own tokens.
                let own = |p: ReadPlace| ReadPlace {
                    position: p.position - (put.end.min(p.position) - put.start.min(p.position)),
                    ..p
                };
                let row = |p: ReadPlace| (start + p.position, *index, own(p));
                read.extend(places.into_iter().map(row));
            }
            starts.push(start);
            tokens += example.ids.len();
        }
        Ok(Self {
            examples,
            starts,
            tokens,
            read,
            sources,
            options: matches!(reads, Some(ReadDraw::Options)),
            parts: matches!(reads, Some(ReadDraw::Parts)),
            anchors: matches!(reads, Some(ReadDraw::Anchors { .. })),
        })
    }

    fn sizes(&self) -> Bindings {
        let lengths = self.examples.iter().map(|(_, e)| e.ids.len());
        let sizes = match &self.sources {
            Some(sources) => {
                let pairs = sources.iter().map(Vec::len).zip(lengths);
                Bindings::of_pairs(pairs.map(|(source, own)| [source, own]))
            }
            None => Bindings::of_lengths(lengths),
        };
        sizes.reading(self.read.len() as u64)
    }

    /// Token ids as the model reads them, and those of virtual tokens.
    fn shown(&self) -> Vec<u32> {
        let mut list = Vec::with_capacity(self.tokens);
        let examples = self.examples.iter();
        examples.for_each(|(_, e)| list.extend(e.ids.iter().map(|&id| own_id(id))));
        for (row, _, place) in &self.read {
            if let Some(id) = list.get_mut(*row as usize) {
                *id = own_id(place.shown);
            }
        }
        list
    }

    fn positions(&self, positions: Positions) -> Tensor {
        let ids = self.shown();
        let mut list = Vec::with_capacity(self.tokens);
        let mut rest = ids.as_slice();
        for (_, example) in &self.examples {
            let (own, others) = rest.split_at(example.ids.len().min(rest.len()));
            list.extend(positions.of(own.iter().copied()));
            rest = others;
        }
        Tensor::new(list, &[self.tokens])
    }

    /// How many positions the text of each token has.
    fn lengths(&self, positions: Positions) -> Tensor {
        let ids = self.shown();
        let mut rest = ids.as_slice();
        let each = self.examples.iter().flat_map(|(_, example)| {
            let (own, others) = rest.split_at(example.ids.len().min(rest.len()));
            rest = others;
            std::iter::repeat_n(positions.count(own.iter().copied()), own.len())
        });
        rows(self.tokens, 1, each)
    }

    /// The sources of all examples.
    fn sources(&self) -> impl Iterator<Item = &[u32]> {
        self.sources.iter().flatten().map(Vec::as_slice)
    }

    /// A number for each token of the sources.
    fn of_sources<'s, I: Iterator<Item = u32>>(&'s self, of: impl Fn(&'s [u32]) -> I) -> Tensor {
        let count = self.sources().map(<[u32]>::len).sum();
        rows(count, 1, self.sources().flat_map(of))
    }

    /// Which tokens are marked, and as which of its sequence.
    fn marks(&self, mark: Mark) -> Tensor {
        let mut list = Vec::with_capacity(self.tokens);
        for (_, example) in &self.examples {
            let first = match mark {
                Mark::OfTask { rows } => example.task.saturating_mul(rows),
                Mark::Virtual | Mark::Special { .. } => 0,
            };
            let own = marked(&example.ids, mark);
            list.extend(own.map(|number| match number {
                0 => 0,
                number => number.saturating_add(first),
            }));
        }
        Tensor::new(list, &[self.tokens])
    }

    /// A number for each example.
    fn each<T: Element>(&self, of: impl Fn(&EncodedExample) -> T) -> Tensor {
        rows(
            self.examples.len(),
            1,
            self.examples.iter().map(|(_, e)| of(e)),
        )
    }

    /// The rows that a head reads.
    fn picked(&self, pick: Pick) -> Tensor {
        let at = |place: fn(&EncodedExample) -> u32| {
            let places = self.examples.iter().map(|(_, e)| place(e));
            let starts = self.starts.iter().zip(places);
            rows(
                self.starts.len(),
                1,
                starts.map(|(start, place)| start + place),
            )
        };
        match pick {
            Pick::First => at(|_| 0),
            Pick::Last => at(|e| to_u32(e.ids.len()).max(1) - 1),
            Pick::Mask => at(|e| e.mask),
            Pick::Places => rows(self.read.len(), 1, self.read.iter().map(|(row, ..)| *row)),
        }
    }

    /// What tells rows from all others, however they are packed.
    fn keys(&self, axis: Axis) -> Tensor {
        let examples = || self.examples.iter();
        match axis {
            Axis::Tokens => {
                let own = |(index, e): &(u32, EncodedExample)| {
                    let (index, length) = (*index, to_u32(e.ids.len()));
                    (0..length).flat_map(move |place| [index, place])
                };
                rows(self.tokens, 2, examples().flat_map(own))
            }
            Axis::Sequences => {
                let own = examples().flat_map(|(index, _)| [*index, 0]);
                rows(self.examples.len(), 2, own)
            }
            Axis::Read => {
                let own = self.read.iter();
                let own = own.flat_map(|(_, index, place)| [*index, place.position]);
                rows(self.read.len(), 2, own)
            }
            Axis::Source => {
                let count = self.sources().map(<[u32]>::len).sum();
                let each = examples().zip(self.sources());
                let own = each.flat_map(|((index, _), source)| {
                    (0..to_u32(source.len())).flat_map(move |place| [*index, place])
                });
                rows(count, 2, own)
            }
        }
    }

    /// The right option of each option's row: the mask of an option is its place in the row. Without a label it is its own.
    fn right_options(&self) -> Tensor {
        let most = to_u32(self.examples.len()).saturating_sub(1);
        let own = (0_u32..).zip(&self.examples);
        let own = own.map(|(at, (_, e))| match e.label {
            Target::Class(right) => (at.saturating_sub(e.mask) + right).min(most),
            _ => at,
        });
        rows(self.examples.len(), 1, own)
    }

    /// For each place that is read, the one of its example whose token has a mark; the example's first where none has.
    fn bounds(&self, mark: u32) -> Tensor {
        let mut list: Vec<u32> = Vec::with_capacity(self.read.len());
        for own in self.read.chunk_by(|a, b| a.1 == b.1) {
            let at = own.iter().position(|(.., place)| place.token & mark != 0);
            let right = to_u32(list.len() + at.unwrap_or(0));
            list.extend(std::iter::repeat_n(right, own.len()));
        }
        rows(list.len(), 1, list.into_iter())
    }

    /// The sequence of each place that is read, or the one that it is compared with.
    fn owners(&self) -> Tensor {
        if self.options {
            return self.right_options();
        }
        if self.parts {
            return self.bounds(BEGINS);
        }
        self.texts_read(0)
    }

    /// The text of each place that is read, or one that stands so many behind it.
    fn texts_read(&self, behind: u32) -> Tensor {
        let most = to_u32(self.starts.len()).saturating_sub(1);
        let of = |row: u32| self.starts.partition_point(|&start| start <= row);
        let own = self.read.iter();
        let own = own.map(|(row, ..)| to_u32(of(*row).saturating_sub(1)));
        rows(
            self.read.len(),
            1,
            own.map(|text| (text + behind).min(most)),
        )
    }

    /// What is predicted.
    fn targets(&self, kind: TargetKind) -> Tensor {
        match kind {
            TargetKind::Class => self.each(|e| match e.label {
                Target::Class(class) => class,
                _ => 0,
            }),
            TargetKind::Number => self.each(|e| match e.label {
                Target::Score(x) => x,
                _ => 0.0,
            }),
            TargetKind::Token if self.parts => self.bounds(ENDS),
            TargetKind::Token if self.anchors => self.texts_read(1),
            TargetKind::Token => {
                let own = self.read.iter().map(|(.., place)| place.token);
                rows(self.read.len(), 1, own)
            }
            TargetKind::ClassSet { classes } => {
                let classes = classes as usize;
                let mut list = vec![0.0_f32; self.examples.len() * classes];
                for (row, (_, e)) in list.chunks_mut(classes.max(1)).zip(&self.examples) {
                    let own = match &e.label {
                        Target::Classes(own) => own.as_slice(),
                        Target::Class(class) => std::slice::from_ref(class),
                        _ => continue,
                    };
                    for class in own.iter() {
                        if let Some(place) = row.get_mut(*class as usize) {
                            *place = 1.0;
                        }
                    }
                }
                Tensor::new(list, &[self.examples.len(), classes])
            }
        }
    }

    /// An input; `None` for one that is the caller's.
    fn feed(&self, feed: Feed, positions: Positions) -> Option<Tensor> {
        Some(match feed {
            Feed::TokenIds => rows(self.tokens, 1, self.shown().into_iter().map(plain)),
            Feed::Marks(mark) => self.marks(mark),
            Feed::Positions => self.positions(positions),
            Feed::Lengths => self.lengths(positions),
            Feed::Segments => {
                let own = |(_, e): &(u32, EncodedExample)| {
                    let segment = |place| e.segments.get(place).copied().unwrap_or(0).into();
                    (0..e.ids.len()).map(segment).collect::<Vec<u32>>()
                };
                rows(self.tokens, 1, self.examples.iter().flat_map(own))
            }
            Feed::Offsets => {
                let ends = self.starts.iter().copied().chain([to_u32(self.tokens)]);
                rows(self.starts.len() + 1, 1, ends)
            }
            Feed::SourceIds => self.of_sources(|source| source.iter().copied().map(plain)),
            Feed::SourcePositions => {
                self.of_sources(|source| positions.of(source.iter().copied().map(own_id)))
            }
            Feed::SourceOffsets => {
                let mut end = 0;
                let ends = self.sources().map(|source| {
                    end += to_u32(source.len());
                    end
                });
                let ends: Vec<u32> = std::iter::once(0).chain(ends).collect();
                rows(ends.len(), 1, ends.into_iter())
            }
            Feed::Distances(distances) => {
                let sizes = self.sizes();
                let longest = match distances.of_source {
                    true => sizes.get(Sym::SourceLongest),
                    false => sizes.get(Sym::Longest),
                };
                let list = distances.list(longest);
                rows(list.len(), 1, list.into_iter())
            }
            Feed::Cycle { count } => {
                let all = self.starts.iter().flat_map(|_| 0..count);
                rows(self.starts.len() * count as usize, 1, all)
            }
            Feed::Rows(pick) => self.picked(pick),
            Feed::Keys(axis) => self.keys(axis),
            Feed::Owners => self.owners(),
            Feed::Texts => {
                let own = |(i, (_, e)): (u32, &(u32, EncodedExample))| vec![i; e.ids.len()];
                rows(self.tokens, 1, (0..).zip(&self.examples).flat_map(own))
            }
            Feed::Tasks => self.each(|e| e.task),
            Feed::Targets(kind) => self.targets(kind),
            Feed::Cached
            | Feed::Kept
            | Feed::Moves
            | Feed::ClassWeights { .. }
            | Feed::LossScale
            | Feed::Step
            | Feed::LearningRate
            | Feed::Perturbation
            | Feed::Draw
            | Feed::Signal(_)
            | Feed::Feature { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests;
