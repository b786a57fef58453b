//! What a prompt declares.

use super::super::schema::{Given, Maybe, RefKind, Reference, Schema, Words, kind};

pub(crate) const TEMPLATE: Maybe<str> =
    Maybe::required("template", kind::STR, "text with `{column}` and `{mask}`");
pub(crate) const VERBALIZER: Maybe<Words> = Maybe::new(
    "verbalizer",
    kind::VERBALIZER,
    "for each class a word, or a list of words whose mean counts",
);
pub(crate) const DEMONSTRATIONS: Given<u64> = Given::<u64>::new(
    "demonstrations",
    kind::int(0, 64),
    (0, "0"),
    "filled prompts of each class behind the text",
);
pub(crate) const DEMONSTRATIONS_FROM: Maybe<Reference> = Maybe::new(
    "demonstrations_from",
    kind::reference(RefKind::Split),
    "the split they are drawn from; wanted with `demonstrations`",
);
pub(crate) const DEMONSTRATION_LENGTH: Given<u64> = Given::<u64>::new(
    "demonstration_length",
    kind::int(1, 1 << 20),
    (32, "32"),
    "tokens after which a demonstration's own text is cut",
);
pub(crate) const DEMONSTRATION_PLACE: Given<str> = Given::<str>::tacit(
    "demonstration_place",
    kind::choice(&["behind", "before"]),
    ("behind", "behind"),
    "whether they stand behind the text that is asked about, or `before` it, as in-context learning has them",
);
pub(crate) const DEMONSTRATION_SEPARATOR: Given<str> = Given::<str>::tacit(
    "demonstration_separator",
    kind::STR,
    ("\n\n", "\"\\n\\n\""),
    "what stands behind each demonstration, where they stand before the text",
);
pub(crate) const DEMONSTRATION_ORDER: Given<str> = Given::<str>::tacit(
    "demonstration_order",
    kind::choice(&["classes", "turns", "shuffled"]),
    ("classes", "classes"),
    "their order: class by class, one of each class in `turns`, or `shuffled` by seed and text",
);
pub(crate) const DEMONSTRATION_DRAW: Given<str> = Given::<str>::tacit(
    "demonstration_draw",
    kind::choice(&["text", "once"]),
    ("text", "text"),
    "whether each text has demonstrations of its own, or all are shown those that are drawn `once`",
);
pub(crate) const DEMONSTRATION_SEED: Given<u64> = Given::<u64>::new(
    "demonstration_seed",
    kind::SEED,
    (42, "42"),
    "seed of their draws",
);

pub(super) static PROMPT: Schema = Schema {
    name: "prompt",
    summary: "a template around the text, with a mask to fill",
    doc: "`template` holds `{column}` for a column's text and `{mask}` for the mask token; `verbalizer` maps each class to \
          a word. `demonstrations` puts filled prompts of every class behind the text that is asked about, the class's \
          word in place of the mask: which ones is a function of the seed, the text and the number of the draw, and never \
          one of the same text. With `demonstration_place = before` they stand before it, as texts. Training shows a text draw 0 in every epoch; `eval` averages over its `draws`.",
    paper: "Gao et al. 2021 (arXiv 2012.15723)",
    keys: &[
        TEMPLATE.key(),
        VERBALIZER.key(),
        DEMONSTRATIONS.key(),
        DEMONSTRATIONS_FROM.key(),
        DEMONSTRATION_LENGTH.key(),
        DEMONSTRATION_SEED.key(),
        DEMONSTRATION_PLACE.key(),
        DEMONSTRATION_SEPARATOR.key(),
        DEMONSTRATION_ORDER.key(),
        DEMONSTRATION_DRAW.key(),
    ],
};
