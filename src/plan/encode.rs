//! Splits tokenized: read once a row at a time, their tokens kept between runs where they are many.

use std::io;
use std::sync::Arc;

use rayon::prelude::*;

use super::bind::Want;
use super::source::DataSource;
use crate::base::world::World;
use crate::library::data::DataError;
use crate::library::data::report::{Sight, Survey, Surveyor, Tokens};
use crate::library::data::rows_hash::RowsHash;
use crate::library::data::set::{Example, Label, Reading};
use crate::library::data::tokens::{EncodedExample, EncodedSet, Maker, Notes, Target};
use crate::library::prompt::frame::{Frame, tokenize};
use crate::library::tokenizer::{Encoded, Tokenizer};

/// Bytes of data files from which on their tokens go into a file that is kept.
const MANY: u64 = 1 << 20;

/// Texts that are tokenized at a time.
const AT_ONCE: usize = 2048;

/// Bytes of texts after which they are tokenized, however few they are.
const BYTES_AT_ONCE: usize = 4 << 20;

/// Bytes of memory that a byte of a text takes while it is tokenized. Measured, of the texts that take most.
const PER_BYTE: u64 = 128;

/// Changes whenever the same texts become other tokens.
const VERSION: u32 = 2;

/// A tokenized split.
pub(super) struct Made {
    pub set: EncodedSet,
    pub classes: Vec<String>,
    /// What was seen of its rows, if that was wanted.
    pub survey: Option<Survey>,
    /// What its rows are known again by.
    pub rows_hash: Option<String>,
    /// Bytes that it takes to make its tokens, beside them.
    pub making: u64,
    /// Why its tokens are in memory though they are many.
    pub unkept: Option<io::Error>,
}

/// Why a split cannot be tokenized.
pub(super) enum Cause {
    Data(Vec<DataError>),
    Tokens(String),
}

/// Tokenizes a split, in parallel over examples; the order is that of the data, all of them for each draw of
/// demonstrations. What was kept of an earlier time is not made again.
pub(super) fn encoded(
    source: &DataSource,
    tokenizer: &Tokenizer,
    frame: Option<Frame<'_>>,
    want: Want<'_>,
    world: &dyn World,
) -> Result<Made, Cause> {
    if let Some(frame) = frame {
        let fits = frame.check_length(tokenizer, want.max_length as usize);
        fits.map_err(Cause::Tokens)?;
    }
    // What demonstrations are drawn from is in memory anyway.
    let name = source
        .identity
        .as_ref()
        .filter(|_| want.demonstrations.is_none())
        .map(|data| {
            let of = (
                VERSION,
                data,
                tokenizer.identity(),
                frame.map(|f| (&f.template.source, f.columns)),
                want.max_length,
                want.task.ends_texts(),
            );
            blake3::hash(format!("{of:?}").as_bytes())
                .to_hex()
                .to_string()
        });
    let known = name
        .as_ref()
        .and_then(|name| EncodedSet::open(world.kept(name)?));
    let enough = |n: &Notes| n.rows_hash.is_some() && (n.survey.is_some() || !want.survey);
    if let Some((set, notes)) = known.filter(|(_, notes)| enough(notes)) {
        return Ok(Made {
            set,
            classes: notes.classes,
            survey: notes.survey.filter(|_| want.survey),
            rows_hash: notes.rows_hash,
            making: notes.making,
            unkept: None,
        });
    }
    let reading = Reading::open(&source.spec, world).map_err(Cause::Data)?;
    let each = Each {
        source,
        world,
        reading: &reading,
        tokenizer,
        frame,
        want,
        unknown: tokenizer.unknown(),
        special: tokenizer.special_ids(),
    };
    let mut unkept = None;
    let name = name.filter(|_| reading.bytes() >= MANY);
    let file = name.and_then(|name| world.keep(&name).transpose());
    if let Some(file) = file {
        match file.and_then(Maker::in_file).map(|made| each.encode(made)) {
            Ok(Ok(Ok((set, notes)))) => {
                return Ok(Made {
                    set,
                    classes: notes.classes,
                    survey: notes.survey,
                    rows_hash: notes.rows_hash,
                    making: notes.making,
                    unkept,
                });
            }
            Ok(Err(cause)) => return Err(cause),
            Err(why) | Ok(Ok(Err(why))) => unkept = Some(why),
        }
    }
    match each.encode(Maker::in_memory())? {
        Ok((set, notes)) => Ok(Made {
            set,
            classes: notes.classes,
            survey: notes.survey,
            rows_hash: notes.rows_hash,
            making: notes.making,
            unkept,
        }),
        Err(why) => Err(Cause::Tokens(why.to_string())),
    }
}

/// What examples are made with.
struct Each<'a> {
    source: &'a DataSource,
    world: &'a dyn World,
    reading: &'a Reading<'a>,
    tokenizer: &'a Tokenizer,
    frame: Option<Frame<'a>>,
    want: Want<'a>,
    /// The token for what the vocabulary does not hold.
    unknown: Option<u32>,
    /// Tokens that are no part of a text, ascending.
    special: Vec<u32>,
}

/// A set, and what is known of its rows.
type Encoding = (EncodedSet, Notes);

/// An example that became tokens: its place, its row, what was seen of it, what its row is known again by, and the bytes that
/// were tokenized at once.
type Tokenized = (
    u64,
    u32,
    EncodedExample,
    Option<Sight>,
    Option<RowsHash>,
    usize,
);

