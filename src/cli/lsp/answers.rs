//! The answers to what an editor asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsp_types::{
    CodeAction, CodeActionKind, CodeActionParams, CodeLens, CodeLensParams, Command,
    CompletionItem, CompletionItemKind, CompletionItemTextEdit, DocumentFormattingParams,
    DocumentSymbol, DocumentSymbolParams, ExecuteCommandParams, Hover, InlayHint, InlayHintKind,
    InlayHintParams, Location, MarkupContent, MarkupKind, Position, Range, ReferenceParams,
    RenameParams, SymbolKind, TextDocumentIdentifier, TextDocumentPositionParams, TextEdit, Uri,
    WorkspaceEdit,
};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::FITS;
use super::convert::{location, path_of, place, range, range_of};
use super::difference::difference;
use super::estimating::Wants;
use super::server::{Doc, Server, given};
use crate::base::world::World as _;
use crate::base::{Diag, Severity, SourceId, Span};
use crate::editor::{
    Analysis, Entry, ItemKind, complete, definition, fixes, hover, is_name, occurrences, outline,
};
use crate::program::device::Card;

/// An answer; `None` for what is not answered.
type Answer = Result<Option<Json>, String>;

/// Most files of the editor's folders in which a name is looked for.
const MOST_FILES: usize = 400;

/// What a recipe may have to fit, beside what the editor names: memory of a machine, and cards.
const BUDGETS: [u64; 3] = [8, 16, 32];
const CARDS: [&str; 4] = ["rtx3070-8gb", "rtx4090-24gb", "a100-40gb", "h100-80gb"];

fn json_of(value: impl Serialize) -> Answer {
    serde_json::to_value(value)
        .map(Some)
        .map_err(|e| e.to_string())
}

const fn markdown(value: String) -> MarkupContent {
    MarkupContent {
        kind: MarkupKind::Markdown,
        value,
    }
}

