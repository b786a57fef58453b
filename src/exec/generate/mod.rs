//! Generating text: prompts of a group are read together, then each gets a token a run until it ends.
//!
//! **Invariant:** what a prompt becomes does not depend on the others of its group: prompts are cut alike whatever they come
//! with, a program's rows do not depend on each other, and draws are keyed by the text's number and the token's place.

use std::time::{Duration, Instant};

use crate::exec::interpreter::{Runner, awake};
use crate::exec::observe::Observer;
use crate::files::RunError;
use crate::library::data::tokens::{Marking, own_id};
use crate::library::generate::{Piece, Rules, Sampler, Settings, Tail, prefill};
use crate::library::model::{LongTexts, Positions};
use crate::library::stage::network::Generators;
use crate::library::tokenizer::Tokenizer;
use crate::program::op::Tensor;
use crate::program::{Bindings, Class};

mod beams;
mod feeds;

/// A prompt, or a source that a text is made of.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The number of its text, which draws are keyed by.
    pub text: u64,
    /// Its tokens: at least one.
    pub ids: Vec<u32>,
}

/// Where texts are made of sources.
#[derive(Clone, Copy, Debug)]
pub struct Pairing<'a> {
    /// The token that a text begins with, and what is said of those that follow.
    pub rules: &'a Rules,
    /// Room for tokens of a source.
    pub capacity: u64,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The model gave a token that ends a text.
    Token,
    /// A string stopped it.
    Stop,
    /// As many tokens were made as were asked for.
    Length,
    /// Nobody wanted to read on.
    Interrupted,
}

/// A text that was made.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// The text, without special tokens and without the string that stopped it.
    pub text: String,
    /// Why it ended.
    pub ended: Ended,
}

/// How fast a group was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Tokens of prompts that were read, and the time it took.
    pub read: (u64, Duration),
    /// Tokens that were made behind the first of each text, and the time it took.
    pub made: (u64, Duration),
}

/// What generating needs beside the runner.
#[derive(Clone, Copy, Debug)]
pub struct Generation<'a> {
    /// The programs.
    pub programs: &'a Generators,
    /// Room for tokens of one sequence in the caches.
    pub capacity: u64,
    /// Where texts are made of sources.
    pub pairing: Option<Pairing<'a>>,
    /// How position ids are counted.
    pub positions: Positions,
    /// Which texts are long ones.
    pub long: &'a LongTexts,
    /// What is put into prompts, or marked in them.
    pub marking: Marking,
    /// What makes text of tokens.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end a text.
    pub ends: &'a [u32],
    /// How tokens are chosen, and when to stop.
    pub settings: &'a Settings,
}

/// Takes what is new of a text, by its place in the group; says whether to go on with it.
pub type Each<'a> = dyn FnMut(usize, &str) -> bool + 'a;

/// Who hears of what happens.
pub struct Ears<'a> {
    /// Gets what is new of the texts.
    pub each: &'a mut Each<'a>,
    /// Says whether the run goes on.
    pub observer: &'a mut dyn Observer,
}

/// A sequence of the group.
struct Sequence<'a> {
    text: u64,
    /// Tokens of the prompt and those made.
    ids: Vec<u32>,
    prompt: usize,
    tail: Tail<'a>,
    ended: Option<Ended>,
}

/// What the caches have of each place.
#[derive(Clone, Debug, Default)]
pub struct Cached(Vec<Known>);

/// What a cache has of a sequence.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its tokens.
    ids: Vec<u32>,
    /// Beyond how many borders of length the text was while they were read: they are of no use to one beyond more or fewer.
    /// `None` where it came to be longer on the way.
    beyond: Option<usize>,
}

/// A group on its way.
struct Group<'a> {
    list: Vec<Sequence<'a>>,
    cached: &'a mut Vec<Known>,
    /// Tokens of the source of each, where there are such.
    sources: &'a [u32],
    sampler: Sampler,
}

/// Puts empty caches in place, before the first group.
pub fn begin(runner: &mut Runner, programs: &Generators) {
    for resident in &programs.next.program().residents {
        if resident.class == Class::Cache {
            let dims = resident.ty.dims(&Bindings::default());
            let zeros = Tensor::zeros(resident.ty.stored, &dims);
            let residents = &mut runner.residents;
            residents.insert(&resident.name, resident.class, zeros, &mut runner.meter);
        }
    }
}

