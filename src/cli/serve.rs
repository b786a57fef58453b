//! `peftc serve`: finished stages answer over HTTP, by the same code as `predict` and `chat`.
//!
//! ```text
//! requests ─http▶ queue ─work▶ sessions on backbones ─▶ answers
//! ```
//!
//! **Invariant:** HTTP is spoken in a thread of its own, and what is computed is computed in one other: a request never waits for
//! anything but its place in the queue, and what a row becomes does not depend on what it is batched with.

mod admin;
mod embeddings;
mod gate;
mod http;
mod labels;
mod memory;
mod models;
mod numbers;
mod openai;
mod requests;
mod texts;
mod waiting;
mod work;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use clap::Args;

use self::gate::Gate;
use self::http::Server;
use self::models::{Directory, Models, Named, Wanted};
use self::numbers::Numbers;
use self::work::Worker;
use super::options::print;
use super::predict::Refusal;
use super::predict::flags::{Noting, Running};
use super::signals;
use crate::exec::backend::{Device, Open};
use crate::exec::predict::Predictor;
use crate::files::RunError;
use crate::program::op::Machine;
use crate::resolve::methods_from_text;

/// Where a key is looked for.
const KEY: &str = "PEFTC_API_KEY";

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// What answers, each under a name: what `predict` takes, or NAME=MODEL
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Address and port to listen at; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Say what memory each model takes, and serve nothing
    #[arg(long)]
    check: bool,
    /// With `--check`: one JSON document
    #[arg(long, requires = "check")]
    json: bool,
    /// Texts that are computed at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 12))]
    batch: u64,
    /// Most tokens of a prompt together with its answer
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(2..=1 << 20))]
    context: u64,
    /// Most rows, or prompts, of a request
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    max_rows: u64,
    /// Most bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_body: u64,
    /// Most requests that wait; what comes above is refused
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    queue: u64,
    /// Milliseconds to wait for more requests that the first can be computed with
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    linger: u64,
    /// Let requests add and remove models
    #[arg(long)]
    changes: bool,
    /// Seconds after which a request is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// A file with the key that requests have to show; without it, the variable PEFTC_API_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    noting: Noting,
}

/// What a request may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    batch: usize,
    context: u64,
    rows: usize,
    body: usize,
    queue: usize,
    linger: Duration,
    time: Duration,
}

impl Serve {
    pub(super) fn run(&self) -> i32 {
        self.running
            .run(&self.noting, |machine, device| self.serve(machine, device))
    }

    fn limits(&self) -> Limits {
        Limits {
            batch: self.batch as usize,
            context: self.context,
            rows: self.max_rows as usize,
            body: self.max_body as usize,
            queue: self.queue as usize,
            linger: Duration::from_millis(self.linger),
            time: Duration::from_secs(self.timeout),
        }
    }

    /// Opens a model.
    fn open(&self, Wanted { name, path }: &Wanted) -> Result<Named, Refusal> {
        let place = self.running.find(path, (None, None), &self.noting)?;
        let predictor = Predictor::open(&place.artifact, &methods_from_text)?;
        if predictor.task.windows().is_some() {
            let why = format!(
                "`{name}` answers questions by parts of their contexts, which `serve` does not know; write `peftc predict {} --input FILE`",
                path.display()
            );
            return Err(Refusal::Wrong(why));
        }
        if predictor.task.pairs_options() {
            let why = format!(
                "`{name}` chooses among options, which `serve` does not know; write `peftc predict {} --input FILE --choices COLUMN`",
                path.display()
            );
            return Err(Refusal::Wrong(why));
        }
        Ok(Named {
            name: name.clone(),
            predictor: Arc::new(predictor),
        })
    }

    fn serve(&self, machine: Machine, device: Device) -> Result<(), Refusal> {
        let wanted = models::wanted(&self.models).map_err(Refusal::Wrong)?;
        let named = wanted.iter().map(|wanted| self.open(wanted));
        let named = named.collect::<Result<Vec<Named>, Refusal>>()?;
        if self.check {
            let footprints = memory::tell(&named, (self.batch, self.context), &machine)?;
            print(&match self.json {
                true => format!("{:#}\n", footprints.json()),
                false => footprints.text(self.noting.screen()),
            });
            return Ok(());
        }
        let key = self.key()?;
        // The port first: who has it already should not wait for the models.
        let (socket, address) = self.listen(key.is_some())?;
        let stop = signals::ends()
            .map_err(|why| Refusal::Wrong(format!("the system gives no signals: {why}")))?;
        let (limits, numbers) = (self.limits(), Arc::<Numbers>::default());
        let directory = Arc::<Directory>::default();
        let device: Arc<dyn Open> = Arc::new(device);
        let mut worker = Worker {
            models: Models::new(
                limits,
                (machine, device),
                directory.clone(),
                numbers.clone(),
            ),
            limits,
            numbers: numbers.clone(),
            open: &|wanted| self.open(wanted),
        };
        for named in named {
            worker.models.add(named)?;
        }
        let (send, queue) = sync_channel(limits.queue);
        let server = Server {
            models: directory,
            limits,
            queue: send,
            numbers,
            gate: Gate::new(key.as_deref(), address),
            changes: self.changes,
            stop,
        };
        let thread = std::thread::Builder::new().name("http".to_owned());
        let spoken = thread.spawn(move || http::speak(socket, server));
        let spoken =
            spoken.map_err(|why| Refusal::Wrong(format!("the system gives no thread: {why}")))?;
        self.noting.note(&format!("listening at http://{address}"));
        // It ends once nobody can ask any more.
        worker.work(&queue);
        let spoken = spoken.join();
        let spoken = spoken.unwrap_or_else(|_| Err("the thread of HTTP broke down".to_owned()));
        spoken.map_err(|why| RunError::file(address.to_string(), why).into())
    }

    /// The socket that is listened at, and its address.
    fn listen(&self, has_key: bool) -> Result<(TcpListener, SocketAddr), Refusal> {
        let at = self.listen;
        if !has_key && !at.ip().is_loopback() {
            if self.changes {
                return Err(Refusal::Wrong(format!(
                    "{at} can be reached from other machines, and `--changes` lets requests read files of this one; set a key: {KEY}, or \
                     `--key-file`"
                )));
            }
            self.noting.note(&format!(
                "{at} can be reached from other machines, and no key is set: everybody there can use the models; set {KEY}, or give \
                 `--key-file`"
            ));
        }
        let wrong = |why: std::io::Error| {
            RunError::file(at.to_string(), format!("cannot be listened at: {why}"))
        };
        let socket = TcpListener::bind(at).map_err(wrong)?;
        let address = socket.local_addr().map_err(wrong)?;
        Ok((socket, address))
    }

    /// The key that requests have to show.
    fn key(&self) -> Result<Option<String>, Refusal> {
        let (place, text) = match &self.key_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|why| RunError::file(file, why.to_string()))?;
                (file.display().to_string(), text)
            }
            None => match std::env::var(KEY) {
                Ok(text) => (KEY.to_owned(), text),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(why) => return Err(Refusal::Wrong(format!("{KEY}: {why}"))),
            },
        };
        let key = text.trim().to_owned();
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Refusal::Wrong(format!(
                "{place} holds no key: letters, digits and signs of ASCII are wanted, without spaces"
            )));
        }
        Ok(Some(key))
    }
}
