//! The texts of a stage: its splits within each template that may stand around them, and its classes.

use std::sync::Arc;

use super::Planner;
use super::start::trained_head;
use crate::base::{Diag, Diags};
use crate::library::candidates::Candidates;
use crate::library::data::set::generic;
use crate::library::decl;
use crate::library::error::{IDLE_KEY, NO_GRADIENT};
use crate::library::model::Model;
use crate::library::prompt::Template;
use crate::library::schema::{Reference, Values};
use crate::library::stage::{StageKind, keys};
use crate::library::task::{Answer, Classes, Task};
use crate::plan::bind::{BoundSplit, Rows, Want};
use crate::plan::error::BAD_LABELS;
use crate::plan::prompt::Wording;
use crate::plan::{Chooser, Handed, Sets, choice, demonstrations, holds, prompt};
use crate::resolve::Declared;

/// A stage's splits within each template that may stand around the text, and what a `choose_prompt` stage chooses from.
pub(super) struct Texts {
    pub(super) sets: Vec<Sets>,
    pub(super) candidates: Option<Arc<Candidates>>,
}

/// The names of the classes of the model's own trained head, where the stage goes on with that head and they are names.
fn own_head(kind: &dyn StageKind, start: &Handed) -> Vec<String> {
    let own = kind.trains()
        && start.task.answer().names_classes()
        && !start.task.needs().is_lm()
        && start.model.random.is_none()
        && start.weights.is_none()
        && start.adapter.is_none();
    if !own {
        return Vec::new();
    }
    let (_, names) = trained_head(&start.model);
    names.filter(|names| !generic(names)).unwrap_or_default()
}

/// The classes of a prompt's words, where no labels are read that would say them, and no stage before did.
fn unread_classes(
    (kind, values): (&dyn StageKind, &Values),
    prompt: &Declared,
    start: &Handed,
) -> Option<Vec<String>> {
    let task = start.task.as_ref();
    let words = task.reads_words() || task.label_texts().is_some();
    let reads = |key: &&str| kind.reads_labels(key, task);
    let known = keys::FROM.is_written(values)
        || !start.classes.is_empty() && !generic(&start.classes)
        || kind.splits().iter().any(reads);
    if !words || known {
        return None;
    }
    let pairs = decl::VERBALIZER.get(&prompt.filled.values)?;
    Some(pairs.iter().map(|(class, _)| class.clone()).collect())
}

