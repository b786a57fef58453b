//! A folder of sentence-transformers: the modules behind its model, read and written.

use serde_json::{Value as Json, json};

use super::Embed;

/// The modules behind a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// Their kinds, in order.
    pub kinds: Vec<String>,
    /// The config of the one that makes a vector of the states.
    pub pooling: Option<Json>,
}

/// The kinds that are built.
pub const POOLING: &str = "Pooling";
const NORMALIZE: &str = "Normalize";

/// Keys of older files, and what they are called now.
const MODES: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

impl Modules {
    /// Whether vectors are means, if that is said, and whether they are divided by their lengths.
    ///
    /// # Errors
    /// What of it is not built.
    pub(super) fn read(&self) -> Result<(Option<bool>, bool), String> {
        let known = [POOLING, NORMALIZE];
        if let Some(other) = self
            .kinds
            .iter()
            .find(|kind| !known.contains(&kind.as_str()))
        {
            return Err(format!("its module `{other}` is not built"));
        }
        if self.pooling.is_none() && self.kinds.iter().any(|kind| kind == POOLING) {
            return Err(format!(
                "the config.json of its module `{POOLING}` cannot be read"
            ));
        }
        let mean = match self.modes().as_slice() {
            [] => None,
            [one] if one == "mean" => Some(true),
            [one] if one == "cls" => Some(false),
            more => {
                let names = more.join("`, `");
                return Err(format!("its pooling `{names}` is not built"));
            }
        };
        Ok((mean, self.kinds.iter().any(|kind| kind == NORMALIZE)))
    }

    /// What the config says of pooling: several ways are put beside each other.
    fn modes(&self) -> Vec<String> {
        let Some(config) = &self.pooling else {
            return Vec::new();
        };
        let text = |mode: &Json| mode.as_str().map(str::to_owned);
        match config.get("pooling_mode") {
            Some(Json::Array(list)) => list.iter().filter_map(text).collect(),
            Some(own) => text(own).into_iter().collect(),
            None => {
                let is = |key: &str| config.get(key).and_then(Json::as_bool) == Some(true);
                let own = MODES.iter().filter(|(key, _)| is(key));
                own.map(|(_, mode)| (*mode).to_owned()).collect()
            }
        }
    }
}

/// The files that say what is made of a model's states, of so many numbers, for texts of so many tokens.
pub(super) fn files(of: &Embed, width: u64, max_length: u64) -> Vec<(&'static str, Json)> {
    let module = |at: usize, path: &str, kind: &str| json!({ "idx": at, "name": at.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") });
    let mut modules = vec![
        module(0, "", "Transformer"),
        module(1, "1_Pooling", POOLING),
    ];
    if of.normalizes() {
        modules.push(module(2, "2_Normalize", NORMALIZE));
    }
    let mut pooling = serde_json::Map::new();
    pooling.insert("word_embedding_dimension".to_owned(), json!(width));
    for (key, mode) in MODES {
        let own = if of.is_mean() { "mean" } else { "cls" };
        pooling.insert(key.to_owned(), json!(mode == own));
    }
    pooling.insert("include_prompt".to_owned(), json!(true));
    vec![
        ("modules.json", Json::Array(modules)),
        ("1_Pooling/config.json", Json::Object(pooling)),
        (
            "sentence_bert_config.json",
            json!({ "max_seq_length": max_length, "do_lower_case": false }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_refused_by_its_name() {
        let of = |kinds: &[&str], pooling: Json| {
            let kinds = kinds.iter().map(|&kind| kind.to_owned()).collect();
            let pooling = Some(pooling);
            Modules { kinds, pooling }.read()
        };
        let own = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false });
        assert_eq!(of(&["Pooling"], own), Ok((Some(false), false)));
        let own = json!({ "pooling_mode": "mean" });
        assert_eq!(of(&["Pooling", "Normalize"], own), Ok((Some(true), true)));
        let own = json!({ "pooling_mode": ["mean", "max"] });
        let said = of(&["Pooling"], own).expect_err("two ways");
        assert!(said.contains("`mean`, `max`"), "{said}");
        let own = json!({ "pooling_mode_max_tokens": true });
        assert!(of(&["Pooling"], own).expect_err("one").contains("`max`"));
        let own = json!({ "pooling_mode": "mean" });
        let said = of(&["Pooling", "Dense"], own).expect_err("a module");
        assert!(said.contains("`Dense`"), "{said}");
        assert_eq!(Modules::default().read(), Ok((None, false)));
        let lost = Modules {
            kinds: vec![POOLING.to_owned()],
            pooling: None,
        };
        assert!(lost.read().is_err());
    }
}
