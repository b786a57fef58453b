//! `peftc chat`: a conversation with a language model, in a terminal or through pipes.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};

use super::generation::Generation;
use super::options::error;
use super::predict::Refusal;
use super::predict::flags::{Noting, Running};
use super::templating::{Given, Templating};
use super::{output, signals};
use crate::exec::backend::{Device, Open};
use crate::exec::generate::{Ears, Ended, Pace, Prompt};
use crate::exec::observe::{Event, Observer};
use crate::exec::predict::{Predictor, Unfit, Writer};
use crate::files::RunError;
use crate::library::generate::Settings;
use crate::program::op::Machine;
use crate::resolve::methods_from_text;

/// Most tokens of an answer, unless the command line says otherwise.
const ANSWER: u64 = 256;

/// What can be typed beside messages.
const HELP: &str = "/reset begins a new conversation, /system TEXT says how the model should answer and begins a new one, \
                    /exit ends; Ctrl-C stops an answer. Put a space before a message that begins with a slash.";

/// Arguments of `chat`.
#[derive(Debug, Args)]
pub(super) struct Chat {
    /// What to talk with: a recipe that was run, an output directory of `run`, a stage's folder in it, an entry of the store,
    /// or a Hugging Face folder of a decoder
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The stage whose model to take; in a sweep with the values of its axes, such as `learn@seed=1`
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Take the variant of a sweep that is best by this metric
    #[arg(long, value_name = "METRIC")]
    best: Option<String>,
    /// What the model reads before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    templating: Templating,
    /// Say behind each answer how fast it was
    #[arg(long)]
    speed: bool,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    noting: Noting,
}

/// Looks at whether an answer is to be stopped before it begins; afterwards what was said of it stays.
struct Watch {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Observer for Watch {
    fn event(&mut self, _: Event<'_>) {}

    fn interrupted(&self) -> Option<i32> {
        let stop = self.stop.load(Ordering::Relaxed) && !self.begun.load(Ordering::Relaxed);
        stop.then_some(signal_hook::consts::SIGINT)
    }
}

/// A conversation so far.
struct Talk {
    writer: Writer,
    system: Option<String>,
    /// What its template is given beside the messages.
    given: Given,
    /// What was said, in turns.
    messages: Vec<Json>,
    /// Answers so far: what draws are keyed by.
    answers: u64,
    stop: Arc<AtomicBool>,
}

/// What became of a message.
enum Turn {
    Answered(Pace, Ended),
    /// Stopped before a word was said.
    Nothing,
    Refused(String),
}

impl Chat {
    pub(super) fn run(&self) -> i32 {
        self.running
            .run(&self.noting, |machine, device| self.talk(machine, device))
    }

    fn talk(&self, machine: Machine, device: Device) -> Result<(), Refusal> {
        let named = (self.stage.as_deref(), self.best.as_deref());
        let place = self.running.find(&self.model, named, &self.noting)?;
        let usual = Settings {
            max_new_tokens: ANSWER,
            ..Settings::default()
        };
        let settings = self.generation.settings(&usual).map_err(Refusal::Wrong)?;
        let predictor = Arc::new(Predictor::open(&place.artifact, &methods_from_text)?);
        let device: Arc<dyn Open> = Arc::new(device);
        let writer = predictor.writer(settings, 1, (machine, device))?;
        if !writer.converses() {
            if self.system.is_some() {
                let why = "`--system` has no effect: the model has no chat template";
                return Err(Refusal::Wrong(why.to_owned()));
            }
            self.noting.note(
                "the model has no chat template: it goes on with each line for itself, and keeps nothing of those before",
            );
        }
        let given = self.templating.given(&writer).map_err(Refusal::Wrong)?;
        let stop = signals::interrupts()
            .map_err(|why| Refusal::Wrong(format!("the system gives no signals: {why}")))?;
        let mut talk = Talk {
            writer,
            system: self.system.clone(),
            given,
            messages: Vec::new(),
            answers: 0,
            stop,
        };
        self.lines(&mut talk)
    }

