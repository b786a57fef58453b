//! Splits tokenized: read once a row at a time, their tokens kept between runs where they are many.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::bind::Want;
use super::source::DataSource;
use crate::base::world::World;
use crate::library::counts::to_u32;

use crate::library::data::DataError;
use crate::library::data::form::{Form, Learn, Supervision};
use crate::library::data::report::{Sight, Survey, Surveyor};
use crate::library::data::rows_hash::RowsHash;
use crate::library::data::set::{Label, Reading};
use crate::library::data::tokens::{EncodedExample, EncodedSet, Maker, Notes, Target};
use crate::library::prompt::frame::Frame;
use crate::library::tokenizer::{Encoded, Tokenizer};
use mismatched::{Queue, Waiting};

mod labels;
mod mismatched;
mod rows;
mod seen;

/// Bytes of data files from which on their tokens go into a file that is kept.
const MANY: u64 = 1 << 16;

/// Texts that are tokenized at a time.
const AT_ONCE: usize = 2048;

/// Bytes of texts after which they are tokenized, however few they are.
const BYTES_AT_ONCE: usize = 4 << 20;

/// Bytes of memory that a byte of a text takes while it is tokenized. Measured, of the texts that take most.
const PER_BYTE: u64 = 128;

/// Changes whenever the same texts become other tokens.
const VERSION: u32 = 4;

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
    /// What of it a language model learns.
    pub supervision: Option<Supervision>,
    /// Why its tokens are in memory though they are many.
    pub unkept: Option<io::Error>,
}

impl Made {
    fn of(set: EncodedSet, notes: Notes, unkept: Option<io::Error>) -> Self {
        Self {
            set,
            classes: notes.classes,
            survey: notes.survey,
            rows_hash: notes.rows_hash,
            making: notes.making,
            supervision: notes.supervision,
            unkept,
        }
    }
}

/// Why a split cannot be tokenized.
pub(super) enum Cause {
    Data(Vec<DataError>),
    Tokens(String),
    /// A conversation that its template does not render.
    Chat(String),
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
    let name = kept_name(source, tokenizer, frame, want);
    let known = name
        .as_ref()
        .and_then(|name| EncodedSet::open(world.kept(name)?));
    let enough = |n: &Notes| n.rows_hash.is_some() && (n.survey.is_some() || !want.survey);
    if let Some((set, notes)) = known.filter(|(_, notes)| enough(notes)) {
        tracing::info!(
            examples = set.len(),
            "took the tokens of a split from the cache"
        );
        let survey = notes.survey.filter(|_| want.survey);
        return Ok(Made::of(set, Notes { survey, ..notes }, None));
    }
    let reading = Reading::open(&source.spec, world).map_err(Cause::Data)?;
    let _span = tracing::debug_span!("tokenize", bytes = reading.bytes()).entered();
    let each = Each {
        source,
        world,
        reading: &reading,
        tokenizer,
        frame,
        want,
        unknown: tokenizer.unknown(),
        special: tokenizer.special_ids(),
        ends: tokenizer.special_tokens(),
    };
    let mut unkept = None;
    let name = name.filter(|_| reading.bytes() >= MANY);
    let file = name.and_then(|name| world.keep(&name).transpose());
    if let Some(file) = file {
        match file.and_then(Maker::in_file).map(|made| each.encode(made)) {
            Ok(Ok(Ok((set, notes)))) => return Ok(Made::of(set, notes, None)),
            Ok(Err(cause)) => return Err(cause),
            Err(why) | Ok(Ok(Err(why))) => unkept = Some(why),
        }
    }
    match each.encode(Maker::in_memory())? {
        Ok((set, notes)) => Ok(Made::of(set, notes, unkept)),
        Err(why) => Err(Cause::Tokens(why.to_string())),
    }
}