impl Server<'_> {
    /// The answer to a request.
    pub(super) fn answer(&mut self, method: &str, params: Json) -> Answer {
        match method {
            "textDocument/completion" => self.completion(given(params)?),
            "textDocument/hover" => self.hover(given(params)?),
            "textDocument/definition" => self.definition(given(params)?),
            "textDocument/references" => self.references(given(params)?),
            "textDocument/prepareRename" => self.prepare_rename(given(params)?),
            "textDocument/rename" => self.rename(given(params)?),
            "textDocument/documentSymbol" => self.symbols(given(params)?),
            "textDocument/formatting" => self.formatting(given(params)?),
            "textDocument/codeAction" => self.actions(&given(params)?),
            "textDocument/codeLens" => self.lenses(given(params)?),
            "textDocument/inlayHint" => self.hints(given(params)?),
            "workspace/executeCommand" => self.execute(given(params)?),
            _ => Ok(None),
        }
    }

    /// A text that is open, and what is known of it.
    fn known(&mut self, text: &TextDocumentIdentifier) -> Result<(PathBuf, Arc<Analysis>), String> {
        let path = path_of(&text.uri);
        let analysis = self.analysis(&path);
        let analysis = analysis.ok_or_else(|| format!("`{}` is not open", text.uri.0))?;
        Ok((path, analysis))
    }

    fn doc(&self, path: &Path) -> Result<&Doc, String> {
        let doc = self.docs.get(path);
        doc.ok_or_else(|| format!("`{}` is not open", path.display()))
    }

    /// The byte of a position in an open text.
    fn offset(&self, path: &Path, at: Position) -> Result<usize, String> {
        let doc = self.doc(path)?;
        Ok(doc.lines.offset(&doc.text, place(at)))
    }

    fn completion(&mut self, params: TextDocumentPositionParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let offset = self.offset(&path, params.position)?;
        let (overlay, doc) = (self.overlay(), self.doc(&path)?);
        let list = complete(&analysis, &doc.text, offset, &overlay);
        let items = list
            .into_iter()
            .enumerate()
            .map(|(i, item)| CompletionItem {
                kind: Some(match item.kind {
                    ItemKind::Keyword => CompletionItemKind::Keyword,
                    ItemKind::Key => CompletionItemKind::Property,
                    ItemKind::Entry => CompletionItemKind::Function,
                    ItemKind::Value => CompletionItemKind::Value,
                    ItemKind::Name => CompletionItemKind::Variable,
                    ItemKind::Column => CompletionItemKind::Field,
                    ItemKind::Role => CompletionItemKind::EnumMember,
                }),
                detail: Some(item.detail).filter(|d| !d.is_empty()),
                documentation: (!item.docs.is_empty()).then(|| markdown(item.docs).into()),
                // The order is that of their likelihood.
                sort_text: Some(format!("{i:04}")),
                filter_text: Some(item.label.clone()),
                text_edit: Some(CompletionItemTextEdit::from(TextEdit {
                    range: range(&doc.text, &doc.lines, item.replaces),
                    new_text: item.insert,
                })),
                label: item.label,
                ..CompletionItem::default()
            });
        json_of(items.collect::<Vec<_>>())
    }

    fn hover(&mut self, params: TextDocumentPositionParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let offset = self.offset(&path, params.position)?;
        let doc = self.doc(&path)?;
        let found = hover(&analysis, &doc.text, offset, doc.shown.as_ref());
        json_of(found.map(|(said, bytes)| Hover {
            contents: markdown(said).into(),
            range: Some(range(&doc.text, &doc.lines, bytes)),
        }))
    }

    fn location(&self, analysis: &Analysis, span: Span) -> Option<Location> {
        location(&analysis.sources, span, &|path| self.uri(path))
    }

    fn definition(&mut self, params: TextDocumentPositionParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let offset = self.offset(&path, params.position)?;
        let found = definition(&analysis, offset);
        json_of(found.and_then(|span| self.location(&analysis, span)))
    }

    /// All places of the name at a position, with the place that declares it first; over all recipes in the editor's
    /// folders.
    fn places(&mut self, path: &Path, at: Position) -> Result<Vec<Location>, String> {
        let analysis = self.analysis(path).ok_or("it is not open")?;
        let offset = self.offset(path, at)?;
        let Some(declared) = definition(&analysis, offset).filter(|s| !s.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(home) = self.location(&analysis, declared) else {
            return Ok(Vec::new());
        };
        let name = analysis.at(declared).to_owned();
        let mut found: Vec<Location> = vec![home.clone()];
        for root in self.roots() {
            let analysis = match self.docs.contains_key(&root) {
                true => self.analysis(&root),
                false => Some(Arc::new(Analysis::of(&root, &self.overlay()))),
            };
            let Some(analysis) = analysis else { continue };
            let all = occurrences(&analysis);
            let own: Vec<_> = all.iter().filter(|o| o.name == name).collect();
            let is_home = |o: &&&crate::editor::Occurrence| {
                o.declares && self.location(&analysis, o.span).as_ref() == Some(&home)
            };
            if own.iter().any(|o| is_home(&o)) {
                let places = own.iter().filter_map(|o| self.location(&analysis, o.span));
                found.extend(places);
            }
        }
        let mut seen = BTreeSet::new();
        found.retain(|l| {
            let start = l.range.start;
            seen.insert((l.uri.0.clone(), start.line, start.character))
        });
        Ok(found)
    }

    /// The recipes that are open, and those in the editor's folders.
    fn roots(&self) -> BTreeSet<PathBuf> {
        let mut roots: BTreeSet<PathBuf> = self.docs.keys().cloned().collect();
        let overlay = self.overlay();
        for folder in &self.folders {
            let found = overlay.matching(folder, "**/*.peft").unwrap_or_default();
            roots.extend(found.into_iter().take(MOST_FILES));
        }
        roots
    }

    fn references(&mut self, params: ReferenceParams) -> Answer {
        let at = params.text_document_position_params;
        let path = path_of(&at.text_document.uri);
        let mut places = self.places(&path, at.position)?;
        if !params.context.include_declaration && !places.is_empty() {
            places.remove(0);
        }
        json_of(places)
    }

    fn prepare_rename(&mut self, params: TextDocumentPositionParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let offset = self.offset(&path, params.position)?;
        let touches = |o: &crate::editor::Occurrence| {
            let bytes = o.span.start as usize..=o.span.end as usize;
            o.span.source == SourceId(0) && bytes.contains(&offset)
        };
        let all = occurrences(&analysis);
        let found = all.iter().find(|o| touches(o));
        json_of(found.map(|o| range_of(&analysis.sources, o.span)))
    }

    fn rename(&mut self, params: RenameParams) -> Answer {
        let at = params.text_document_position_params;
        let (path, analysis) = self.known(&at.text_document)?;
        let name = params.new_name;
        if !is_name(&name) {
            return Err(format!(
                "`{name}` is no name: a letter comes first, then letters, digits and underscores"
            ));
        }
        let places = self.places(&path, at.position)?;
        if places.is_empty() {
            return Err("no name of a declaration stands here".to_owned());
        }
        let taken = occurrences(&analysis)
            .into_iter()
            .any(|o| o.declares && o.name == name);
        if taken {
            return Err(format!("`{name}` is declared already"));
        }
        let mut changes: HashMap<Uri, Vec<TextEdit>> = HashMap::new();
        for place in places {
            changes.entry(place.uri).or_default().push(TextEdit {
                range: place.range,
                new_text: name.clone(),
            });
        }
        json_of(WorkspaceEdit {
            changes: Some(changes),
            ..WorkspaceEdit::default()
        })
    }

    fn symbols(&mut self, params: DocumentSymbolParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let doc = self.doc(&path)?;
        let list = outline(&analysis);
        json_of(list.iter().map(|e| symbol(doc, e)).collect::<Vec<_>>())
    }

    fn formatting(&mut self, params: DocumentFormattingParams) -> Answer {
        let path = path_of(&params.text_document.uri);
        let doc = self.doc(&path)?;
        // A text with mistakes in its syntax is left as it is; the mistakes are shown.
        let Ok(formatted) = crate::syntax::format(&doc.text, SourceId(0)) else {
            return json_of(Vec::<TextEdit>::new());
        };
        let (start, end, with) = difference(&doc.text, &formatted);
        let edits: Vec<TextEdit> = (start < end || !with.is_empty())
            .then(|| TextEdit {
                range: range(&doc.text, &doc.lines, start..end),
                new_text: with.to_owned(),
            })
            .into_iter()
            .collect();
        json_of(edits)
    }

    fn actions(&mut self, params: &CodeActionParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let doc = self.doc(&path)?;
        let from = doc.lines.offset(&doc.text, place(params.range.start));
        let (first, last) = (params.range.start.line, params.range.end.line);
        let overlay = self.overlay();
        let line = |byte: u32| doc.lines.place(&doc.text, byte as usize).line;
        // Anywhere on the lines of a mistake: who reads its message need not know where it begins.
        let here = |d: &&Diag| {
            d.span.is_some_and(|s| {
                s.source == SourceId(0) && line(s.start) <= last && first <= line(s.end)
            })
        };
        let mut list: Vec<CodeAction> = Vec::new();
        let own = analysis.diags.iter().filter(here).map(|d| (d, false));
        let found = doc.found.iter().filter(here).map(|d| (d, true));
        let mut near: Vec<(&Diag, bool)> = own.chain(found).collect();
        // What the cursor stands on comes first.
        let to = doc.lines.offset(&doc.text, place(params.range.end));
        near.sort_by_key(|(d, _)| {
            d.span
                .is_none_or(|s| s.start as usize > to || from > s.end as usize)
        });
        for (diag, planned) in near {
            let shown = self.listed(&[diag], &analysis.sources, &analysis);
            for (i, fix) in fixes(&analysis, diag, planned, &overlay)
                .into_iter()
                .enumerate()
            {
                let edit = TextEdit {
                    range: range_of(&analysis.sources, fix.edit.span),
                    new_text: fix.edit.text,
                };
                list.push(CodeAction {
                    title: fix.title,
                    kind: Some(CodeActionKind::QuickFix),
                    diagnostics: Some(shown.clone()),
                    is_preferred: Some(i == 0 && diag.severity == Severity::Error),
                    edit: Some(WorkspaceEdit {
                        changes: Some(HashMap::from([(doc.uri.clone(), vec![edit])])),
                        ..WorkspaceEdit::default()
                    }),
                    ..CodeAction::default()
                });
            }
        }
        let only = params.context.only.as_deref().unwrap_or_default();
        if only.is_empty() {
            list.extend(fits(&analysis, &doc.uri, from));
        }
        json_of(list)
    }

    fn lenses(&mut self, params: CodeLensParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let doc = self.doc(&path)?;
        let wrong = |d: &&Diag| d.severity == Severity::Error;
        let mistakes = analysis
            .diags
            .iter()
            .chain(&doc.found)
            .filter(wrong)
            .count();
        let title = match (&doc.shown, mistakes) {
            (Some(shown), 0) => shown.lens(),
            (_, 0) => "estimating …".to_owned(),
            (_, 1) => "no estimate: there is a mistake".to_owned(),
            (_, n) => format!("no estimate: there are {n} mistakes"),
        };
        json_of([CodeLens {
            range: Range::default(),
            command: Some(Command {
                title,
                ..Command::default()
            }),
            data: None,
        }])
    }

    fn hints(&mut self, params: InlayHintParams) -> Answer {
        let (path, analysis) = self.known(&params.text_document)?;
        let doc = self.doc(&path)?;
        let mut list: Vec<InlayHint> = Vec::new();
        let Some(shown) = &doc.shown else {
            return json_of(list);
        };
        for entry in outline(&analysis)
            .into_iter()
            .filter(|e| e.keyword == "stage")
        {
            let Some(hint) = shown.hint(&entry.name) else {
                continue;
            };
            let line = doc.lines.place(&doc.text, entry.named.end as usize).line;
            if line < params.range.start.line || line > params.range.end.line {
                continue;
            }
            let end = doc.lines.offset(
                &doc.text,
                crate::editor::Place {
                    line,
                    unit: u32::MAX,
                },
            );
            list.push(InlayHint {
                position: super::convert::position(doc.lines.place(&doc.text, end)),
                label: hint.into(),
                kind: Some(InlayHintKind::Type),
                text_edits: None,
                tooltip: shown.about(&entry.name).map(|about| markdown(about).into()),
                padding_left: Some(true),
                padding_right: None,
                data: None,
            });
        }
        json_of(list)
    }

    fn execute(&mut self, params: ExecuteCommandParams) -> Answer {
        if params.command != FITS {
            return Err(format!("there is no command `{}`", params.command));
        }
        let arguments = params.arguments.unwrap_or_default();
        let arguments = serde_json::to_value(arguments).map_err(|e| e.to_string())?;
        let (Some(uri), Some(what)) = (arguments[0].as_str(), arguments[1].as_str()) else {
            return Err("`peftc.fits` takes a recipe and a size or a card".to_owned());
        };
        let size = || {
            let at = what.find(|c: char| c.is_ascii_alphabetic())?;
            let (digits, unit) = what.split_at_checked(at)?;
            crate::resolve::parse_size(digits.trim(), unit)
        };
        let limit = match Card::named(what) {
            Some(card) => Err(card),
            None => Ok(size().ok_or_else(|| format!("`{what}` is neither a size nor a card"))?),
        };
        self.ask(path_of(&Uri(uri.to_owned())), Wants::Fits(limit));
        Ok(Some(Json::Null))
    }
}

