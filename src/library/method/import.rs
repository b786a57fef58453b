//! `peft "DIR"`: an adapter of the Python library `peft`, which becomes the methods that its type and config say.

use super::super::schema::{Bound, Filled, Maybe, Schema, kind};

/// The folder, behind the name.
pub(crate) const FOLDER: Maybe<str> = Maybe::required(
    "folder",
    kind::STR,
    "directory that peft's `save_pretrained` wrote, relative to the recipe",
);

/// What it counts among several that are made one.
pub(crate) const WEIGHT: Maybe<f64> = Maybe::new(
    "weight",
    kind::float(Bound::None, Bound::None),
    "how much it counts among the `adapters` of a `convert` stage",
);

/// Which of its tasks is meant.
pub(crate) const TASK: Maybe<u64> = Maybe::new(
    "task",
    kind::int(0, 1 << 16),
    "of an adapter for several tasks, the one that is meant, counted from 0",
);

/// The name by which recipes take such an adapter.
pub const NAME: &str = "peft";

/// The folder of such an adapter, relative to the recipe; `None` for a method of ours.
#[must_use]
pub fn folder(filled: &Filled) -> Option<&str> {
    let named = filled.name == NAME;
    FOLDER.get(&filled.values).filter(|_| named)
}

/// Its keys.
pub static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "an adapter that the Python library peft wrote, whatever its type: to train on, score or merge",
    doc: "`adapter = peft \"DIR\"` stands for the methods, values and places that the adapter's config says, with its tensors \
          as first values. Every tensor of its file is used, or the adapter is refused by that tensor's name; every key of its \
          config is followed or refused by its name.",
    paper: "",
    keys: &[FOLDER.key(), WEIGHT.key(), TASK.key()],
};
