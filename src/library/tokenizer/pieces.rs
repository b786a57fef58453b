//! What a token stands for in a text, for people.

use super::Tokenizer;

impl Tokenizer {
    /// The part of a text that each token stands for. Bytes that are no character by themselves are written as `<0xE2>`.
    #[must_use]
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        let json = |part: serde_json::Result<String>| part.unwrap_or_default();
        let byte_level = json(serde_json::to_string(&self.inner.get_decoder()))
            .contains("ByteLevel")
            || json(serde_json::to_string(&self.inner.get_pre_tokenizer())).contains("ByteLevel");
        let added = self.inner.get_added_tokens_decoder();
        let piece = |&id: &u32| {
            let token = self.token(id).unwrap_or_else(|| format!("<{id}>"));
            if added.contains_key(&id) {
                token
            } else if byte_level {
                of_bytes(&token)
            } else {
                token.replace('▁', " ")
            }
        };
        ids.iter().map(piece).collect()
    }
}

/// The text of a byte-level token.
fn of_bytes(token: &str) -> String {
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    let Some(bytes) = bytes else {
        return token.to_owned();
    };
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("<0x{byte:02X}>"));
        }
    }
    text
}

/// The byte that a character of a byte-level vocabulary stands for: those that can be seen stand for themselves, the others
/// are numbered from 256 on.
fn byte(c: char) -> Option<u8> {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        own @ 0..=255 => u8::try_from(own).ok().filter(|b| seen(*b)),
        other => {
            let mut unseen = (0..=u8::MAX).filter(|b| !seen(*b));
            unseen.nth((other - 256) as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_bytes;

    #[test]
    fn bytes_become_text_again() {
        assert_eq!(of_bytes("ĠGrÃ¼n"), " Grün");
        assert_eq!(of_bytes("ĊĉĠ"), "\n\t ");
        assert_eq!(of_bytes("aÃ"), "a<0xC3>");
        assert_eq!(of_bytes("日"), "日");
    }
}