/// The questions whether the recipe fits somewhere, at a stage.
fn fits(analysis: &Analysis, uri: &Uri, at: usize) -> Vec<CodeAction> {
    let within = |e: &Entry| e.span.start as usize <= at && at <= e.span.end as usize;
    let stage = outline(analysis)
        .into_iter()
        .any(|e| e.keyword == "stage" && within(&e));
    if !stage {
        return Vec::new();
    }
    let sizes = BUDGETS
        .iter()
        .map(|n| (format!("{n} GiB of memory"), format!("{n}GiB")));
    let cards = CARDS.iter().filter(|c| Card::named(c).is_some());
    let cards = cards.map(|c| (format!("an {c}"), (*c).to_owned()));
    let ask = |(what, argument): (String, String)| {
        let title = format!("Fits in {what}?");
        CodeAction {
            title: title.clone(),
            command: Some(Command {
                title,
                command: FITS.to_owned(),
                arguments: serde_json::from_value(json!([uri.0, argument])).ok(),
                ..Command::default()
            }),
            ..CodeAction::default()
        }
    };
    sizes.chain(cards).map(ask).collect()
}

#[expect(deprecated, reason = "the protocol's own old field has to be filled")]
fn symbol(doc: &Doc, entry: &Entry) -> DocumentSymbol {
    let kinds = BTreeMap::from([
        ("model", SymbolKind::Object),
        ("data", SymbolKind::Array),
        ("prompt", SymbolKind::String),
        ("stage", SymbolKind::Function),
        ("let", SymbolKind::Variable),
        ("sweep", SymbolKind::Enum),
    ]);
    let kind = kinds.get(entry.keyword.as_str()).copied();
    let within: Vec<_> = entry.within.iter().map(|e| symbol(doc, e)).collect();
    // The outline is that of the document's own text, whose lines are known.
    let place = |span: Span| {
        let bytes = span.start as usize..span.end as usize;
        range(&doc.text, &doc.lines, bytes)
    };
    DocumentSymbol {
        name: entry.name.clone(),
        detail: Some(
            [entry.keyword.as_str(), &entry.detail]
                .join(" ")
                .trim()
                .to_owned(),
        ),
        kind: kind.unwrap_or(SymbolKind::Property),
        tags: None,
        deprecated: None,
        range: place(entry.span),
        selection_range: place(entry.named),
        children: Some(within).filter(|w| !w.is_empty()),
    }
}