    /// Reads lines until there are no more.
    fn lines(&self, talk: &mut Talk) -> Result<(), Refusal> {
        let terminal = std::io::stdin().is_terminal();
        if terminal {
            self.noting.note(HELP);
        }
        let mut input = std::io::stdin().lock();
        loop {
            if terminal {
                output::note("> ");
            }
            let mut bytes = Vec::new();
            let read = input.read_until(b'\n', &mut bytes);
            let read = read.map_err(|why| RunError::file("standard input", why.to_string()))?;
            if read == 0 {
                if terminal {
                    output::note("\n");
                }
                return Ok(());
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            // What was pressed while nothing was being said stops nothing.
            talk.stop.store(false, Ordering::Relaxed);
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match (word, rest.trim()) {
                _ if line.trim().is_empty() => {}
                ("/exit" | "/quit", "") => return Ok(()),
                ("/help", "") => self.noting.note(HELP),
                ("/reset", "") => self.begin(talk),
                ("/system", _) if !talk.writer.converses() => {
                    error(
                        "the model has no chat template, so that it cannot be given instructions",
                    );
                }
                ("/system", text) => {
                    talk.system = Some(text.to_owned()).filter(|text| !text.is_empty());
                    self.begin(talk);
                }
                (word, _) if word.starts_with('/') => {
                    error(&format!("there is no such command as `{line}`. {HELP}"));
                }
                _ => self.answer(talk, line.trim())?,
            }
        }
    }

    /// Begins a new conversation.
    fn begin(&self, talk: &mut Talk) {
        talk.messages.clear();
        self.noting.note("a new conversation begins");
    }

    /// Answers what is said.
    fn answer(&self, talk: &mut Talk, said: &str) -> Result<(), Refusal> {
        let (turn, left_out) = talk.turn(said)?;
        if left_out > 0 {
            let turns = if left_out == 1 {
                "turn is"
            } else {
                "turns are"
            };
            self.noting.note(&format!(
                "the conversation has become longer than the model can read: its first {left_out} {turns} left out"
            ));
        }
        match turn {
            Turn::Refused(why) => error(&why),
            Turn::Nothing => self.noting.note("stopped before the answer began"),
            Turn::Answered(pace, ended) => {
                if ended == Ended::Length {
                    self.noting.note("the answer was cut at `--max-new-tokens`");
                }
                if self.speed {
                    self.noting.note(&speed(pace));
                }
            }
        }
        Ok(())
    }
}

/// How fast an answer was.
fn speed(pace: Pace) -> String {
    let seconds = |time: Duration| time.as_secs_f64().max(1e-9);
    format!(
        "{} tokens read in {:.2} s, then {:.1} tokens a second",
        pace.read.0,
        seconds(pace.read.1),
        pace.made.0 as f64 / seconds(pace.made.1)
    )
}

impl Talk {
    /// The tokens of the conversation with what is said, and how many turns were left out of it because it is too long.
    fn tokens(&mut self, said: &str) -> (Result<Vec<u32>, Unfit>, usize) {
        if !self.writer.converses() {
            return (self.writer.prompt(said), 0);
        }
        self.messages.push(message("user", said));
        let mut left_out = 0;
        loop {
            let system = self.system.iter().map(|text| message("system", text));
            let all: Vec<Json> = system.chain(self.messages.iter().cloned()).collect();
            match self.writer.conversation(&all, self.given.rendering(None)) {
                // The first question and its answer.
                Err(why) if why.is_length && self.messages.len() > 2 => {
                    self.messages.drain(..2);
                    left_out += 1;
                }
                Err(why) => {
                    self.messages.pop();
                    return (Err(why), left_out);
                }
                ids => return (ids, left_out),
            }
        }
    }

    /// Answers what is said, printing the answer as it comes; gives how many turns were left out of the conversation.
    fn turn(&mut self, said: &str) -> Result<(Turn, usize), RunError> {
        let (ids, left_out) = self.tokens(said);
        let ids = match ids {
            Ok(ids) => ids,
            Err(why) => return Ok((Turn::Refused(why.message), left_out)),
        };
        let stop = self.stop.clone();
        let begun = Arc::new(AtomicBool::new(false));
        let mut each = |_: usize, new: &str| {
            begun.store(true, Ordering::Relaxed);
            output::print(new);
            !stop.load(Ordering::Relaxed)
        };
        let mut ears = Ears {
            each: &mut each,
            observer: &mut Watch {
                stop: self.stop.clone(),
                begun: begun.clone(),
            },
        };
        let text = self.answers;
        self.answers += 1;
        let made = self.writer.go_on(Prompt { text, ids }, &mut ears);
        output::print("\n");
        let turn = match made {
            Ok((made, pace)) => {
                if self.writer.converses() {
                    self.messages.push(message("assistant", &made.text));
                }
                Turn::Answered(pace, made.ended)
            }
            Err(_) if self.stop.load(Ordering::Relaxed) => {
                self.messages.pop();
                Turn::Nothing
            }
            Err(why) => return Err(why),
        };
        Ok((turn, left_out))
    }
}

/// A message as templates read it.
fn message(role: &str, content: &str) -> Json {
    json!({ "role": role, "content": content })
}
