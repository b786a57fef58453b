//! What a training is taught by other stages (methods P4, P5): the keys that go together, and what cannot be learned so.

use super::super::schema::Values;
use super::super::task::Answer;
use super::packing::Batch;
use super::{Diag, Diags, StageCx, keys};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY};

/// Complains about keys of teachers without teachers, and of rows that are drawn without such rows.
pub(super) fn check(values: &Values, diags: &mut Diags) {
    let mut idle = |key: &str, needs: &str, what: &str| {
        if values.written(key) && !values.written(needs) {
            let message = format!("`{key}` has no effect without `{needs}`");
            let diag = Diag::error(&IDLE_KEY, values.span(key), message);
            diags.push(
                diag.label("changes nothing")
                    .help(format!("write `{needs} = {what}, or remove this key")),
            );
        }
    };
    let teachers = keys::TEACHERS.name();
    for key in [
        keys::OVER.name(),
        keys::TEACHER_WEIGHTS.name(),
        keys::UNLABELLED.name(),
    ] {
        idle(key, teachers, "STAGE`, an `annotate` stage");
    }
    idle(
        keys::TEACHER_SHARE.name(),
        keys::OVER.name(),
        "SWEEP`, by whose variants the teachers differ",
    );
    for key in [keys::GROW.name(), keys::TEACHER_SHARE.name()] {
        idle(
            key,
            keys::UNLABELLED.name(),
            "SPLIT`, whose rows teachers label",
        );
    }
}

/// Refuses to draw rows for what learns no class of a text, or for batches that depend on their lengths.
pub(super) fn check_drawn(cx: &StageCx<'_>) -> Result<(), Vec<Diag>> {
    if !keys::UNLABELLED.is_written(cx.values) {
        return Ok(());
    }
    let name = cx.task.name();
    let (key, message, help) = if cx.task.answer() != Answer::Class
        || cx.task.label_texts().is_some()
    {
        (
            keys::UNLABELLED.span(cx.values),
            format!(
                "`{name}` learns something else than one class of a text, which is what teachers give a row"
            ),
            "write `objective = classify` or `label_words`, or remove `unlabelled`",
        )
    } else if let Batch::Tokens(_) = keys::BATCH.get(cx.values) {
        (
            keys::BATCH.span(cx.values),
            "how many tokens the rows have that will be drawn is not known, so that batches cannot be cut by tokens".to_owned(),
            "write how many examples a batch has: `batch = 16`",
        )
    } else {
        return Ok(());
    };
    Err(vec![
        Diag::error(&CONFLICTING_KEYS, key, message).help(help),
    ])
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
