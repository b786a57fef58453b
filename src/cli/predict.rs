//! `peftc predict`: label new text, row by row, in the order and with the columns of the input.

mod choose;
pub(super) mod flags;
pub(super) mod label;
pub(super) mod place;
mod progress;
pub(super) mod write;

use std::io::{BufReader, BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use self::choose::Choosing;
use self::flags::{Noting, Running};
use self::label::{Answers, Source, Unsaid, strs};
use self::progress::Shown;
use self::write::{PROMPTS, Writing};
use super::exit;
use super::generation::Generation;
use super::options::{Color, error, output_failed};
use super::output;
use super::screen::Screen;
use super::templating::Templating;
use crate::exec::backend::{Device, Open};
use crate::exec::predict::Predictor;
use crate::files::{RunError, near};
use crate::library::data::DataError;
use crate::library::generate::Settings;
use crate::library::rows::{self, Added, Opened, Record, Rows, Unwritten};
use crate::library::task::Form;
use crate::program::op::Machine;
use crate::resolve::methods_from_text;

/// Rows that are read, scored and written at a time.
const AT_ONCE: usize = 1024;

/// Columns that a model which knows none is taken to read, the first that is there.
pub(super) const USUAL: [&str; 2] = ["text", "sentence"];

/// The column of words that a model which labels them is taken to read.
pub(super) const WORDS: &str = "tokens";

/// How rows are written.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum Format {
    /// Comma-separated, texts in quotes where they need them.
    Csv,
    /// Tab-separated, without quotes.
    Tsv,
    /// An object a line.
    Jsonl,
    /// A Parquet file.
    Parquet,
}

