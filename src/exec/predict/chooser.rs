//! Choosing among options by what a stage left.

use std::sync::Arc;

use super::{Place, Predictor};
use crate::exec::backend::Open;
use crate::exec::features::Examples;
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, stream};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedExample, Maker, Notes, Target};
use crate::library::model::{self, Model, Positions};
use crate::library::task::{self, Asked, Reads, Task};
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
pub struct Choice {
    /// The place of the likeliest option; of the likeliest a byte; a token.
    pub best: Vec<u32>,
    /// The log-likelihood of each option.
    pub sums: Vec<f64>,
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
        let task = task::task(task::OPTIONS).ok_or_else(bug)?;
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let model: Arc<dyn Model> = Arc::from(model::parse(&self.config).map_err(damaged)?);
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
        observer: &mut dyn Observer,
    ) -> Result<Vec<Choice>, RunError> {
        let own = self.predictor;
        let most = own.description.max_length as usize;
        let wrong = |why: String| RunError::file(&own.folder, why);
        let form = self.task.option().unwrap_or((" ", true));
        let mut made = Maker::in_memory();
        let mut place = 0;
        for (row, question) in (0_u32..).zip(questions) {
            for option in &question.options {
                let marked = own
                    .tokenizer
                    .encode_option((&question.prompt, option), form, most)
                    .map_err(wrong)?;
                if marked.learned.is_empty() {
                    let why = format!(
                        "question {} has no token before the option `{option}`, so that it has no likelihood; write a prompt",
                        row + 1
                    );
                    return Err(wrong(why));
                }
                let example = EncodedExample {
                    ids: marked.encoded.ids,
                    segments: marked.encoded.segments,
                    mask: to_u32(option.len()),
                    label: Target::None,
                    learned: marked.learned,
                    task: 0,
                };
                made.add(place, row, &example);
                place += 1;
            }
        }
        let set = made.finish(&Notes::default());
        let set = set.map_err(|why| wrong(why.to_string()))?;
        let reads = Reads::Next(Arc::default());
        let walk = Walk {
            source: Examples {
                set: &set,
                positions: self.positions,
                kept: None,
                reference: None,
                made: None,
            },
            task: self.task.as_ref(),
            reads: Some(&reads),
            batch: self.batch,
        };
        let mut runner = self.place.backbone.lock();
        let all = stream(&mut runner, &self.program, walk, observer, &mut |_| Ok(()))?;
        let gathered = self.task.gather(&set, &all, Asked::default());
        let gathered = gathered.unwrap_or_default();
        let best = gathered.predictions.predicted.into_iter();
        let mut sums = all.predicted.iter().map(|loss| match loss {
            Target::Score(loss) => -f64::from(*loss),
            _ => f64::NEG_INFINITY,
        });
        let choices = questions.iter().zip(best).map(|(question, best)| Choice {
            best: match best {
                Target::Classes(list) => list.to_vec(),
                _ => Vec::new(),
            },
            sums: sums.by_ref().take(question.options.len()).collect(),
        });
        Ok(choices.collect())
    }
}
