//! What a row of a data set is, and which of its tokens a language model learns.

use serde::{Deserialize, Serialize};

/// What a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// A text, or a pair of them.
    #[default]
    Text,
    /// A prompt and what completes it.
    Completion,
    /// A conversation.
    Messages,
    /// Two answers to one prompt: the one that is preferred, and the other.
    Preference,
    /// A prompt with several options to go on, of which one is right.
    Choices,
    /// Words, each of which has a label.
    Words,
    /// A question, and a context that answers it.
    Question,
    /// An anchor, a text that belongs to it, and texts that do not.
    Anchor,
}

impl Form {
    /// What its rows have, for messages.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Text => "texts",
            Self::Completion => "prompts with completions",
            Self::Messages => "conversations",
            Self::Preference => "chosen and rejected answers",
            Self::Choices => "prompts with options",
            Self::Words => "words with a label each",
            Self::Question => "questions with contexts",
            Self::Anchor => "anchors with positives",
        }
    }

    /// Sequences of tokens that a row becomes; of options and of negatives, the fewest.
    #[must_use]
    pub const fn sequences(self) -> u64 {
        match self {
            Self::Preference | Self::Choices | Self::Anchor => 2,
            Self::Text | Self::Completion | Self::Messages | Self::Words | Self::Question => 1,
        }
    }

    /// Whether its columns hold texts, or else lists of messages that go on with each other.
    #[must_use]
    pub const fn may_be_spoken(self) -> bool {
        matches!(self, Self::Completion | Self::Preference)
    }
}

/// Which tokens of a row are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Learn {
    /// None: what is learned is a label, or drawn.
    Nothing,
    /// All but the first, which has none before it.
    All,
    /// The completion, or all that assistants say.
    Completion,
    /// The last that an assistant says.
    Last,
}

/// What of a split is learned: the proof that a training has something to learn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// Rows that are learned from.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens that are learned.
    pub learned: u64,
    /// Rows that are cut at `max_length`.
    pub cut: u64,
    /// Tokens that would be learned but for the cut.
    pub lost: u64,
    /// Rows of which a token that ends a text or a turn is learned last.
    pub ended: u64,
    /// Rows of which nothing is learned, left out.
    pub skipped: u64,
    /// Of the learned tokens, those of rejected answers; none where there are no such answers.
    #[serde(default)]
    pub rejected: u64,
}

impl Supervision {
    /// Takes in other rows.
    pub const fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.tokens += other.tokens;
        self.learned += other.learned;
        self.cut += other.cut;
        self.lost += other.lost;
        self.ended += other.ended;
        self.skipped += other.skipped;
        self.rejected += other.rejected;
    }

    /// Learned tokens ÷ tokens.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.learned as f64 / self.tokens.max(1) as f64
    }
}
