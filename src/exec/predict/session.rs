//! A model in memory that labels texts, or words, part after part.

use std::sync::{Arc, MutexGuard};

use serde_json::Value as Json;

use super::{DESCRIPTION, Place, Predictor, Shares};
use crate::exec::backend::Open;
use crate::exec::features::{Examples, Made};
use crate::exec::interpreter::Runner;
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, averaged, score};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedExample, EncodedSet, Maker, Notes, Target};
use crate::library::metric::Predictions;
use crate::library::model::Positions;
use crate::library::prompt::Template;
use crate::library::prompt::frame::{Frame, tokenize};
use crate::library::task::{Asked, Form, Reads};
use crate::plan::Plan;
use crate::program::Verified;
use crate::program::meetings::Meeting;
use crate::program::op::Machine;
use crate::program::prefix::Cut;

/// Rows as a model reads them.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Its examples, each with the row it is of.
    examples: Vec<(u32, EncodedExample)>,
    rows: u32,
}

impl Prepared {
    /// How many examples there are: of a row of words there may be several.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Tokens of all.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.examples().map(|own| own.ids.len() as u64).sum()
    }

    /// Puts the rows of another behind its own.
    pub fn append(&mut self, other: Self) {
        let own = self.rows;
        let behind = other.examples.into_iter();
        self.examples
            .extend(behind.map(|(row, example)| (own + row, example)));
        self.rows += other.rows;
    }

    /// Its examples as a set.
    pub(super) fn set(&self) -> Result<EncodedSet, RunError> {
        let mut made = Maker::in_memory();
        for (place, (row, example)) in (0_u64..).zip(&self.examples) {
            made.add(place, *row, example);
        }
        made.finish(&Notes::default())
            .map_err(|why| RunError::bug(why.to_string()))
    }

    pub(super) fn examples(&self) -> impl Iterator<Item = &EncodedExample> {
        self.examples.iter().map(|(_, example)| example)
    }
}

/// A model in memory, that labels rows part after part.
#[derive(Debug)]
pub struct Session {
    pub(super) predictor: Arc<Predictor>,
    pub(super) positions: Positions,
    template: Option<Template>,
    pub(super) program: Verified,
    pub(super) place: Place,
    batch: u64,
    draws: u64,
    reads: Option<Reads>,
    /// Its program, cut behind what it has in common with others at its place.
    pub(super) cut: Option<Cut>,
    /// The products that it does with others at its place, where its program is not cut.
    pub(super) met: Vec<Meeting>,
    /// With how many tokens it does them alone.
    pub(super) enough: u64,
}

impl Predictor {
    /// Scores texts, in their order, on a device; scores are averaged over so many draws of demonstrations.
    ///
    /// # Errors
    /// What tokenizer, weights, device or kernels say; several draws where there are no demonstrations.
    pub fn predict(
        self: &Arc<Self>,
        texts: &[Vec<String>],
        how: (u64, u64),
        on: (Machine, Arc<dyn Open>),
        observer: &mut dyn Observer,
    ) -> Result<Predictions, RunError> {
        let session = self.session(how, on)?;
        session.score(&session.prepare(texts)?, observer)
    }

    /// Brings the model into memory, to label rows part after part: so many examples at once, and so many draws of
    /// demonstrations for each.
    ///
    /// # Errors
    /// What weights, device or kernels say; several draws where there are no demonstrations.
    pub fn session(
        self: &Arc<Self>,
        how: (u64, u64),
        on: (Machine, Arc<dyn Open>),
    ) -> Result<Session, RunError> {
        self.session_at(&Place::alone(on)?, how)
    }

    /// The same at a place that others may share.
    ///
    /// # Errors
    /// As of [`Self::session`].
    pub fn session_at(
        self: &Arc<Self>,
        place: &Place,
        (batch, draws): (u64, u64),
    ) -> Result<Session, RunError> {
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let described = |why: String| RunError::file(self.folder.join(DESCRIPTION), why);
        if self.task.pairs_options() {
            let what = "it chooses among the options of a row: `peftc predict MODEL --input FILE --choices COLUMN`";
            return Err(RunError::file(&self.folder, what));
        }
        let model = self.architecture().map_err(damaged)?;
        let template = self.description.template.as_deref().map(Template::parse);
        let template = template.transpose().map_err(described)?;
        if draws > 1 && self.demonstrations.is_none() {
            let what = "its prompt shows no demonstrations, so that there is nothing to draw; leave `--draws` away";
            return Err(described(what.to_owned()));
        }
        let made = Plan::predicting(self.served(model.clone())?);
        let (program, built) = made.map_err(|why| {
            described(format!("damaged: its methods do not fit the model: {why}"))
        })?;
        let own = self.loaded((&[&program], &built), model.as_ref(), place)?;
        let program = place.renamed(program, &own)?;
        let cut = match &place.name {
            Some(_) => Plan::parted(&program, &Place::is_own).map_err(RunError::bug)?,
            None => None,
        };
        let alone = cut.is_some() || place.name.is_none() || !place.backbone.walks_beside();
        let met = match alone {
            true => Vec::new(),
            false => Plan::met(&program, &Place::is_own),
        };
        let parted = self.task.words().is_some() || self.task.windows().is_some();
        let reads = match parted {
            true => self.task.reads(Some(&self.tokenizer), false, false),
            false => Ok(None),
        };
        Ok(Session {
            predictor: self.clone(),
            positions: model.facts().positions,
            template,
            place: place.clone(),
            batch,
            draws: draws.max(1),
            reads: reads.map_err(|[why, _]| RunError::file(&self.folder, why))?,
            cut,
            enough: Plan::enough(&program, &met),
            met,
            program,
        })
    }
}

