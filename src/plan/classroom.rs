//! The stages that teach another, at all points of the sweeps that it takes them over.

use super::stages::{Handed, Sets};
use crate::library::schema::{Maybe, Reference};
use crate::library::stage::keys;

/// The planned stages that teach a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classroom {
    /// The place of each, and of the stage that weighs it; in the order of the points, each once.
    pub(super) teachers: Vec<(usize, Option<usize>)>,
    /// Which of them is of the stage's own point, where it draws rows that the others label.
    pub(super) own: Option<usize>,
    /// At how many points they were looked for.
    pub(super) points: usize,
    /// Whether one of them is wrong itself, or none at all, which was said or will be.
    pub(super) broken: bool,
}

impl Classroom {
    /// The keys that name them.
    pub(super) const KEYS: [&'static Maybe<Reference>; 2] =
        [&keys::TEACHERS, &keys::TEACHER_WEIGHTS];

    /// Whether a key names some of them.
    pub(super) fn names(&self, key: &str) -> bool {
        Self::KEYS.iter().any(|own| own.name() == key)
    }
}

/// Bytes of the scores that a stage learns. Those that rows are drawn by are gone before it begins.
pub(super) fn bytes(start: &Handed, sets: &[Sets]) -> u64 {
    if start.teachers.is_empty() || start.drawing.is_some() {
        return 0;
    }
    let train = sets.first().and_then(|set| set.first()?.as_ref());
    let rows = train.and_then(|split| split.lengths.count()).unwrap_or(0);
    4 * rows * start.classes.len() as u64
}
