//! The stages that teach a stage: whether they can, and of which classes.

use std::collections::BTreeSet;

use super::Planner;
use crate::base::{Diag, Diags, Span};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY};
use crate::library::schema::Values;
use crate::library::stage::drawing::Drawing;
use crate::library::stage::job::Routine;
use crate::library::stage::{StageKind, keys};
use crate::library::task::{Answer, Head};
use crate::plan::drawn::UNLABELLED;
use crate::plan::error::WRONG_PORT;
use crate::plan::{Handed, Sets, Stage, Teacher};
use crate::resolve::Declared;

impl Planner<'_, '_> {
    /// Puts the stages that teach this one into what it starts from, with their classes, or with those of a head that is
    /// `trained` already; `None` after a diagnostic.
    pub(super) fn taught(
        &self,
        (kind, declared): (&dyn StageKind, &Declared),
        trained: Option<Vec<String>>,
        start: &mut Handed,
        diags: &mut Diags,
    ) -> Option<()> {
        let values = &declared.filled.values;
        if self.classroom.broken {
            return Some(());
        }
        if !learns_of_them((kind, values), declared.name.span, start, diags)? {
            return Some(());
        }
        if let Some(over) = keys::OVER.get(values)
            && self.classroom.points > 1
            && self.classroom.teachers.len() == 1
        {
            let message = format!(
                "`over = {}` has no effect: `{}` is the same at all of their points",
                over.join(", "),
                keys::TEACHERS.get(values).map_or("", |(name, _)| name)
            );
            let diag = Diag::error(&IDLE_KEY, keys::OVER.span(values), message);
            diags.push(
                diag.label("changes nothing").help(
                    "remove it, or name a sweep of something that the teachers are made with",
                ),
            );
            return None;
        }
        let at = |place: usize| self.plan.stages.get(place);
        let mut classes: Option<(&[String], &Stage)> = None;
        for (teacher, judge) in &self.classroom.teachers {
            let teacher = at(*teacher)?;
            is_teacher(teacher, keys::TEACHERS.span(values), diags)?;
            let judge = judge.and_then(at);
            if let Some(judge) = judge {
                is_judge(judge, keys::TEACHER_WEIGHTS.span(values), diags)?;
            }
            let own = teacher.start.classes.as_slice();
            let (known, first) = *classes.get_or_insert((own, teacher));
            if !same(known, own) {
                let message = format!(
                    "the teachers tell different classes: {} and {}",
                    listed(known),
                    listed(own)
                );
                let diag = Diag::error(&CONFLICTING_KEYS, keys::TEACHERS.span(values), message);
                diags.push(
                    diag.related(first.name.span, "the first")
                        .help("take teachers of one set of classes"),
                );
                return None;
            }
            start.teachers.push(Teacher {
                stage: teacher.name.value.clone(),
                judge: judge.map(|judge| judge.name.value.clone()),
            });
        }
        let (classes, _) = classes?;
        self.weighs(values, start, diags)?;
        if keys::UNLABELLED.is_written(values) {
            return self.labels(values, start);
        }
        match trained {
            // The head's rows are in its own order.
            Some(own) if same(&own, classes) => start.classes = own,
            Some(own) => {
                let message = format!(
                    "the head that this stage goes on with tells other classes than its teachers: {} and {}",
                    listed(&own),
                    listed(classes)
                );
                let diag = Diag::error(&CONFLICTING_KEYS, keys::FROM.span(values), message);
                diags.push(diag.related(keys::TEACHERS.span(values), "the teachers").help(
                    "begin with `model = …`, whose head is a fresh one, or take teachers of these classes",
                ));
                return None;
            }
            None if !same(&start.classes, classes) => start.classes = classes.to_vec(),
            None => {}
        }
        Some(())
    }