impl Planner<'_, '_> {
    /// The stage's texts within its prompt, and the prompt's words; `None` after a diagnostic.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    pub(super) fn texts(
        &mut self,
        declared: &Declared,
        kind: &dyn StageKind,
        model: &Arc<dyn Model>,
        start: &mut Handed,
        diags: &mut Diags,
    ) -> Option<Texts> {
        let values = &declared.filled.values;
        let (plan, here) = (self.plan, self.here);
        let chooser = |name: &str| {
            let stage = plan.stages.get(*here.get(name)?)?;
            Some(Chooser {
                stage: stage.name.value.clone(),
                candidates: stage.candidates.clone()?,
            })
        };
        let bare = Handed {
            prompt: None,
            chooser: None,
            ..start.clone()
        };
        let place = declared.name.span;
        let recipe = self.binder.recipe;
        let wording = prompt::take(recipe, &chooser, (kind, values), place, start, diags);
        let listed = match wording {
            Some(_) if kind.chooses() => choice::templates(values, start, diags).map(Some),
            wording => wording.map(|_| None),
        };
        let (Some(wording), Some(listed)) = (wording, listed) else {
            // Without the prompt, what is wrong with the data can still be said.
            let plain = (Wording::Inherited, None);
            self.sets(kind, values, &mut bare.clone(), plain, diags);
            return None;
        };
        let shows = match wording {
            Wording::Declared(declared) => demonstrations::wanted(declared),
            _ => false,
        };
        if let Wording::Declared(declared) = wording
            && let Some(names) = unread_classes((kind, values), declared, start)
        {
            start.classes = names;
        }
        let classes = start.classes.clone();
        let again = shows || start.task.label_texts().is_some();
        let mut own = Diags::default();
        let first = self.sets(kind, values, start, (wording, listed.as_ref()), &mut own);
        // Where demonstrations follow, the splits are read again with them, and say the rest then.
        if !again || first.is_none() {
            diags.extend(own);
        }
        let mut sets = first?;
        holds::segments(start, model.as_ref(), (kind, values), &sets, diags)?;
        if start.task.answer().names_classes() && start.classes.is_empty() {
            start.classes = vec!["0".into(), "1".into()];
        }
        if let Wording::Declared(declared) = wording {
            prompt::label_words(declared, start, diags)?;
            if shows {
                self.binder.show(declared, start, diags)?;
            }
            if again {
                let known = std::mem::replace(&mut start.classes, classes);
                sets = self.sets(kind, values, start, (wording, None), diags)?;
                start.classes = known;
            }
        }
        demonstrations::check_draws(values, start, diags)?;
        if let Some(chooser) = &start.chooser {
            let at = match wording {
                Wording::Chosen(at) => at,
                _ => place,
            };
            start.chooser = Some(choice::taken(chooser, start, at, diags)?);
        }
        let Some(templates) = listed else {
            let candidates = None;
            return Some(Texts { sets, candidates });
        };
        let candidates = choice::candidates(templates, values, start, diags)?;
        Some(Texts {
            sets: vec![sets.concat()],
            candidates: Some(Arc::new(candidates)),
        })
    }

    /// The splits a kind reads, within each template that may stand around the text: one, or those
    /// that are chosen from. Classes that are not fixed yet come from the first split. `None` after a
    /// diagnostic.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    fn sets(
        &mut self,
        kind: &dyn StageKind,
        values: &Values,
        start: &mut Handed,
        (wording, listed): (Wording<'_>, Option<&Vec<Template>>),
        diags: &mut Diags,
    ) -> Option<Vec<Sets>> {
        let chosen = start.chooser.as_ref().map(|c| &c.candidates.templates);
        let own = start.prompt.as_ref().map(|p| p.template.clone());
        let shown = start
            .prompt
            .as_ref()
            .filter(|_| listed.or(chosen).is_none())
            .and_then(|p| p.demonstrations.clone());
        let templates: Vec<Option<Template>> = match listed.or(chosen) {
            Some(list) => list.iter().cloned().map(Some).collect(),
            None => vec![own],
        };
        let at = |key: &str| match wording {
            _ if listed.is_some() => keys::TEMPLATES.span(values),
            Wording::Declared(declared) => declared.name.span,
            Wording::Chosen(at) => at,
            Wording::Inherited => values.span(key),
        };
        let classes = start.classes.clone();
        let task = start.task.clone();
        let labels = start.prompt.as_ref().map(|p| p.labels.clone());
        let labels = labels.unwrap_or_default();

        let trained = own_head(kind, start);
        let mut sets = Vec::new();
        let mut complete = true;
        for template in &templates {
            // Each in the same way, so that what is read is read once.
            start.classes.clone_from(&classes);
            let want = Want {
                task: task.as_ref(),
                classes: None,
                // A trained head is attached by the names of its classes.
                preferred: Some(trained.as_slice()).filter(|names| !names.is_empty()),
                template: None,
                demonstrations: shown.as_ref(),
                labels: &labels,
                draws: keys::DRAWS.find(values).unwrap_or(1),
                max_length: start.max_length,
                marking: self.marking,
                tasks: self.tasks,
                labelled: true,
                survey: self.binder.survey,
                rows: Rows::PLAIN,
            };
            let mut set = Sets::new();
            for key in kind.splits() {
                let template = template.as_ref().map(|t| (t, at(key)));
                let labelled = kind.reads_labels(key, want.task);
                let want = Want {
                    template,
                    labelled,
                    ..want
                };
                let bound = match values.find::<Reference>(key) {
                    Some((name, Some(split))) => {
                        let of = (values, *key);
                        let bound = self.set((name, split), want, of, start, diags)?;
                        complete &= bound.is_some();
                        bound
                    }
                    _ => None,
                };
                set.push(bound);
            }
            sets.push(set);
        }
        if !trained.is_empty() {
            let names = &start.classes;
            // The rows of a trained head belong to its own classes, and to no others that are as many. Numbers
            // without names are places in it.
            let by_place = generic(names) && names.len() == trained.len();
            start.fresh_head = *names != trained && !by_place;
        }
        complete.then_some(sets)
    }

    /// A split that a key names. Classes that are not fixed yet are its own. The outer `None` says that the classes are
    /// wrong, the inner one that the split is.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    fn set(
        &mut self,
        (name, split): (&str, &str),
        want: Want<'_>,
        (values, key): (&Values, &str),
        start: &mut Handed,
        diags: &mut Diags,
    ) -> Option<Option<Arc<BoundSplit>>> {
        let known = Some(start.classes.as_slice()).filter(|names| !names.is_empty());
        let want = Want {
            classes: known,
            ..want
        };
        let task = want.task;
        let at = values.span(key);
        let bound = self
            .binder
            .split((name, split), &start.model, want, at, diags);
        let names = want.labelled && task.answer().names_classes();
        let Some(split) = bound.as_ref().filter(|_| names) else {
            return Some(bound);
        };
        match known {
            None => {
                start.classes = self.classes(split, task, (values, key), diags)?;
            }
            // Classes without names take those of the data.
            Some(known) if generic(known) && split.classes.len() == known.len() => {
                start.classes.clone_from(&split.classes);
            }
            Some(_) => {}
        }
        Some(bound)
    }

    /// The error of classes whose order is that of the alphabet alone, where it counts.
    fn lacks_order(&self, split: &BoundSplit, (values, key): (&Values, &str)) -> Option<Diag> {
        let names = &split.classes;
        let numbers = names.iter().all(|name| name.parse::<f64>().is_ok());
        if numbers || !names.is_sorted() {
            return None;
        }
        let (name, _) = values.find::<Reference>(key)?;
        let data = self.binder.recipe.find("data", name)?;
        let own = &data.filled.values;
        if decl::LABELS.is_written(own) {
            return None;
        }
        let list = names.join(", ");
        let message = format!(
            "the order of the classes counts here, and nothing says it: they are names, taken in alphabetical order ({list})"
        );
        let diag = Diag::error(&BAD_LABELS, own.span(decl::LABEL.name()), message)
            .related(values.span(key), "read here");
        Some(diag.help(format!("write them in their order: `labels = [{list}]`")))
    }

    pub(super) fn classes(
        &self,
        split: &BoundSplit,
        task: &dyn Task,
        (values, key): (&Values, &str),
        diags: &mut Diags,
    ) -> Option<Vec<String>> {
        let least = task.least_classes();
        if split.encoded.is_some() && split.classes.len() < least {
            // The cause stands where the data are declared, however many stages read them.
            let data = values.find::<Reference>(key).map(|(name, _)| name);
            let data = data.and_then(|name| self.binder.recipe.find("data", name));
            let at = data.map_or(values.span(key), |data| {
                let own = &data.filled.values;
                let label = if decl::LABELS.is_written(own) {
                    "labels"
                } else {
                    "label"
                };
                own.span(label)
            });
            diags.push(
                Diag::error(
                    &BAD_LABELS,
                    at,
                    format!(
                        "a classification needs at least {}; these data have {}",
                        if least > 1 {
                            "two classes"
                        } else {
                            "one class"
                        },
                        split.classes.len()
                    ),
                )
                .label("one class leaves nothing to learn")
                .related(values.span(key), "read here")
                .help("check `label`, or write `objective = regress` to learn a number"),
            );
            return None;
        }
        let ordered = task.answer() == Answer::Grade;
        if let Some(diag) = self.lacks_order(split, (values, key)).filter(|_| ordered) {
            diags.push(diag);
            return None;
        }
        Some(split.classes.clone())
    }
}

