//! Binding data: splits read, tokenized (within a prompt's template, if there is one), each once.

use std::sync::Arc;

use super::bind::{Binder, BoundModel, BoundSplit, RawSplit, Want};
use super::chat;
use super::encode::encoded;
use super::source::{DataSource, Unavailable};
use super::split::Lengths;
use crate::base::world::World;
use crate::base::{Diags, Span};
use crate::library::data::DataError;
use crate::library::data::report::{Sight, Survey, Surveyor};
use crate::library::data::set::{Reading, load};
use crate::library::demonstrations::Demonstrations;
use crate::library::prompt::frame::Frame;
use crate::library::task::Task;
use crate::library::tokenizer::Tokenizer;
use crate::resolve::Declared;
use asked::Asked;

mod asked;

pub(super) use asked::wrong;

impl Binder<'_> {
    /// A split as a stage wants it; `None` after a diagnostic.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    pub(super) fn split(
        &mut self,
        (name, split): (&str, &str),
        model: &BoundModel,
        want: Want<'_>,
        at: Span,
        diags: &mut Diags,
    ) -> Option<Arc<BoundSplit>> {
        let declared = self.recipe.find("data", name)?;
        let asked = Asked::new(declared, split, at);
        if let Some(diag) = asked.lacks_tasks(want) {
            diags.push(diag);
            return None;
        }
        let lacking = asked.lacks_column(want.template);
        let lacks = lacking.is_some();
        lacking.into_iter().for_each(|diag| diags.push(diag));
        let rows = chat::rows(declared, model, (want, at), asked.variables.as_ref(), diags)?;
        let mut want = Want { rows, ..want };
        let fixed = want.classes.filter(|_| want.task.answer().names_classes());
        let read = (want.task, want.labelled);
        let source = match self.source(declared, split, read, (fixed, want.preferred)) {
            Ok(source) => source,
            Err(Unavailable::Offline(_)) if lacks => return None,
            Err(Unavailable::Offline(why)) => {
                diags.push(asked.offline(&why, want.max_length));
                return Some(Arc::new(asked.assumed(want)));
            }
            Err(Unavailable::Wrong(list)) => {
                asked.wrong(list, diags);
                return None;
            }
        };
        if asked.form.may_be_spoken() && spoken(&source, self.world) {
            want.rows.template = Some(chat::template(declared, model, at, diags)?);
        }
        if lacks {
            // Faults of the data themselves are reported beside it.
            if let Err(list) = self.tally(&source) {
                asked.wrong(list, diags);
            }
            return None;
        }
        let known = want.demonstrations.is_none_or(|d| d.at_hand());
        let bound = match model.tokenizer.clone().filter(|_| known) {
            Some(tokenizer) => self.tokenized(&asked, (&source, &tokenizer), want, diags),
            None => self.counted(&asked, &source, want, diags),
        }?;
        let other = asked.other_task(want, &bound);
        let fits = other.is_none();
        other.into_iter().for_each(|diag| diags.push(diag));
        fits.then_some(bound)
    }

    /// A split whose tokens cannot be had: its texts are counted, and each is taken as long as the stage allows.
    fn counted(
        &mut self,
        asked: &Asked<'_>,
        source: &DataSource,
        want: Want<'_>,
        diags: &mut Diags,
    ) -> Option<Arc<BoundSplit>> {
        match self.tally(source) {
            Ok((n, classes, survey)) => {
                let noted = self.note((asked.declared, asked.split), want, None, &classes, survey);
                let of_row = match want.task.texts_apart() {
                    true => asked.text.len(),
                    false => asked.form.sequences() as usize,
                };
                let of_row = of_row * (1 + usize::from(want.task.mismatches()));
                let sequences = n * want.draws as usize * of_row;
                let lengths = Lengths::Known(vec![want.longest(); sequences]);
                let bound = asked.bound(lengths, classes);
                Some(Arc::new(BoundSplit { noted, ..bound }))
            }
            Err(list) => {
                asked.wrong(list, diags);
                None
            }
        }
    }

    /// A split as tokens. The same split, wanted in the same way, is tokenized once.
    fn tokenized(
        &mut self,
        asked: &Asked<'_>,
        (source, tokenizer): (&Arc<DataSource>, &Arc<Tokenizer>),
        want: Want<'_>,
        diags: &mut Diags,
    ) -> Option<Arc<BoundSplit>> {
        let key = key(source, tokenizer, want);
        if let Some(known) = self.splits.get(&key) {
            return Some(known.clone());
        }
        let demonstrations = want.demonstrations.map(Arc::as_ref);
        let frame = want.template.map(|(template, _)| Frame {
            template,
            columns: &asked.text,
            demonstrations,
        });
        let made = match encoded(source, tokenizer, frame, want, self.world) {
            Ok(made) => made,
            Err(cause) => {
                asked.refused(cause, want, diags);
                return None;
            }
        };
        if let Some(why) = &made.unkept {
            diags.push(asked.unkept(why));
        }
        let tokens = Some(tokenizer.identity());
        let (declared, split) = (asked.declared, asked.split);
        let identity = source.identity.clone();
        let lengths = Lengths::Known(made.set.lengths());
        let bound = Arc::new(BoundSplit {
            noted: self.note((declared, split), want, tokens, &made.classes, made.survey),
            supervision: made.supervision,
            making: made.making,
            host_bytes: made.set.heap_bytes()
                + made.set.len() as u64 * 4
                + demonstrations.map_or(0, Demonstrations::heap_bytes)
                + tokenizer.heap_bytes(),
            identity: identity.map(|data| match want.rows.identity() {
                own if own.is_empty() => data,
                own => blake3::hash(format!("{data} {own}").as_bytes())
                    .to_hex()
                    .to_string(),
            }),
            rows_hash: made.rows_hash,
            encoded: Some(Arc::new(made.set)),
            ..asked.bound(lengths, made.classes)
        });
        self.splits.insert(key, bound.clone());
        Some(bound)
    }

    /// How many examples there are, the names of the classes, and what is seen of them without their
    /// tokens.
    fn tally(&self, source: &DataSource) -> Result<Tally, Vec<DataError>> {
        let reading = Reading::open(&source.spec, self.world)?;
        let mut n = 0;
        let mut surveyor = self.survey.then(Surveyor::default);
        reading.walk(&mut |_, example| {
            n += 1;
            if let Some(surveyor) = &mut surveyor {
                surveyor.see(&Sight::of(&example));
            }
            true
        })?;
        let classes = reading.classes().to_vec();
        let survey = surveyor.map(|s| s.finish(classes.len()));
        Ok((n, classes, survey))
    }

    /// A split's texts and labels, in memory.
    pub(super) fn raw_split(
        &mut self,
        declared: &Declared,
        split: &str,
        task: &dyn Task,
        classes: &[String],
    ) -> Result<Arc<RawSplit>, Unavailable> {
        let source = self.source(declared, split, (task, true), (Some(classes), None))?;
        let key = format!("{:p}", Arc::as_ptr(&source));
        if let Some(raw) = self.raw.get(&key) {
            return Ok(raw.clone());
        }
        let data = load(&source.spec, self.world);
        let data = data.map_err(Unavailable::Wrong)?;
        source.check(self.world).map_err(Unavailable::Wrong)?;
        let identity = source.identity.clone();
        let raw = Arc::new(RawSplit { data, identity });
        self.raw.insert(key, raw.clone());
        Ok(raw)
    }
}