    /// Leaves of the teachers those that label rows for this training. Its classes are those of its labelled rows.
    fn labels(&self, values: &Values, start: &mut Handed) -> Option<()> {
        let place = self.classroom.own.unwrap_or(0) as u64;
        let drawing = Drawing::of(values, place)?;
        let all = std::mem::take(&mut start.teachers);
        let chosen = drawing.teachers(all.len());
        let mut all: Vec<Option<Teacher>> = all.into_iter().map(Some).collect();
        let each = chosen.into_iter();
        start.teachers = each.filter_map(|at| all.get_mut(at)?.take()).collect();
        start.drawing = Some(drawing);
        Some(())
    }

    /// Complains where rows are drawn of classes that their teachers do not tell.
    pub(super) fn labelled_alike(
        &self,
        values: &Values,
        start: &Handed,
        diags: &mut Diags,
    ) -> Option<()> {
        let first = start.drawing.as_ref().and(start.teachers.first());
        let Some(teacher) = first.and_then(|own| self.plan.stage(&own.stage)) else {
            return Some(());
        };
        let theirs = teacher.start.classes.as_slice();
        if start.task.answer() != Answer::Class || same(theirs, &start.classes) {
            return Some(());
        }
        let message = format!(
            "the teachers tell other classes than `data` has: {} and {}",
            listed(theirs),
            listed(&start.classes)
        );
        let diag = Diag::error(&CONFLICTING_KEYS, keys::TEACHERS.span(values), message);
        diags.push(
            diag.related(keys::DATA.span(values), "the labelled rows")
                .help(
                    "take teachers of the same classes; `labels = […]` names those of a data set",
                ),
        );
        None
    }

    /// Complains about weights of teachers that are the same for all of them. Where `--set` fixed what they would vary by, that
    /// is no mistake of the recipe.
    fn weighs(&self, values: &Values, start: &Handed, diags: &mut Diags) -> Option<()> {
        let judges: BTreeSet<_> = start.teachers.iter().map(|t| t.judge.as_deref()).collect();
        let over = keys::OVER.is_written(values);
        let idle = keys::TEACHER_WEIGHTS.is_written(values) && judges.len() == 1;
        if !idle || over && self.classroom.points <= 1 {
            return Some(());
        }
        let at = keys::TEACHER_WEIGHTS.span(values);
        let (diag, why) = match over {
            true => (
                Diag::warning as fn(_, _, _) -> _,
                "one evaluation says the accuracy of all teachers",
            ),
            false => (Diag::error as fn(_, _, _) -> _, "there is one teacher"),
        };
        let diag: Diag = diag(
            &IDLE_KEY,
            at,
            format!("`teacher_weights` has no effect: {why}"),
        );
        diags.push(diag.label("changes nothing").help(
            "remove it, or name an `eval` stage that varies with the teachers, and `over = SWEEP` of what both vary by",
        ));
        over.then_some(())
    }

    /// Complains where the texts that a stage learns are others than those its teachers scored.
    pub(super) fn same_texts(
        &self,
        values: &Values,
        start: &Handed,
        sets: &[Sets],
        diags: &mut Diags,
    ) {
        let at = |sets: &Sets, place: usize| sets.get(place)?.as_ref()?.identity.clone();
        let (place, key) = match &start.drawing {
            Some(_) => (UNLABELLED, &keys::UNLABELLED),
            None => (0, &keys::DATA),
        };
        let Some(own) = sets.first().and_then(|sets| at(sets, place)) else {
            return;
        };
        let scored = start.teachers.iter().filter_map(|teacher| {
            let stage = self.plan.stage(&teacher.stage)?;
            Some((stage, at(&stage.splits, 0)?))
        });
        for (stage, theirs) in scored {
            if theirs != own {
                let message = format!(
                    "`{}` scores other texts than those that are learned here",
                    stage.declared
                );
                let diag = Diag::error(&WRONG_PORT, keys::TEACHERS.span(values), message);
                diags.push(
                    diag.related(key.span(values), "the texts that are learned")
                        .related(
                            keys::DATA.span(&stage.filled.values),
                            "those that are scored",
                        )
                        .help(format!(
                            "write the same split as `{}` here and as `data` there",
                            key.name()
                        )),
                );
                return;
            }
        }
    }
}

