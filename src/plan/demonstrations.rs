//! Demonstrations of a prompt: its keys checked, the examples they are drawn from filled in and
//! tokenized.

use std::sync::Arc;

use rayon::prelude::*;

use super::bind::Binder;
use super::error::{ASSUMED_LENGTHS, BAD_DEMONSTRATIONS};
use super::source::Unavailable;
use super::stages::Handed;
use crate::base::{Diag, Diags, suggest};
use crate::library::data::set::{DataSet, Example, Label};
use crate::library::decl;
use crate::library::demonstrations::{Demonstration, Demonstrations, Order, Showing};
use crate::library::error::IDLE_KEY;
use crate::library::prompt::frame::fill;
use crate::library::prompt::{Prompt, Template};
use crate::library::schema::Values;
use crate::library::stage::keys;
use crate::library::task::Task;
use crate::library::tokenizer::Tokenizer;
use crate::resolve::Declared;

/// Keys that say more about demonstrations.
const DETAILS: [&str; 7] = [
    "demonstrations_from",
    "demonstration_length",
    "demonstration_seed",
    "demonstration_place",
    "demonstration_separator",
    "demonstration_order",
    "demonstration_draw",
];

/// Whether a declared prompt shows demonstrations.
pub(super) fn wanted(declared: &Declared) -> bool {
    decl::DEMONSTRATIONS.get(&declared.filled.values) > 0
}

/// Complains about a key of demonstrations that are not shown, whatever else is wrong with the prompt.
pub(super) fn idle(declared: &Declared, diags: &mut Diags) {
    let values = &declared.filled.values;
    let key = DETAILS.iter().find(|key| values.written(key));
    if let Some(key) = key.filter(|_| !wanted(declared)) {
        let message = format!("`{key}` has no effect without `demonstrations`");
        let diag = Diag::error(&IDLE_KEY, values.span(key), message);
        diags.push(diag.help("write `demonstrations = 1`, or remove it"));
    }
}

/// Complaints about a prompt's keys; `None` where its demonstrations cannot be shown.
pub(super) fn check(
    declared: &Declared,
    template: &Template,
    task: &dyn Task,
    diags: &mut Diags,
) -> Option<()> {
    let values = &declared.filled.values;
    let name = &declared.name.value;
    if !wanted(declared) {
        return Some(());
    }
    let each = decl::DEMONSTRATIONS.get(values);
    let goes_on = task.label_texts().is_some();
    let behind = decl::DEMONSTRATION_PLACE.get(values) == "behind";
    let wrong = if goes_on && behind {
        Some((
            format!(
                "`{}` reads what stands before the label, and these stand behind it",
                task.name()
            ),
            "write `demonstration_place = before`",
        ))
    } else if behind && decl::DEMONSTRATION_SEPARATOR.is_written(values) {
        Some((
            "`demonstration_separator` has no effect on demonstrations behind the text".to_owned(),
            "write `demonstration_place = before`, or remove it",
        ))
    } else if !goes_on && !decl::VERBALIZER.is_written(values) {
        Some((
            format!(
                "`{name}` has no `verbalizer`, and demonstrations show the word of their class"
            ),
            "write `verbalizer = { … }` with a word for each class",
        ))
    } else if !template.has_mask() {
        Some((
            format!(
                "the template `{}` holds no `{{mask}}`, and demonstrations show a word in its place",
                template.source
            ),
            "write `{mask}` where the word belongs",
        ))
    } else if !decl::DEMONSTRATIONS_FROM.is_written(values) {
        Some((
            format!("`{name}` shows {each} of each class, and does not say from which split"),
            "write `demonstrations_from = DATA.train`",
        ))
    } else if !goes_on && !task.reads_words() {
        Some((
            "demonstrations show label words, and the stage's objective reads none".to_owned(),
            "write `objective = label_words` in the stage, or name a prompt without demonstrations",
        ))
    } else {
        None
    };
    let Some((message, help)) = wrong else {
        return Some(());
    };
    let at = decl::DEMONSTRATIONS.span(values);
    diags.push(Diag::error(&BAD_DEMONSTRATIONS, at, message).help(help));
    None
}

