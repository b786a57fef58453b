//! Choosing a prompt: each template's scores of all listed words, each assignment of words scored from
//! them, the best written down.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::Work;
use super::score::{Walk, score};
use crate::exec::checkpoint::log::Log;
use crate::exec::features::Examples;
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::files::durable::write_bytes;
use crate::library::candidates::{Candidates, Chosen};
use crate::library::metric::{Metric, Predictions};
use crate::library::stage::job::Choose;
use crate::library::task::Task;

/// Name of the choice inside an artifact.
pub const PROMPT: &str = "prompt.json";

/// A candidate with its scores.
#[derive(Clone, Debug)]
struct Scored {
    /// Its place in the order in which candidates are listed.
    number: usize,
    chosen: Chosen,
    value: f64,
    loss: f64,
}

impl Scored {
    /// Whether it goes before another: the better value, then the lower loss, then the earlier place.
    fn beats(&self, other: &Self, metric: &dyn Metric) -> bool {
        let (a, b) = if metric.higher_is_better() {
            (other.value, self.value)
        } else {
            (self.value, other.value)
        };
        a.total_cmp(&b)
            .then(self.loss.total_cmp(&other.loss))
            .then(self.number.cmp(&other.number))
            .is_lt()
    }

    fn json(&self, metric: &dyn Metric) -> Map<String, Json> {
        let words = self.chosen.words.iter();
        let words: Map<String, Json> = words.map(|(c, w)| (c.clone(), json!(w))).collect();
        let mut map = Map::new();
        map.insert("candidate".to_owned(), json!(self.number));
        map.insert("template".to_owned(), json!(self.chosen.template));
        map.insert("words".to_owned(), Json::Object(words));
        map.insert(metric.schema().name.to_owned(), json!(self.value));
        map.insert("loss".to_owned(), json!(self.loss));
        map
    }
}

impl Work<'_> {
    /// Scores the candidates, writes their table and the best of them.
    pub(in crate::exec) fn choose(
        &self,
        job: &Choose,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let nothing = || RunError::bug("a stage that chooses has nothing to choose from");
        let candidates = self.stage.candidates.as_ref().ok_or_else(nothing)?;
        self.load(runner)?;
        let begun = std::time::Instant::now();
        let out = self.options.out.join(&self.stage.name.value);
        let mut log = Log::open(&[&self.dir.join("metrics.jsonl"), &out.join("metrics.jsonl")])?;
        log.cut_to(0)?;
        let mut best: Option<Scored> = None;
        let (mut number, mut done) = (0, 0);
        for template in 0..candidates.templates.len() {
            let set = self.required(template)?;
            let mut scores = score(
                runner,
                &job.evaluate,
                Walk {
                    source: Examples {
                        set,
                        positions: self.stage.model.facts().positions,
                        kept: None,
                        reference: None,
                        made: None,
                        taught: None,
                    },
                    task: self.stage.start.task.as_ref(),
                    reads: None,
                    batch: job.batch,
                },
                &mut Onward {
                    observer,
                    before: done,
                },
            )?;
            scores.positive = Some(job.positive);
            done += set.len() as u64;
            for places in candidates.assignments() {
                let chosen = candidates.chosen(template, &places).ok_or_else(nothing)?;
                let task = self.stage.start.task.as_ref();
                let own = assigned(task, candidates, &scores, &places).ok_or_else(nothing)?;
                let own = Scored {
                    number,
                    chosen,
                    value: job.metric.compute(&own),
                    loss: own.loss,
                };
                log.line(&Json::Object(own.json(job.metric)))?;
                if best.as_ref().is_none_or(|b| own.beats(b, job.metric)) {
                    best = Some(own);
                }
                number += 1;
            }
        }
        log.sync()?;
        let best = best.ok_or_else(nothing)?;
        let mut choice = best.json(job.metric);
        choice.insert("of".to_owned(), json!(number));
        let mut text =
            serde_json::to_vec_pretty(&choice).map_err(|e| RunError::bug(e.to_string()))?;
        text.push(b'\n');
        for dir in [&self.dir, &out] {
            write_bytes(&dir.join(PROMPT), &text)?;
        }
        let mut metrics = Map::new();
        metrics.insert(job.metric.schema().name.to_owned(), json!(best.value));
        metrics.insert("loss".to_owned(), json!(best.loss));
        let rate = done as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        Ok(json!({
            "metrics": metrics, "choice": choice, "loss_first": null, "loss_last": best.loss, "steps": 0, "epochs": 0,
            "samples_per_s": rate,
        }))
    }
}

