//! The runs of programs that generate: their inputs, and what comes of them.

use std::collections::BTreeMap;

use super::{Generation, Prompt};
use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{marked, own_id, plain};
use crate::library::generate::{Piece, whole};
use crate::program::op::Tensor;
use crate::program::{Bindings, Feed, Pick};

/// Inputs of a program.
type Feeds = Vec<(Feed, Tensor)>;

impl Generation<'_> {
    /// The tokens that a text begins with, before one is made.
    pub(super) fn begun(&self, prompt: &Prompt) -> Vec<u32> {
        match self.pairing {
            Some(pairing) => vec![pairing.rules.start],
            None => {
                let special = self.tokenizer.special_ids();
                self.marking.tokens(&prompt.ids, &special)
            }
        }
    }

    /// Reads the sources of a group, where texts are made of such; gives their lengths.
    pub(super) fn read_sources(
        &self,
        runner: &mut Runner,
        prompts: &[Prompt],
    ) -> Result<Vec<u32>, RunError> {
        let (Some(pairing), Some(program)) = (self.pairing, &self.programs.sources) else {
            return Ok(Vec::new());
        };
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
        if let Some(empty) = lengths.iter().position(|n| *n == 0) {
            return Err(RunError::bug(format!("source {empty} has no token")));
        }
        for run in whole(&lengths) {
            let sizes = Bindings::of_pairs(run.iter().map(|(_, length)| [*length, 0]));
            let own = run.iter().filter_map(|(of, _)| prompts.get(*of));
            let sources: Vec<&[u32]> = own.map(|prompt| prompt.ids.as_slice()).collect();
            let mut feeds = Feeds::new();
            for feed in program.program().feeds().map(|(feed, _)| feed) {
                let moves = || {
                    let starts = run.iter().map(|(of, _)| *of as u64 * pairing.capacity);
                    starts.map(to_u32).collect()
                };
                feeds.extend(self.of_sources(feed, &sources, moves).map(|x| (feed, x)));
            }
            runner.run(program, feeds, &sizes)?;
        }
        Ok(lengths.iter().map(|&n| to_u32(n)).collect())
    }

    /// An input of the program that reads sources; `rows` says where each source is kept.
    fn of_sources(
        &self,
        feed: Feed,
        sources: &[&[u32]],
        rows: impl FnOnce() -> Vec<u32>,
    ) -> Option<Tensor> {
        let list = |list: Vec<u32>| {
            let count = list.len();
            Tensor::new(list, &[count])
        };
        let ends = || {
            let ends = sources.iter().scan(0, |end, source| {
                *end += to_u32(source.len());
                Some(*end)
            });
            std::iter::once(0).chain(ends)
        };
        Some(match feed {
            Feed::SourceIds => list(sources.concat().into_iter().map(plain).collect()),
            Feed::SourcePositions => {
                let each = sources.iter();
                list(
                    each.flat_map(|source| self.positions.of(source.iter().map(|&id| own_id(id))))
                        .collect(),
                )
            }
            Feed::SourceOffsets => list(ends().collect()),
            Feed::Distances(distances) => {
                let longest = sources.iter().map(|source| source.len()).max();
                list(distances.list(longest.unwrap_or(0) as u64))
            }
            Feed::Moves => {
                let each = ends().zip(rows()).zip(sources);
                let moves = each.flat_map(|((from, to), own)| [from, to, to_u32(own.len())]);
                Tensor::new(moves.collect(), &[sources.len(), 3])
            }
            _ => return None,
        })
    }

    /// The logits behind some pieces of texts, and how many each has.
    pub(super) fn logits(
        &self,
        runner: &mut Runner,
        texts: &[&[u32]],
        run: &[Piece],
        sources: &[u32],
    ) -> Result<(Vec<f32>, usize), RunError> {
        let sizes = Bindings::of_lengths(run.iter().map(|piece| piece.tokens.len()));
        let feeds = self.feeds(texts, run, sources);
        let mut outputs = runner.run(&self.programs.next, feeds, &sizes)?;
        let logits = outputs.take("logits");
        let logits = logits.and_then(Tensor::into_vec::<f32>).unwrap_or_default();
        let width = (logits.len() / run.len().max(1)).max(1);
        Ok((logits, width))
    }

    /// Copies the cached tokens of some places, so many of each, to others.
    pub(super) fn copy(
        &self,
        runner: &mut Runner,
        copies: &[(usize, usize, usize)],
    ) -> Result<(), RunError> {
        if copies.is_empty() {
            return Ok(());
        }
        let row = |place: usize| to_u32(place as u64 * self.capacity);
        let each = copies.iter();
        let list = each.flat_map(|&(from, to, tokens)| [row(from), row(to), to_u32(tokens)]);
        let moves = Tensor::new(list.collect(), &[copies.len(), 3]);
        let sizes = Bindings::of_lengths(copies.iter().map(|_| 0));
        let feeds = vec![(Feed::Moves, moves)];
        runner.run(&self.programs.copies, feeds, &sizes).map(drop)
    }

    /// The inputs of a run.
    fn feeds(&self, texts: &[&[u32]], run: &[Piece], sources: &[u32]) -> Feeds {
        let program = self.programs.next.program();
        let tokens: usize = run.iter().map(|piece| piece.tokens.len()).sum();
        let mut ids: Vec<u32> = Vec::with_capacity(tokens);
        let mut marks: BTreeMap<Feed, Vec<u32>> = BTreeMap::new();
        let mut positions = Vec::with_capacity(tokens);
        let mut lengths = Vec::with_capacity(tokens);
        let mut offsets = Vec::with_capacity(run.len() + 1);
        let mut last = Vec::with_capacity(run.len());
        let mut cached = Vec::with_capacity(2 * run.len());
        let mut kept = Vec::with_capacity(2 * run.len());
        offsets.push(0_u32);
        for piece in run {
            let all = texts.get(piece.of).copied().unwrap_or_default();
            let own = all.get(piece.tokens.clone()).unwrap_or_default();
            ids.extend(own.iter().map(|&id| plain(id)));
            for feed in program.feeds().map(|(feed, _)| feed) {
                if let Feed::Marks(mark) = feed {
                    let known = marked(all, mark).skip(piece.tokens.start);
                    let own = marks.entry(feed).or_default();
                    own.extend(known.take(piece.tokens.len()));
                }
            }
            let places = self
                .positions
                .of(all.iter().map(|&id| own_id(id)).take(piece.tokens.end));
            positions.extend(places.skip(piece.tokens.start));
            let length = self.positions.count(all.iter().map(|&id| own_id(id)));
            lengths.extend(std::iter::repeat_n(length, piece.tokens.len()));
            offsets.push(to_u32(ids.len()));
            last.push(to_u32(ids.len()).saturating_sub(1));
            cached.extend([
                to_u32(piece.of as u64 * self.capacity),
                to_u32(piece.tokens.start),
            ]);
            // All texts of a search are made of one source.
            let source = piece.of / self.settings.beams.count.max(1) as usize;
            let capacity = self.pairing.map_or(0, |pairing| pairing.capacity);
            kept.extend([
                to_u32(source as u64 * capacity),
                sources.get(source).copied().unwrap_or(0),
            ]);
        }
        let sequences = run.len();
        let all = [
            (Feed::TokenIds, Tensor::new(ids, &[tokens])),
            (Feed::Positions, Tensor::new(positions, &[tokens])),
            (Feed::Lengths, Tensor::new(lengths, &[tokens])),
            (Feed::Offsets, Tensor::new(offsets, &[sequences + 1])),
            (Feed::Cached, Tensor::new(cached, &[sequences, 2])),
            (Feed::Kept, Tensor::new(kept, &[sequences, 2])),
            (Feed::Rows(Pick::Last), Tensor::new(last, &[sequences])),
        ];
        let mut all: Feeds = all.into();
        let of_tokens = |(feed, list)| (feed, Tensor::new(list, &[tokens]));
        all.extend(marks.into_iter().map(of_tokens));
        let wanted: Vec<Feed> = program.feeds().map(|(feed, _)| feed).collect();
        for &feed in &wanted {
            if let Feed::Cycle { count } = feed {
                let list: Vec<u32> = (0..sequences).flat_map(|_| 0..count).collect();
                let rows = list.len();
                all.push((feed, Tensor::new(list, &[rows])));
            }
        }
        all.retain(|(feed, _)| wanted.contains(feed));
        all
    }
}
