//! Prompts of a stage: the template around the text and the words that stand for classes.

use std::sync::Arc;

use super::Handed;
use super::error::{BAD_LABEL_WORD, BAD_PROMPT};
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::model::HeadKind;
use crate::library::objective::Objective;
use crate::library::prompt::{Prompt, Template};
use crate::library::schema::{Checked, Values};
use crate::library::stage::StageKind;
use crate::resolve::error::NOT_BUILT_YET;
use crate::resolve::{Declared, Recipe};

/// Puts the prompt a stage writes, or goes on with, into what it starts from; gives the declaration
/// if the stage names one. `None` after a diagnostic.
pub(super) fn take<'r>(
    recipe: &'r Recipe,
    kind: &dyn StageKind,
    values: &Values,
    stage: Span,
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<Option<&'r Declared>> {
    let words = start.objective == Objective::LabelWords;
    let Some((name, _)) = values.reference("prompt") else {
        if kind.trains() && !words {
            start.prompt = None;
        }
        if words && start.prompt.as_ref().is_none_or(|p| p.words.is_empty()) {
            let diag = Diag::error(
                &BAD_PROMPT,
                stage,
                "`objective = label_words` needs a prompt with a mask and a word for each class",
            );
            diags.push(diag.help("declare `prompt NAME { template = \"{sentence} It was {mask}.\", verbalizer = { … } }` and write `prompt = NAME`"));
            return None;
        }
        return Some(None);
    };
    let declared = recipe.find("prompt", name)?;
    let prompt = &declared.filled.values;
    let template = match Template::parse(prompt.str("template").unwrap_or_default()) {
        Ok(template) => template,
        Err(why) => {
            diags.push(Diag::error(&BAD_PROMPT, prompt.span("template"), why));
            return None;
        }
    };
    if words && !template.has_mask() {
        let diag = Diag::error(
            &BAD_PROMPT,
            prompt.span("template"),
            "the template holds no `{mask}`, and the label words are read there",
        );
        diags.push(diag.help("write `{mask}` where the word belongs"));
        return None;
    }
    if words && !prompt.written("verbalizer") {
        let diag = Diag::error(
            &BAD_PROMPT,
            declared.name.span,
            format!(
                "`{name}` has no `verbalizer`, and `objective = label_words` needs a word for each class"
            ),
        );
        diags.push(diag);
        return None;
    }
    if let (true, Some(tokenizer)) = (template.has_mask(), &start.model.tokenizer)
        && tokenizer.mask().is_none()
    {
        diags.push(Diag::error(
            &BAD_PROMPT,
            prompt.span("template"),
            "the model's tokenizer has no mask token",
        ));
        return None;
    }
    start.prompt = Some(Arc::new(Prompt {
        template,
        words: Vec::new(),
    }));
    Some(Some(declared))
}

/// Finds the token of each class's word, where they are what is learned.
pub(super) fn label_words(
    declared: &Declared,
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<()> {
    let (HeadKind::Classes(classes), Objective::LabelWords, Some(prompt)) =
        (&start.head, start.objective, &start.prompt)
    else {
        return Some(());
    };
    let values = &declared.filled.values;
    let at = values.span("verbalizer");
    let Some(Checked::Map(pairs)) = values.get("verbalizer") else {
        return Some(());
    };
    let known = start.model.tokenizer.is_some();
    if let Some((extra, _)) = pairs
        .iter()
        .find(|(class, _)| known && !classes.contains(class))
    {
        let help = suggest::did_you_mean(extra, classes.iter().map(String::as_str));
        fail(
            diags,
            at,
            format!("the data have no class `{extra}`"),
            help.or_else(|| Some(format!("the classes are {}", classes.join(", ")))),
        );
        return None;
    }
    let mut words = Vec::new();
    for class in classes {
        let Some((_, list)) = pairs.iter().find(|(c, _)| c == class).filter(|_| known) else {
            if !known {
                words.push(0);
                continue;
            }
            fail(
                diags,
                at,
                format!("the class `{class}` has no word"),
                Some(format!("write `{class}: \"…\"`")),
            );
            return None;
        };
        let [word] = list.as_slice() else {
            let message = format!(
                "`{class}` has {} words; several words for a class are not built yet",
                list.len()
            );
            diags.push(Diag::error(&NOT_BUILT_YET, at, message).help("keep one"));
            return None;
        };
        let pieces = start.model.tokenizer.as_ref().map(|t| t.word_pieces(word));
        match pieces {
            Some(Ok(pieces)) if pieces.len() == 1 => words.extend(pieces.iter().map(|(_, id)| *id)),
            Some(Ok(pieces)) => {
                let names: Vec<String> = pieces.iter().map(|(p, _)| format!("`{p}`")).collect();
                fail(
                    diags,
                    at,
                    format!(
                        "`{word}` is not one token of this model: it is cut into {}",
                        names.join(", ")
                    ),
                    Some("take a commoner word; the mask can hold one token only".into()),
                );
                return None;
            }
            Some(Err(why)) => {
                fail(
                    diags,
                    at,
                    format!("`{word}` cannot be tokenized: {why}"),
                    None,
                );
                return None;
            }
            None => {}
        }
    }
    let twice = words
        .iter()
        .enumerate()
        .find(|(i, w)| known && words.iter().take(*i).any(|v| v == *w));
    if let Some((i, _)) = twice {
        fail(
            diags,
            at,
            format!(
                "`{}` has the word of another class, so that they cannot be told apart",
                classes.get(i).map_or("", String::as_str)
            ),
            None,
        );
        return None;
    }
    start.prompt = Some(Arc::new(Prompt {
        template: prompt.template.clone(),
        words,
    }));
    Some(())
}

fn fail(diags: &mut Diags, at: Span, message: String, help: Option<String>) {
    let mut diag = Diag::error(&BAD_LABEL_WORD, at, message);
    diag.help = help;
    diags.push(diag);
}
