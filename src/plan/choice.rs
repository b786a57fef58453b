//! Prompts that a stage chooses: the candidates, the stages that take the choice, and what becomes
//! of them once it is made.

use std::sync::Arc;

use super::error::BAD_CANDIDATES;
use super::estimate::{self, Estimate};
use super::features::{self, Asked};
use super::prompt::{class_words, parse_template};
use super::split::Lengths;
use super::stages::{Chooser, Handed, Open, Plan, Sets, Stage};
use crate::base::{Diag, Diags, Span};
use crate::library::candidates::{Candidates, Chosen, MOST};
use crate::library::prompt::{Prompt, Template};
use crate::library::schema::Values;
use crate::library::stage::keys;
use crate::program::op::Machine;

/// The templates a `choose_prompt` stage lists; `None` after a diagnostic.
pub(super) fn templates(
    values: &Values,
    start: &Handed,
    diags: &mut Diags,
) -> Option<Vec<Template>> {
    const MOST: usize = 1000;
    let at = keys::TEMPLATES.span(values);
    let many = keys::TEMPLATES.get(values).unwrap_or_default().len();
    if many > MOST {
        let message = format!("there are {many} templates; {MOST} are the most");
        diags.push(Diag::error(&BAD_CANDIDATES, at, message).help("list fewer of them"));
        return None;
    }
    let mut list: Vec<Template> = Vec::new();
    for source in keys::TEMPLATES.get(values).unwrap_or_default() {
        let template = parse_template(source, at, true, start, diags)?;
        if list.contains(&template) {
            let message = format!("the template `{source}` is listed twice");
            diags.push(Diag::error(&BAD_CANDIDATES, at, message).help("keep one"));
            return None;
        }
        list.push(template);
    }
    Some(list)
}

/// What a `choose_prompt` stage chooses from, once its classes are known; `None` after a diagnostic.
pub(super) fn candidates(
    templates: Vec<Template>,
    values: &Values,
    start: &Handed,
    diags: &mut Diags,
) -> Option<Candidates> {
    let at = keys::LABEL_WORDS.span(values);
    let classes = &start.classes;
    let pairs = keys::LABEL_WORDS.get(values)?;
    let words = class_words(classes, pairs, start.model.tokenizer.as_deref(), at, diags)?;
    let candidates = Candidates {
        templates,
        classes: classes.clone(),
        words,
    };
    let combinations = candidates
        .products()
        .saturating_mul(candidates.templates.len() as u64);
    let wrong = if combinations > MOST {
        Some((
            format!("there are {combinations} candidates, and {MOST} at most are scored"),
            "list fewer words or templates",
        ))
    } else {
        match candidates.count() {
            0 => Some((
                "no two classes can have different words".to_owned(),
                "give each class words of its own",
            )),
            1 => Some((
                "there is one candidate only, so that there is nothing to choose".to_owned(),
                "list several templates, or several words for a class; or declare a `prompt`",
            )),
            _ => None,
        }
    };
    if let Some((message, help)) = wrong {
        diags.push(Diag::error(&BAD_CANDIDATES, at, message).help(help));
        return None;
    }
    Some(candidates)
}

/// The candidates with their words as the classes and the tokens of the model that takes the choice;
/// `None` after a diagnostic.
pub(super) fn taken(
    chooser: &Chooser,
    start: &Handed,
    at: Span,
    diags: &mut Diags,
) -> Option<Chooser> {
    if !start.task.reads_words() {
        return Some(chooser.clone());
    }
    let classes = &start.classes;
    let from = &chooser.candidates;
    let pairs: Vec<(String, Vec<String>)> = from
        .classes
        .iter()
        .zip(&from.words)
        .map(|(class, list)| (class.clone(), list.iter().map(|w| w.text.clone()).collect()))
        .collect();
    let words = class_words(classes, &pairs, start.model.tokenizer.as_deref(), at, diags)?;
    let candidates = Candidates {
        templates: from.templates.clone(),
        classes: classes.clone(),
        words,
    };
    // Another model's tokenizer may take for one what the choosing model tells apart.
    if candidates.count() < from.count() {
        diags.push(
            Diag::error(
                &BAD_CANDIDATES,
                at,
                format!(
                    "to this stage's model, words that `{}` may choose for different classes are the same token",
                    chooser.stage
                ),
            )
            .help("choose with the model that is trained"),
        );
        return None;
    }
    Some(Chooser {
        stage: chooser.stage.clone(),
        candidates: Arc::new(candidates),
    })
}

/// Where a prompt is chosen, puts one to plan with in its place: this template with the first words.
/// All choices make programs of the same sizes.
pub(super) fn provide(start: &mut Handed, template: usize) {
    let Some(chooser) = &start.chooser else {
        return;
    };
    let candidates = &chooser.candidates;
    let places = candidates.assignments().next().unwrap_or_default();
    let Some(template) = candidates.templates.get(template) else {
        return;
    };
    let learned = start.task.reads_words();
    start.prompt = Some(Arc::new(Prompt {
        template: template.clone(),
        words: candidates
            .tokens_of(&places)
            .filter(|_| learned)
            .unwrap_or_default(),
        labels: Vec::new(),
        demonstrations: None,
    }));
}

/// Bytes of texts and tokens in memory while a stage's splits are held within each of several templates.
pub(super) fn host_bytes(sets: &[Sets]) -> u64 {
    let first = sets.first().into_iter().flatten().flatten();
    let others = sets.iter().skip(1).flatten().flatten();
    first.map(|s| s.host_bytes).sum::<u64>() + others.map(|s| s.token_bytes()).sum::<u64>()
}

