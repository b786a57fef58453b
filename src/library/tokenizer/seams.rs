//! Long texts in pieces: a text of megabytes is cut to a few hundred tokens, and a tokenizer takes a hundred bytes of memory
//! for each of its own.
//!
//! A *seam* is a place where the tokens of a text are those of what stands before it, followed by those of what stands
//! behind it, whatever both are. Between seams a text is tokenized piece by piece: pieces are counted, and only those at its
//! ends are kept, as far as a cut can leave something of them.
//!
//! **Invariant:** tokens, and their number, are those of the whole text. A tokenizer whose parts are not known to have seams
//! has none, and its texts are tokenized whole.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value as Json;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer, Tokenizer as Inner};

use super::Tokenizer;

/// The sizes of [`Seams`].
const SIZES: (usize, usize) = (64 << 10, 16 << 10);

/// Where a tokenizer's texts have seams. A blank between two letters or digits of ASCII is one: what is mapped, composed
/// or matched there ends with the letter before it.
#[derive(Clone, Debug)]
pub(super) struct Seams {
    /// Whether there is one before a mark of ASCII that follows a letter or digit of ASCII.
    marks: bool,
    /// Whether there is one between two Chinese characters.
    chinese: bool,
    /// Neighbours, lowered, within added tokens: between those there is none.
    within: BTreeSet<(char, char)>,
    /// Bytes of a text up to which it is tokenized whole, and of a piece of a longer one, unless the next seam is farther
    /// away.
    sizes: (usize, usize),
}

/// A text without its middle.
pub(super) struct Short<'a> {
    /// What is left of it.
    pub text: Cow<'a, str>,
    /// Tokens of what was taken out.
    pub gone: usize,
    /// Where it was taken out, and how many bytes it was.
    pub hole: (usize, usize),
    /// Bytes of the largest piece that was tokenized.
    pub at_once: usize,
}

impl<'a> Short<'a> {
    const fn whole(text: &'a str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            gone: 0,
            hole: (0, 0),
            at_once: text.len(),
        }
    }
}

fn kind(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

fn is(json: &Json, key: &str) -> bool {
    json.get(key).and_then(Json::as_bool).unwrap_or(false)
}

/// Parts of a sequence, or the one that there is.
fn parts(json: Json, of: &str) -> Vec<Json> {
    match json {
        Json::Null => Vec::new(),
        Json::Object(mut map) if map.get("type").and_then(Json::as_str) == Some("Sequence") => {
            match map.swap_remove(of) {
                Some(Json::Array(list)) => list.into_iter().flat_map(|j| parts(j, of)).collect(),
                _ => vec![Json::Null],
            }
        }
        other => vec![other],
    }
}

/// Whether a normalizer looks at a character and its combining marks only.
fn is_local(json: &Json) -> bool {
    match kind(json) {
        "BertNormalizer" | "StripAccents" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase"
        | "Nmt" | "Precompiled" | "Strip" => true,
        // Quotation marks that are made one, and runs of blanks.
        "Replace" => match json.get("pattern") {
            Some(pattern) => {
                let text = pattern.get("String").and_then(Json::as_str);
                let plain = |t: &str| !t.contains(|c: char| c == ' ' || c.is_ascii_alphanumeric());
                pattern.get("Regex").and_then(Json::as_str) == Some(" {2,}")
                    || text.is_some_and(plain)
            }
            None => false,
        },
        _ => false,
    }
}

/// What letters, digits and blanks of ASCII become: themselves, in either case, so that seams stay where they are.
fn keeps_ascii(inner: &Inner) -> bool {
    let alphabet = ('0'..='9').chain('A'..='Z').chain('a'..='z');
    let text = alphabet.flat_map(|c| [c, ' ']).collect::<String>();
    let text = text.trim_end();
    let Some(normalizer) = inner.get_normalizer() else {
        return true;
    };
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).is_ok() && normalized.get().eq_ignore_ascii_case(text)
}

/// The characters that stand beside each other in added tokens, as they are written and as they are matched.
fn within(inner: &Inner) -> Option<BTreeSet<(char, char)>> {
    let mut pairs = BTreeSet::new();
    for token in inner.get_added_tokens_decoder().values() {
        // These look at what stands beside them.
        if token.single_word || token.rstrip {
            return None;
        }
        let mut matched = NormalizedString::from(token.content.as_str());
        if let Some(normalizer) = inner.get_normalizer() {
            normalizer.normalize(&mut matched).ok()?;
        }
        for text in [token.content.as_str(), matched.get()] {
            let lowered: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
            pairs.extend(lowered.windows(2).filter_map(|w| match w {
                [a, b] => Some((*a, *b)),
                _ => None,
            }));
        }
    }
    Some(pairs)
}

