//! Prompts of a stage: the template around the text and the words that stand for classes.

use std::sync::Arc;

use super::demonstrations;
use super::error::{BAD_LABEL_WORD, BAD_PROMPT};
use super::stages::{Chooser, Handed};
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::candidates::Word;
use crate::library::counts::to_u32;
use crate::library::decl;
use crate::library::prompt::{Prompt, Template};
use crate::library::schema::Values;
use crate::library::stage::StageKind;
use crate::library::stage::keys;
use crate::library::tokenizer::Tokenizer;
use crate::resolve::error::NOT_BUILT_YET;
use crate::resolve::{Declared, Recipe};

/// What stands around a stage's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wording<'r> {
    /// A declared prompt.
    Declared(&'r Declared),
    /// A prompt that a stage chooses, named in the recipe here.
    Chosen(Span),
    /// That of the stage it comes from, or nothing.
    Inherited,
}

/// Puts the prompt a stage writes, or goes on with, into what it starts from. `None` after a diagnostic.
#[expect(
    clippy::too_many_arguments,
    reason = "what is planned, what it stands on, and where complaints go"
)]
pub(super) fn take<'r>(
    recipe: &'r Recipe,
    chooser: &dyn Fn(&str) -> Option<Chooser>,
    (kind, values): (&dyn StageKind, &Values),
    stage: Span,
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<Wording<'r>> {
    let words = start.task.reads_words();
    let labels = start.task.label_texts().is_some();
    let Some((name, _)) = keys::PROMPT.get(values) else {
        if kind.chooses() || kind.trains() && !words || labels {
            start.prompt = None;
            start.chooser = None;
        }
        if !words && let Some(prompt) = &start.prompt {
            // Demonstrations show what another objective does not ask for.
            start.prompt = Some(Arc::new(Prompt {
                demonstrations: None,
                ..prompt.as_ref().clone()
            }));
        }
        let lacks = start.prompt.as_ref().is_none_or(|p| p.words.is_empty());
        if (words && lacks || labels) && !kind.chooses() {
            let diag = Diag::error(
                &BAD_PROMPT,
                stage,
                format!(
                    "`objective = {}` needs a prompt with a mask and a word for each class",
                    start.task.name()
                ),
            );
            diags.push(diag.help("declare `prompt NAME { template = \"{sentence} It was {mask}.\", verbalizer = { … } }` and write `prompt = NAME`"));
            return None;
        }
        return Some(Wording::Inherited);
    };
    if labels && recipe.find("stage", name).is_some() {
        let message = format!(
            "`{name}` chooses a prompt with words for a mask, and `{}` reads labels as texts",
            start.task.name()
        );
        let diag = Diag::error(&BAD_PROMPT, keys::PROMPT.span(values), message);
        diags.push(diag.help("name a declared prompt"));
        return None;
    }
    if recipe.find("stage", name).is_some() {
        // Where that stage could not be planned, its own diagnostic says why.
        start.chooser = Some(chooser(name)?);
        has_mask_token(start, keys::PROMPT.span(values), diags)?;
        return Some(Wording::Chosen(keys::PROMPT.span(values)));
    }
    start.chooser = None;
    let declared = recipe.find("prompt", name)?;
    let prompt = &declared.filled.values;
    demonstrations::idle(declared, diags);
    let source = decl::TEMPLATE.get(prompt).unwrap_or_default();
    let template = parse_template(
        source,
        decl::TEMPLATE.span(prompt),
        words || labels,
        start,
        diags,
    )?;
    if words && !decl::VERBALIZER.is_written(prompt) && !demonstrations::wanted(declared) {
        let diag = Diag::error(
            &BAD_PROMPT,
            declared.name.span,
            format!(
                "`{name}` has no `verbalizer`, and `objective = {}` needs a word for each class",
                start.task.name()
            ),
        );
        diags.push(diag);
        return None;
    }
    demonstrations::check(declared, &template, start.task.as_ref(), diags)?;
    start.prompt = Some(Arc::new(Prompt {
        template,
        words: Vec::new(),
        labels: Vec::new(),
        demonstrations: None,
    }));
    Some(Wording::Declared(declared))
}

