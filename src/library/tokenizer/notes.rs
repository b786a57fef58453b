//! What is doubtful about a tokenizer and the model it is beside.

use tokenizers::NormalizerWrapper;

use super::class::Class;
use super::{Note, Tokenizer, Topic, files};

impl Tokenizer {
    /// A vocabulary with capitals, of which a text that is lowered never has one.
    pub(super) fn capitals(&self) -> Option<Note> {
        let lowers = match self.inner.get_normalizer() {
            Some(NormalizerWrapper::BertNormalizer(bert)) => bert.lowercase,
            Some(NormalizerWrapper::Lowercase(_)) => true,
            _ => false,
        };
        if !lowers {
            return None;
        }
        let vocab = self.inner.get_vocab(false);
        let bracketed = |t: &str| {
            (t.starts_with('[') && t.ends_with(']')) || (t.starts_with('<') && t.ends_with('>'))
        };
        let added = self.tokens.contents();
        let mut capital: Vec<&String> = vocab
            .keys()
            .filter(|t| t.chars().any(|c| c.is_uppercase()))
            .filter(|t| !bracketed(t) && !added.contains(t.as_str()))
            .collect();
        capital.sort_unstable();
        let example = capital.first()?;
        let all = vocab.len();
        Some(Note {
            topic: Topic::Cased,
            message: format!(
                "the tokenizer lowers the case, and {} of its {all} entries have capitals, such as `{example}`: no text can \
                 hold them",
                capital.len()
            ),
            help: "if the model is a cased one, write \"do_lower_case\": false into tokenizer_config.json".to_owned(),
        })
    }

    /// Segments that a tokenizer knows and a model with several is not shown.
    pub(super) fn hidden_segments(
        &self,
        config: &serde_json::Map<String, serde_json::Value>,
        model: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<Note> {
        let several = model.get("model_type").and_then(|t| t.as_str()) == Some("bert")
            && model
                .get("type_vocab_size")
                .is_none_or(|n| n.as_u64() != Some(1));
        let processor = self.inner.get_post_processor()?;
        let silent = self.class == Class::Plain && !config.contains_key("model_input_names");
        (several && silent && files::most_segment(processor, true) > 0).then(|| Note {
            topic: Topic::Differs,
            message: "of pairs, all tokens are in segment 0: a PreTrainedTokenizerFast shows the model no segments".to_owned(),
            help: "transformers 5 does so, transformers 4 did not; to show them, write \"model_input_names\": [\"input_ids\", \
                   \"token_type_ids\", \"attention_mask\"] into tokenizer_config.json"
                .to_owned(),
        })
    }
}
