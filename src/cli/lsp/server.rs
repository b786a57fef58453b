//! What the server knows: the texts of the editor, what was found out about them, what is still wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, never};
use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::{
    Diagnostic, DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    DidSaveTextDocumentParams, MessageType, PublishDiagnosticsParams, ShowMessageParams,
    TextDocumentContentChangeEvent, Uri,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::convert::{diagnostic, path_of, place, uri_of};
use super::estimating::{Done, Job, Texts, Wants};
use crate::base::{Diag, SourceId, Sources, Span};
use crate::cli::world::RealWorld;
use crate::editor::{Analysis, Lines, Overlay, Shown};
use crate::syntax::ast::Item;

/// How long nothing is typed before a plan is made.
const PAUSE: Duration = Duration::from_millis(120);

/// A text that is open in the editor.
#[derive(Debug)]
pub(super) struct Doc {
    pub(super) uri: Uri,
    version: i32,
    pub(super) text: Arc<str>,
    pub(super) lines: Lines,
    /// What names and values of the text are; made when it is wanted.
    pub(super) analysis: Option<Arc<Analysis>>,
    /// What planning found wrong, with places that move with the text.
    pub(super) found: Vec<Diag>,
    /// What it will take.
    pub(super) shown: Option<Shown>,
    /// Whether its diagnostics have to be sent.
    dirty: bool,
    /// The plan that is made of it, or was made of the text as it is.
    planning: Option<Arc<AtomicBool>>,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server<'a> {
    world: &'a RealWorld,
    out: Sender<Message>,
    jobs: Sender<Job>,
    pub(super) docs: BTreeMap<PathBuf, Doc>,
    /// The folders that the editor works in.
    pub(super) folders: Vec<PathBuf>,
    /// When plans are made of what has changed.
    due: Option<Instant>,
    /// Whether the editor asks for hints and lenses again when asked to.
    refreshes: [bool; 2],
    asked: i32,
}

/// The parameters of a message.
pub(super) fn given<P: DeserializeOwned>(params: Json) -> Result<P, String> {
    serde_json::from_value(params).map_err(|e| e.to_string())
}

impl<'a> Server<'a> {
    pub(super) fn new(
        world: &'a RealWorld,
        (out, jobs): (Sender<Message>, Sender<Job>),
        params: &Json,
    ) -> Self {
        let workspace = &params["capabilities"]["workspace"];
        let refreshes = |what: &str| workspace[what]["refreshSupport"] == true;
        let uri = |json: &Json| json.as_str().map(|u| path_of(&Uri(u.to_owned())));
        let mut folders: Vec<PathBuf> = params["workspaceFolders"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|folder| uri(&folder["uri"]))
            .collect();
        if folders.is_empty() {
            folders.extend(uri(&params["rootUri"]));
        }
        Self {
            world,
            out,
            jobs,
            docs: BTreeMap::new(),
            folders,
            due: None,
            refreshes: [refreshes("inlayHint"), refreshes("codeLens")],
            asked: 0,
        }
    }

    /// When something is to be done though nothing is said.
    pub(super) fn next(&self) -> Receiver<Instant> {
        self.due.map_or_else(never, at)
    }

    /// Takes what the editor says.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.request(request),
            Message::Notification(event) => {
                // What cannot be read is nothing that could be answered.
                let _ = self.notification(event);
            }
            Message::Response(_) => {}
        }
    }

    fn request(&mut self, request: Request) {
        let Request { id, method, params } = request;
        // A bug that an odd text meets must not end the server.
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.answer(&method, params)
        }));
        let (code, why) = match answer {
            Ok(Ok(Some(result))) => return self.send(Response::new_ok(id, result)),
            Ok(Ok(None)) => (
                ErrorCode::MethodNotFound,
                format!("`{method}` is not answered"),
            ),
            Ok(Err(why)) => (ErrorCode::InvalidParams, why),
            Err(_) => (ErrorCode::InternalError, "a bug of peftc".to_owned()),
        };
        self.send(Response::new_err(id, code as i32, why));
    }

    fn send(&self, message: impl Into<Message>) {
        // An editor that is gone wants nothing any more.
        let _ = self.out.send(message.into());
    }

    fn tell(&self, method: &str, params: impl Serialize) {
        self.send(Notification::new(method.to_owned(), params));
    }

    fn notification(&mut self, event: Notification) -> Result<(), String> {
        match event.method.as_str() {
            "textDocument/didOpen" => {
                let params: DidOpenTextDocumentParams = given(event.params)?;
                let opened = params.text_document;
                self.open(opened.uri, opened.version, &opened.text);
            }
            "textDocument/didChange" => self.change(given(event.params)?),
            "textDocument/didSave" => {
                let params: DidSaveTextDocumentParams = given(event.params)?;
                // Data and models may have changed, too.
                self.touch(&path_of(&params.text_document.uri));
            }
            "textDocument/didClose" => {
                let params: DidCloseTextDocumentParams = given(event.params)?;
                let path = path_of(&params.text_document.uri);
                if let Some(doc) = self.docs.remove(&path) {
                    stop(&doc);
                    self.show(&doc.uri, None, Vec::new());
                }
                self.touch(&path);
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, uri: Uri, version: i32, text: &str) {
        let path = path_of(&uri);
        let doc = Doc {
            uri,
            version,
            text: text.into(),
            lines: Lines::of(text),
            analysis: None,
            found: Vec::new(),
            shown: None,
            dirty: true,
            planning: None,
        };
        if let Some(old) = self.docs.insert(path.clone(), doc) {
            stop(&old);
        }
        self.touch(&path);
    }

    fn change(&mut self, params: DidChangeTextDocumentParams) {
        let path = path_of(&params.text_document.text_document_identifier.uri);
        let Some(doc) = self.docs.get_mut(&path) else {
            return;
        };
        doc.version = params.text_document.version;
        for change in params.content_changes {
            match change {
                TextDocumentContentChangeEvent::TextDocumentContentChangePartial(part) => {
                    let start = doc.lines.offset(&doc.text, place(part.range.start));
                    let end = doc
                        .lines
                        .offset(&doc.text, place(part.range.end))
                        .max(start);
                    doc.replace(start, end, &part.text);
                }
                TextDocumentContentChangeEvent::TextDocumentContentChangeWholeDocument(all) => {
                    doc.text = all.text.as_str().into();
                    doc.lines = Lines::of(&doc.text);
                    doc.found.clear();
                }
            }
        }
        self.touch(&path);
    }

    /// What is known of a file, and of all that import it, is to be found out again.
    fn touch(&mut self, path: &Path) {
        for (own, doc) in &mut self.docs {
            let imports = |a: &Arc<Analysis>| a.paths().any(|p| p == path);
            if own == path || doc.analysis.as_ref().is_none_or(imports) {
                doc.analysis = None;
                doc.dirty = true;
                if let Some(shown) = &mut doc.shown {
                    shown.stale = true;
                }
                stop(doc);
                doc.planning = None;
            }
        }
        self.due = Some(Instant::now() + PAUSE);
    }

    pub(super) fn texts(&self) -> Texts {
        let all = self.docs.iter();
        Arc::new(
            all.map(|(path, doc)| (path.clone(), doc.text.clone()))
                .collect(),
        )
    }

    /// The world as the editor has it, without the network.
    pub(super) fn overlay(&self) -> Overlay<'a> {
        Overlay::new(self.world, self.texts(), Arc::default())
    }

    /// What is known of a text without its models and data.
    pub(super) fn analysis(&mut self, path: &Path) -> Option<Arc<Analysis>> {
        if let Some(known) = &self.docs.get(path)?.analysis {
            return Some(known.clone());
        }
        let made = Arc::new(Analysis::of(path, &self.overlay()));
        self.docs.get_mut(path)?.analysis = Some(made.clone());
        Some(made)
    }

    /// The address of a file, as the editor spells it where it has it open.
    pub(super) fn uri(&self, path: &Path) -> Uri {
        self.docs
            .get(path)
            .map_or_else(|| uri_of(path), |doc| doc.uri.clone())
    }

    fn show(&self, uri: &Uri, version: Option<i32>, diagnostics: Vec<Diagnostic>) {
        let params = PublishDiagnosticsParams {
            uri: uri.clone(),
            version,
            diagnostics,
        };
        self.tell("textDocument/publishDiagnostics", params);
    }

    /// Sends what is wrong with the texts that have changed: what names and values tell now, and what planning said of
    /// the text before.
    pub(super) fn publish(&mut self) {
        let changed = self.docs.iter().filter(|(_, doc)| doc.dirty);
        let changed: Vec<PathBuf> = changed.map(|(path, _)| path.clone()).collect();
        for path in changed {
            let analysis =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.analysis(&path)));
            let analysis = analysis.ok().flatten();
            let Some(doc) = self.docs.get_mut(&path) else {
                continue;
            };
            doc.dirty = false;
            let Some(analysis) = analysis else { continue };
            let Some(doc) = self.docs.get(&path) else {
                continue;
            };
            let mut all: Vec<&Diag> = analysis.diags.iter().collect();
            all.extend(&doc.found);
            self.show(
                &doc.uri,
                Some(doc.version),
                self.listed(&all, &analysis.sources, &analysis),
            );
        }
    }

    /// Diagnostics as the protocol has them.
    pub(super) fn listed(
        &self,
        diags: &[&Diag],
        sources: &Sources,
        analysis: &Analysis,
    ) -> Vec<Diagnostic> {
        let imports = |source| import_of(analysis, sources, source);
        let uri = |path: &Path| self.uri(path);
        let one = |d: &&Diag| diagnostic(d, sources, &imports, &uri);
        diags.iter().map(one).collect()
    }

    /// Has plans made of what has changed.
    pub(super) fn plan(&mut self) {
        self.due = None;
        let texts = self.texts();
        for (path, doc) in &mut self.docs {
            if doc.planning.is_some() {
                continue;
            }
            let stopped = Arc::new(AtomicBool::new(false));
            doc.planning = Some(stopped.clone());
            let job = Job {
                path: path.clone(),
                texts: texts.clone(),
                stopped,
                wants: Wants::Estimate,
            };
            let _ = self.jobs.send(job);
        }
    }

    /// Has it found out whether a recipe fits.
    pub(super) fn ask(&self, path: PathBuf, wants: Wants) {
        let job = Job {
            path,
            texts: self.texts(),
            stopped: Arc::default(),
            wants,
        };
        let _ = self.jobs.send(job);
    }

    /// Takes what came of a plan, unless its text has changed.
    pub(super) fn planned(&mut self, done: Done) {
        let (path, shown, diags, sources, stopped) = match done {
            Done::Said(message) => {
                let kind = MessageType::Info;
                return self.tell("window/showMessage", ShowMessageParams { kind, message });
            }
            Done::Estimate {
                path,
                shown,
                diags,
                sources,
                stopped,
            } => (path, shown, diags, sources, stopped),
        };
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let Some(analysis) = self.analysis(&path) else {
            return;
        };
        let Some(doc) = self.docs.get_mut(&path) else {
            return;
        };
        // What names and values tell is found anew with each key.
        let known = |d: &Diag| {
            let same = |o: &Diag| o.code == d.code && o.span == d.span && o.message == d.message;
            analysis.diags.iter().any(same)
        };
        doc.found = diags.iter().filter(|d| !known(d)).cloned().collect();
        doc.shown = shown;
        let Some(doc) = self.docs.get(&path) else {
            return;
        };
        let all: Vec<&Diag> = diags.iter().collect();
        self.show(
            &doc.uri,
            Some(doc.version),
            self.listed(&all, &sources, &analysis),
        );
        for (wanted, what) in self.refreshes.into_iter().zip(["inlayHint", "codeLens"]) {
            if wanted {
                self.asked += 1;
                let id = RequestId::from(self.asked);
                let method = format!("workspace/{what}/refresh");
                self.send(Request::new(id, method, Json::Null));
            }
        }
    }
}

