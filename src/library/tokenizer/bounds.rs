//! What a tokenizer's parts may be: a small file can ask for more memory than there is, or for what the library does not
//! survive.
//!
//! **Invariant:** no tokenizer is made of parts that have not been looked at here.

use serde_json::{Map, Value as Json};

/// Bytes that a normalizer may make of one byte of text. Unicode's own forms make at most 18 of 3.
const GROWTH: u64 = 64;
/// Bytes of what is put in place of something, or before a text.
const CONTENT: usize = 256;
/// Ids are below this: the largest vocabularies have a few million entries.
const IDS: u64 = 1 << 24;
/// Added tokens: each is looked for in every text.
const ADDED: usize = 50_000;
/// Tokens and texts in a template.
const TEMPLATE: usize = 1000;

/// Looks at a tokenizer as `tokenizer.json` writes it.
///
/// # Errors
/// A sentence that names what is out of bounds.
pub(super) fn check(json: &Json) -> Result<(), String> {
    let part = |name: &str| json.get(name).unwrap_or(&Json::Null);
    let growth = normalizer(part("normalizer"))?;
    if growth > GROWTH {
        return Err(format!(
            "its normalizer makes up to {growth} bytes of one byte of text, and at most {GROWTH} are taken"
        ));
    }
    pre_tokenizer(part("pre_tokenizer"))?;
    template(part("post_processor"))?;
    if let Some(Json::Object(vocabulary)) = part("model").get("vocab") {
        let known = vocabulary.iter();
        ids(known.filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?))))?;
    }
    let listed = part("added_tokens").as_array();
    added(listed.into_iter().flatten().filter_map(|token| {
        let content = token.get("content").and_then(Json::as_str)?;
        Some((content, token.get("id").and_then(Json::as_u64)?))
    }))
}

/// Looks at added tokens and their ids.
///
/// # Errors
/// There are too many, or an id is too large.
pub(super) fn added<'a>(all: impl IntoIterator<Item = (&'a str, u64)>) -> Result<(), String> {
    let all: Vec<(&str, u64)> = all.into_iter().collect();
    match all.len() {
        0..=ADDED => ids(all),
        n => Err(format!(
            "it has {n} added tokens, and at most {ADDED} are taken"
        )),
    }
}

fn ids<'a>(all: impl IntoIterator<Item = (&'a str, u64)>) -> Result<(), String> {
    match all.into_iter().find(|(_, id)| *id >= IDS) {
        None => Ok(()),
        Some((token, id)) => Err(format!(
            "the id of its token `{token}` is {id}, and ids are below {IDS}"
        )),
    }
}

fn kind(part: &Map<String, Json>) -> &str {
    part.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// Bytes that a normalizer makes of one byte, at most.
fn normalizer(json: &Json) -> Result<u64, String> {
    let Json::Object(part) = json else {
        return Ok(1);
    };
    let text = |key: &str| part.get(key).and_then(Json::as_str).unwrap_or_default();
    let short = |content: &str| match content.len() {
        0..=CONTENT => Ok(()),
        n => Err(format!(
            "its normalizer puts {n} bytes into a text at once, and at most {CONTENT} are taken"
        )),
    };
    match kind(part) {
        "Sequence" => {
            let list = part.get("normalizers").and_then(Json::as_array);
            let mut all = 1_u64;
            for own in list.into_iter().flatten() {
                all = all.saturating_mul(normalizer(own)?);
            }
            Ok(all)
        }
        "Replace" => {
            let content = text("content");
            short(content)?;
            let pattern = part.get("pattern");
            let found = pattern.and_then(|p| p.get("String")).and_then(Json::as_str);
            // A regular expression may match as little as one byte.
            let found = found.map_or(1, str::len).max(1);
            Ok(content.len().div_ceil(found).max(1) as u64)
        }
        "Prepend" => short(text("prepend")).map(|()| 1),
        "Precompiled" => {
            let map = part.get("precompiled_charsmap").and_then(Json::as_str);
            charsmap(&decoded(map.unwrap_or_default())?).map(|()| 1)
        }
        _ => Ok(1),
    }
}

fn pre_tokenizer(json: &Json) -> Result<(), String> {
    let Json::Object(part) = json else {
        return Ok(());
    };
    if kind(part) == "FixedLength" && part.get("length").and_then(Json::as_u64) == Some(0) {
        return Err("its pre-tokenizer cuts a text into pieces of length 0".to_owned());
    }
    let list = part.get("pretokenizers").and_then(Json::as_array);
    list.into_iter().flatten().try_for_each(pre_tokenizer)
}

fn template(json: &Json) -> Result<(), String> {
    let Json::Object(part) = json else {
        return Ok(());
    };
    for key in ["single", "pair"] {
        let pieces = part.get(key).and_then(Json::as_array).map_or(0, Vec::len);
        if pieces > TEMPLATE {
            return Err(format!(
                "its template `{key}` has {pieces} pieces, and at most {TEMPLATE} are taken"
            ));
        }
    }
    let list = part.get("processors").and_then(Json::as_array);
    list.into_iter().flatten().try_for_each(template)
}

/// Bytes out of base 64.
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let damaged = || "its `precompiled_charsmap` is not in base 64".to_owned();
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in four {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err(damaged()),
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - four.len());
        let three = bits.to_be_bytes();
        bytes.extend(three.iter().skip(1).take(four.len() - 1));
    }
    Ok(bytes)
}