/// Whether the first row of a split holds lists of messages. What is wrong with it is said where all rows are read.
fn spoken(source: &DataSource, world: &dyn World) -> bool {
    let mut first = false;
    if let Ok(reading) = Reading::open(&source.spec, world) {
        let _said_later = reading.walk(&mut |_, example| {
            first = example.spoken;
            false
        });
    }
    first
}

/// Examples, classes, what was seen of the rows.
type Tally = (usize, Vec<String>, Option<Survey>);

/// What tells a split from every other that is kept. All are kept as long as the binder, so their addresses tell them
/// apart.
fn key(source: &Arc<DataSource>, tokenizer: &Arc<Tokenizer>, want: Want<'_>) -> String {
    format!(
        "{:p} {:p} {} {} {:?} {:?} {:?} {} {:?} {} {:?}",
        Arc::as_ptr(source),
        Arc::as_ptr(tokenizer),
        want.task.ends_texts(),
        want.max_length,
        want.marking,
        want.template.map(|(t, _)| &t.source),
        want.demonstrations.map(Arc::as_ptr),
        want.draws,
        want.rows.learn,
        want.task.skips_empty(),
        (
            want.rows.identity(),
            want.task.option(),
            want.task.pairs_options(),
            (
                want.task.label_texts(),
                want.task.content_free(),
                want.labels
            ),
            want.task.words(),
            want.task.windows(),
            (want.task.target_length(), want.task.texts_apart())
        )
    )
}
