//! The tensors of an adapter against those of the stage.

use crate::base::{Diag, Diags, Span};
use crate::files::peft::PeftAdapter;
use crate::library::net::{Param, ParamKind, Role};
use crate::library::peft::{Fitted, MERGE_INSTEAD, Stored as _};
use crate::library::stage::job::Job;
use crate::library::stage::network::Anatomy;
use crate::library::task::Task;
use crate::plan::error::UNREAD_TENSORS;

/// Refuses saved embeddings that a decoder is tied to.
pub(super) fn decoder_is_tied(
    fitted: &Fitted,
    parts: &Anatomy,
    task: &dyn Task,
) -> Result<(), String> {
    let table = |p: &&Param| p.kind == ParamKind::Embedding;
    // A decoder of its own is tied to nothing.
    if parts.params.iter().any(|p| table(&p) && p.role.is_lm()) {
        return Ok(());
    }
    let changed = |p: &Param| fitted.whole.iter().any(|module| p.module() == module);
    let mut words = parts.params.iter();
    let found = words.find(|p| table(p) && p.role == Role::WordEmbedding && changed(p));
    match found.filter(|_| task.needs().is_lm()) {
        None => Ok(()),
        Some(param) => Err(format!(
            "the adapter changes `{}`, and peft leaves the decoder that is tied to it as it was; that is not built yet\ntake an \
             adapter without it, or a sequence head",
            param.module()
        )),
    }
}

/// The shapes of an adapter's tensors against those of the stage.
pub(super) fn shapes(
    (read, fitted): (&PeftAdapter, &Fitted),
    (job, parts): (&Job, &Anatomy),
    at: Span,
    diags: &mut Diags,
) -> Result<(), String> {
    let wrong = |name: &str, own: &[u64], wanted: &[u64]| {
        format!(
            "`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}\nit was made for another model, or other classes"
        )
    };
    let of_a_head = |own: &str| {
        let mut heads = parts
            .params
            .iter()
            .filter(|p| p.role.is_head() || p.role.is_lm());
        let inside = |module: &str| {
            own.strip_prefix(module)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        heads.any(|p| p.name == own || inside(p.module()))
    };
    let mut left_out = Vec::new();
    for taken in &fitted.tensors {
        let name = taken.from.first().unwrap_or(&taken.own);
        match job.params.iter().find(|p| p.name == taken.own) {
            Some(param) if param.shape != taken.shape => {
                return Err(wrong(name, &taken.shape, &param.shape));
            }
            Some(_) => {}
            None if of_a_head(&taken.own) => left_out.push(format!("`{name}`")),
            None => {
                return Err(format!(
                    "nothing in this stage reads `{name}`\n{MERGE_INSTEAD}"
                ));
            }
        }
    }
    for edited in &fitted.edits {
        if !job.params.iter().any(|p| p.name == edited.own) {
            let name = &edited.own;
            match of_a_head(name) {
                true => left_out.push(format!("those of `{name}`")),
                false => {
                    return Err(format!(
                        "nothing in this stage reads `{name}`\n{MERGE_INSTEAD}"
                    ));
                }
            }
        }
    }
    for update in &fitted.head {
        match job.sites.iter().find(|s| s.path == update.module) {
            Some(site) => {
                let own = read.tensors.shape(&update.b).unwrap_or_default();
                let rank = read
                    .tensors
                    .shape(&update.a)
                    .and_then(|s| s.first().copied());
                let wanted = [site.output(), rank.unwrap_or_default()];
                if own != wanted {
                    return Err(wrong(&update.b, own, &wanted));
                }
            }
            None => left_out.push(format!("`{}`", update.a)),
        }
    }
    if let Some(first) = left_out.first() {
        diags.push(
            Diag::warning(
                &UNREAD_TENSORS,
                at,
                format!(
                    "{} of the adapter's tensors belong to another head than this stage's and are left out: {first}{}",
                    left_out.len(),
                    if left_out.len() > 1 { ", …" } else { "" }
                ),
            )
            .label("this adapter"),
        );
    }
    Ok(())
}