impl From<Format> for rows::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Tsv => Self::Tsv,
            Format::Jsonl => Self::Jsonl,
            Format::Parquet => Self::Parquet,
        }
    }
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub(super) struct Predict {
    /// What to predict with: a recipe that was run, an output directory of `run`, a stage's folder in it, an entry of
    /// the store, or a Hugging Face folder with a trained head
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Texts to label, as CSV, TSV, JSONL or Parquet, or words as CoNLL (`.conll`); `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The stage whose model to take; in a sweep with the values of its axes, such as `learn@seed=1`
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Take the variant of a sweep that is best by this metric
    #[arg(long, value_name = "METRIC")]
    best: Option<String>,
    /// How to write the rows; as they are read if not given
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How the input is written, if neither its name nor its beginning tells
    #[arg(long, value_enum, value_name = "FORMAT")]
    input_format: Option<Format>,
    /// Give the probability of every class
    #[arg(long)]
    all: bool,
    /// Columns of the text, if not those of the training
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    text: Vec<String>,
    /// Choose the likeliest of the options in this column, which holds lists, or of those in these columns, behind the prompt
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    choices: Vec<String>,
    /// Examples at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    batch: u64,
    /// Draws of the prompt's demonstrations to average over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    draws: u64,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    templating: Templating,
    #[command(flatten)]
    noting: Noting,
}

/// Why nothing, or not all, was predicted.
pub(super) enum Refusal {
    /// The command line asks for what cannot be.
    Wrong(String),
    /// A file or the run of the model.
    Failed(RunError),
    /// The input.
    Input(DataError),
    /// Standard output.
    Output(std::io::Error),
}

impl From<RunError> for Refusal {
    fn from(error: RunError) -> Self {
        Self::Failed(error)
    }
}

impl From<DataError> for Refusal {
    fn from(error: DataError) -> Self {
        Self::Input(error)
    }
}

impl From<Unwritten> for Refusal {
    fn from(error: Unwritten) -> Self {
        match error {
            Unwritten::Output(why) => Self::Output(why),
            Unwritten::Row(why) => Self::Input(why),
        }
    }
}

impl Refusal {
    /// Says it; gives the exit code.
    pub(super) fn print(self) -> i32 {
        match self {
            Self::Wrong(why) => {
                // A list stands in lines of its own.
                let (first, list) = why.split_once('\n').unwrap_or((&why, ""));
                error(first);
                if !list.is_empty() {
                    let list = Screen::err(Color::Auto).fold(list, 4);
                    output::note(&format!("{list}\n"));
                }
                exit::WRONG
            }
            Self::Failed(why) => {
                error(&why.to_string());
                why.exit_code()
            }
            Self::Input(why) => {
                let help = why.help.as_ref().map(|h| format!("; {h}"));
                error(&format!("{why}{}", help.unwrap_or_default()));
                exit::FAILED
            }
            Self::Output(why) => {
                output_failed(&why);
                exit::DONE
            }
        }
    }
}

impl Predict {
    pub(super) fn run(&self) -> i32 {
        self.running.run(&self.noting, |machine, device| {
            self.predict(machine, device)
        })
    }

    fn predict(&self, machine: Machine, device: Device) -> Result<(), Refusal> {
        let named = (self.stage.as_deref(), self.best.as_deref());
        let place = self.running.find(&self.model, named, &self.noting)?;
        let predictor = Arc::new(Predictor::open(&place.artifact, &methods_from_text)?);
        let mut answers = Answers {
            predictor: predictor.clone(),
            form: Form {
                all: self.all,
                nested: false,
            },
        };
        let writes = predictor.task.generates();
        self.added(&answers, writes)?;
        let (name, opened) = self.opened()?;
        let read_as = opened.format;
        // What words are labelled with stands in lists.
        let usual = match read_as {
            rows::Format::Conll => rows::Format::Jsonl,
            own => own,
        };
        let format = self.format.map_or(usual, Into::into);
        answers.form.nested = format == rows::Format::Jsonl;
        if format == rows::Format::Parquet && std::io::stdout().is_terminal() {
            return Err(Refusal::Wrong(
                "a Parquet file does not go to a terminal; write `> FILE.parquet`, or `--format csv`".to_owned(),
            ));
        }
        let copied = (format == rows::Format::Parquet)
            .then(|| opened.again())
            .flatten();
        let own = predictor.description.text.as_slice();
        let words = predictor.task.words().is_some();
        // What a training read as a whole is gone on from by whatever column has the prompts.
        let (own, usual) = match writes {
            true => (&[][..], [&PROMPTS[..1], &strs(own), &PROMPTS[1..]].concat()),
            false if words => (own, vec![WORDS]),
            false => (own, USUAL.to_vec()),
        };
        let wanted = if self.text.is_empty() {
            own
        } else {
            self.text.as_slice()
        };
        // Of what is copied as it is, the texts alone are read.
        let only = copied.as_ref().map(|_| wanted).filter(|w| !w.is_empty());
        let mut input = opened.rows(&name, only)?;
        let mut part = read(input.as_mut())?;
        let columns = self.columns((own, &usual), input.as_ref(), &part, (&name, read_as))?;
        // Nothing is written, not even a header, before the model is whole.
        let added = self.added(&answers, writes)?;
        let mut source = self.source(&predictor, answers, (machine, device))?;
        let out = Box::new(BufWriter::new(output::data()));
        let mut sink = rows::sink(format, out, input.columns(), added, copied, &name)?;
        let mut unsaid = Unsaid::default();
        let mut shown = Shown::new(self.noting.quiet);
        while !part.is_empty() {
            let values = source.values(&part, (&columns, &name), &mut unsaid)?;
            sink.write(&part, values)?;
            shown.more(part.len());
            part = read(input.as_mut())?;
        }
        sink.finish()?;
        drop(shown);
        if let Some(note) = unsaid.note() {
            self.noting.note(&note);
        }
        Ok(())
    }

    /// What is added to a row.
    fn added(&self, answers: &Answers, writes: bool) -> Result<Vec<Added>, Refusal> {
        let idle =
            |flag: &str, why: &str| Err(Refusal::Wrong(format!("`{flag}` has no effect: {why}")));
        let pairs = answers.predictor.task.pairs_options();
        if !self.choices.is_empty() {
            self.chooses(writes || pairs)?;
            return match pairs {
                true => answers.columns(),
                false => Ok(choose::columns()),
            };
        }
        if pairs {
            let why = "the model chooses among options; name their column, or one for each: `--choices COLUMN`";
            return Err(Refusal::Wrong(why.to_owned()));
        }
        let flags = [("--all", self.all), ("--draws", self.draws > 1)];
        match (
            writes,
            flags.iter().find(|(_, given)| *given),
            self.generation.first().or(self.templating.first()),
        ) {
            (true, Some((flag, _)), _) => {
                idle(flag, "the model goes on with texts and labels nothing")
            }
            (false, _, Some(flag)) => {
                idle(flag, "the model labels texts and does not go on with them")
            }
            (true, None, _) => Ok(write::columns()),
            (false, _, None) => answers.columns(),
        }
    }

    /// Checks what is asked of rows of whose options one is chosen.
    fn chooses(&self, compares: bool) -> Result<(), Refusal> {
        let wrong = |why: String| Err(Refusal::Wrong(why));
        if !compares {
            return wrong("`--choices` has no effect: the model labels texts".to_owned());
        }
        let flags = [("--all", self.all), ("--draws", self.draws > 1)];
        let given = flags
            .iter()
            .find(|(_, given)| *given)
            .map(|(flag, _)| *flag);
        let given = given
            .or(self.generation.first())
            .or(self.templating.first());
        match given {
            Some(flag) => wrong(format!(
                "`{flag}` has no effect with `--choices`, which generates nothing"
            )),
            None => Ok(()),
        }
    }

    /// The model in memory.
    fn source<'a>(
        &'a self,
        predictor: &'a Arc<Predictor>,
        answers: Answers,
        (machine, device): (Machine, Device),
    ) -> Result<Source<'a>, Refusal> {
        let device: Arc<dyn Open> = Arc::new(device);
        if !self.choices.is_empty() {
            let chooser = predictor.chooser(self.batch, (machine, device))?;
            return Ok(Source::Chooses(Box::new(Choosing {
                chooser,
                options: &self.choices,
                form: answers.form,
            })));
        }
        if predictor.task.generates() {
            let settings = self.generation.settings(&Settings::default());
            let settings = settings.map_err(Refusal::Wrong)?;
            let writer = predictor.writer(settings, self.batch, (machine, device))?;
            let given = self.templating.given(&writer).map_err(Refusal::Wrong)?;
            let rows = 0;
            return Ok(Source::Writes(Box::new(Writing {
                writer,
                given,
                rows,
            })));
        }
        let session = predictor.session((self.batch, self.draws), (machine, device))?;
        Ok(Source::Labels(Box::new(session), answers))
    }

    /// The input, and its name in messages.
    fn opened(&self) -> Result<(String, Opened), Refusal> {
        let asked = self.input_format.map(Into::into);
        // One column alone is both CSV and TSV: it is read as it is to be written.
        let unclear = match self.format {
            Some(Format::Csv) => rows::Format::Csv,
            _ => rows::Format::Tsv,
        };
        let (name, opened) = if self.input == Path::new("-") {
            let name = "standard input".to_owned();
            let input = Box::new(BufReader::new(std::io::stdin()));
            let opened = rows::open_stream(input, asked, unclear, &name)?;
            (name, opened)
        } else {
            let name = self.input.display().to_string();
            let opened = rows::open_file(&self.input, asked, unclear).map_err(|why| {
                // Where nothing is there, the nearest name says more than any advice.
                match near::did_you_mean(&self.input) {
                    Some(near) => why.help(near),
                    None => why,
                }
            })?;
            (name, opened)
        };
        if opened.guessed {
            self.noting.note(&format!(
                "{name} is read as {}; `--input-format` says otherwise",
                opened.format.name()
            ));
        }
        Ok((name, opened))
    }

    /// The columns of the text: those that are asked for, those of the training, or, for a model that does not know
    /// them, `text` or the only one there is.
    fn columns(
        &self,
        (own, usual): (&[String], &[&str]),
        input: &dyn Rows,
        first: &[Record],
        (name, format): (&str, rows::Format),
    ) -> Result<Vec<String>, Refusal> {
        if !self.text.is_empty() && !own.is_empty() && self.text.len() != own.len() {
            return Err(Refusal::Wrong(format!(
                "the model reads {} column{} (`{}`), and `--text` names {}",
                own.len(),
                if own.len() == 1 { "" } else { "s" },
                own.join("`, `"),
                self.text.len()
            )));
        }
        if self.text.len() > 2 {
            return Err(Refusal::Wrong(
                "`--text` names one column, or two for pairs".to_owned(),
            ));
        }
        let there: Vec<String> = match (input.columns(), first.first()) {
            (Some(columns), _) => columns.to_vec(),
            (None, Some(first)) => first.fields.keys().cloned().collect(),
            // There is no row to look at.
            (None, None) => return Ok(own.to_vec()),
        };
        let usual = usual.iter().copied().find(|u| there.iter().any(|c| c == u));
        let columns = match (self.text.as_slice(), own, there.as_slice()) {
            ([], [], [only]) => vec![only.clone()],
            ([], [], _) if usual.is_some() => usual.map(str::to_owned).into_iter().collect(),
            ([], [], _) => {
                return Err(Refusal::Wrong(format!(
                    "the model does not say which column it reads; name one with `--text COLUMN` (there are `{}`; in CSV and TSV \
                     the first line names them)",
                    there.join("`, `")
                )));
            }
            ([], own, _) => own.to_vec(),
            (asked, _, _) => asked.to_vec(),
        };
        rows::require(&columns, &there, name).map_err(|why| {
            let header = matches!(format, rows::Format::Csv | rows::Format::Tsv);
            match why.help.clone().filter(|_| header) {
                Some(help) => why.help(format!(
                    "{help}; the first line of {} input names its columns",
                    format.name()
                )),
                None => why,
            }
        })?;
        Ok(columns)
    }
}

/// The next rows.
fn read(input: &mut dyn Rows) -> Result<Vec<Record>, DataError> {
    let mut part = Vec::new();
    while part.len() < AT_ONCE {
        match input.next() {
            Some(record) => part.push(record?),
            None => break,
        }
    }
    Ok(part)
}
