//! Tokenizers out of a model's files, as transformers reads them: the class that the files name makes the
//! tokenizer of `tokenizer.json`, or of the older `vocab.txt`, or `vocab.json` with `merges.txt`.

use tokenizers::utils::truncation::{
    TruncationDirection as Side, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, ModelWrapper, PostProcessor, Tokenizer as Inner};

use self::added::Tokens;
use self::class::Class;
use self::seams::Seams;

pub use marked::{Ends, Marked};
pub use windows::Window;
pub use words::Worded;

mod added;
mod bounds;
mod class;
mod export;
mod files;
mod keys;
mod marked;
mod notes;
mod pieces;
mod prompt;
mod seams;
mod switches;
mod windows;
mod words;

/// Mask tokens of the known vocabularies.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// Tokens that two texts which are both too long keep at least beyond what there is room for, so that it can be told which
/// was the longer one.
const LONGER: usize = 2;

/// A reader of the files beside a model's config, by name.
pub struct TokenizerFiles<'a> {
    /// Where they are, for messages.
    pub dir_name: String,
    /// Gives a file's content.
    pub get: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

/// A tokenized example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token.
    pub segments: Vec<u8>,
    /// How many there were before the cut.
    pub uncut: usize,
    /// Bytes of text that were tokenized at once, at most.
    pub at_once: usize,
}

/// Tokens without an embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// There are none.
    Nothing,
    /// Added tokens only, which a text need not have.
    Added(Vec<String>),
    /// Tokens of the vocabulary itself.
    Vocabulary,
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A key that is not followed.
    Unread,
    /// Files that say different things.
    Differs,
    /// A vocabulary that does not fit what is done to the text.
    Cased,
}

/// Something in a tokenizer's files that a user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub topic: Topic,
    /// A sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// A tokenizer.
