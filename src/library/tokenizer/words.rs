//! Words as tokens: each by itself, as transformers makes them of texts that are split into words
//! (`is_split_into_words`, with `add_prefix_space` where a vocabulary has bytes).

use tokenizers::{Encoding, InputSequence, Token};

use crate::library::counts::to_u32;

use super::{Encoded, Tokenizer};

/// Parts that the words of a row are cut into at most.
const MOST_PARTS: usize = 255;

/// Some words of a row as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worded {
    /// Their tokens; of the first part, `uncut` counts those of all.
    pub encoded: Encoded,
    /// Position of the first token that is a word's.
    pub first: u32,
    /// The word of each token from there on, ascending.
    pub words: Vec<u32>,
}

/// The tokens around the words of a part, with their segments and that of the words.
struct Around {
    before: Vec<(u32, u32)>,
    behind: Vec<(u32, u32)>,
    segment: u32,
}

impl Tokenizer {
    /// The words of a row, in as many parts as `max_length` asks for. No part begins within a word; what of a word does not fit
    /// into a part of its own is left away. A word of which the tokenizer makes nothing is the unknown token.
    ///
    /// # Errors
    /// What the tokenizer complains about; there is no room, or there would be more than 255 parts.
    pub fn encode_words(&self, words: &[String], max_length: usize) -> Result<Vec<Worded>, String> {
        let around = self.around()?;
        let special = around.before.len() + around.behind.len();
        let limit = max_length.checked_sub(special).filter(|limit| *limit > 0);
        let limit = limit.ok_or_else(|| {
            format!("`max_length` {max_length} leaves no room beside {special} special tokens")
        })?;
        let pieces = self.pieces_of(words)?;
        let all = pieces.len();
        let mut parts: Vec<Vec<(u32, u32)>> = Vec::new();
        for word in pieces.chunk_by(|a, b| a.1 == b.1) {
            let own = word.get(..word.len().min(limit)).unwrap_or(word);
            match parts.last_mut() {
                Some(last) if last.len() + own.len() <= limit => last.extend_from_slice(own),
                _ => parts.push(own.to_vec()),
            }
        }
        if parts.len() > MOST_PARTS {
            return Err(format!(
                "a row of {} words would be read in {} parts of `max_length` {max_length}, and {MOST_PARTS} are the most; raise it, or \
                 write shorter rows",
                words.len(),
                parts.len()
            ));
        }
        let at_once = words.iter().map(|word| word.len() + 1).sum();
        let each = parts.into_iter().enumerate().map(|(i, pieces)| {
            let own = pieces.iter().map(|&(id, _)| (id, around.segment));
            let tokens = around.before.iter().copied().chain(own);
            let tokens: Vec<(u32, u32)> = tokens.chain(around.behind.iter().copied()).collect();
            let (ids, types): (Vec<u32>, Vec<u32>) = tokens.into_iter().unzip();
            self.embedded(&ids)?;
            Ok(Worded {
                first: to_u32(around.before.len()),
                words: pieces.iter().map(|&(_, word)| word).collect(),
                encoded: Encoded {
                    uncut: if i == 0 { special + all } else { ids.len() },
                    segments: self.segments(&types)?,
                    ids,
                    at_once,
                },
            })
        });
        each.collect()
    }

    /// The tokens of words, each with the number of its word: at least one a word.
    fn pieces_of(&self, words: &[String]) -> Result<Vec<(u32, u32)>, String> {
        let spaced = self.has_bytes();
        let own: Vec<String> = words
            .iter()
            .map(
                |word| match spaced && !word.starts_with(' ') && !word.is_empty() {
                    true => format!(" {word}"),
                    false => word.clone(),
                },
            )
            .collect();
        let encoding = self.inner.encode(InputSequence::from(own), false);
        let encoding = encoding.map_err(|e| e.to_string())?;
        let mut made = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_word_ids())
            .peekable();
        let mut pieces = Vec::with_capacity(encoding.len());
        for word in 0..to_u32(words.len()) {
            let begin = pieces.len();
            while let Some((&id, _)) = made.next_if(|(_, of)| **of == Some(word)) {
                pieces.push((id, word));
            }
            if pieces.len() == begin {
                // A vocabulary of bytes knows all there is, and names such a token nevertheless.
                let named = || self.inner.token_to_id(self.tokens.of("unk_token")?);
                let unknown = self.unknown().or_else(named).ok_or_else(|| {
                    format!(
                        "the tokenizer makes nothing of the word {:?}, and has no token for what it does not know",
                        words.get(word as usize).map_or("", String::as_str)
                    )
                })?;
                pieces.push((unknown, word));
            }
        }
        Ok(pieces)
    }

    /// Whether its tokens are made of bytes, so that a word within a text begins with a space.
    pub(super) fn has_bytes(&self) -> bool {
        serde_json::to_string(&self.inner.get_pre_tokenizer())
            .is_ok_and(|json| json.contains("\"ByteLevel\""))
    }

    /// What the tokenizer puts around a text.
    fn around(&self) -> Result<Around, String> {
        let one = Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0))], 0);
        let done = self.inner.post_process(one, None, true);
        let done = done.map_err(|e| e.to_string())?;
        let special = done.get_special_tokens_mask();
        let at = special.iter().position(|&s| s == 0).unwrap_or(0);
        let all: Vec<(u32, u32)> = done
            .get_ids()
            .iter()
            .copied()
            .zip(done.get_type_ids().iter().copied())
            .collect();
        let (before, rest) = all.split_at(at.min(all.len()));
        let (own, behind) = rest
            .split_first()
            .map_or(((0, 0), rest), |(own, b)| (*own, b));
        Ok(Around {
            before: before.to_vec(),
            behind: behind.to_vec(),
            segment: own.1,
        })
    }
}