/// Complains about several draws of nothing; `None` after it.
pub(super) fn check_draws(values: &Values, start: &Handed, diags: &mut Diags) -> Option<()> {
    let shown = start
        .prompt
        .as_ref()
        .and_then(|p| p.demonstrations.as_ref());
    if shown.is_some() || !keys::DRAWS.is_written(values) {
        return Some(());
    }
    let message = "`draws` has no effect: there are no demonstrations to draw";
    let diag = Diag::error(&IDLE_KEY, keys::DRAWS.span(values), message);
    diags.push(diag.help("name a prompt with `demonstrations`, or remove it"));
    None
}

impl Binder<'_> {
    /// Puts into a stage's prompt what its demonstrations are drawn from, once classes and words are
    /// known; `None` after a diagnostic.
    pub(super) fn show(
        &mut self,
        declared: &Declared,
        start: &mut Handed,
        diags: &mut Diags,
    ) -> Option<()> {
        let Some(prompt) = &start.prompt else {
            return Some(());
        };
        let shown = self.pool(declared, prompt, start, diags)?;
        start.prompt = Some(Arc::new(Prompt {
            demonstrations: Some(shown),
            ..prompt.as_ref().clone()
        }));
        Some(())
    }

    fn pool(
        &mut self,
        declared: &Declared,
        prompt: &Prompt,
        start: &Handed,
        diags: &mut Diags,
    ) -> Option<Arc<Demonstrations>> {
        let values: &Values = &declared.filled.values;
        let (model, classes) = (&start.model, &start.classes);
        let at = decl::DEMONSTRATIONS_FROM.span(values);
        let (name, split) = decl::DEMONSTRATIONS_FROM.get(values)?;
        let split = split?;
        let data = self.recipe.find("data", name)?;
        let columns = decl::TEXT.get(&data.filled.values).unwrap_or_default();
        if let Some(message) = lacks_column(prompt, (name, columns)) {
            let (message, help) = message;
            diags.push(Diag::error(&BAD_DEMONSTRATIONS, at, message).help(help));
            return None;
        }
        let mut made = Demonstrations {
            each: decl::DEMONSTRATIONS.get(values),
            length: decl::DEMONSTRATION_LENGTH.get(values),
            seed: decl::DEMONSTRATION_SEED.get(values),
            classes: Vec::new(),
            showing: showing(values),
            from: format!("{name}.{split}"),
            identity: None,
        };
        let raw = match self.raw_split(data, split, start.task.as_ref(), classes) {
            Ok(raw) => raw,
            Err(Unavailable::Offline(why)) => {
                let message = format!("`{name}.{split}` is not at hand: {why}");
                diags.push(
                    Diag::warning(&ASSUMED_LENGTHS, at, message)
                        .label("every text with demonstrations is taken as long as can be"),
                );
                return Some(Arc::new(made));
            }
            Err(Unavailable::Wrong(list)) => {
                super::data::wrong(list, data, split, at, diags);
                return None;
            }
        };
        let Some(tokenizer) = &model.tokenizer else {
            return Some(Arc::new(made));
        };
        // Data and tokenizers are kept as long as the binder, so their addresses tell them apart.
        let key = format!(
            "{:p} {:p} {:?} {:?} {:?} {:?} {} {} {}",
            Arc::as_ptr(&raw),
            Arc::as_ptr(tokenizer),
            prompt.template.source,
            prompt.words,
            prompt.labels,
            made.showing,
            made.each,
            made.length,
            made.seed
        );
        if let Some(known) = self.pools.get(&key) {
            return Some(known.clone());
        }
        made.identity = raw.identity.clone();
        let source = (&raw.data, columns, classes.len());
        made.classes = match examples(source, prompt, tokenizer, &made) {
            Ok(list) => list,
            Err(why) => {
                let message = format!("`{name}.{split}` cannot be tokenized: {why}");
                diags.push(Diag::error(&BAD_DEMONSTRATIONS, at, message));
                return None;
            }
        };
        let made = made.sorted();
        if let Some(message) = too_few(&made, classes) {
            let help = "take a larger split, or fewer `demonstrations`";
            diags.push(Diag::error(&BAD_DEMONSTRATIONS, at, message).help(help));
            return None;
        }
        let made = Arc::new(made);
        self.pools.insert(key, made.clone());
        Some(made)
    }
}