/// Gives the task the classes and labels that the texts turned out to have, where its training depends on them.
pub(super) fn on_classes(
    kind: &dyn StageKind,
    values: &Values,
    sets: &[Sets],
    start: &mut Handed,
    diags: &mut Diags,
) {
    if !kind.trains() {
        let own = start.task.training_keys().into_iter();
        for (key, at) in own.filter(|_| keys::OBJECTIVE.is_written(values)) {
            let name = kind.schema().name;
            let message = format!("`{key}` has no effect: `{name}` trains nothing");
            diags.push(
                Diag::error(&IDLE_KEY, at, message)
                    .label("changes nothing")
                    .help(format!(
                        "remove `{key}`; the loss of an evaluation is the plain one"
                    )),
            );
        }
        return;
    }
    if !start.task.trains() {
        let name = start.task.name();
        let at = keys::OBJECTIVE.span(values);
        let message = format!("`{name}` compares likelihoods, and nothing is trained by it");
        diags.push(Diag::error(&NO_GRADIENT, at, message).help(format!(
            "train with `objective = causal_lm`, and write `objective = {name}` in an `eval` stage"
        )));
        return;
    }
    let train = sets
        .first()
        .and_then(|set| set.first())
        .and_then(Option::as_ref);
    let classes = Classes {
        names: &start.classes,
        train: train.and_then(|split| split.encoded.as_deref()),
    };
    match start.task.on_classes(classes) {
        Ok(Some(task)) => start.task = task,
        Ok(None) => {}
        Err(diag) => diags.push(*diag),
    }
}
