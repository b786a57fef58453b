//! What a job is built from of each split: its lengths, the places that are read, the prompts to go on from.

use std::sync::Arc;

use crate::base::{Diag, Diags, Span};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::unmarked;
use crate::library::error::NO_PROMPTS;
use crate::library::prompt::Template;
use crate::library::schema::Values;
use crate::library::stage::{SplitFacts, keys};
use crate::library::task::{Masking, Reads};
use crate::plan::bind::BoundSplit;
use crate::plan::error::{BAD_TOKENIZER, NOTHING_LEARNED};
use crate::plan::{Handed, Sets};

/// What lowering has to know of the splits.
pub(super) fn split_facts(
    start: &Handed,
    (sets, put): (&[Sets], u32),
    values: &Values,
    diags: &mut Diags,
) -> Option<Vec<Option<SplitFacts>>> {
    let at = keys::OBJECTIVE.span(values);
    let generates = keys::GENERATE.is_written(values);
    let first = sets.first().into_iter().flatten();
    first
        .map(|split| match split {
            Some(split) => Ok(Some(SplitFacts {
                examples: split.lengths.count(),
                lengths: Arc::new(split.lengths.list(1)),
                reads: reads(start, (split, put), at, diags)?,
                reported: split.reported,
                prompts: match generates {
                    true => prompts(start, split, keys::GENERATE.span(values), diags)?,
                    false => None,
                },
            })),
            None => Ok(None),
        })
        .collect::<Result<_, Refused>>()
        .ok()
}

/// Something is wrong, and a diagnostic says what.
struct Refused;

/// The tokens of each prompt of a split, behind which text is generated; `None` where the data are not at hand.
fn prompts(
    start: &Handed,
    split: &BoundSplit,
    at: Span,
    diags: &mut Diags,
) -> Result<Option<Arc<Vec<u32>>>, Refused> {
    let mut refuse = |message: String, help: &str| {
        diags.push(Diag::error(&NO_PROMPTS, at, message).help(help));
        Refused
    };
    if !start.task.generates() {
        let name = start.task.name();
        return Err(refuse(
            format!("`{name}` labels texts, and generates none"),
            "remove `generate`, or score a stage that was trained with `objective = causal_lm` or `seq2seq`",
        ));
    }
    if split.form == Form::Text {
        return Err(refuse(
            "these data are plain texts, without a prompt to go on from and a text to compare with"
                .to_owned(),
            "name both: `data d = local \"…\" { prompt = COLUMN, completion = COLUMN }`, or `messages = COLUMN`",
        ));
    }
    if let Form::Preference | Form::Choices | Form::Anchor = split.form {
        return Err(refuse(
            format!(
                "these data have {}, of which none is to be generated",
                split.form.what()
            ),
            "write `objective = causal_lm` in this stage, and name one text to compare with: `prompt = COLUMN, completion = COLUMN`",
        ));
    }
    if matches!(start.task.learns(split.form), Ok(Learn::All)) {
        return Err(refuse(
            "`learn = all` does not say where what is to be generated begins".to_owned(),
            "write `objective = causal_lm { learn = completion }` in this stage",
        ));
    }
    let Some(set) = &split.encoded else {
        return Ok(None);
    };
    let mut list = Vec::with_capacity(set.len());
    for example in 0..to_u32(set.len()) {
        let row = set.row(example).unwrap_or(example);
        let own = set.get(example).map_err(|why| {
            refuse(
                format!(
                    "the tokens of row {row} cannot be read back from {}: {}",
                    why.path.display(),
                    why.cause
                ),
                "run it again: they are made anew",
            )
        })?;
        let Some((prompt, _)) = own.asked() else {
            return Err(refuse(
                format!(
                    "row {row} (counted from 0) has no prompt, so that there is nothing to generate behind"
                ),
                "remove the row, or write a prompt there",
            ));
        };
        // The token that a target begins with is none of its source.
        let more = u32::from(start.task.target_length().is_some());
        list.push((to_u32(unmarked(prompt).len())).saturating_sub(more));
    }
    Ok(Some(Arc::new(list)))
}

/// Which places of the texts of a split are read, where those are any number of tokens.
fn reads(
    start: &Handed,
    (split, put): (&BoundSplit, u32),
    at: Span,
    diags: &mut Diags,
) -> Result<Option<Reads>, Refused> {
    let template = start.prompt.as_ref().map(|p| &p.template);
    let pair = template.is_none() && split.is_pair();
    let own = template.is_some_and(Template::has_mask);
    let reads = start
        .task
        .reads(start.model.tokenizer.as_deref(), pair, own);
    let reads = reads.map_err(|[message, help]| {
        diags.push(Diag::error(&BAD_TOKENIZER, at, message).help(help));
        Refused
    })?;
    let reads = match reads {
        // Virtual tokens are none of a text's own.
        Some(Reads::Masked(masking)) => Some(Reads::Masked(Masking {
            added: masking.added + put,
            ..masking
        })),
        other => other,
    };
    let by_label = |reads: &Reads| {
        !matches!(
            reads,
            Reads::Masked(_) | Reads::Options | Reads::Anchors { .. }
        )
    };
    let (true, Some(set)) = (reads.as_ref().is_some_and(by_label), &split.encoded) else {
        return Ok(reads);
    };
    let learned = set.learned();
    let first = learned.iter().position(|&tokens| tokens == 0);
    if first.is_none() && !set.is_empty() {
        return Ok(reads.map(|reads| reads.of(learned)));
    }
    let message = match first {
        None => "no row of this split has a token to learn".to_owned(),
        Some(example) => {
            let example = to_u32(example);
            let row = set.row(example).unwrap_or(example);
            let length = set.length(example).unwrap_or(0);
            let why = why_nothing(start, split.form, u64::from(length));
            format!("row {row} (counted from 0) has no token to learn: {why}")
        }
    };
    let name = start.task.name();
    let help = if split.form == Form::Text || first.is_none() {
        "remove the row, or write a text there".to_owned()
    } else {
        format!(
            "raise `max_length`, remove the row, or leave out all such rows: `objective = {name} {{ skip_empty = true }}`"
        )
    };
    diags.push(
        Diag::error(&NOTHING_LEARNED, at, message)
            .label("in this split")
            .help(help),
    );
    Err(Refused)
}

/// Why nothing is learned of a row of so many tokens.
fn why_nothing(start: &Handed, form: Form, length: u64) -> String {
    let most = start.max_length;
    match form {
        Form::Text => {
            format!("its text is {length} tokens long, and the first has none before it")
        }
        Form::Completion if start.task.target_length().is_some() => {
            "its target has none".to_owned()
        }
        Form::Completion if length >= most => {
            format!("its prompt fills the {most} tokens after which it is cut")
        }
        Form::Completion => "its completion is empty".to_owned(),
        Form::Preference if length >= most => {
            format!(
                "the prompt of one of its answers fills the {most} tokens after which it is cut"
            )
        }
        Form::Preference => "one of its answers is empty".to_owned(),
        Form::Choices => {
            "one of its options is the text's first token alone; write a prompt".to_owned()
        }
        Form::Messages if length >= most => {
            format!("no assistant says anything within the {most} tokens after which it is cut")
        }
        Form::Messages => "no assistant says anything in it".to_owned(),
        Form::Words => "it has no word".to_owned(),
        Form::Question | Form::Anchor => "it has no token".to_owned(),
    }
}