/// Bytes that it takes to make tokens of a stage's texts, split after split.
pub(super) fn making(sets: &[Sets]) -> u64 {
    let all = sets.iter().flatten().flatten();
    all.map(|s| s.making).max().unwrap_or(0)
}

/// The place of the splits whose estimate is largest, and that estimate.
pub(super) fn largest(
    sets: &[Sets],
    of: &dyn Fn(&[Option<&Lengths>]) -> Estimate,
) -> (usize, Estimate) {
    let mut best = (0, None);
    for (i, set) in sets.iter().enumerate() {
        let own = of(&lengths(set));
        let larger = |b: &Estimate| own.peak() > b.peak();
        if best.1.as_ref().is_none_or(larger) {
            best = (i, Some(own));
        }
    }
    (best.0, best.1.unwrap_or_default())
}

/// The lengths of some splits; none of one that is only drawn of, whose rows no program reads there.
pub(super) fn lengths(set: &Sets) -> Vec<Option<&Lengths>> {
    let own = set.iter().map(Option::as_ref);
    own.map(|split| split.filter(|s| !s.drawn_of).map(|s| &s.lengths))
        .collect()
}

impl Stage {
    /// The stage whose choice of a prompt it still waits for.
    #[must_use]
    pub fn waits_for(&self) -> Option<&str> {
        self.open.as_ref()?;
        self.start.chooser.as_ref().map(|c| c.stage.as_str())
    }

    /// The stage with the chosen prompt in the place of the provisional one: its splits within the
    /// chosen template, its programs with the chosen words, the estimate of these. The fingerprint
    /// stays: it stands for the choice through the stage that makes it.
    ///
    /// # Errors
    /// The choice is not among the candidates, or a contradiction inside the compiler.
    pub fn decided(&self, chosen: &Chosen, machine: &Machine) -> Result<Self, String> {
        let (Some(open), Some(chooser)) = (&self.open, &self.start.chooser) else {
            return Err("nothing is open here".to_owned());
        };
        let stranger = || {
            format!(
                "the choice of `{}` is not among its candidates",
                chooser.stage
            )
        };
        let (at, words) = chooser.candidates.find(chosen).ok_or_else(stranger)?;
        let template = chooser.candidates.templates.get(at).ok_or_else(stranger)?;
        let prompt = Arc::new(Prompt {
            template: template.clone(),
            words: if self.start.task.reads_words() {
                words
            } else {
                Vec::new()
            },
            labels: Vec::new(),
            demonstrations: None,
        });
        let splits = open.sets.get(at).cloned().ok_or_else(stranger)?;
        let with = |handed: &Handed| Handed {
            prompt: handed.prompt.as_ref().map(|_| prompt.clone()),
            ..handed.clone()
        };
        Ok(Self {
            hands_on: self.hands_on.as_ref().map(with),
            candidates: None,
            open: None,
            ..self.with(with(&self.start), splits, machine)?
        })
    }

    /// The stage with what is known by now of what it starts from, and of its texts: lowered and estimated again. Its fingerprint
    /// stays.
    ///
    /// # Errors
    /// A contradiction inside the compiler.
    pub(super) fn with(
        &self,
        start: Handed,
        splits: Sets,
        machine: &Machine,
    ) -> Result<Self, String> {
        let views = lengths(&splits);
        let cx = self.context(&start, &self.filled.values, &self.trained_with, &views);
        let cx = cx.ok_or("its methods do not fit the model")?;
        let refused = |list: Vec<Diag>| {
            let messages: Vec<String> = list.into_iter().map(|d| d.message).collect();
            messages.join("; ")
        };
        let mut job = self.kind.lower(&cx).map_err(refused)?;
        let asked = Asked::of(&self.filled.values, start.task.as_ref());
        let not_kept = features::keep(&mut job, &views, asked);
        let estimate = estimate::estimate(&job, &views, machine, self.around());
        Ok(Self {
            name: self.name.clone(),
            declared: self.declared.clone(),
            at: self.at.clone(),
            kind: self.kind,
            filled: self.filled.clone(),
            parent: self.parent.clone(),
            hands_on: self.hands_on.clone(),
            start,
            trained_with: self.trained_with.clone(),
            model: self.model.clone(),
            facts: self.facts.clone(),
            splits,
            job,
            not_kept,
            fitted: self.fitted,
            ranks: self.ranks,
            estimate,
            parts: self.parts.clone(),
            fingerprint: self.fingerprint.clone(),
            candidates: self.candidates.clone(),
            open: self.open.clone(),
            drawn: self.drawn.clone(),
        })
    }
}

impl Open {
    /// The open rest of a stage that takes another's choice; `None` for any other.
    pub(super) fn of(start: &Handed, sets: &[Sets]) -> Option<Self> {
        start.chooser.as_ref()?;
        Some(Self {
            sets: sets.to_vec(),
        })
    }
}

impl Plan {
    /// Puts the choices that are known already into the stages that wait for them. One that is no
    /// candidate leaves its stage open: that stage's run says so.
    pub fn decide(&mut self, known: &dyn Fn(&Stage) -> Option<Chosen>, machine: &Machine) {
        let decided: Vec<(usize, Stage)> = self
            .stages
            .iter()
            .enumerate()
            .filter_map(|(i, stage)| {
                let chosen = known(self.stage(stage.waits_for()?)?)?;
                Some((i, stage.decided(&chosen, machine).ok()?))
            })
            .collect();
        for (i, stage) in decided {
            if let Some(slot) = self.stages.get_mut(i) {
                *slot = stage;
            }
        }
    }
}