/// Parses a template; with `masked` it must have a mask. `None` after a diagnostic.
pub(super) fn parse_template(
    source: &str,
    at: Span,
    masked: bool,
    start: &Handed,
    diags: &mut Diags,
) -> Option<Template> {
    let template = match Template::parse(source) {
        Ok(template) => template,
        Err(why) => {
            diags.push(Diag::error(&BAD_PROMPT, at, why));
            return None;
        }
    };
    if masked && !template.has_mask() {
        let diag = Diag::error(
            &BAD_PROMPT,
            at,
            format!(
                "the template `{source}` holds no `{{mask}}`, and the label words are read there"
            ),
        );
        diags.push(diag.help("write `{mask}` where the word belongs"));
        return None;
    }
    if template.has_mask() && start.task.label_texts().is_none() {
        has_mask_token(start, at, diags)?;
    }
    Some(template)
}

fn has_mask_token(start: &Handed, at: Span, diags: &mut Diags) -> Option<()> {
    let lacks = |t: &Arc<Tokenizer>| t.mask().is_none();
    if start.model.tokenizer.as_ref().is_some_and(lacks) {
        let message = "the model's tokenizer has no mask token";
        diags.push(Diag::error(&BAD_PROMPT, at, message));
        return None;
    }
    Some(())
}