/// Tells an observer of one template's examples as of some among all.
struct Onward<'a> {
    observer: &'a mut dyn Observer,
    before: u64,
}

impl Observer for Onward<'_> {
    fn event(&mut self, event: Event<'_>) {
        self.observer.event(match event {
            Event::Scored { done } => Event::Scored {
                done: self.before + done,
            },
            other => other,
        });
    }

    fn interrupted(&self) -> Option<i32> {
        self.observer.interrupted()
    }
}

/// What an assignment predicts: the columns of its words, and the mean cross-entropy over them.
fn assigned(
    task: &dyn Task,
    candidates: &Candidates,
    all: &Predictions,
    places: &[usize],
) -> Option<Predictions> {
    let tokens = candidates.tokens();
    let own = candidates.tokens_of(places)?;
    let columns: Vec<usize> = own
        .iter()
        .map(|token| tokens.iter().position(|t| t == token))
        .collect::<Option<_>>()?;
    let mut predicted = Vec::with_capacity(all.targets.len());
    let mut loss = 0.0;
    for (row, target) in all.scores.chunks(all.width.max(1)).zip(&all.targets) {
        let picked = columns.iter().map(|&c| row.get(c).copied());
        let picked: Vec<f32> = picked.collect::<Option<_>>()?;
        loss += task.loss_of(&picked, target);
        predicted.push(task.predict(&picked));
    }
    Some(Predictions {
        loss: loss / all.targets.len().max(1) as f64,
        predicted,
        targets: all.targets.clone(),
        positive: all.positive,
        ..Predictions::default()
    })
}

/// The choice that a finished stage's artifact holds.
///
/// # Errors
/// There is none, or it is damaged.
pub fn chosen(artifact: &Path) -> Result<Chosen, RunError> {
    let path = artifact.join(PROMPT);
    let bytes = std::fs::read(&path)
        .map_err(|e| RunError::file(&path, format!("{e}; run the stage that chooses again")))?;
    let damaged = || RunError::file(&path, "damaged; run the stage that chooses again");
    let json: Json = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let template = json.get("template").and_then(Json::as_str);
    let words = json.get("words").and_then(Json::as_object);
    let words = words.ok_or_else(damaged)?.iter();
    Ok(Chosen {
        template: template.ok_or_else(damaged)?.to_owned(),
        words: words
            .map(|(class, word)| Some((class.clone(), word.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or_else(damaged)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::data::tokens::Target;
    use crate::library::metric::metric;

    #[test]
    fn the_better_value_then_the_lower_loss_then_the_earlier_place_wins() {
        let of = |number, value, loss| Scored {
            number,
            value,
            loss,
            chosen: Chosen {
                template: String::new(),
                words: Vec::new(),
            },
        };
        let accuracy = metric("accuracy").expect("known");
        assert!(of(1, 0.9, 2.0).beats(&of(0, 0.8, 0.1), accuracy));
        assert!(of(1, 0.9, 0.1).beats(&of(0, 0.9, 0.2), accuracy));
        assert!(!of(1, 0.9, 0.1).beats(&of(0, 0.9, 0.1), accuracy));
        let loss = metric("loss").expect("known");
        assert!(of(1, 0.1, 0.1).beats(&of(0, 0.2, 0.2), loss));
        let loss = crate::library::task::of_words().loss_of(&[0.0, 0.0], &Target::Class(1));
        assert!((loss - 2.0_f64.ln()).abs() < 1e-12);
    }
}
