//! Generating by search: several texts of each prompt are gone on with at once.
//!
//! The texts of prompt `i` have the places from `i · beams` on in the caches. What a prompt becomes does not depend on the
//! others of its group.

use std::time::Instant;

use super::{Ears, Ended, Generated, Generation, Pace, Prompt, finite};
use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::library::generate::{Piece, Sampler, Search, prefill};

/// A prompt that is gone on with.
struct Asked {
    text: u64,
    /// The tokens that all its texts begin with.
    begun: Vec<u32>,
    search: Search,
}

/// A text that is gone on with: which search it is of, and its row there.
type Row = (usize, usize);

impl Generation<'_> {
    /// The best texts behind some prompts.
    pub(super) fn search(
        &self,
        runner: &mut Runner,
        prompts: &[Prompt],
        ears: &mut Ears<'_>,
    ) -> Result<(Vec<Generated>, Pace), RunError> {
        let beams = self.settings.beams;
        let begun = Instant::now();
        let mut pace = Pace::default();
        let sources = self.read_sources(runner, prompts)?;
        let mut list: Vec<Asked> = Vec::with_capacity(prompts.len());
        for (i, prompt) in prompts.iter().enumerate() {
            list.push(Asked {
                text: prompt.text,
                begun: self.begun(prompt),
                search: Search::new(
                    beams,
                    i * beams.count as usize,
                    self.settings.max_new_tokens,
                ),
            });
        }
        let lengths: Vec<usize> = list.iter().map(|own| own.begun.len()).collect();
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); list.len()];
        for run in prefill(&lengths) {
            interrupted(ears)?;
            let ends: Vec<(usize, bool)> = run
                .iter()
                .map(|piece| (piece.of, Some(&piece.tokens.end) == lengths.get(piece.of)))
                .collect();
            let run: Vec<Piece> = run
                .into_iter()
                .map(|piece| Piece {
                    of: piece.of * beams.count as usize,
                    ..piece
                })
                .collect();
            let made = self.of_texts(runner, &list, &run, &sources)?;
            for ((of, is_end), row) in ends.into_iter().zip(made) {
                if let (true, Some(own)) = (is_end, rows.get_mut(of)) {
                    *own = row;
                }
            }
        }
        let texts: Vec<Row> = (0..list.len()).map(|of| (of, 0)).collect();
        pace.read = (lengths.iter().map(|&n| n as u64).sum(), begun.elapsed());
        let begun = Instant::now();
        let mut texts = self.branch(runner, &mut list, (&texts, rows))?;
        while !texts.is_empty() {
            interrupted(ears)?;
            pace.made.0 += texts.len() as u64;
            let run = pieces(&list, &texts);
            let rows = self.of_texts(runner, &list, &run, &sources)?;
            texts = self.branch(runner, &mut list, (&texts, rows))?;
        }
        pace.made.1 = begun.elapsed();
        let each = list.into_iter().enumerate();
        let made = each.map(|(of, own)| self.reported(of, own, ears));
        Ok((made.collect::<Result<_, RunError>>()?, pace))
    }

    /// The logits behind some pieces; those of a prompt are named by its first place.
    fn of_texts(
        &self,
        runner: &mut Runner,
        list: &[Asked],
        run: &[Piece],
        sources: &[u32],
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let count = self.settings.beams.count as usize;
        let mut texts: Vec<Vec<u32>> = vec![Vec::new(); list.len() * count];
        for own in list {
            for beam in own.search.running() {
                if let Some(text) = texts.get_mut(beam.place) {
                    *text = [&own.begun[..], &beam.made].concat();
                }
            }
        }
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let (logits, width) = self.logits(runner, &texts, run, sources)?;
        Ok(logits.chunks(width).map(<[f32]>::to_vec).collect())
    }

    /// Goes on with texts by the logits behind them; gives those that are gone on with next.
    fn branch(
        &self,
        runner: &mut Runner,
        list: &mut [Asked],
        (texts, mut rows): (&[Row], Vec<Vec<f32>>),
    ) -> Result<Vec<Row>, RunError> {
        let sampler = Sampler::new(&self.settings.sampling);
        let mut copies = Vec::new();
        let mut next = Vec::new();
        for (of, own) in list.iter_mut().enumerate() {
            let mut mine: Vec<&mut Vec<f32>> = Vec::new();
            for ((search, _), row) in texts.iter().zip(&mut rows) {
                if *search == of {
                    mine.push(row);
                }
            }
            if mine.is_empty() {
                continue;
            }
            let cached = own.begun.len() + own.search.running().first().map_or(0, |b| b.made.len());
            for (beam, row) in own.search.running().iter().zip(&mut mine) {
                finite(row, (cached, own.text))?;
                log_softmax(row);
                let before = [&own.begun[..], &beam.made].concat();
                sampler.penalise(row, &before);
                self.rule(row, &before);
            }
            let mine: Vec<&[f32]> = mine.iter().map(|row| row.as_slice()).collect();
            let moved = own.search.step(&mine, self.ends);
            copies.extend(moved.into_iter().map(|(from, to)| (from, to, cached)));
            next.extend((0..own.search.running().len()).map(|row| (of, row)));
        }
        self.copy(runner, &copies)?;
        Ok(next)
    }

    /// A prompt's text.
    fn reported(&self, of: usize, own: Asked, ears: &mut Ears<'_>) -> Result<Generated, RunError> {
        let mut ids = own.search.into_best();
        let ended = match ids.last() {
            Some(last) if self.ends.contains(last) => {
                ids.pop();
                Ended::Token
            }
            _ => Ended::Length,
        };
        let text = self.tokenizer.decode(&ids).map_err(RunError::bug)?;
        (ears.each)(of, &text);
        Ok(Generated { ids, text, ended })
    }
}

/// The last token of each text.
fn pieces(list: &[Asked], texts: &[Row]) -> Vec<Piece> {
    let each = texts.iter().filter_map(|(of, row)| {
        let own = list.get(*of)?;
        let beam = own.search.running().get(*row)?;
        let length = own.begun.len() + beam.made.len();
        Some(Piece {
            of: beam.place,
            tokens: length - 1..length,
        })
    });
    each.collect()
}

fn interrupted(ears: &Ears<'_>) -> Result<(), RunError> {
    match ears.observer.interrupted() {
        Some(signal) => Err(RunError::interrupted(signal)),
        None => Ok(()),
    }
}

/// Logits to log-probabilities.
fn log_softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
    let less = sum.ln() as f32;
    row.iter_mut().for_each(|x| *x = *x - top - less);
}