impl Each<'_> {
    /// Tokenizes all of them; the inner error is that of the file they go into.
    fn encode(&self, mut made: Maker) -> Result<io::Result<Encoding>, Cause> {
        let mut surveyor = self.want.survey.then(Surveyor::default);
        let mut rows = RowsHash::default();
        let mut making = 0;
        for draw in 0..self.want.draws as u32 {
            // All draws have the same rows.
            let mut surveyor = surveyor.as_mut().filter(|_| draw == 0);
            let mut waiting: Vec<(u32, Example)> = Vec::new();
            let mut bytes = 0;
            let mut held = 0;
            let mut outcome = Ok(Ok(()));
            let walked = self.reading.walk(&mut |place, example| {
                let own = example.texts.iter().map(String::len).sum::<usize>();
                bytes += own;
                // A text is in memory as its reader has it, as it is handed on, and as it waits.
                held = held.max(bytes + 2 * own);
                waiting.push((place, example));
                if waiting.len() == AT_ONCE || bytes >= BYTES_AT_ONCE {
                    let seen = (surveyor.as_deref_mut(), &mut rows);
                    let took = self.add(&mut made, &mut waiting, draw, seen);
                    outcome =
                        took.map(|took| took.map(|took| making = making.max(took + held as u64)));
                    bytes = 0;
                }
                matches!(outcome, Ok(Ok(())))
            });
            walked.map_err(Cause::Data)?;
            if matches!(outcome, Ok(Ok(()))) {
                let took = self.add(&mut made, &mut waiting, draw, (surveyor, &mut rows));
                outcome = took.map(|took| took.map(|took| making = making.max(took + held as u64)));
            }
            if let Err(why) = outcome.map_err(Cause::Tokens)? {
                return Ok(Err(why));
            }
        }
        // What is kept under the name of these data are their tokens.
        self.source.check(self.world).map_err(Cause::Data)?;
        let classes = self.reading.classes();
        let notes = Notes {
            classes: classes.to_vec(),
            survey: surveyor.map(|s| s.finish(classes.len())),
            rows_hash: Some(rows.hex()),
            making,
        };
        Ok(made.finish(&notes).map(|set| (set, notes)))
    }

    /// Tokenizes what waits; gives the bytes that it took.
    fn add(
        &self,
        made: &mut Maker,
        waiting: &mut Vec<(u32, Example)>,
        draw: u32,
        (surveyor, rows): (Option<&mut Surveyor>, &mut RowsHash),
    ) -> Result<io::Result<u64>, String> {
        // All draws have the same rows.
        let first = draw == 0;
        let classes = self.reading.classes();
        let encoded: Result<Vec<Tokenized>, String> = waiting
            .par_drain(..)
            .map(|(place, example)| {
                let most = self.want.max_length as usize;
                let (mut encoded, mask) =
                    tokenize(self.tokenizer, self.frame, &example.texts, draw, most)?;
                if self.want.task.ends_texts() {
                    self.tokenizer.end(&mut encoded, most);
                }
                let row = example.row;
                let sight = surveyor.is_some().then(|| self.sight(&example, &encoded));
                let hash = first.then(|| RowsHash::of(&example, classes));
                let at_once = encoded.at_once;
                let label = match example.label {
                    None => Target::None,
                    Some(Label::Class(c)) => Target::Class(c),
                    Some(Label::Classes(list)) => Target::Classes(Arc::new(list)),
                    Some(Label::Score(x)) => Target::Score(x),
                };
                let example = EncodedExample {
                    ids: encoded.ids,
                    segments: encoded.segments,
                    mask,
                    label,
                };
                Ok((
                    u64::from(draw) << 32 | u64::from(place),
                    row,
                    example,
                    sight,
                    hash,
                    at_once,
                ))
            })
            .collect();
        let encoded = encoded?;
        for (place, row, example, _, hash, _) in &encoded {
            made.add(*place, *row, example);
            hash.iter().for_each(|hash| rows.add(hash));
        }
        if let Some(surveyor) = surveyor {
            let sights = encoded
                .iter()
                .filter_map(|(.., sight, _, _)| sight.as_ref());
            sights.for_each(|sight| surveyor.see(sight));
        }
        // As many are tokenized at a time as there are threads.
        let mut sizes: Vec<usize> = encoded.iter().map(|(.., at_once)| *at_once).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let largest = sizes.iter().take(rayon::current_num_threads());
        let took = PER_BYTE * largest.sum::<usize>() as u64;
        Ok(made.flush().map(|()| took))
    }

    /// What is to be seen of an example and of the tokens it became.
    fn sight(&self, example: &Example, encoded: &Encoded) -> Sight {
        let is_special = |id: &u32| self.special.binary_search(id).is_ok();
        let unknown = encoded.ids.iter().filter(|id| Some(**id) == self.unknown);
        let unknown = unknown.count();
        let others = encoded.ids.iter().filter(|id| {
            // The unknown token is a special one, too, and stands for a part of the text.
            !is_special(id) && Some(**id) != self.unknown
        });
        Sight {
            tokens: Some(Tokens {
                uncut: encoded.uncut as u32,
                read: (others.count() + unknown) as u32,
                unknown: unknown as u32,
                cut: encoded.uncut > encoded.ids.len(),
            }),
            ..Sight::of(example)
        }
    }
}