pub struct Tokenizer {
    inner: Inner,
    class: Class,
    tokens: Tokens,
    side: Side,
    seams: Option<Seams>,
    shows_segments: bool,
    rows: Option<u64>,
    segment_rows: Option<u64>,
    made_for: Option<u64>,
    bytes: u64,
    identity: String,
    notes: Vec<Note>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Reads a tokenizer. Of the model's `config.json`, where the files hold one, it takes the class and
    /// the number of tokens that have an embedding.
    ///
    /// # Errors
    /// A sentence that names the file and the remedy.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, String> {
        files::read(files)
    }

    fn new(
        inner: Inner,
        class: Class,
        tokens: Tokens,
        side: Side,
        shows_segments: bool,
    ) -> Result<Self, String> {
        let json = inner.to_string(false).map_err(|e| e.to_string())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(json.as_bytes());
        let left = side == Side::Left;
        let split = inner.get_encode_special_tokens();
        let mut made = Self {
            seams: Seams::of(&inner),
            inner,
            class,
            tokens,
            side,
            shows_segments,
            rows: None,
            segment_rows: None,
            made_for: None,
            bytes: json.len() as u64,
            identity: String::new(),
            notes: Vec::new(),
        };
        let mask = made.mask();
        hasher.update(format!("{left} {shows_segments} {split} {mask:?}").as_bytes());
        made.identity = hasher.finalize().to_hex().to_string();
        Ok(made)
    }

    /// What a user should know of its files.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Tokens of a text, or of a pair, with special tokens; cut to `max_length`, the longer text first.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode(&self, texts: &[String], max_length: usize) -> Result<Encoded, String> {
        let special = self.added_tokens(texts.len() > 1);
        let Some(limit) = max_length.checked_sub(special) else {
            return Err(format!(
                "`max_length` {max_length} leaves no room beside {special} special tokens"
            ));
        };
        let one = |text: &String| -> Result<(Encoding, usize, usize), String> {
            let short = self.short(text, limit.saturating_add(LONGER))?;
            let encoding = self.inner.encode_fast(short.text.as_ref(), false);
            let encoding = encoding.map_err(|e| e.to_string())?;
            Ok((encoding, short.gone, short.at_once))
        };
        let (mut first, gone, at_once) = match texts.first() {
            Some(text) => one(text)?,
            None => return Err("there is no text".into()),
        };
        let mut lengths = (first.len() + gone, 0);
        let mut at_once = at_once;
        let second = match texts.get(1).map(one).transpose()? {
            Some((mut second, its, largest)) => {
                lengths.1 = second.len() + its;
                at_once = at_once.max(largest);
                if gone + its > 0 {
                    // Which is the longer one of two texts that are both too long is decided by their own lengths.
                    let kept = |own, other| limit + LONGER - usize::from(own < other);
                    first.truncate(kept(lengths.0, lengths.1), 0, self.side);
                    second.truncate(kept(lengths.1, lengths.0), 0, self.side);
                }
                Some(second)
            }
            None => None,
        };
        let params = TruncationParams {
            max_length: limit,
            strategy: TruncationStrategy::LongestFirst,
            direction: self.side,
            stride: 0,
        };
        let (first, second) =
            truncate_encodings(first, second, &params).map_err(|e| e.to_string())?;
        let done = self
            .inner
            .post_process(first, second, true)
            .map_err(|e| e.to_string())?;
        self.embedded(done.get_ids())?;
        Ok(Encoded {
            ids: done.get_ids().to_vec(),
            segments: self.segments(done.get_type_ids())?,
            uncut: special + lengths.0 + lengths.1,
            at_once,
        })
    }

    /// Segments as the model is shown them.
    fn segments(&self, types: &[u32]) -> Result<Vec<u8>, String> {
        if !self.shows_segments {
            return Ok(vec![0; types.len()]);
        }
        let known = self.segment_rows.unwrap_or(u64::MAX);
        match types.iter().find(|&&t| u64::from(t) >= known || t > 255) {
            None => Ok(types.iter().map(|&t| t as u8).collect()),
            Some(t) => Err(format!(
                "the tokenizer puts tokens into segment {t}, and the model knows {known} (`type_vocab_size`)"
            )),
        }
    }

    /// Whether the model has an embedding for each token of a text.
    fn embedded(&self, ids: &[u32]) -> Result<(), String> {
        let rows = self.rows.unwrap_or(u64::MAX);
        match ids.iter().find(|&&id| u64::from(id) >= rows) {
            None => Ok(()),
            Some(&id) => Err(format!(
                "the text holds the token `{}`, whose id is {id}, and the model has embeddings for {rows}",
                self.token(id).unwrap_or_default()
            )),
        }
    }

    /// The largest segment that the model is shown of single texts, or of pairs.
    #[must_use]
    pub fn most_segment(&self, pair: bool) -> u64 {
        let processor = self
            .inner
            .get_post_processor()
            .filter(|_| self.shows_segments);
        processor.map_or(0, |p| files::most_segment(p, pair).into())
    }

    /// Added tokens for which a model with so many embeddings has none, if no others lack one.
    #[must_use]
    pub fn beyond(&self, rows: u64) -> Beyond {
        let mut tokens: Vec<(u32, String)> = self
            .inner
            .get_vocab(true)
            .into_iter()
            .filter(|(_, id)| u64::from(*id) >= rows)
            .map(|(token, id)| (id, token))
            .collect();
        tokens.sort_unstable();
        let ends = self.class.ends();
        let (first, last) = ends.unwrap_or(("bos_token", "eos_token"));
        let around = [first, last, "mask_token"];
        let needed = |content: &str| {
            around
                .iter()
                .any(|role| self.tokens.of(role) == Some(content))
        };
        let added = self.tokens.contents();
        if tokens.is_empty() {
            Beyond::Nothing
        } else if tokens
            .iter()
            .all(|(_, t)| added.contains(t.as_str()) && !needed(t))
        {
            Beyond::Added(tokens.into_iter().map(|(_, token)| token).collect())
        } else {
            Beyond::Vocabulary
        }
    }

    /// Tokens after which a text is cut unless a recipe says another number (`model_max_length`).
    #[must_use]
    pub const fn made_for(&self) -> Option<u64> {
        self.made_for
    }

    /// Of a model with so many embeddings, of which the caller knows the segments: a text with a token that
    /// has none is refused.
    #[must_use]
    pub fn with_rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self.segment_rows = None;
        self
    }

    /// Number of tokens it knows: one more than the largest id.
    #[must_use]
    pub fn all_tokens(&self) -> usize {
        let vocab = self.inner.get_vocab(true);
        vocab.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// Number of tokens it can give the model: one more than the largest id that has an embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        let rows = self.rows.and_then(|n| usize::try_from(n).ok());
        self.all_tokens().min(rows.unwrap_or(usize::MAX))
    }

    /// Hash of all that decides what tokens a text becomes.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Tokens added to each text, or to each pair of texts.
    #[must_use]
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(pair))
    }

    /// Ids of the tokens that are no part of a text, ascending.
    #[must_use]
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        let mut ids: Vec<u32> = special.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The special tokens that have a name, such as `bos_token`, by it.
    #[must_use]
    pub fn named_tokens(&self) -> serde_json::Map<String, serde_json::Value> {
        self.tokens.by_name()
    }

    /// The special tokens as they are written.
    #[must_use]
    pub fn special_tokens(&self) -> Vec<String> {
        let ids = self.special_ids().into_iter();
        ids.filter_map(|id| self.token(id)).collect()
    }

    /// The token that ends a text, if the files name one.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.inner.token_to_id(self.tokens.of("eos_token")?)
    }

    /// Puts the token that ends a text behind one, unless it stands there or the text was cut before its end.
    pub fn end(&self, text: &mut Encoded, max_length: usize) {
        let Some(end) = self.eos().filter(|end| text.ids.last() != Some(end)) else {
            return;
        };
        let whole = text.uncut == text.ids.len();
        text.uncut += 1;
        if whole && text.ids.len() < max_length {
            text.ids.push(end);
            text.segments.push(0);
        }
    }

    /// Tokens of a text that holds its special tokens itself, such as a rendered conversation.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode_written(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| e.to_string())?;
        self.embedded(encoding.get_ids())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of some tokens, special ones left out.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn decode(&self, ids: &[u32]) -> Result<String, String> {
        self.inner.decode(ids, true).map_err(|e| e.to_string())
    }

    /// The number of the one token that a text is: as the vocabulary writes it, or as the text is cut.
    ///
    /// # Errors
    /// It is several tokens, or none.
    pub fn one(&self, text: &str) -> Result<u32, String> {
        if let Some(id) = self.inner.token_to_id(text) {
            return Ok(id);
        }
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| e.to_string())?;
        match encoding.get_ids() {
            &[id] if self.unknown() != Some(id) => Ok(id),
            [_] | [] => Err(format!("the vocabulary does not hold {text:?}")),
            ids => {
                let list: Vec<String> = ids.iter().filter_map(|&id| self.token(id)).collect();
                let list = list.join("`, `");
                Err(format!("{text:?} is {} tokens: `{list}`", ids.len()))
            }
        }
    }

    /// A token as the vocabulary writes it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token for what the vocabulary does not hold, if there is one.
    #[must_use]
    pub fn unknown(&self) -> Option<u32> {
        let name = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => model.unk_token.as_str(),
            ModelWrapper::WordLevel(model) => model.unk_token.as_str(),
            ModelWrapper::BPE(model) => model.unk_token.as_deref()?,
            // The library keeps the id to itself; sentencepiece's usual name for it is this.
            ModelWrapper::Unigram(_) => self.tokens.of("unk_token").unwrap_or("<unk>"),
        };
        self.inner.token_to_id(name)
    }

    /// The mask token and its id: the one that the files name, else a usual one that the vocabulary has.
    #[must_use]
    pub fn mask(&self) -> Option<(&str, u32)> {
        let named = self.tokens.of("mask_token").into_iter();
        named
            .chain(MASKS)
            .find_map(|name| Some((name, self.inner.token_to_id(name)?)))
    }

    /// The tokens of a word in the middle of a text: a byte-level vocabulary has `Ġgreat` for it,
    /// the word with the space before it, and that is what a mask stands for.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn word_pieces(&self, word: &str) -> Result<Vec<(String, u32)>, String> {
        let text = if self.has_bytes() {
            format!(" {}", word.trim_start())
        } else {
            word.to_owned()
        };
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| e.to_string())?;
        let ids = encoding.get_ids().iter();
        Ok(ids
            .map(|&id| (self.inner.id_to_token(id).unwrap_or_default(), id))
            .collect())
    }

    /// Rough size of its tables in memory.
    #[must_use]
    pub const fn heap_bytes(&self) -> u64 {
        12 * self.bytes
    }
}

#[cfg(test)]
mod tests;