/// Gives up the plan that is made of a text.
fn stop(doc: &Doc) {
    if let Some(planning) = &doc.planning {
        planning.store(true, Ordering::Relaxed);
    }
}

/// The import in a recipe's own text that brings a source in.
fn import_of(analysis: &Analysis, sources: &Sources, source: SourceId) -> Option<Span> {
    let name = &sources.get(source)?.name;
    let imports = analysis.file()?.items.iter().filter_map(|item| match item {
        Item::Import(import) => Some(import),
        _ => None,
    });
    let mut imports = imports.peekable();
    // What an import imports stands at the first that there is.
    let first = imports.peek().map(|i| i.path.span);
    let base = analysis.path.parent()?;
    let own = imports.find(|i| base.join(&i.path.value) == Path::new(name));
    own.map(|i| i.path.span).or(first)
}

impl Doc {
    /// Puts a text in the place of another; what planning found moves with the text, and goes where it was changed.
    fn replace(&mut self, start: usize, end: usize, with: &str) {
        let mut text = String::with_capacity(self.text.len() + with.len());
        text.push_str(self.text.get(..start).unwrap_or_default());
        text.push_str(with);
        text.push_str(self.text.get(end..).unwrap_or_default());
        let moved = |span: &mut Span| {
            if span.source != SourceId(0) || (span.end as usize) < start {
                return true;
            }
            if (span.start as usize) <= end {
                return false;
            }
            let to = |at: u32| u32::try_from(at as usize - end + start + with.len());
            match (to(span.start), to(span.end)) {
                (Ok(start), Ok(end)) => {
                    (span.start, span.end) = (start, end);
                    true
                }
                _ => false,
            }
        };
        self.found.retain_mut(|diag| {
            diag.related.retain_mut(|(span, _)| moved(span));
            diag.span.as_mut().is_none_or(moved)
        });
        self.text = text.into();
        self.lines = Lines::of(&self.text);
    }
}
