//! Splits tokenized: read once a row at a time, their tokens kept between runs where they are many.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value as Json;

use super::bind::Want;
use super::source::DataSource;
use crate::base::world::World;
use crate::library::chat::{Chat, Rendering, Turns};
use crate::library::data::DataError;
use crate::library::data::form::{Form, Learn, Supervision};
use crate::library::data::report::{Sight, Survey, Surveyor, Tokens};
use crate::library::data::rows_hash::RowsHash;
use crate::library::data::set::{Example, Label, Reading};
use crate::library::data::tokens::{EncodedExample, EncodedSet, Maker, Notes, Target};
use crate::library::prompt::frame::{Frame, tokenize};
use crate::library::tokenizer::{Encoded, Ends, Tokenizer};

/// Bytes of data files from which on their tokens go into a file that is kept.
const MANY: u64 = 1 << 20;

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
                want.marking,
                (
                    want.rows.learn,
                    want.task.skips_empty(),
                    want.rows.identity(),
                    want.task.option(),
                ),
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
            supervision: notes.supervision,
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
        ends: tokenizer.special_tokens(),
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
                    supervision: notes.supervision,
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
            supervision: notes.supervision,
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
}

impl Each<'_> {
    /// Tokenizes all of them; the inner error is that of the file they go into.
    fn encode(&self, mut made: Maker) -> Result<io::Result<Encoding>, Cause> {
        let mut surveyor = self.want.survey.then(Surveyor::default);
        let mut rows = RowsHash::default();
        let mut making = 0;
        let mut supervision = Supervision::default();
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
                    let seen = (surveyor.as_deref_mut(), &mut rows, &mut supervision);
                    let took = self.add(&mut made, &mut waiting, draw, seen);
                    outcome =
                        took.map(|took| took.map(|took| making = making.max(took + held as u64)));
                    bytes = 0;
                }
                matches!(outcome, Ok(Ok(())))
            });
            walked.map_err(Cause::Data)?;
            if matches!(outcome, Ok(Ok(()))) {
                let seen = (surveyor, &mut rows, &mut supervision);
                let took = self.add(&mut made, &mut waiting, draw, seen);
                outcome = took.map(|took| took.map(|took| making = making.max(took + held as u64)));
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
        waiting: &mut Vec<(u32, Example)>,
        draw: u32,
        (surveyor, rows, supervision): (Option<&mut Surveyor>, &mut RowsHash, &mut Supervision),
    ) -> Result<io::Result<u64>, Cause> {
        // All draws have the same rows.
        let first = draw == 0;
        let classes = self.reading.classes();
        let looked_at = surveyor.is_some();
        let encoded: Vec<Result<Vec<Tokenized>, Cause>> = waiting
            .par_drain(..)
            .map(|(place, example)| {
                let reads = self.reads(&example, draw)?;
                let supervision = self.supervision(&reads);
                let of_row = reads.into_iter().zip(0_u64..).map(|(read, part)| {
                    // What is known of the row stands with its first sequence.
                    let leads = part == 0;
                    let right = example.texts.last().and_then(|own| own.parse().ok());
                    let label = match &example.label {
                        None if self.want.rows.form == Form::Choices => {
                            right.map_or(Target::None, Target::Class)
                        }
                        None => Target::None,
                        Some(Label::Class(c)) => Target::Class(*c),
                        Some(Label::Classes(list)) => Target::Classes(Arc::new(list.clone())),
                        Some(Label::Score(x)) => Target::Score(*x),
                    };
                    Tokenized {
                        place: u64::from(draw) << 40 | u64::from(place) << 8 | part,
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
                        }
                        .marked(self.want.marking, &self.special),
                    }
                });
                Ok(of_row.collect())
            })
            .collect();
        // The first row that is wrong is told of, however many threads there are.
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

    /// The sequences of a row.
    fn reads(&self, example: &Example, draw: u32) -> Result<Vec<Read>, Cause> {
        if let (Form::Choices, Some(option)) = (self.want.rows.form, self.want.task.option()) {
            return self.options(example, option);
        }
        if self.want.rows.form != Form::Preference {
            return Ok(vec![self.read(example, &example.texts, draw)?]);
        }
        let sides = answers(example)
            .map_err(|why| Cause::Chat(format!("row {} (counted from 0): {why}", example.row)))?;
        let read = |texts: &[String; 2]| self.read(example, texts, draw);
        sides.iter().map(read).collect()
    }

    /// A prompt with each of its options.
    fn options(&self, example: &Example, form: (&str, bool)) -> Result<Vec<Read>, Cause> {
        let most = self.want.max_length as usize;
        let [prompt, options @ .., _] = example.texts.as_slice() else {
            return Ok(Vec::new());
        };
        let each = options.iter().map(|option| {
            let marked = self.tokenizer.encode_option((prompt, option), form, most);
            let marked = marked.map_err(Cause::Tokens)?;
            Ok(Read {
                encoded: marked.encoded,
                mask: option.len() as u32,
                learned: marked.learned,
                lost: marked.lost,
            })
        });
        each.collect()
    }

    /// The tokens of a row, or of one of its answers with the prompt.
    fn read(&self, example: &Example, texts: &[String], draw: u32) -> Result<Read, Cause> {
        let most = self.want.max_length as usize;
        let rows = &self.want.rows;
        let refused =
            |why: String| Cause::Chat(format!("row {} (counted from 0): {why}", example.row));
        let (text, parts, ends) = match (rows.form, texts) {
            (Form::Completion | Form::Preference, [prompt, completion]) if example.spoken => {
                let chat = self.answered(prompt, completion).map_err(refused)?;
                (chat.text, chat.learned, Ends::Written)
            }
            (Form::Completion | Form::Preference, [prompt, completion]) => {
                let text = format!("{prompt}{completion}");
                let parts = one(prompt.len()..text.len());
                (text, parts, Ends::Added)
            }
            (Form::Messages, [messages, ..]) => {
                let chat = self.chat(messages, texts.get(1)).map_err(refused)?;
                (chat.text, chat.learned, Ends::Written)
            }
            _ => {
                let (mut encoded, mask) = tokenize(self.tokenizer, self.frame, texts, draw, most)
                    .map_err(Cause::Tokens)?;
                if self.want.task.ends_texts() {
                    self.tokenizer.end(&mut encoded, most);
                }
                let length = encoded.ids.len() as u32;
                let all = rows.learn != Learn::Nothing && length > 1;
                return Ok(Read {
                    lost: if all {
                        encoded.uncut as u32 - length
                    } else {
                        0
                    },
                    learned: if all { one(1..length) } else { Vec::new() },
                    encoded,
                    mask,
                });
            }
        };
        let parts = if rows.learn == Learn::All {
            one(0..text.len())
        } else {
            parts
        };
        let marked = self.tokenizer.encode_marked(&text, &parts, ends, most);
        let marked = marked.map_err(Cause::Tokens)?;
        Ok(Read {
            encoded: marked.encoded,
            mask: 0,
            learned: marked.learned,
            lost: marked.lost,
        })
    }

    /// A conversation as its template renders it.
    fn chat(&self, messages: &str, tools: Option<&String>) -> Result<Chat, String> {
        let rows = &self.want.rows;
        let template = rows.template.ok_or("the model has no chat template")?;
        let messages: Vec<Json> = serde_json::from_str(messages).map_err(|e| e.to_string())?;
        let tools: Option<Json> = match tools {
            None => None,
            Some(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
        };
        let rendering = Rendering {
            generation_prompt: false,
            tools: tools.as_ref().filter(|t| !t.is_null()),
            extra: rows.variables,
        };
        if rows.learn == Learn::All {
            let text = template.render(&messages, &rendering);
            let text = text.map_err(|why| why.to_string())?;
            return Ok(Chat {
                text,
                learned: Vec::new(),
            });
        }
        let turns = if rows.learn == Learn::Last {
            Turns::Last
        } else {
            Turns::All
        };
        let chat = template.chat(&messages, &rendering, turns, &self.ends);
        chat.map_err(|why| why.to_string())
    }

    /// A conversation of which what assistants say behind its prompt is learned.
    fn answered(&self, prompt: &str, completion: &str) -> Result<Chat, String> {
        let template = self.want.rows.template.ok_or(NO_TEMPLATE)?;
        let mut messages: Vec<Json> = serde_json::from_str(prompt).map_err(|e| e.to_string())?;
        let begin = messages.len();
        let rest: Vec<Json> = serde_json::from_str(completion).map_err(|e| e.to_string())?;
        messages.extend(rest);
        let rendering = Rendering::default();
        let chat = if self.want.rows.learn == Learn::All {
            let text = template.render(&messages, &rendering);
            let learned = Vec::new();
            text.map(|text| Chat { text, learned })
        } else {
            template.chat(&messages, &rendering, Turns::From(begin), &self.ends)
        };
        chat.map_err(|why| why.to_string())
    }

    /// What of a row is learned.
    fn supervision(&self, reads: &[Read]) -> Supervision {
        if self.want.rows.learn == Learn::Nothing {
            return Supervision::default();
        }
        let empty = reads.iter().any(|read| read.learned.is_empty());
        if empty && self.want.task.skips_empty() {
            return Supervision {
                skipped: 1,
                ..Supervision::default()
            };
        }
        let mut sum = Supervision::default();
        let (mut cut, mut ended) = (false, true);
        for (part, read) in reads.iter().enumerate() {
            let own = self.supervised(read);
            cut |= own.cut > 0;
            ended &= own.ended > 0;
            sum.add(&own);
            let other = part > 0 && self.want.rows.form == Form::Preference;
            sum.rejected += if other { own.learned } else { 0 };
        }
        // A row with two answers is one.
        Supervision {
            rows: 1,
            cut: u64::from(cut),
            ended: u64::from(ended),
            ..sum
        }
    }

    /// What of one of its sequences is learned.
    fn supervised(&self, read: &Read) -> Supervision {
        let learned = read
            .learned
            .iter()
            .map(|r| u64::from(r.end - r.start))
            .sum();
        let last = read.learned.last().cloned().unwrap_or_default();
        let last = read.encoded.ids.get(last.start as usize..last.end as usize);
        let ended = self
            .tokenizer
            .is_ended(last.unwrap_or_default(), &self.special);
        Supervision {
            rows: 1,
            tokens: read.encoded.ids.len() as u64,
            learned,
            cut: u64::from(read.encoded.uncut > read.encoded.ids.len()),
            lost: u64::from(read.lost),
            ended: u64::from(ended),
            skipped: 0,
            rejected: 0,
        }
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
        let seen = Sight::of(example);
        // A conversation is JSON here: what it says is seen of its tokens.
        let is_text = self.want.rows.form != Form::Messages && !example.spoken;
        Sight {
            empty: seen.empty && is_text,
            null: seen.null && is_text,
            tokens: Some(Tokens {
                uncut: encoded.uncut as u32,
                read: (others.count() + unknown) as u32,
                unknown: unknown as u32,
                cut: encoded.uncut > encoded.ids.len(),
            }),
            ..seen
        }
    }
}

