//! Choosing among options by what a stage left.

use std::sync::Arc;

use super::{Place, Predictor};
use serde_json::Value as Json;

use crate::exec::backend::Open;
use crate::exec::features::Examples;
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, stream};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedExample, Maker, Notes, Target};
use crate::library::model::Positions;
use crate::library::task::{self, Asked, Form, Task};
use crate::plan::Plan;
use crate::program::Verified;
use crate::program::op::Machine;

/// A prompt and the options to go on with it.
#[derive(Clone, Debug)]
pub struct Question {
    /// The prompt.
    pub prompt: String,
    /// The options.
    pub options: Vec<String>,
}

/// What is chosen.
#[derive(Clone, Debug)]
pub enum Choice {
    /// By likelihoods.
    Likeliest {
        /// The place of the likeliest option; of the likeliest a byte; a token.
        best: Vec<u32>,
        /// The log-likelihood of each option.
        sums: Vec<f64>,
    },
    /// By a head's scores: the place of the best option, its probability, and those of all.
    Scored(Vec<Json>),
}

/// A model in memory, that chooses among options.
#[derive(Debug)]
pub struct Chooser<'a> {
    predictor: &'a Predictor,
    task: Arc<dyn Task>,
    positions: Positions,
    program: Verified,
    place: Place,
    batch: u64,
}

impl Predictor {
    /// Brings the model into memory, to score so many options at once.
    ///
    /// # Errors
    /// It has no head for the next token, or what weights, device or kernels say.
    pub fn chooser(
        &self,
        batch: u64,
        on: (Machine, Arc<dyn Open>),
    ) -> Result<Chooser<'_>, RunError> {
        let bug = || RunError::bug("there is no task that chooses");
        let task = match self.task.pairs_options() {
            true => self.task.clone(),
            false => task::task(task::OPTIONS).ok_or_else(bug)?,
        };
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let model = self.architecture().map_err(damaged)?;
        let mut served = self.served(model.clone())?;
        served.task = task.clone();
        let made = Plan::predicting(served);
        let (program, built) = made.map_err(|why| RunError::file(&self.folder, why))?;
        let place = Place::alone(on)?;
        self.loaded((&[&program], &built), model.as_ref(), &place)?;
        Ok(Chooser {
            predictor: self,
            task,
            positions: model.facts().positions,
            program,
            place,
            batch,
        })
    }
}

impl Chooser<'_> {
    /// Chooses an option of each question.
    ///
    /// # Errors
    /// What tokenizer, device or kernels say.
    pub fn choose(
        &mut self,
        questions: &[Question],
        form: Form,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Choice>, RunError> {
        let own = self.predictor;
        let wrong = |why: String| RunError::file(&own.folder, why);
        let mut made = Maker::in_memory();
        let (marking, special) = (own.tuning.marking(), own.tokenizer.special_ids());
        let mut place = 0;
        for (row, question) in (0_u32..).zip(questions) {
            for (part, option) in (0_u32..).zip(&question.options) {
                let example = match self.task.option() {
                    Some(form) => self.going_on((row, &question.prompt, option), form)?,
                    None => self.paired(part, &question.prompt, option)?,
                };
                made.add(place, row, &example.marked(marking, &special));
                place += 1;
            }
        }
        let set = made.finish(&Notes::default());
        let set = set.map_err(|why| wrong(why.to_string()))?;
        let reads = self.task.reads(Some(&own.tokenizer), false, false);
        let reads = reads.map_err(|[why, _]| wrong(why.to_owned()))?;
        let walk = Walk {
            source: Examples {
                set: &set,
                positions: self.positions,
                kept: None,
                reference: None,
                made: None,
                taught: None,
            },
            task: self.task.as_ref(),
            reads: reads.as_ref(),
            batch: self.batch,
        };
        let mut runner = self.place.backbone.lock();
        let all = stream(&mut runner, &self.program, walk, observer, &mut |_| Ok(()))?;
        let asked = Asked {
            form: Some(form),
            ..Asked::default()
        };
        let gathered = self.task.gather(&set, &all, asked);
        let gathered = gathered.unwrap_or_default();
        if self.task.pairs_options() {
            return Ok(gathered.values.into_iter().map(Choice::Scored).collect());
        }
        let best = gathered.predictions.predicted.into_iter();
        let mut sums = all.predicted.iter().map(|loss| match loss {
            Target::Score(loss) => -f64::from(*loss),
            _ => f64::NEG_INFINITY,
        });
        let choices = questions
            .iter()
            .zip(best)
            .map(|(question, best)| Choice::Likeliest {
                best: match best {
                    Target::Classes(list) => list.to_vec(),
                    _ => Vec::new(),
                },
                sums: sums.by_ref().take(question.options.len()).collect(),
            });
        Ok(choices.collect())
    }

    /// The tokens of a prompt and of an option that goes on with it.
    fn going_on(
        &self,
        (row, prompt, option): (u32, &str, &str),
        form: (&str, bool),
    ) -> Result<EncodedExample, RunError> {
        let own = self.predictor;
        let most = own.description.max_length as usize;
        let wrong = |why: String| RunError::file(&own.folder, why);
        let marked = own.tokenizer.encode_option((prompt, option), form, most);
        let marked = marked.map_err(wrong)?;
        if marked.learned.is_empty() {
            let why = format!(
                "question {} has no token before the option `{option}`, so that it has no likelihood; write a prompt",
                row + 1
            );
            return Err(wrong(why));
        }
        Ok(EncodedExample {
            ids: marked.encoded.ids,
            segments: marked.encoded.segments,
            mask: to_u32(option.len()),
            label: Target::None,
            learned: marked.learned,
            task: 0,
        })
    }

    /// The tokens of a prompt and an option as a pair.
    fn paired(&self, part: u32, prompt: &str, option: &str) -> Result<EncodedExample, RunError> {
        let own = self.predictor;
        let most = own.description.max_length as usize;
        let both = [prompt.to_owned(), option.to_owned()];
        let encoded = own.tokenizer.encode(&both, most);
        let encoded = encoded.map_err(|why| RunError::file(&own.folder, why))?;
        Ok(EncodedExample {
            ids: encoded.ids,
            segments: encoded.segments,
            mask: part,
            label: Target::None,
            learned: Vec::new(),
            task: 0,
        })
    }
}