/// The classes of the head on sequences that a stage before has trained, if it has.
pub(super) fn head_of(start: &Handed) -> Option<Vec<String>> {
    let has = start.task.needs() == Head::Sequence && start.task.answer() == Answer::Class;
    Some(start.classes.clone()).filter(|classes| has && !classes.is_empty())
}

/// Whether the stage learns scores of others; `None` where objective and teachers do not go together.
fn learns_of_them(
    (kind, values): (&dyn StageKind, &Values),
    place: Span,
    start: &Handed,
    diags: &mut Diags,
) -> Option<bool> {
    if !kind.trains() {
        return Some(false);
    }
    let name = start.task.name();
    let draws = keys::UNLABELLED.is_written(values);
    let diag = match (
        start.task.learns_scores(),
        keys::TEACHERS.is_written(values),
    ) {
        (true, _) if draws => {
            let message =
                format!("`{name}` learns scores, and `unlabelled` gives rows with labels");
            Diag::error(&CONFLICTING_KEYS, keys::UNLABELLED.span(values), message)
                .help("write the split as `data` and remove `unlabelled`, or write an objective that learns labels")
        }
        (false, true) if draws => return Some(true),
        (true, true) => return Some(true),
        (false, false) => return Some(false),
        (false, true) => {
            let message = format!("`{name}` learns labels, and `teachers` gives scores");
            Diag::error(&CONFLICTING_KEYS, keys::TEACHERS.span(values), message)
                .help("write `objective = distil`; or `unlabelled = SPLIT`, whose rows they label; or remove `teachers`")
        }
        (true, false) => {
            let message = format!(
                "`{name}` learns scores that other stages give the texts, and none is named"
            );
            Diag::error(&CONFLICTING_KEYS, place, message).label("in this stage").help(
                "write `teachers = STAGE` in a `train` stage: an `annotate` stage of the same split; or another `objective`",
            )
        }
    };
    diags.push(diag);
    None
}

/// Complains about a teacher that scores nothing.
fn is_teacher(stage: &Stage, at: Span, diags: &mut Diags) -> Option<()> {
    if stage.kind.annotates() {
        return Some(());
    }
    let message = format!(
        "`{}` is a stage of the kind `{}`, and leaves no scores of texts to learn",
        stage.declared, stage.filled.name
    );
    diags.push(
        Diag::error(&WRONG_PORT, at, message)
            .label("no scores come from here")
            .related(stage.name.span, "declared here")
            .help(format!(
                "name an `annotate` stage: `stage scores = annotate {{ from = {}, data = … }}`",
                stage.declared
            )),
    );
    None
}

/// Complains about a stage that says no accuracy.
fn is_judge(stage: &Stage, at: Span, diags: &mut Diags) -> Option<()> {
    if let Routine::Score(score) = &stage.job.routine
        && score.metrics.iter().any(|m| m.schema().name == "accuracy")
    {
        return Some(());
    }
    let message = format!(
        "`{}` is a stage of the kind `{}` and says no accuracy, which is to weigh a teacher",
        stage.declared, stage.filled.name
    );
    diags.push(
        Diag::error(&WRONG_PORT, at, message)
            .related(stage.name.span, "declared here")
            .help("name an `eval` stage with `accuracy` among its `metrics`"),
    );
    None
}

/// Whether two lists name the same classes, in whatever order.
fn same(a: &[String], b: &[String]) -> bool {
    let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<String>>();
    a.len() == b.len() && set(a) == set(b)
}

/// Classes in a message.
fn listed(classes: &[String]) -> String {
    const MOST: usize = 8;
    let more = if classes.len() > MOST { ", …" } else { "" };
    let names: Vec<String> = classes
        .iter()
        .take(MOST)
        .map(|c| format!("`{c}`"))
        .collect();
    names.join(", ") + more
}
