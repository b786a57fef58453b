//! What the files of an encoder with a decoder say of the tokens that may be made.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::library::counts::to_u32;

use super::FILE;

/// Tokens that are forced and tokens that are ruled out, as `generate` of transformers has them (5.24, `logits_process`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The token that a text begins with, before one is made.
    pub start: u32,
    /// The first token that is made, whatever is likelier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
    /// One of these is the last token where as many are made as may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<u32>,
    /// Lists of tokens, of which the last is not made behind the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<Vec<u32>>,
    /// Tokens that are not made, even where they are forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<u32>,
    /// Tokens that are not the first; the second where the first is forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_first: Vec<u32>,
}

/// The files that say something, the one that counts first.
struct Files<'a> {
    list: [(&'static str, Option<&'a Json>); 2],
    /// How many tokens there are.
    rows: u64,
}

impl<'a> Files<'a> {
    /// What the first file that has one of some keys says, and where.
    fn get(&self, keys: &[&'static str]) -> Option<(String, &'a Json)> {
        self.list.iter().find_map(|(name, file)| {
            let file = (*file)?;
            let key = keys
                .iter()
                .find(|key| file.get(**key).is_some_and(|v| !v.is_null()))?;
            Some((format!("{name}: `{key}`"), file.get(*key)?))
        })
    }

    fn token(&self, what: &str, value: &Json) -> Result<u32, String> {
        match value.as_u64() {
            Some(id) if id < self.rows => Ok(to_u32(id)),
            _ => Err(format!(
                "{what} is {value}, which is no token that targets are made of"
            )),
        }
    }

    /// A token, or a list of such.
    fn tokens(&self, keys: &[&'static str]) -> Result<Option<Vec<u32>>, String> {
        let Some((what, value)) = self.get(keys) else {
            return Ok(None);
        };
        let list = match value {
            Json::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        list.iter()
            .map(|id| self.token(&what, id))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The one token that a key names.
    fn one(&self, keys: &[&'static str]) -> Result<Option<u32>, String> {
        match self.get(keys) {
            Some((what, value)) => self.token(&what, value).map(Some),
            None => Ok(None),
        }
    }

    /// Lists of tokens.
    fn lists(&self, key: &'static str) -> Result<Vec<Vec<u32>>, String> {
        let Some((what, value)) = self.get(&[key]) else {
            return Ok(Vec::new());
        };
        let wrong = || format!("{what} is {value}; a list of lists of tokens is wanted");
        let lists = value.as_array().ok_or_else(wrong)?.iter();
        let each = lists.map(|list| -> Result<Vec<u32>, String> {
            let list = list
                .as_array()
                .filter(|list| !list.is_empty())
                .ok_or_else(wrong)?;
            list.iter().map(|id| self.token(&what, id)).collect()
        });
        each.collect()
    }
}

impl Rules {
    /// What `generation_config.json` says, then `config.json`, then the model's class, which are the rules `of_class`. `ends` end a
    /// text, and `rows` tokens are what targets are made of.
    ///
    /// # Errors
    /// A key that does not name tokens of targets.
    pub fn of(
        generation: Option<&Json>,
        config: &Json,
        (of_class, ends, rows): (Self, &[u32], u64),
    ) -> Result<Self, String> {
        let files = |config| Files {
            list: [(FILE, generation), ("config.json", config)],
            rows,
        };
        // Its class has read the config, and looked at what a missing key means.
        let own = files(None).one(&["decoder_start_token_id", "bos_token_id"])?;
        let start = own.unwrap_or(of_class.start);
        let both = files(Some(config));
        let last = both.tokens(&["forced_eos_token_id"])?;
        let mut never = both.lists("bad_words_ids")?;
        // A token that ends a text can always be made.
        never.retain(|words| !matches!(words.as_slice(), [one] if ends.contains(one)));
        let rules = Self {
            start,
            first: both.one(&["forced_bos_token_id"])?,
            last: last.unwrap_or(of_class.last),
            never,
            suppressed: both.tokens(&["suppress_tokens"])?.unwrap_or_default(),
            suppressed_first: both.tokens(&["begin_suppress_tokens"])?.unwrap_or_default(),
        };
        let all = rules.last.iter().chain([&rules.start]);
        let beyond = all.copied().find(|id| u64::from(*id) >= rows);
        match beyond {
            None => Ok(rules),
            Some(id) => Err(format!(
                "config.json says nothing of a token that begins or ends texts, and in this model's class it is {id}, \
                 which is no token that targets are made of; write `decoder_start_token_id` and `forced_eos_token_id` there"
            )),
        }
    }

    /// Changes the scores of what follows `before`, a text's tokens with the one that it begins with. It has at most so many
    /// more.
    pub fn apply(&self, scores: &mut [f32], before: &[u32], most: u64) {
        let made = (before.len() as u64).saturating_sub(1);
        let mut out = |token: u32| {
            if let Some(x) = scores.get_mut(token as usize) {
                *x = f32::NEG_INFINITY;
            }
        };
        for words in &self.never {
            if let [others @ .., last] = words.as_slice()
                && before.ends_with(others)
            {
                out(*last);
            }
        }
        let forced = match self.first {
            Some(first) if made == 0 => vec![first],
            _ => Vec::new(),
        };
        let last = if made + 1 == most {
            self.last.as_slice()
        } else {
            &[]
        };
        let forced = if last.is_empty() {
            forced.as_slice()
        } else {
            last
        };
        if !forced.is_empty() {
            scores.fill(f32::NEG_INFINITY);
            for token in forced {
                if let Some(x) = scores.get_mut(*token as usize) {
                    *x = 0.0;
                }
            }
        }
        let begins = made == u64::from(self.first.is_some());
        let early: &[u32] = if begins { &self.suppressed_first } else { &[] };
        for token in self.suppressed.iter().chain(early) {
            if let Some(x) = scores.get_mut(*token as usize) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(generation: Option<&Json>, config: &Json) -> Result<Rules, String> {
        let of_class = Rules {
            start: 3,
            last: vec![2],
            ..Rules::default()
        };
        Rules::of(generation, config, (of_class, &[2], 6))
    }

    #[test]
    fn one_file_counts_before_the_other_and_both_before_the_class() {
        let config = json!({ "forced_bos_token_id": 1, "forced_eos_token_id": null, "bad_words_ids": [[2], [4, 5], [2, 3]] });
        let own = rules(None, &config).expect("rules");
        let want = Rules {
            start: 3,
            first: Some(1),
            last: vec![2],
            never: vec![vec![4, 5], vec![2, 3]],
            ..Rules::default()
        };
        assert_eq!(own, want);
        let generation =
            json!({ "bos_token_id": 0, "forced_eos_token_id": [4, 5], "suppress_tokens": [1] });
        let own = rules(Some(&generation), &config).expect("rules");
        assert_eq!((own.start, own.first), (0, Some(1)));
        assert_eq!((own.last, own.suppressed), (vec![4, 5], vec![1]));
        for wrong in [
            json!({ "forced_bos_token_id": 6 }),
            json!({ "bad_words_ids": [1] }),
            json!({ "bad_words_ids": [[]] }),
            json!({ "forced_eos_token_id": "x" }),
        ] {
            assert!(rules(None, &wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_forced_and_ruled_out_where_they_stand() {
        let own = Rules {
            start: 3,
            first: Some(1),
            last: vec![2],
            never: vec![vec![0], vec![4, 5]],
            suppressed: vec![],
            suppressed_first: vec![3],
        };
        let left = |before: &[u32]| -> Vec<usize> {
            let mut scores = [0.5_f32; 6];
            own.apply(&mut scores, before, 4);
            let kept = scores.iter().enumerate().filter(|(_, x)| x.is_finite());
            kept.map(|(token, _)| token).collect()
        };
        assert_eq!(left(&[3]), [1]);
        assert_eq!(left(&[3, 1]), [1, 2, 4, 5]);
        assert_eq!(left(&[3, 1, 4]), [1, 2, 3, 4]);
        assert_eq!(left(&[3, 1, 4, 4]), [2]);
    }
}
