//! What a task says of itself and what it is given: what it predicts, its head, its rows of scores, its classes.

use serde_json::{Map, Value as Json, json};

use super::super::data::set::{Labels, Naming};
use super::super::data::tokens::{EncodedSet, Target};
use super::super::metric::Predictions;
use super::super::model::Model;
use super::super::net::Net;
use super::super::rows::Added;
use super::super::tokenizer::Tokenizer;
use crate::base::Code;
use crate::program::Value;

/// What a task predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// One of several classes.
    Class,
    /// One of several classes that stand in an order.
    Grade,
    /// Any number of several classes.
    Classes,
    /// One of several classes for each word.
    Tags,
    /// A number.
    Number,
    /// A token of the vocabulary, at each place that is read.
    Token,
    /// A text, which is generated.
    Text,
    /// How much each of two answers is preferred.
    Preference,
    /// How much an answer is wanted.
    Desirable,
    /// One of several options, which are other ones in each row, by their likelihoods.
    Choice,
    /// The same by a head's scores.
    Option,
    /// A part of a text, which answers a question.
    Part,
    /// Which of all texts are near to one.
    Rank,
}

impl Answer {
    /// Whether it is about classes that have names.
    #[must_use]
    pub const fn names_classes(self) -> bool {
        matches!(self, Self::Class | Self::Grade | Self::Classes | Self::Tags)
    }

    /// Whether it is about classes of whole texts.
    #[must_use]
    pub const fn is_of_texts(self) -> bool {
        matches!(self, Self::Class | Self::Grade | Self::Classes)
    }

    /// Whether labels of the data are read.
    #[must_use]
    pub const fn reads_labels(self) -> bool {
        !matches!(
            self,
            Self::Token
                | Self::Text
                | Self::Preference
                | Self::Choice
                | Self::Option
                | Self::Part
                | Self::Rank
        )
    }

    /// What the labels of the data are.
    #[must_use]
    pub fn labels(self, naming: impl FnOnce() -> Naming) -> Labels {
        match self {
            Self::Class | Self::Grade => Labels::Classes(naming()),
            Self::Classes => Labels::Several(naming()),
            Self::Tags => Labels::Each(naming()),
            Self::Number => Labels::Regression,
            Self::Desirable => Labels::Classes(Naming {
                fixed: Some(["false", "true"].map(str::to_owned).to_vec()),
                ..naming()
            }),
            Self::Token
            | Self::Text
            | Self::Preference
            | Self::Choice
            | Self::Option
            | Self::Part
            | Self::Rank => Labels::None,
        }
    }
}

/// The head that a task is learned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Head {
    /// One on whole sequences.
    Sequence,
    /// One on each token.
    Tokens,
    /// One that gives each sequence a score, to be compared with those of others.
    Options,
    /// One that gives each token two scores: as the first of an answer, and as its last.
    Parts,
    /// None: what is made of the states themselves.
    States,
    /// The model's own for masked tokens.
    MaskedLm,
    /// The model's own for the next token.
    CausalLm,
    /// The model's own for the next token of a target.
    Seq2Seq,
}

impl Head {
    /// Whether it is the model's own, over its vocabulary.
    #[must_use]
    pub const fn is_lm(self) -> bool {
        !matches!(
            self,
            Self::Sequence | Self::Tokens | Self::Options | Self::Parts | Self::States
        )
    }

    /// The name among the tasks of the hub of what is learned on it.
    #[must_use]
    pub const fn pipeline_tag(self) -> &'static str {
        match self {
            Self::Sequence => "text-classification",
            Self::Tokens => "token-classification",
            Self::Options => "multiple-choice",
            Self::Parts => "question-answering",
            Self::States => "sentence-similarity",
            Self::MaskedLm => "fill-mask",
            Self::CausalLm => "text-generation",
            Self::Seq2Seq => "text2text-generation",
        }
    }

    /// The name among the task types of peft of what is learned on it, if it has one.
    #[must_use]
    pub const fn peft_type(self) -> Option<&'static str> {
        match self {
            Self::Sequence => Some("SEQ_CLS"),
            Self::Tokens => Some("TOKEN_CLS"),
            Self::Parts => Some("QUESTION_ANS"),
            Self::States => Some("FEATURE_EXTRACTION"),
            Self::Options | Self::MaskedLm => None,
            Self::CausalLm => Some("CAUSAL_LM"),
            Self::Seq2Seq => Some("SEQ_2_SEQ_LM"),
        }
    }

    /// What to do about a model without it.
    #[must_use]
    pub const fn otherwise(self) -> &'static str {
        match self {
            Self::Options => {
                "take BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT or ModernBERT, or compare options by their likelihood under a language model: \
                 `objective = multiple_choice` in an `eval` stage"
            }
            Self::Parts | Self::States => {
                "take an encoder: BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT or ModernBERT"
            }
            Self::CausalLm => {
                "name another objective, or a decoder; an encoder compares options with `objective = choose`; `peftc list models` tells \
                 encoders from decoders"
            }
            _ => {
                "name another objective, or another model; `peftc list models` tells encoders from decoders"
            }
        }
    }

    /// Whether a model has it, and if not, what it lacks.
    ///
    /// # Errors
    /// The words for what it lacks.
    pub fn is_of(self, model: &dyn Model) -> Result<(), &'static str> {
        match self {
            Self::Tokens if !model.labels_tokens() => Err("no head on each token"),
            Self::Options if model.chooses().is_none() => {
                Err("no head that scores options (a class `…ForMultipleChoice`) here")
            }
            Self::Parts if model.extracts().is_none() => {
                Err("no head for the bounds of answers (a class `…ForQuestionAnswering`) here")
            }
            Self::States if model.causal_lm().is_some() || model.seq2seq().is_some() => {
                Err("no states in which each token has seen the whole text")
            }
            Self::MaskedLm if model.masked_lm().is_none() => Err("no head for masked tokens"),
            Self::CausalLm if model.causal_lm().is_none() => Err("no head for the next token"),
            Self::Seq2Seq if model.seq2seq().is_none() => Err("no decoder behind its encoder"),
            Self::Sequence if model.seq2seq().is_some() => Err("no head for whole texts"),
            _ => Ok(()),
        }
    }
}

