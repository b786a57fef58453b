//! `peftc lsp`: what an editor asks while a recipe is written, over standard input and output.
//!
//! **Invariant:** an answer waits for no model and no data: these are planned for in a thread of their own, and what
//! came of it is sent when it is there.

mod answers;
mod convert;
mod difference;
mod estimating;
mod server;

use clap::Args;
use lsp_server::{Connection, Message};
use lsp_types::{
    CodeActionKind, CodeActionOptions, CodeLensOptions, CompletionOptions, ExecuteCommandOptions,
    PositionEncodingKind, RenameOptions, ServerCapabilities, TextDocumentSyncKind,
};
use serde_json::json;

use super::exit;
use super::options::{Common, Intent, error};
use super::world::RealWorld;
use estimating::Maker;
use server::Server;

/// Arguments of `lsp`.
#[derive(Debug, Args)]
pub(super) struct Lsp {
    /// Speak over standard input and output, as it does anyway
    #[arg(long, hide = true)]
    stdio: bool,
    /// The store, to say what is finished already
    #[arg(long, value_name = "DIR")]
    store: Option<std::path::PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// The command that a code action runs.
const FITS: &str = "peftc.fits";

impl Lsp {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return exit::WRONG;
        };
        let maker = Maker {
            world: self.common.world(),
            machine: asked.machine,
            store: self.store.clone(),
            survey: !self.common.no_data_report,
        };
        let (connection, threads) = Connection::stdio();
        let code = match serve(&connection, maker) {
            Ok(()) => exit::DONE,
            Err(why) => {
                error(&format!("the editor: {why}"));
                exit::FAILED
            }
        };
        // The thread that writes ends once nobody can send any more.
        drop(connection);
        match threads.join() {
            Ok(()) => code,
            Err(_) if code == exit::DONE => exit::DONE,
            Err(_) => exit::FAILED,
        }
    }
}

/// Answers until the editor says that it ends, or is gone.
fn serve(connection: &Connection, maker: Maker) -> Result<(), String> {
    let (id, params) = connection.initialize_start().map_err(|e| e.to_string())?;
    let answer = json!({
        "capabilities": capabilities(),
        "serverInfo": { "name": "peftc", "version": env!("CARGO_PKG_VERSION") },
    });
    let begun = connection.initialize_finish(id, answer);
    begun.map_err(|e| e.to_string())?;
    let (jobs, results) = estimating::start(maker)
        .map_err(|why| format!("the system gives no thread to plan with: {why}"))?;
    let world = RealWorld::new(true);
    let mut server = Server::new(&world, (connection.sender.clone(), jobs), &params);
    loop {
        let tick = server.next();
        crossbeam_channel::select! {
            recv(connection.receiver) -> message => {
                let Ok(message) = message else { return Ok(()) };
                if let Message::Request(request) = &message
                    && connection.handle_shutdown(request).map_err(|e| e.to_string())?
                {
                    return Ok(());
                }
                if matches!(&message, Message::Notification(n) if n.method == "exit") {
                    return Err("it ended without asking for a shutdown".to_owned());
                }
                server.take(message);
            }
            recv(results) -> done => {
                if let Ok(done) = done {
                    server.planned(done);
                }
            }
            recv(tick) -> _ => server.plan(),
        }
        // What is typed fast is looked at once.
        if connection.receiver.is_empty() {
            server.publish();
        }
    }
}

/// What is offered to the editor.
fn capabilities() -> ServerCapabilities {
    ServerCapabilities {
        position_encoding: Some(PositionEncodingKind::UTF16),
        text_document_sync: Some(TextDocumentSyncKind::Incremental.into()),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some([".", "{", "=", "\"", " "].map(str::to_owned).to_vec()),
            ..CompletionOptions::default()
        }),
        hover_provider: Some(true.into()),
        definition_provider: Some(true.into()),
        references_provider: Some(true.into()),
        document_symbol_provider: Some(true.into()),
        document_formatting_provider: Some(true.into()),
        rename_provider: Some(
            RenameOptions {
                prepare_provider: Some(true),
                ..RenameOptions::default()
            }
            .into(),
        ),
        code_action_provider: Some(
            CodeActionOptions {
                code_action_kinds: Some(vec![CodeActionKind::QuickFix, CodeActionKind::Empty]),
                ..CodeActionOptions::default()
            }
            .into(),
        ),
        code_lens_provider: Some(CodeLensOptions::default()),
        inlay_hint_provider: Some(true.into()),
        execute_command_provider: Some(ExecuteCommandOptions {
            commands: vec![FITS.to_owned()],
            ..ExecuteCommandOptions::default()
        }),
        ..ServerCapabilities::default()
    }
}