/// Looks at sentencepiece's table of characters: a trie in an array of units, behind its size, and the texts that its
/// leaves point into. The library follows it wherever it leads.
fn charsmap(bytes: &[u8]) -> Result<(), String> {
    let damaged = |why: &str| Err(format!("its `precompiled_charsmap` is damaged: {why}"));
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
        return damaged("it has no size");
    };
    let size = u32::from_le_bytes(*size) as usize;
    let Some((units, texts)) = rest.split_at_checked(size / 4 * 4) else {
        return damaged("it is shorter than it says");
    };
    let Ok(texts) = std::str::from_utf8(texts) else {
        return damaged("its texts are not UTF-8");
    };
    let units = units.as_chunks::<4>().0;
    let unit = |at: usize| units.get(at).map(|u| u32::from_le_bytes(*u));
    let offset = |unit: u32| ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize;
    let Some(root) = unit(0) else {
        return damaged("it is empty");
    };
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(root)];
    while let Some(node) = open.pop() {
        for byte in 1..=255_usize {
            let Some(own) = unit(node ^ byte) else {
                return damaged("it leads out of its table");
            };
            if (own & (1 << 31 | 0xff)) as usize != byte {
                continue;
            }
            let next = node ^ byte ^ offset(own);
            if own >> 8 & 1 == 1 {
                let begin = unit(next).map(|leaf| (leaf & !(1 << 31)) as usize);
                let Some(text) = begin.and_then(|begin| texts.get(begin..)) else {
                    return damaged("it leads out of its texts");
                };
                let length = text.find('\0').unwrap_or(text.len());
                if length > CONTENT {
                    return damaged("it puts hundreds of bytes in place of a character");
                }
            }
            if let Some(seen) = seen.get_mut(node ^ byte)
                && !std::mem::replace(seen, true)
            {
                open.push(next);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(json: &Json) -> String {
        check(json).expect_err("refused")
    }

    #[test]
    fn what_a_small_file_can_ask_for_is_bounded() {
        let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        let sequence = |list: Vec<Json>| json!({ "type": "Sequence", "normalizers": list });
        let normalizer = |json: Json| json!({ "normalizer": json });
        assert!(why(&normalizer(replace("a", &"b".repeat(300)))).contains("300 bytes"));
        let chain = sequence(vec![replace("a", "aaaaa"); 6]);
        assert!(why(&normalizer(chain)).contains("15625 bytes of one"));
        let prepend = json!({ "type": "Prepend", "prepend": "a".repeat(1000) });
        assert!(why(&normalizer(sequence(vec![prepend]))).contains("1000 bytes"));
        check(&normalizer(sequence(vec![
            replace("``", "\""),
            replace(" ", "▁"),
            json!({ "type": "NFKC" }),
        ])))
        .expect("is usual");
        let fixed = json!({ "type": "Sequence", "pretokenizers": [{ "type": "FixedLength", "length": 0 }] });
        assert!(why(&json!({ "pre_tokenizer": fixed })).contains("length 0"));
        let far = json!({ "model": { "vocab": { "a": 0, "b": 4_294_967_290_u64 } } });
        assert!(why(&far).contains("`b` is 4294967290"));
        let far = json!({ "added_tokens": [{ "id": 1 << 24, "content": "x" }] });
        assert!(why(&far).contains("`x` is 16777216"));
        let pieces = vec![json!({ "Sequence": { "id": "A", "type_id": 0 } }); 1001];
        let template =
            json!({ "post_processor": { "type": "TemplateProcessing", "single": pieces } });
        assert!(why(&template).contains("1001 pieces"));
        assert!(super::added(vec![("x", 1); 50_001]).is_err());
    }

    /// A table of units and texts, in base 64.
    fn table(units: &[u32], texts: &str) -> Json {
        let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|u| u.to_le_bytes()));
        bytes.extend(texts.bytes());
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let text = bytes.chunks(3).flat_map(|three| {
            let mut all = [0; 4];
            all[1..=three.len()].copy_from_slice(three);
            let bits = u32::from_be_bytes(all);
            let own = (0..=three.len())
                .map(move |i| digits[(bits >> (18 - 6 * i) & 63) as usize] as char);
            own.chain(std::iter::repeat_n('=', 3 - three.len()))
        });
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": text.collect::<String>() } })
    }

    #[test]
    fn a_table_of_characters_leads_nowhere_else() {
        // The root's children lie from 256 on; `a` has a leaf there, which points to the text at 2.
        let mut units = vec![0_u32; 1024];
        units[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        units[a] = u32::from(b'a') | 1 << 8 | ((a ^ 512) as u32) << 10;
        units[512] = 1 << 31 | 2;
        check(&table(&units, "x\0A\0")).expect("is whole");
        let changed = |at: usize, unit: u32, texts: &str| {
            let mut units = units.clone();
            units[at] = unit;
            why(&table(&units, texts))
        };
        assert!(changed(0, 4096 << 10, "x\0A\0").contains("out of its table"));
        assert!(changed(512, 1 << 31 | 99, "x\0A\0").contains("out of its texts"));
        assert!(changed(512, 0, &"x".repeat(999)).contains("hundreds of bytes"));
        for text in ["", "AAAA", "/////////w==", "?", "BAAAAP////8AYQ=="] {
            let json =
                json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": text } });
            assert!(check(&json).is_err(), "{text}");
        }
    }
}
