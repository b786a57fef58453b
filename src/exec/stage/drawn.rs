//! Rows that other stages label: drawn before a training begins, written down, and said where a class has too few.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::Work;
use super::taught::Lesson;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::files::durable::write_bytes;
use crate::plan::Stage;

/// Name of the table of drawn rows inside an artifact.
pub const DRAWN: &str = "drawn.tsv";

impl Lesson<'_> {
    /// The stage with the rows that it draws; `None` where it draws none.
    ///
    /// # Errors
    /// Scores or tokens that cannot be read; a class that no row is taken for.
    pub(in crate::exec) fn drawn(&self) -> Result<Option<Stage>, RunError> {
        let Some(drawing) = self.stage.draws() else {
            return Ok(None);
        };
        let start = &self.stage.start;
        let (_, more) = self.stage.drawn_of().ok_or_else(|| {
            let what = format!(
                "the data or the tokenizer of stage `{}` are not at hand; run without --offline",
                self.stage.name.value
            );
            RunError::file(&self.options.recipe, what)
        })?;
        let labelled = self.stage.labelled();
        let drawn = drawing.rows(&self.mean(more)?, &labelled).map_err(|class| {
            let what = format!(
                "`{}` draws rows of `{}`, and its teachers take none of the {} unlabelled texts for it; give it {}more labelled rows, or more unlabelled texts",
                self.stage.name.value,
                start.classes.get(class as usize).map_or("", String::as_str),
                more.len(),
                if start.teachers.len() > 1 {
                    "more of them (`teacher_share`), "
                } else {
                    ""
                }
            );
            RunError::file(&self.options.recipe, what)
        })?;
        let drawn = self.stage.with_drawn(drawn, &self.options.machine);
        let drawn = drawn.map_err(|why| RunError::file(&why.path, why.cause.to_string()))?;
        drawn.map(Some).map_err(RunError::bug)
    }
}

impl Work<'_> {
    /// Writes down which rows were drawn, and says which classes have too few; gives what the result says of them.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn drawn_rows(&self, observer: &mut dyn Observer) -> Result<Option<Json>, RunError> {
        let (Some(drawn), Some((_, more))) = (&self.stage.drawn, self.stage.drawn_of()) else {
            return Ok(None);
        };
        let classes = &self.stage.start.classes;
        let name = |class: usize| classes.get(class).map_or("", String::as_str);
        let mut table = String::from("index\tlabel\tshare\n");
        for row in &drawn.rows {
            let index = more.row(row.example).unwrap_or(row.example);
            let _ = writeln!(
                table,
                "{index}\t{}\t{}",
                name(row.class as usize),
                row.share
            );
        }
        write_bytes(&self.dir.join(DRAWN), table.as_bytes())?;
        let mut all = Map::new();
        for (class, count) in drawn.counts.iter().enumerate() {
            if count.drawn > count.found {
                observer.event(Event::Note(&format!(
                    "`{}`: the teachers take {} texts for `{}`, and {} are drawn, some of them several times",
                    self.stage.name.value,
                    count.found,
                    name(class),
                    count.drawn
                )));
            }
            let own = json!({ "drawn": count.drawn, "found": count.found });
            all.insert(name(class).to_owned(), own);
        }
        Ok(Some(Json::Object(all)))
    }
}