/// Gives the caches of these programs up.
pub fn end(runner: &mut Runner, programs: &Generators) {
    let own = &programs.next.program().residents;
    let keep =
        |name: &str, class: Class| class != Class::Cache || own.iter().all(|r| r.name != name);
    runner.residents.retain(&mut runner.meter, keep);
}

impl Group<'_> {
    /// The run of the last token of every text that goes on.
    fn next(&self) -> Vec<Piece> {
        let list = self.list.iter().enumerate();
        let going = list.filter(|(_, own)| own.ended.is_none());
        going
            .map(|(of, own)| Piece {
                of,
                tokens: own.ids.len().saturating_sub(1)..own.ids.len(),
            })
            .collect()
    }

    /// The runs of the texts that go on and are to be read again from their beginning.
    fn again(&self) -> Vec<Vec<Piece>> {
        let each = self.list.iter().zip(self.cached.iter());
        let again = each.map(|(own, known)| match own.ended {
            None if known.ids.is_empty() => own.ids.len(),
            _ => 0,
        });
        prefill(&again.collect::<Vec<usize>>())
    }
}

impl Generation<'_> {
    /// Generates behind some prompts, no more than the caches have places for. `cached` is what the caches have: where a
    /// prompt begins so, that part is not read again.
    ///
    /// # Errors
    /// What a kernel refuses, logits that are no numbers, or an interruption.
    pub fn group(
        &self,
        runner: &mut Runner,
        prompts: &[Prompt],
        Cached(cached): &mut Cached,
        ears: &mut Ears<'_>,
    ) -> Result<(Vec<Generated>, Pace), RunError> {
        let here = !runner.runs_ahead();
        let mut make = || {
            if self.settings.beams.searches() {
                cached.clear();
                return self.search(runner, prompts, ears);
            }
            self.sampled(runner, prompts, cached, ears)
        };
        if here { awake(make) } else { make() }
    }

    /// The same without a search.
    fn sampled(
        &self,
        runner: &mut Runner,
        prompts: &[Prompt],
        cached: &mut Vec<Known>,
        ears: &mut Ears<'_>,
    ) -> Result<(Vec<Generated>, Pace), RunError> {
        let sources = self.read_sources(runner, prompts)?;
        let list: Vec<Sequence<'_>> = prompts
            .iter()
            .map(|prompt| {
                let ids = self.begun(prompt);
                Sequence {
                    text: prompt.text,
                    prompt: ids.len(),
                    ids,
                    tail: Tail::new(&self.settings.stop),
                    ended: None,
                }
            })
            .collect();
        cached.resize(list.len().max(cached.len()), Known::default());
        let mut known = Vec::with_capacity(list.len());
        for (own, cached) in list.iter().zip(cached.iter_mut()) {
            let beyond = Some(self.beyond(&own.ids));
            let same = match cached.beyond == beyond {
                true => common(&own.ids, &cached.ids),
                false => 0,
            };
            cached.ids.truncate(same);
            cached.beyond = beyond;
            known.push(same);
        }
        let mut group = Group {
            list,
            cached,
            sources: &sources,
            sampler: Sampler::new(&self.settings.sampling),
        };
        let mut pace = Pace::default();
        let begun = Instant::now();
        let lengths = group.list.iter().map(|own| own.prompt);
        let left: Vec<usize> = lengths.zip(&known).map(|(n, known)| n - known).collect();
        for run in prefill(&left) {
            let behind = |piece: Piece| {
                let known = known.get(piece.of).copied().unwrap_or(0);
                let tokens = piece.tokens.start + known..piece.tokens.end + known;
                Piece { tokens, ..piece }
            };
            let run: Vec<Piece> = run.into_iter().map(behind).collect();
            self.step(runner, &mut group, &run, ears)?;
        }
        pace.read = (left.iter().map(|&n| n as u64).sum(), begun.elapsed());
        let begun = Instant::now();
        loop {
            for run in group.again() {
                self.step(runner, &mut group, &run, ears)?;
            }
            let run = group.next();
            if run.is_empty() {
                break;
            }
            pace.made.0 += run.len() as u64;
            self.step(runner, &mut group, &run, ears)?;
        }
        pace.made.1 = begun.elapsed();
        let made = group.list.into_iter().map(|own| Generated {
            ids: own.ids.get(own.prompt..).unwrap_or_default().to_vec(),
            ended: own.ended.unwrap_or(Ended::Length),
            text: own.tail.into_text(),
        });
        Ok((made.collect(), pace))
    }

    /// One run of the program; a sequence whose last token was in it gets another one.
    fn step(
        &self,
        runner: &mut Runner,
        group: &mut Group<'_>,
        run: &[Piece],
        ears: &mut Ears<'_>,
    ) -> Result<(), RunError> {
        if let Some(signal) = ears.observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        let texts: Vec<&[u32]> = group.list.iter().map(|own| own.ids.as_slice()).collect();
        let (mut logits, width) = self.logits(runner, &texts, run, group.sources)?;
        for (piece, row) in run.iter().zip(logits.chunks_mut(width)) {
            let Some(own) = group.list.get_mut(piece.of) else {
                continue;
            };
            let mut known = group.cached.get_mut(piece.of);
            if let Some(known) = &mut known {
                let read = own.ids.get(piece.tokens.clone());
                known.ids.extend(read.unwrap_or_default());
            }
            if piece.tokens.end < own.ids.len() {
                continue;
            }
            finite(row, (own.ids.len(), own.text))?;
            let made = own.ids.len() - own.prompt;
            self.rule(row, &own.ids);
            let token = group.sampler.choose(row, &own.ids, (own.text, made as u64));
            self.grow(own, (piece.of, token), ears.each)?;
            if let Some(known) = known {
                self.lengthen(own, known);
            }
        }
        Ok(())
    }

    /// Changes the scores of what follows a text as the model's files say.
    fn rule(&self, scores: &mut [f32], before: &[u32]) {
        if let Some(pairing) = self.pairing {
            let most = self.settings.max_new_tokens;
            pairing.rules.apply(scores, before, most);
        }
    }

    /// Puts a token behind a text, or ends it.
    fn grow(
        &self,
        own: &mut Sequence<'_>,
        (of, token): (usize, u32),
        each: &mut Each<'_>,
    ) -> Result<(), RunError> {
        if self.ends.contains(&token) {
            own.ended = Some(Ended::Token);
            each(of, own.tail.end());
            return Ok(());
        }
        own.ids.push(token);
        let made = own.ids.get(own.prompt..).unwrap_or_default();
        let text = self.tokenizer.decode(made).map_err(RunError::bug)?;
        let goes_on = each(of, own.tail.grow(text));
        if own.tail.is_stopped() {
            own.ended = Some(Ended::Stop);
        } else if made.len() as u64 >= self.settings.max_new_tokens {
            own.ended = Some(Ended::Length);
        } else if !goes_on {
            own.ended = Some(Ended::Interrupted);
        }
        if matches!(own.ended, Some(Ended::Length | Ended::Interrupted)) {
            each(of, own.tail.end());
        }
        Ok(())
    }

    /// Beyond how many borders of length a text is.
    fn beyond(&self, ids: &[u32]) -> usize {
        if self.long.borders.is_empty() {
            return 0;
        }
        let ids = ids.iter().map(|&id| own_id(id));
        self.long.beyond(self.positions.count(ids))
    }

    /// Looks at whether a text that goes on has come to be long, so that what the cache has of it is turned as in a shorter
    /// one.
    fn lengthen(&self, own: &Sequence<'_>, known: &mut Known) {
        let beyond = Some(self.beyond(&own.ids));
        if own.ended.is_some() || known.beyond == beyond {
            return;
        }
        if self.long.rereads {
            known.ids.clear();
            known.beyond = beyond;
        } else {
            known.beyond = None;
        }
    }
}

/// Complains about logits that are no numbers.
fn finite(row: &[f32], (tokens, text): (usize, u64)) -> Result<(), RunError> {
    match row.iter().find(|x| !x.is_finite()) {
        Some(bad) => Err(RunError::NotFinite {
            what: format!("a score of the token behind {tokens} tokens of text {text} is {bad}"),
        }),
        None => Ok(()),
    }
}

/// How many tokens of a prompt are cached, so that only those behind them need be read, but
/// never the last token.
fn common(ids: &[u32], cached: &[u32]) -> usize {
    let same = ids.iter().zip(cached).take_while(|(a, b)| a == b).count();
    same.min(ids.len().saturating_sub(1))
}