/// Finds the token of each class's word, where they are what is learned.
pub(super) fn label_words(
    declared: &Declared,
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<()> {
    if start.task.label_texts().is_some() {
        return label_texts(declared, start, diags);
    }
    let prompt = start.prompt.as_ref();
    let Some(prompt) = prompt.filter(|_| start.task.reads_words()) else {
        return Some(());
    };
    let classes = &start.classes;
    let values = &declared.filled.values;
    let at = decl::VERBALIZER.span(values);
    let Some(pairs) = decl::VERBALIZER.get(values) else {
        return Some(());
    };
    let tokenizer = start.model.tokenizer.as_deref();
    let each = class_words(classes, pairs, tokenizer, at, diags)?;
    if tokenizer.is_some() {
        distinct(classes, &each, at, diags)?;
    }
    let words = in_turns(&each, at, diags)?;
    let words = words
        .into_iter()
        .map(|token| tokenizer.map_or(0, |_| token))
        .collect();
    start.prompt = Some(Arc::new(Prompt {
        template: prompt.template.clone(),
        words,
        labels: texts_of(classes, pairs),
        demonstrations: None,
    }));
    Some(())
}

/// Complains about a token that stands for two classes, or for one of them twice.
fn distinct(classes: &[String], each: &[Vec<Word>], at: Span, diags: &mut Diags) -> Option<()> {
    let mut seen: Vec<(u32, &String)> = Vec::new();
    for (class, words) in classes.iter().zip(each) {
        for word in words {
            let text = &word.text;
            let message = match seen.iter().find(|(token, _)| *token == word.token) {
                Some((_, other)) if *other == class => {
                    format!("`{class}` has the word `{text}` twice")
                }
                Some(_) => format!(
                    "`{class}` has the word of another class, so that they cannot be told apart"
                ),
                None => {
                    seen.push((word.token, class));
                    continue;
                }
            };
            fail(diags, at, message, None);
            return None;
        }
    }
    Some(())
}

/// The tokens of words, one of each class after the other, those of classes with fewer again: so often that the mean over a
/// class is that over its words.
fn in_turns(each: &[Vec<Word>], at: Span, diags: &mut Diags) -> Option<Vec<u32>> {
    const MOST: usize = 64;
    let mut turns = 1_usize;
    for words in each {
        let own = words.len().max(1);
        let shared = (1..=own)
            .rev()
            .find(|n| own.is_multiple_of(*n) && turns.is_multiple_of(*n));
        turns = turns.saturating_mul(own / shared.unwrap_or(1));
    }
    if turns > MOST {
        let message = format!(
            "the mean of each class's words takes {turns} words of each, since classes have different numbers of them; {MOST} are the most"
        );
        let help = Some("give the classes as many words each".to_owned());
        fail(diags, at, message, help);
        return None;
    }
    let turn = |i: usize| {
        each.iter()
            .filter_map(move |words| words.get(i % words.len().max(1)))
    };
    Some((0..turns).flat_map(turn).map(|w| w.token).collect())
}

/// The first word of each class, as a text.
fn texts_of(classes: &[String], pairs: &[(String, Vec<String>)]) -> Vec<String> {
    let own = |class: &String| {
        let list = pairs.iter().find(|(c, _)| c == class);
        let word = list.and_then(|(_, list)| list.first());
        word.map_or_else(String::new, |word| word.trim().to_owned())
    };
    classes.iter().map(own).collect()
}

/// Finds the text of each class's label: its words, or its name.
fn label_texts(declared: &Declared, start: &mut Handed, diags: &mut Diags) -> Option<()> {
    let prompt = start.prompt.clone()?;
    let classes = start.classes.clone();
    let values = &declared.filled.values;
    let labels = match decl::VERBALIZER.get(values) {
        None => classes,
        Some(pairs) => {
            let at = decl::VERBALIZER.span(values);
            if let Some((class, list)) = pairs.iter().find(|(_, list)| list.len() > 1) {
                let message = format!(
                    "`{class}` has {} labels; several for a class are not built yet",
                    list.len()
                );
                diags.push(Diag::error(&NOT_BUILT_YET, at, message).help("keep one of them"));
                return None;
            }
            let known = start.model.tokenizer.is_some();
            if let Some((extra, _)) = pairs.iter().find(|(c, _)| known && !classes.contains(c)) {
                let names = classes.join(", ");
                let help = suggest::did_you_mean(extra, classes.iter().map(String::as_str));
                let help = help.unwrap_or_else(|| format!("the classes are {names}"));
                fail(
                    diags,
                    at,
                    format!("the data have no class `{extra}`"),
                    Some(help),
                );
                return None;
            }
            let labels = texts_of(&classes, pairs);
            let lacks = |(class, label): &(&String, &String)| {
                known && (label.is_empty() || class.is_empty())
            };
            if let Some((class, _)) = classes.iter().zip(&labels).find(lacks) {
                let help = Some(format!("write `{class}: \"…\"`"));
                fail(diags, at, format!("the class `{class}` has no label"), help);
                return None;
            }
            labels
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = labels.iter().find(|label| !seen.insert(label.as_str())) {
        let message =
            format!("two classes have the label `{twice}`, so that they cannot be told apart");
        fail(diags, declared.name.span, message, None);
        return None;
    }
    start.prompt = Some(Arc::new(Prompt {
        labels,
        ..prompt.as_ref().clone()
    }));
    Some(())
}

/// The words of each class with their tokens, one at least; `None` after a diagnostic. Without a
/// tokenizer nothing is checked, and a token is the word's place among the different ones.
pub(super) fn class_words(
    classes: &[String],
    pairs: &[(String, Vec<String>)],
    tokenizer: Option<&Tokenizer>,
    at: Span,
    diags: &mut Diags,
) -> Option<Vec<Vec<Word>>> {
    let Some(tokenizer) = tokenizer else {
        let mut texts: Vec<&String> = pairs.iter().flat_map(|(_, list)| list).collect();
        texts.sort_unstable();
        texts.dedup();
        let place = |text: &String| Word {
            text: text.clone(),
            token: to_u32(texts.binary_search(&text).unwrap_or(0)),
        };
        // Nor need the classes be known: then the lists are theirs in order.
        let own = |(i, class): (usize, &String)| {
            let named = pairs.iter().find(|(c, _)| c == class);
            let list = named.or(pairs.get(i)).map(|(_, list)| list);
            list.into_iter().flatten().map(place).collect()
        };
        return Some(classes.iter().enumerate().map(own).collect());
    };
    if let Some((extra, _)) = pairs.iter().find(|(class, _)| !classes.contains(class)) {
        let help = suggest::did_you_mean(extra, classes.iter().map(String::as_str));
        fail(
            diags,
            at,
            format!("the data have no class `{extra}`"),
            help.or_else(|| Some(format!("the classes are {}", classes.join(", ")))),
        );
        return None;
    }
    let mut all = Vec::new();
    for class in classes {
        let own = pairs.iter().find(|(c, _)| c == class);
        let Some((_, list)) = own.filter(|(_, list)| !list.is_empty()) else {
            fail(
                diags,
                at,
                format!("the class `{class}` has no word"),
                Some(format!("write `{class}: \"…\"`")),
            );
            return None;
        };
        let words = list.iter().map(|word| token(tokenizer, word, at, diags));
        all.push(words.collect::<Option<Vec<Word>>>()?);
    }
    Some(all)
}

/// A word that is one token; `None` after a diagnostic.
fn token(tokenizer: &Tokenizer, word: &str, at: Span, diags: &mut Diags) -> Option<Word> {
    let pieces = match tokenizer.word_pieces(word) {
        Ok(pieces) => pieces,
        Err(why) => {
            let message = format!("`{word}` cannot be tokenized: {why}");
            fail(diags, at, message, None);
            return None;
        }
    };
    if let [(_, token)] = pieces.as_slice() {
        return Some(Word {
            text: word.to_owned(),
            token: *token,
        });
    }
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
    None
}

fn fail(diags: &mut Diags, at: Span, message: String, help: Option<String>) {
    let mut diag = Diag::error(&BAD_LABEL_WORD, at, message);
    diag.help = help;
    diags.push(diag);
}