impl Session {
    /// Most tensor bytes at once so far, of all models at its place.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.place.backbone.peak()
    }

    /// The model.
    #[must_use]
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Names of the tensors that it reads.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let residents = self.program.program().residents.iter();
        residents.map(|resident| resident.name.as_str())
    }

    /// What of its work is done together with that of others at its place.
    #[must_use]
    pub fn shares(&self) -> Shares {
        Shares::of(self.cut.as_ref(), &self.met)
    }

    /// Whether so many rows gain nothing by those of others: their products with plain weights are as fast alone.
    #[must_use]
    pub fn is_faster_alone(&self, rows: &Prepared) -> bool {
        self.cut.is_none() && rows.tokens() > self.enough
    }

    /// Tokens of rows: of the texts of each, or of its words where the model labels those.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn prepare(&self, rows: &[Vec<String>]) -> Result<Prepared, RunError> {
        let own = &self.predictor;
        let wrong = |why: String| RunError::file(&own.folder, why);
        let most = own.description.max_length as usize;
        let (marking, special) = (own.tuning.marking(), own.tokenizer.special_ids());
        let mut examples = Vec::with_capacity(rows.len());
        if let Some(pieces) = own.task.words() {
            for (row, words) in (0_u32..).zip(rows) {
                for part in own.tokenizer.encode_words(words, most).map_err(wrong)? {
                    let example = pieces.example(part, &[], &own.description.classes);
                    examples.push((row, example.marked(marking, &special)));
                }
            }
        } else if let Some(windows) = own.task.windows() {
            for (row, texts) in (0_u32..).zip(rows) {
                let made = windows.examples(&own.tokenizer, texts, (most, false));
                let made = made.map_err(|why| wrong(format!("row {}: {why}", row + 1)))?;
                let each = made.into_iter();
                examples.extend(each.map(|(_, own)| (row, own.marked(marking, &special))));
            }
        } else if let (true, Some(row)) = (
            own.task.texts_apart(),
            rows.iter().position(|texts| texts.len() != 1),
        ) {
            return Err(wrong(format!(
                "row {} has several texts, and a vector is made of one: name one column, `--text COLUMN`",
                row + 1
            )));
        } else {
            let frame = self.template.as_ref().map(|template| Frame {
                template,
                columns: &own.description.text,
                demonstrations: own.demonstrations.as_ref(),
            });
            let draws = 0..to_u32(self.draws);
            for (draw, (row, texts)) in draws.flat_map(|draw| {
                let rows = (0_u32..).zip(rows);
                rows.map(move |row| (draw, row))
            }) {
                let (encoded, mask) =
                    tokenize(&own.tokenizer, frame, texts, draw, most).map_err(wrong)?;
                let example = EncodedExample {
                    ids: encoded.ids,
                    segments: encoded.segments,
                    mask,
                    label: Target::None,
                    learned: Vec::new(),
                    task: 0,
                };
                examples.push((row, example.marked(marking, &special)));
            }
        }
        Ok(Prepared {
            examples,
            rows: to_u32(rows.len()),
        })
    }

    /// Scores rows, in their order; what is made of each is a function of the row alone, so that it does not matter how
    /// they are parted.
    ///
    /// # Errors
    /// What device or kernels say.
    pub fn score(
        &self,
        rows: &Prepared,
        observer: &mut dyn Observer,
    ) -> Result<Predictions, RunError> {
        self.scored(&rows.set()?, observer)
    }

    fn scored(
        &self,
        set: &EncodedSet,
        observer: &mut dyn Observer,
    ) -> Result<Predictions, RunError> {
        let walk = self.walk(set, None);
        let mut runner = self.runner();
        let all = score(&mut runner, &self.program, walk, observer)?;
        Ok(averaged(self.predictor.task.as_ref(), all, self.draws))
    }

    /// The values that `predict` adds to rows, in their order.
    ///
    /// # Errors
    /// What device or kernels say.
    pub fn label(
        &self,
        rows: &Prepared,
        form: Form,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Json>>, RunError> {
        let set = rows.set()?;
        let all = self.scored(&set, observer)?;
        self.values(&set, &all, form)
    }

    /// What was scored, as values that are added to rows.
    pub(super) fn values(
        &self,
        set: &EncodedSet,
        all: &Predictions,
        form: Form,
    ) -> Result<Vec<Vec<Json>>, RunError> {
        let (task, classes) = (
            self.predictor.task.as_ref(),
            self.predictor.description.classes.as_slice(),
        );
        if task.words().is_some() || task.windows().is_some() {
            let asked = Asked {
                classes,
                form: Some(form),
            };
            return Ok(task.gather(set, all, asked).unwrap_or_default().values);
        }
        let rows = all.scores.chunks(all.width.max(1));
        Ok(rows.map(|row| task.values(classes, form, row)).collect())
    }

    pub(super) fn walk<'a>(&'a self, set: &'a EncodedSet, made: Option<Made<'a>>) -> Walk<'a> {
        Walk {
            source: Examples {
                set,
                positions: self.positions,
                kept: None,
                reference: None,
                made,
                taught: None,
            },
            task: self.predictor.task.as_ref(),
            reads: self.reads.as_ref(),
            batch: self.batch,
        }
    }

    pub(super) fn runner(&self) -> MutexGuard<'_, Runner> {
        self.place.backbone.lock()
    }
}
