//! Labelling rows of some requests at once: those of several models in one pass, where they share one.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::work::{Ask, Job, Said, Worker, gone, status};
use crate::cli::predict::Refusal;
use crate::cli::predict::label::{Unsaid, gathered, placed};
use crate::exec::observe::Silent;
use crate::exec::predict::{Part, Prepared, Session};
use crate::library::rows::{self, Record};
use crate::library::task::Form;

/// What rows are called in messages.
const REQUEST: &str = "the request";

/// A request whose rows are read.
struct Asked<'a> {
    job: &'a Job,
    /// Which of its rows have something to label.
    has: Vec<bool>,
    rows: Prepared,
}

/// The requests for one model that are answered alike.
struct OfModel<'a> {
    id: u64,
    form: Form,
    asked: Vec<Asked<'a>>,
    rows: Prepared,
}

/// The values of rows that have something.
type Values = Vec<Vec<Json>>;

const fn form(all: bool) -> Form {
    Form { all, nested: true }
}

/// Labels the rows of some requests.
pub(super) fn answer(worker: &mut Worker<'_>, group: &[Job]) {
    worker.count(group);
    let mut models: Vec<OfModel<'_>> = Vec::new();
    for job in group {
        let Ask::Rows { rows, all } = &job.ask else {
            continue;
        };
        let Some(session) = worker.models.session(job.model) else {
            job.say(gone());
            continue;
        };
        match read(session, rows) {
            Ok((has, rows)) => {
                let asked = Asked { job, has, rows };
                put(&mut models, asked, form(*all));
            }
            Err(why) => {
                let (status, why) = status(why);
                job.say(Said::Failed(status, why));
            }
        }
    }
    let is_alone = |own: &OfModel<'_>| {
        let session = worker.models.session(own.id);
        session.is_some_and(|session| session.is_faster_alone(&own.rows))
    };
    let (alone, together): (Vec<_>, Vec<_>) = models.into_iter().partition(is_alone);
    // Who is computed alone need not wait for the others.
    for own in alone {
        pass(worker, vec![own]);
    }
    pass(worker, together);
}

/// Computes the rows of models and tells those who asked.
fn pass(worker: &mut Worker<'_>, models: Vec<OfModel<'_>>) {
    let made = computed(worker, &models);
    for (own, made) in models.into_iter().zip(made) {
        if let Some(session) = worker.models.session(own.id) {
            tell(session, own, made);
        }
    }
}

/// Puts a request to those for the same model.
fn put<'a>(models: &mut Vec<OfModel<'a>>, asked: Asked<'a>, form: Form) {
    let id = asked.job.model;
    let found = models
        .iter()
        .position(|own| own.id == id && own.form == form);
    let at = found.unwrap_or(models.len());
    if found.is_none() {
        models.push(OfModel {
            id,
            form,
            asked: Vec::new(),
            rows: Prepared::default(),
        });
    }
    if let Some(own) = models.get_mut(at) {
        own.rows.append(asked.rows.clone());
        own.asked.push(asked);
    }
}

/// What is to be labelled of rows, as the model reads it.
fn read(session: &Session, rows: &[Record]) -> Result<(Vec<bool>, Prepared), Refusal> {
    let predictor = session.predictor();
    let columns = super::models::columns(predictor);
    for record in rows {
        let there: Vec<String> = record.fields.keys().cloned().collect();
        rows::require(&columns, &there, &format!("{REQUEST}, row {}", record.row))?;
    }
    let words = predictor.task.words().is_some();
    let unsaid = &mut Unsaid::default();
    let (has, lists) = gathered(rows, (&columns, REQUEST), words, unsaid)?;
    Ok((has, session.prepare(&lists)?))
}

/// The values of the rows of each model, in one pass where they share one. What fails with others is tried alone later.
fn computed(worker: &mut Worker<'_>, models: &[OfModel<'_>]) -> Vec<Result<Values, Refusal>> {
    let examples: usize = models.iter().map(|own| own.rows.len()).sum();
    let batch = worker.limits.batch;
    if let (Some(first), true) = (models.first(), models.len() > 1 && examples <= batch)
        && let Some((together, served)) = worker.models.together(first.id)
    {
        let parts = models.iter().filter_map(|own| {
            Some(Part {
                session: served
                    .get(&own.id)?
                    .labels()
                    .filter(|own| own.shares().is_some())?,
                rows: &own.rows,
                form: own.form,
            })
        });
        let parts: Vec<Part<'_>> = parts.collect();
        if parts.len() == models.len()
            && let Ok(made) = together.label(&parts, &mut Silent)
        {
            let distinct: BTreeSet<u64> = models.iter().map(|own| own.id).collect();
            let models = distinct.len() as u64;
            worker.numbers.passed(1, models, examples as u64);
            return made.into_iter().map(Ok).collect();
        }
    }
    let each = models.iter().map(|own| {
        let Some(session) = worker.models.session(own.id) else {
            return Ok(Vec::new());
        };
        let passes = own.rows.len().div_ceil(batch.max(1));
        let passes = passes as u64;
        worker.numbers.passed(passes, passes, own.rows.len() as u64);
        labelled(session, &own.rows, own.form)
    });
    each.collect()
}

fn labelled(session: &Session, rows: &Prepared, form: Form) -> Result<Values, Refusal> {
    match rows.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(session.label(rows, form, &mut Silent)?),
    }
}

/// Tells each request for a model what became of its rows.
fn tell(session: &Session, own: OfModel<'_>, made: Result<Values, Refusal>) {
    let form = own.form;
    let mut values = made.map(Vec::into_iter);
    let alone = own.asked.len() == 1;
    for asked in own.asked {
        let count = asked.has.iter().filter(|has| **has).count();
        let part = match &mut values {
            Ok(values) => Ok(values.by_ref().take(count).collect()),
            // One request's fault is none of the others'.
            Err(_) if !alone => labelled(session, &asked.rows, form),
            Err(why) => Err(Refusal::Wrong(match why {
                Refusal::Wrong(why) => why.clone(),
                Refusal::Input(why) => why.to_string(),
                Refusal::Failed(why) => why.to_string(),
                Refusal::Output(why) => why.to_string(),
            })),
        };
        let tokens = asked.rows.tokens();
        let named = part.and_then(|part| named(session, asked.has, part, form));
        asked.job.say(match named {
            Ok(rows) => Said::Labelled(rows, tokens),
            Err(why) => {
                let (_, why) = status(why);
                Said::Failed(500, why)
            }
        });
    }
}

/// Values by the names of what is added.
fn named(
    session: &Session,
    has: Vec<bool>,
    made: Values,
    form: Form,
) -> Result<Vec<Map<String, Json>>, Refusal> {
    let predictor = session.predictor();
    let names = predictor.task.answers(&predictor.description.classes, form);
    let names = names.map_err(Refusal::Wrong)?;
    let rows = placed(has, made, names.len()).into_iter();
    let named = |row: Vec<Json>| names.iter().map(|n| n.name.clone()).zip(row).collect();
    Ok(rows.map(named).collect())
}
