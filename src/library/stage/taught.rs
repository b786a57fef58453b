//! What a training is taught by other stages (methods P4, P5): the keys that go together, and what cannot be learned so.

use super::super::schema::Values;
use super::{Diag, Diags, StageCx, keys};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY};

/// Complains about keys of teachers without teachers.
pub(super) fn check(values: &Values, diags: &mut Diags) {
    if keys::TEACHERS.is_written(values) {
        return;
    }
    for key in [keys::OVER.name(), keys::TEACHER_WEIGHTS.name()] {
        if values.written(key) {
            let message = format!("`{key}` has no effect without `teachers`");
            let diag = Diag::error(&IDLE_KEY, values.span(key), message);
            diags.push(
                diag.label("changes nothing")
                    .help("write `teachers = STAGE`, an `annotate` stage, or remove this key"),
            );
        }
    }
}

/// Refuses what is measured before the first step on labels, where there are none.
pub(super) fn refuse_measures(cx: &StageCx<'_>) -> Result<(), Vec<Diag>> {
    if !cx.task.learns_scores() {
        return Ok(());
    }
    let message = format!(
        "what this method measures before the first step is a loss of labels, and `{}` reads none",
        cx.task.name()
    );
    let diag = Diag::error(&CONFLICTING_KEYS, keys::TEACHERS.span(cx.values), message);
    Err(vec![diag.help(
        "take a method that measures no gradients, such as `lora` or `full`",
    )])
}