/// The name under which the tokens of a split are kept. What demonstrations are drawn from is in memory anyway, so it
/// has none.
fn kept_name(
    source: &DataSource,
    tokenizer: &Tokenizer,
    frame: Option<Frame<'_>>,
    want: Want<'_>,
) -> Option<String> {
    let identity = source.identity.as_ref();
    let data = identity.filter(|_| want.demonstrations.is_none())?;
    let of = (
        VERSION,
        data,
        tokenizer.identity(),
        frame.map(|f| (&f.template.source, f.columns)),
        want.max_length,
        want.task.ends_texts(),
        want.marking,
        (
            want.rows.learn,
            want.task.skips_empty(),
            want.rows.identity(),
            want.task.option(),
            want.task.pairs_options(),
            (
                want.task.label_texts(),
                want.task.content_free(),
                want.labels,
            ),
            want.task.words(),
            want.task.windows(),
            (
                want.task.target_length(),
                want.task.texts_apart(),
                want.task.mismatches(),
            ),
        ),
    );
    let hash = blake3::hash(format!("{of:?}").as_bytes());
    Some(hash.to_hex().to_string())
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
    /// The same as they are written.
    ends: Vec<String>,
}

/// A set, and what is known of its rows.
type Encoding = (EncodedSet, Notes);

/// An example that became tokens.
struct Tokenized {
    place: u64,
    row: u32,
    example: EncodedExample,
    /// What was seen of it.
    sight: Option<Sight>,
    /// What its row is known again by.
    hash: Option<RowsHash>,
    /// Bytes that were tokenized at once.
    at_once: usize,
    /// Whether its row is left out.
    skipped: bool,
    /// What of its row is learned.
    supervision: Option<Supervision>,
}

/// What a row became, or one of its answers: its tokens, the place of its mask, and what is learned of it.
struct Read {
    encoded: Encoded,
    mask: u32,
    learned: Vec<Range<u32>>,
    /// Tokens that would be learned but for the cut.
    lost: u32,
    /// The label of its own, where its row's is none of it.
    label: Option<Target>,
}