/// Why lists of messages are not read.
const NO_TEMPLATE: &str = "the model has no chat template, which makes a text of messages; name one in the model: `chat_template = \"FILE\"`";

/// The prompt of a row with each of its two answers. Where none is written, it is what both begin with alike: as many
/// messages, or as much text, as TRL takes (`extract_prompt`).
fn answers(example: &Example) -> Result<[[String; 2]; 2], String> {
    let (chosen, rejected) = match example.texts.as_slice() {
        [prompt, chosen, rejected] => {
            return Ok([chosen, rejected].map(|answer| [prompt.clone(), answer.clone()]));
        }
        [chosen, rejected] => (chosen, rejected),
        _ => return Err("a chosen and a rejected answer are wanted".to_owned()),
    };
    if !example.spoken {
        let shorter = chosen.chars().count().min(rejected.chars().count());
        let alike = chosen.char_indices().zip(rejected.chars());
        let alike = alike.take_while(|((_, a), b)| a == b);
        // Of the same text twice, the last character is the answer.
        let alike = alike.take(shorter.saturating_sub(1));
        let mut at = alike
            .map(|((at, c), _)| at + c.len_utf8())
            .last()
            .unwrap_or(0);
        // The answer's first word keeps the space before it.
        if chosen.get(..at).is_some_and(|prompt| prompt.ends_with(' ')) {
            at -= 1;
        }
        let cut = |text: &String| {
            let (prompt, answer) = text.split_at_checked(at).unwrap_or((text, ""));
            [prompt.to_owned(), answer.to_owned()]
        };
        return Ok([cut(chosen), cut(rejected)]);
    }
    let list = |text: &String| -> Result<Vec<Json>, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    };
    let both = [list(chosen)?, list(rejected)?];
    let [one, other] = &both;
    let alike = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    // Of the same conversation twice, the last message is the answer.
    let alike = alike.min(one.len().min(other.len()).saturating_sub(1));
    Ok(both.map(|mut messages| {
        let answer = messages.split_off(alike);
        [messages, answer].map(|part| Json::Array(part).to_string())
    }))
}

/// A single range.
fn one<T>(range: Range<T>) -> Vec<Range<T>> {
    std::iter::once(range).collect()
}