impl Seams {
    /// The seams of a tokenizer's texts, if its parts are known to have some.
    pub(super) fn of(inner: &Inner) -> Option<Self> {
        let normalizers = serde_json::to_value(inner.get_normalizer()).ok()?;
        let normalizers = parts(normalizers, "normalizers");
        let splitters = serde_json::to_value(inner.get_pre_tokenizer()).ok()?;
        let splitters = parts(splitters, "pretokenizers");
        if !normalizers.iter().all(is_local) || !keeps_ascii(inner) {
            return None;
        }
        let strips = normalizers.iter().any(|n| kind(n) == "Strip");
        let first = splitters.first()?;
        // The first one parts words from each other; those behind it see one at a time.
        let (blanks, marks) = match kind(first) {
            "BertPreTokenizer" | "Whitespace" => (true, true),
            "WhitespaceSplit" => (true, false),
            // What follows a seam begins with a mark, before which a blank would be put.
            "ByteLevel" => (
                is(first, "use_regex") && !strips,
                !is(first, "add_prefix_space"),
            ),
            "Metaspace" => {
                let always = first.get("prepend_scheme").and_then(Json::as_str) == Some("always");
                let blank = first.get("replacement").and_then(Json::as_str) == Some("▁");
                (is(first, "split") && blank && (always || !strips), false)
            }
            _ => (false, false),
        };
        let by_chance =
            matches!(inner.get_model(), ModelWrapper::BPE(bpe) if bpe.dropout.is_some());
        if !blanks || by_chance {
            return None;
        }
        let chinese = kind(first) == "BertPreTokenizer"
            && normalizers
                .iter()
                .any(|n| kind(n) == "BertNormalizer" && is(n, "handle_chinese_chars"));
        let within = within(inner)?;
        let marks = marks
            && !normalizers
                .iter()
                .any(|n| kind(n) == "Replace" || kind(n) == "Precompiled");
        Some(Self {
            marks,
            chinese: chinese && !within.iter().any(|(a, b)| is_chinese(*a) || is_chinese(*b)),
            within,
            sizes: SIZES,
        })
    }

    /// Whether a text is tokenized in pieces.
    fn part(&self, text: &str) -> bool {
        text.len() > self.sizes.0
    }

    /// Whether there is a seam between two characters, of which the second is followed by a third.
    fn between(&self, (before, behind): (char, char), next: Option<char>) -> bool {
        let seam = if behind == ' ' {
            before.is_ascii_alphanumeric() && next.is_some_and(|c| c.is_ascii_alphanumeric())
        } else if behind.is_ascii_punctuation() {
            // `_` is a letter to some.
            self.marks && before.is_ascii_alphanumeric() && behind != '_'
        } else {
            self.chinese && is_chinese(before) && is_chinese(behind)
        };
        let pair = (before.to_ascii_lowercase(), behind.to_ascii_lowercase());
        seam && !self.within.contains(&pair)
    }

    /// The first seam at a byte or behind it.
    fn next(&self, text: &str, from: usize) -> Option<usize> {
        let from = (from..text.len()).find(|&i| text.is_char_boundary(i))?;
        let mut before = text.get(..from)?.chars().next_back()?;
        let mut rest = text.get(from..)?.char_indices().peekable();
        while let Some((at, behind)) = rest.next() {
            let next = rest.peek().map(|(_, c)| *c);
            if self.between((before, behind), next) {
                return Some(from + at);
            }
            before = behind;
        }
        None
    }

    /// The last seam at a byte or before it.
    fn last(&self, text: &str, upto: usize) -> Option<usize> {
        let mut at = (0..=upto.min(text.len()))
            .rev()
            .find(|&i| text.is_char_boundary(i))?;
        loop {
            let before = text.get(..at)?.chars().next_back()?;
            let mut behind = text.get(at..)?.chars();
            if let Some(first) = behind.next()
                && self.between((before, first), behind.next())
            {
                return Some(at);
            }
            at -= before.len_utf8();
        }
    }
}

/// The characters that are most of Chinese text; none of them combines with another.
fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

impl Tokenizer {
    /// Number of tokens of a piece.
    fn count(&self, piece: &str) -> Result<usize, String> {
        let encoding = self.inner.encode_fast(piece, false);
        encoding.map(|e| e.len()).map_err(|e| e.to_string())
    }

    /// A text of which others stand on both sides: what a cut from either side leaves of it may be up to `most` tokens.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub(super) fn short_inside<'a>(&self, text: &'a str, most: usize) -> Result<Short<'a>, String> {
        let seams = self.seams.as_ref().filter(|s| s.part(text));
        // What is beyond the outermost seams can be of one token with what stands beside it.
        let inside = seams.and_then(|s| Some((s.next(text, 1)?, s.last(text, text.len() - 1)?)));
        let Some((from, to)) = inside.filter(|(from, to)| from < to) else {
            return Ok(Short::whole(text));
        };
        let mut short = self.short(text.get(from..to).unwrap_or_default(), most)?;
        short.hole.0 += from;
        Ok(short)
    }

    /// A text of which a cut from either side leaves at most `most` tokens, without what is in no case left of it.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub(super) fn short<'a>(&self, text: &'a str, most: usize) -> Result<Short<'a>, String> {
        let Some(seams) = self.seams.as_ref().filter(|s| s.part(text)) else {
            return Ok(Short::whole(text));
        };
        let piece = seams.sizes.1;
        let mut at_once = 0;
        let mut count = |from: usize, to: usize| {
            at_once = at_once.max(to - from);
            self.count(text.get(from..to).unwrap_or_default())
        };
        let (mut head, mut tokens) = (0, 0);
        while tokens < most {
            let Some(end) = seams.next(text, head + piece) else {
                return Ok(Short::whole(text));
            };
            tokens += count(head, end)?;
            head = end;
        }
        let (mut tail, mut tokens) = (text.len(), 0);
        while tokens < most {
            let start = seams.last(text, tail.saturating_sub(piece));
            let Some(start) = start.filter(|s| *s > head) else {
                return Ok(Short::whole(text));
            };
            tokens += count(start, tail)?;
            tail = start;
        }
        let (mut at, mut gone) = (head, 0);
        while at < tail {
            let end = seams.next(text, at + piece).map_or(tail, |e| e.min(tail));
            gone += count(at, end)?;
            at = end;
        }
        let mut left = text.get(..head).unwrap_or_default().to_owned();
        left.push_str(text.get(tail..).unwrap_or_default());
        Ok(Short {
            at_once: at_once.max(left.len()),
            text: Cow::Owned(left),
            gone,
            hole: (head, tail - head),
        })
    }
}

#[cfg(test)]
mod tests;
