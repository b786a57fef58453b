//! Labelling words with what a stage left.

use serde_json::Value as Json;

use super::Session;
use crate::exec::features::Examples;
use crate::exec::observe::Observer;
use crate::exec::stage::score::{Walk, score};
use crate::files::RunError;
use crate::library::data::tokens::{Maker, Notes};
use crate::library::task::{Asked, Form};

impl Session<'_> {
    /// The values that `predict` adds to rows of words, in their order.
    ///
    /// # Errors
    /// What tokenizer, device or kernels say.
    pub fn label_words(
        &mut self,
        rows: &[Vec<String>],
        form: Form,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<Json>>, RunError> {
        let own = self.predictor;
        let wrong = |why: String| RunError::file(&own.folder, why);
        let task = own.task.as_ref();
        let reads = task.reads(Some(&own.tokenizer), false, false);
        let reads = reads.map_err(|[why, _]| wrong(why.to_owned()))?;
        let Some(pieces) = task.words() else {
            return Err(RunError::bug("the task reads no words"));
        };
        let (marking, special) = (own.tuning.marking(), own.tokenizer.special_ids());
        let classes = own.description.classes.as_slice();
        let mut made = Maker::in_memory();
        let mut place = 0;
        for (row, words) in (0_u32..).zip(rows) {
            let most = own.description.max_length as usize;
            for part in own.tokenizer.encode_words(words, most).map_err(wrong)? {
                let example = pieces.example(part, &[], classes);
                made.add(place, row, &example.marked(marking, &special));
                place += 1;
            }
        }
        let set = made.finish(&Notes::default());
        let set = set.map_err(|why| wrong(why.to_string()))?;
        let walk = Walk {
            source: Examples {
                set: &set,
                positions: self.positions,
                kept: None,
                reference: None,
            },
            task,
            reads: reads.as_ref(),
            batch: self.batch,
        };
        let all = score(&mut self.runner, &self.program, walk, observer)?;
        let asked = Asked {
            classes,
            form: Some(form),
        };
        Ok(task.gather(&set, &all, asked).unwrap_or_default().values)
    }
}