impl Each<'_> {
    /// Tokenizes all of them; the inner error is that of the file they go into.
    fn encode(&self, mut made: Maker) -> Result<io::Result<Encoding>, Cause> {
        let mut surveyor = self.want.survey.then(Surveyor::default);
        let mut rows = RowsHash::default();
        let mut making = 0;
        let mut supervision = Supervision::default();
        for draw in 0..to_u32(self.want.draws) {
            // All draws have the same rows.
            let mut surveyor = surveyor.as_mut().filter(|_| draw == 0);
            let mut waiting: Vec<Waiting> = Vec::new();
            let mut queue = Queue::of(self.want.task.mismatches());
            let mut bytes = 0;
            let mut reserved = 0;
            let mut outcome = Ok(Ok(()));
            let walked = self.reading.walk(&mut |place, example| {
                let own = example.texts.iter().map(String::len).sum::<usize>();
                bytes += own;
                // A text is in memory as its reader has it, as it is handed on, and as it waits.
                reserved = reserved.max(bytes + 2 * own);
                waiting.extend(queue.next(place, example));
                if waiting.len() == AT_ONCE || bytes >= BYTES_AT_ONCE {
                    let seen = (surveyor.as_deref_mut(), &mut rows, &mut supervision);
                    let took = self.add(&mut made, &mut waiting, draw, seen);
                    outcome = took
                        .map(|took| took.map(|took| making = making.max(took + reserved as u64)));
                    bytes = 0;
                }
                matches!(outcome, Ok(Ok(())))
            });
            walked.map_err(Cause::Data)?;
            if matches!(outcome, Ok(Ok(()))) {
                waiting.extend(queue.last());
                let seen = (surveyor, &mut rows, &mut supervision);
                let took = self.add(&mut made, &mut waiting, draw, seen);
                outcome =
                    took.map(|took| took.map(|took| making = making.max(took + reserved as u64)));
            }
            if let Err(why) = outcome? {
                return Ok(Err(why));
            }
        }
        // What is kept under the name of these data are their tokens.
        self.source.check(self.world).map_err(Cause::Data)?;
        let classes = self.reading.classes();
        let supervision = (self.want.rows.learn != Learn::Nothing).then_some(supervision);
        let seen = |surveyor: Surveyor| {
            let mut survey = surveyor.finish(classes.len());
            survey.findings.supervision = supervision;
            survey
        };
        let notes = Notes {
            classes: classes.to_vec(),
            survey: surveyor.map(seen),
            rows_hash: Some(rows.hex()),
            making,
            supervision,
        };
        Ok(made.finish(&notes).map(|set| (set, notes)))
    }

    /// Tokenizes what waits; gives the bytes that it took.
    fn add(
        &self,
        made: &mut Maker,
        waiting: &mut Vec<Waiting>,
        draw: u32,
        (surveyor, rows, supervision): (Option<&mut Surveyor>, &mut RowsHash, &mut Supervision),
    ) -> Result<io::Result<u64>, Cause> {
        // All draws have the same rows.
        let first = draw == 0;
        let classes = self.reading.classes();
        let looked_at = surveyor.is_some();
        let encoded: Vec<Result<Vec<Tokenized>, Cause>> = waiting
            .par_drain(..)
            .map(|own| {
                let (place, example) = (own.place, own.example);
                let reads = match &own.following {
                    Some(following) => self.mismatched(&example, following)?,
                    None => self.reads(&example, (place, draw))?,
                };
                let supervision = self.supervision(&reads);
                let of_row = reads.into_iter().zip(0_u64..).map(|(read, part)| {
                    // What is known of the row stands with its first sequence.
                    let leads = part == 0;
                    let right = example.texts.last().and_then(|own| own.parse().ok());
                    let own = read.label.clone();
                    let label = own.unwrap_or_else(|| match &example.label {
                        None if self.want.rows.form == Form::Choices => {
                            right.map_or(Target::None, Target::Class)
                        }
                        None | Some(Label::Each(_)) => Target::None,
                        Some(Label::Class(c)) => Target::Class(*c),
                        Some(Label::Classes(list)) => Target::Classes(Arc::new(list.clone())),
                        Some(Label::Score(x)) => Target::Score(*x),
                    });
                    Tokenized {
                        place: u64::from(draw) << 48 | u64::from(place) << 16 | part,
                        row: example.row,
                        hash: (first && leads).then(|| RowsHash::of(&example, classes)),
                        sight: (looked_at && leads).then(|| self.sight(&example, &read.encoded)),
                        at_once: read.encoded.at_once,
                        skipped: supervision.skipped > 0,
                        supervision: leads.then_some(supervision),
                        example: EncodedExample {
                            ids: read.encoded.ids,
                            segments: read.encoded.segments,
                            mask: read.mask,
                            label,
                            learned: read.learned,
                            task: example.task,
                        }
                        .marked(self.want.marking, &self.special),
                    }
                });
                Ok(of_row.collect())
            })
            .collect();
        // The first row that is wrong is reported, however many threads there are.
        let encoded: Vec<Vec<Tokenized>> = encoded.into_iter().collect::<Result<_, Cause>>()?;
        let encoded: Vec<Tokenized> = encoded.into_iter().flatten().collect();
        for own in &encoded {
            if !own.skipped {
                made.add(own.place, own.row, &own.example);
            }
            own.supervision.iter().for_each(|own| supervision.add(own));
            own.hash.iter().for_each(|hash| rows.add(hash));
        }
        if let Some(surveyor) = surveyor {
            let sights = encoded.iter().filter_map(|own| own.sight.as_ref());
            sights.for_each(|sight| surveyor.see(sight));
        }
        // As many are tokenized at a time as there are threads.
        let mut sizes: Vec<usize> = encoded.iter().map(|own| own.at_once).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let largest = sizes.iter().take(rayon::current_num_threads());
        let took = PER_BYTE * largest.sum::<usize>() as u64;
        Ok(made.flush().map(|()| took))
    }
}

/// A single range.
fn one<T>(range: Range<T>) -> Vec<Range<T>> {
    std::iter::once(range).collect()
}