/// What the scores of a row's sequences come to.
#[derive(Debug, Default)]
pub struct Gathered {
    /// One a row.
    pub predictions: Predictions,
    /// The cells of each row in the table of predictions, with its number in the data files.
    pub cells: Vec<(u32, Vec<String>)>,
    /// What `predict` adds to each row, where that is asked for.
    pub values: Vec<Vec<Json>>,
}

/// What is asked of the scores of a row's sequences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Names of the classes.
    pub classes: &'a [String],
    /// How `predict` writes its answers, where it is to.
    pub form: Option<Form>,
}

/// What the parts of a row are called.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The classes.
    pub classes: &'a [String],
    /// The vocabulary, where it is at hand.
    pub tokens: Option<&'a Tokenizer>,
}

impl Names<'_> {
    /// The name of a class.
    #[must_use]
    pub fn class(&self, class: u32) -> &str {
        self.classes.get(class as usize).map_or("?", String::as_str)
    }

    /// The token that a target is, as the vocabulary writes it.
    #[must_use]
    pub fn token(&self, target: &Target) -> String {
        let token = match (target, self.tokens) {
            (Target::Class(id), Some(tokens)) => tokens.token(*id),
            _ => None,
        };
        token.unwrap_or_else(|| "?".to_owned())
    }
}

/// A row of scores.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// Position of the token that the scores are about; 0 where they are about the whole text.
    pub position: u32,
    /// The label.
    pub target: &'a Target,
    /// The prediction.
    pub predicted: &'a Target,
    /// The scores.
    pub scores: &'a [f32],
}

/// How `predict` writes its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Whether the probability of every class is asked for.
    pub all: bool,
    /// Whether a value may be a list or an object.
    pub nested: bool,
}

/// What is known of a stage's classes once its texts are read.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a> {
    /// Their names.
    pub names: &'a [String],
    /// The split that is trained on; `None` where the data are not at hand.
    pub train: Option<&'a EncodedSet>,
}

/// What the result of an evaluation holds beside its metrics.
#[derive(Debug, Default)]
pub struct Details {
    /// Entries of the result.
    pub entries: Map<String, Json>,
    /// What is doubtful about the predictions.
    pub doubts: Vec<(&'static Code, String)>,
}

/// Writes the names of labels into a config.
pub(super) fn label_keys(config: &mut Map<String, Json>, names: &[String]) {
    // `transformers` takes the number of labels from `id2label`; a number beside it could only disagree.
    for count in ["num_labels", "_num_labels"] {
        config.shift_remove(count);
    }
    let pairs = || names.iter().enumerate();
    let id2label: Map<String, Json> = pairs()
        .map(|(i, name)| (i.to_string(), json!(name)))
        .collect();
    let label2id: Map<String, Json> = pairs().map(|(i, name)| (name.clone(), json!(i))).collect();
    config.insert("id2label".into(), Json::Object(id2label));
    config.insert("label2id".into(), Json::Object(label2id));
}

/// A number with the digits that f32 has.
pub(super) fn number(x: f64) -> Json {
    let short = (x as f32).to_string().parse::<f64>();
    json!(short.unwrap_or(x))
}

/// A column of numbers or of texts.
pub(super) fn added(name: impl Into<String>, number: bool) -> Added {
    Added {
        name: name.into(),
        number,
    }
}

/// Scores of words, or of the whole vocabulary, by the head for masked tokens. Planning refuses a model without one
/// ([`Head::is_of`]); the states go through as they are then.
pub(super) fn words(
    model: &dyn Model,
    net: &mut Net<'_>,
    hidden: Value,
    words: Option<&[u32]>,
) -> Value {
    model
        .masked_lm()
        .map_or(hidden, |head| head.words(net, hidden, words))
}