/// What is wrong with a template that asks for a column which the data set does not read, and what to do about it.
fn lacks_column(prompt: &Prompt, (name, columns): (&str, &[String])) -> Option<(String, String)> {
    let mut asked = prompt.template.columns();
    let column = asked.find(|c| !columns.iter().any(|t| t == c))?;
    let message =
        format!("the template asks for the column `{column}`, which `{name}` does not read");
    let help = suggest::did_you_mean(column, columns.iter().map(String::as_str))
        .unwrap_or_else(|| format!("add it to `text` of `{name}`"));
    Some((message, help))
}

/// What is wrong with a split of which a class has too few texts.
fn too_few(made: &Demonstrations, classes: &[String]) -> Option<String> {
    let (class, found) = made.lacking()?;
    Some(format!(
        "`{}` has {found} texts of the class `{}`, and {} of each are wanted: one more than are shown, because no text \
         is its own demonstration",
        made.from,
        classes.get(class).map_or("", String::as_str),
        made.each + 1,
    ))
}

/// How a prompt shows its demonstrations.
fn showing(values: &Values) -> Showing {
    let before = decl::DEMONSTRATION_PLACE.get(values) == "before";
    Showing {
        before: before.then(|| decl::DEMONSTRATION_SEPARATOR.get(values).to_owned()),
        order: match decl::DEMONSTRATION_ORDER.get(values) {
            "turns" => Order::Turns,
            "shuffled" => Order::Shuffled,
            _ => Order::Classes,
        },
        once: decl::DEMONSTRATION_DRAW.get(values) == "once",
    }
}

/// The template filled with an example, each of its columns cut to so many tokens, and with its class's word.
fn shown(
    (prompt, class): (&Prompt, usize),
    tokenizer: &Tokenizer,
    columns: &[String],
    (example, most): (&Example, u64),
) -> Result<String, String> {
    let label = prompt.labels.get(class).ok_or("a class has no word")?;
    let cut = example.texts.iter();
    let cut = cut.map(|text| Ok(tokenizer.cut_text(text, most as usize)?.to_owned()));
    let cut = cut.collect::<Result<Vec<String>, String>>()?;
    let get = |name: &str| {
        let at = columns.iter().position(|c| c == name);
        at.and_then(|i| cut.get(i)).map_or("", String::as_str)
    };
    Ok(prompt.template.fill(get, label).text)
}

/// The examples of each class, filled in and tokenized.
fn examples(
    (data, columns, classes): (&DataSet, &[String], usize),
    prompt: &Prompt,
    tokenizer: &Tokenizer,
    of: &Demonstrations,
) -> Result<Vec<Vec<Demonstration>>, String> {
    let made: Result<Vec<(usize, Demonstration)>, String> = data
        .examples
        .par_iter()
        .filter_map(|example| match example.label {
            Some(Label::Class(class)) => Some((class as usize, example)),
            _ => None,
        })
        .map(|(class, example)| {
            let filled = fill(tokenizer, &prompt.template, columns, &example.texts);
            let text = filled.text.clone();
            let (tokens, shown) = match of.showing.before {
                Some(_) => (
                    Vec::new(),
                    shown((prompt, class), tokenizer, columns, (example, of.length))?,
                ),
                None => {
                    let word = prompt.words.get(class).ok_or("a class has no word")?;
                    let tokens =
                        tokenizer.encode_demonstration(&filled, *word, of.length as usize)?;
                    (tokens, String::new())
                }
            };
            let own = Demonstration {
                text,
                tokens,
                shown,
            };
            Ok((class, own))
        })
        .collect();
    let mut list = vec![Vec::new(); classes];
    for (class, one) in made? {
        if let Some(of) = list.get_mut(class) {
            of.push(one);
        }
    }
    Ok(list)
}
