//! The language server as an editor meets it: messages over pipes, to the process itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{here, program};

/// How long an answer is waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// An editor that is connected to a server.
struct Editor {
    server: Child,
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    asked: i64,
    /// What the server told while an answer was waited for.
    told: Vec<Value>,
}

impl Editor {
    fn new(root: &Path) -> Self {
        let mut server = program()
            .args(["lsp", "--stdio", "--offline", "--threads", "1"])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = server.stdout.take().expect("its output");
        let (send, from) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            loop {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if out.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    match line.trim_end().strip_prefix("Content-Length: ") {
                        Some(n) => length = n.parse().expect("a length"),
                        None if line.trim_end().is_empty() => break,
                        None => {}
                    }
                }
                let mut body = vec![0; length];
                out.read_exact(&mut body).expect("a whole message");
                if send
                    .send(serde_json::from_slice(&body).expect("JSON"))
                    .is_err()
                {
                    return;
                }
            }
        });
        let to = server.stdin.take();
        let mut editor = Self {
            server,
            to,
            from,
            asked: 0,
            told: Vec::new(),
        };
        let params = json!({
            "processId": null, "rootUri": uri(root),
            "capabilities": { "workspace": { "inlayHint": { "refreshSupport": true } } },
        });
        let offered = editor.ask("initialize", params);
        assert_eq!(offered["capabilities"]["positionEncoding"], "utf-16");
        editor.tell("initialized", json!({}));
        editor
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        let to = self.to.as_mut().expect("open");
        write!(to, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        to.flush().expect("sent");
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn next(&self) -> Value {
        self.from
            .recv_timeout(LONGEST)
            .expect("the server says something")
    }

    /// The result of a request, or its error.
    fn answer(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.asked += 1;
        let id = self.asked;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let mut message = self.next();
            if message.get("method").is_some() {
                self.told.push(message);
            } else if message["id"] == id {
                return match message.get_mut("error") {
                    Some(error) => Err(error.take()),
                    None => Ok(message["result"].take()),
                };
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.answer(method, params)
            .unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// The next thing of that kind that the server tells, and that `right` takes.
    fn told(&mut self, method: &str, right: impl Fn(&Value) -> bool) -> Value {
        let is = |m: &Value| m["method"] == method && right(&m["params"]);
        if let Some(at) = self.told.iter().position(is) {
            return self.told.remove(at)["params"].take();
        }
        let end = Instant::now() + LONGEST;
        while Instant::now() < end {
            let mut message = self.next();
            if is(&message) {
                return message["params"].take();
            }
            self.told.push(message);
        }
        panic!("nothing right of {method}: {:?}", self.told);
    }

    fn open(&mut self, path: &Path, text: &str) {
        let document =
            json!({ "uri": uri(path), "languageId": "peft", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Writes a text in the place of another, as typing does.
    fn change(&mut self, path: &Path, version: i32, (from, to): ([u32; 2], [u32; 2]), text: &str) {
        let change = json!({ "range": { "start": at(from), "end": at(to) }, "text": text });
        let document = json!({ "uri": uri(path), "version": version });
        let params = json!({ "textDocument": document, "contentChanges": [change] });
        self.tell("textDocument/didChange", params);
    }

    fn at(&mut self, method: &str, path: &Path, place: [u32; 2]) -> Value {
        let params = json!({ "textDocument": { "uri": uri(path) }, "position": at(place) });
        self.ask(method, params)
    }

    fn of(&mut self, method: &str, path: &Path) -> Value {
        let range = json!({ "start": at([0, 0]), "end": at([999, 0]) });
        let options = json!({ "tabSize": 2, "insertSpaces": true });
        let document = json!({ "uri": uri(path) });
        let params = json!({
            "textDocument": document, "range": range, "options": options, "context": { "diagnostics": [] },
        });
        self.ask(method, params)
    }

    fn end(mut self) {
        self.ask("shutdown", Value::Null);
        self.tell("exit", Value::Null);
        drop(self.to.take());
        assert!(self.server.wait().expect("ends").success());
    }
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn at([line, character]: [u32; 2]) -> Value {
    json!({ "line": line, "character": character })
}

fn labels(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items.filter_map(|i| i["label"].as_str()).collect()
}

/// A recipe, and the one that it imports.
fn recipes() -> (String, String) {
    let at = here();
    let base = format!(
        "model m = local \"{0}/tests/reference/bert-tiny\"\n\
         data d = local \"{0}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n",
        at.display()
    );
    let own = "import \"base.peft\"\n\
               # 😀 é\n\
               stage learn = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, steps = 2, batch = 4 }\n\
               stage score = eval { from = learn, data = d.dev }\n";
    (base, own.to_owned())
}

#[test]
fn an_editor_is_answered() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let root = dir.path().canonicalize().expect("a directory");
    let (base, own) = recipes();
    let (path, imported) = (root.join("r.peft"), root.join("base.peft"));
    std::fs::write(&imported, base).expect("written");
    // What is not saved counts: on the disk there is nothing yet.
    let mut editor = Editor::new(&root);
    editor.open(&path, &own);
    let none = |p: &Value| p["diagnostics"].as_array().is_some_and(Vec::is_empty);
    editor.told("textDocument/publishDiagnostics", none);
    editor.told("workspace/inlayHint/refresh", |_| true);

    let hints = editor.of("textDocument/inlayHint", &path);
    let hint = labels(&hints);
    assert!(hint[0].contains("MiB · 2 steps"), "{hint:?}");
    assert_eq!(hints[0]["position"]["line"], 2);
    let lens = editor.of("textDocument/codeLens", &path);
    let title = lens[0]["command"]["title"].as_str().expect("a title");
    assert!(
        title.starts_with("peak ") && title.contains("2 stages"),
        "{title}"
    );

    let said = editor.at("textDocument/hover", &path, [2, 7]);
    let said = said["contents"]["value"].as_str().expect("a text");
    assert!(
        said.contains("Memory: **") && said.contains("rank = 2"),
        "{said}"
    );
    let there = editor.at("textDocument/definition", &path, [3, 28]);
    assert_eq!(
        (
            &there["range"]["start"]["line"],
            &there["range"]["end"]["character"]
        ),
        (&json!(2), &json!(11))
    );
    let there = editor.at("textDocument/definition", &path, [2, 30]);
    assert_eq!(there["uri"], uri(&imported));

    let symbols = editor.of("textDocument/documentSymbol", &path);
    let names: Vec<_> = symbols
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["learn", "score"]);
    assert_eq!(symbols[0]["children"][2]["name"], "adapter");

    // A name that the import declares is renamed in both files.
    let params = json!({ "textDocument": { "uri": uri(&path) }, "position": at([2, 30]), "newName": "tiny" });
    let changes = editor.ask("textDocument/rename", params)["changes"].take();
    assert_eq!(changes[uri(&imported)].as_array().map(Vec::len), Some(1));
    assert_eq!(changes[uri(&path)].as_array().map(Vec::len), Some(1));
    let params =
        json!({ "textDocument": { "uri": uri(&path) }, "position": at([2, 30]), "newName": "d" });
    assert!(editor.answer("textDocument/rename", params).is_err());

    let actions = editor.of("textDocument/codeAction", &path);
    let fits = actions
        .as_array()
        .expect("a list")
        .iter()
        .find(|a| a["title"] == "Fits in 8 GiB of memory?");
    assert!(fits.is_none(), "the first line is in no stage");
    let ask = json!({ "command": "peftc.fits", "arguments": [uri(&path), "1MiB"] });
    editor.ask("workspace/executeCommand", ask);
    let said = editor.told("window/showMessage", |_| true);
    assert!(
        said["message"]
            .as_str()
            .expect("a text")
            .starts_with("It does not fit 1.00 MiB"),
        "{said}"
    );
    editor.end();
}

#[test]
fn what_is_typed_is_looked_at_with_each_key() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let root = dir.path().canonicalize().expect("a directory");
    let (base, own) = recipes();
    let path = root.join("r.peft");
    // A character of two units stands before what is typed.
    let text = format!(
        "{base}{}",
        own.replace("import \"base.peft\"\n", "let a = \"😀é\" # \n")
    );
    let mut editor = Editor::new(&root);
    editor.open(&path, &text);
    editor.change(&path, 2, ([4, 49], [4, 56]), "adaptr");
    let wrong = editor.told("textDocument/publishDiagnostics", |p| {
        p["version"] == 2 && !p["diagnostics"].as_array().is_some_and(Vec::is_empty)
    });
    let diag = &wrong["diagnostics"][0];
    assert_eq!(diag["code"], "peftc::resolve::unknown_key", "{wrong}");
    assert_eq!(
        (&diag["range"]["start"], &diag["range"]["end"]),
        (&at([4, 49]), &at([4, 55]))
    );
    let range = json!({ "start": at([4, 50]), "end": at([4, 50]) });
    let params = json!({ "textDocument": { "uri": uri(&path) }, "range": range, "context": { "diagnostics": [diag] } });
    let actions = editor.ask("textDocument/codeAction", params);
    let fix = &actions[0];
    assert_eq!(fix["title"], "write `adapter`", "{actions}");
    let edit = &fix["edit"]["changes"][uri(&path)][0];
    assert_eq!(
        (&edit["newText"], &edit["range"]),
        (&json!("adapter"), &diag["range"])
    );
    assert!(
        actions
            .as_array()
            .expect("a list")
            .iter()
            .any(|a| a["title"] == "Fits in 8 GiB of memory?")
    );

    // Half a line: the rest of the file is still there.
    editor.change(&path, 3, ([4, 49], [4, 999]), "adapter = lora { ra");
    let found = editor.at("textDocument/completion", &path, [4, 68]);
    assert!(labels(&found).contains(&"rank"), "{found}");
    editor.change(&path, 4, ([2, 8], [2, 13]), "\"😀😀\"");
    let found = editor.at("textDocument/hover", &path, [1, 1]);
    assert!(
        found["contents"]["value"]
            .as_str()
            .expect("a text")
            .contains("declares"),
        "{found}"
    );
    // Nonsense is answered with an error, and the server goes on.
    assert!(
        editor
            .answer("textDocument/hover", json!({ "position": 1 }))
            .is_err()
    );
    assert!(
        editor
            .answer("textDocument/foldingRange", json!({}))
            .is_err()
    );
    let messy = "stage a = train {\n\n\n  adapter =   lora{rank=2}  \n}\n";
    editor.open(&path, messy);
    let edits = editor.of("textDocument/formatting", &path);
    assert!(
        edits[0]["newText"]
            .as_str()
            .expect("a text")
            .contains("adapter = lora { rank = 2 }"),
        "{edits}"
    );
    editor.end();
}

/// What is offered from a place to another.
fn offered(editor: &mut Editor, path: &Path, (from, to): ([u32; 2], [u32; 2])) -> Vec<String> {
    let params = json!({
        "textDocument": { "uri": uri(path) }, "range": { "start": at(from), "end": at(to) },
        "context": { "diagnostics": [], "only": ["quickfix"] },
    });
    let actions = editor.ask("textDocument/codeAction", params);
    let titles = actions.as_array().expect("a list").iter();
    titles
        .map(|a| a["title"].as_str().expect("a title").to_owned())
        .collect()
}

#[test]
fn ways_out_are_offered_on_the_whole_line() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let root = dir.path().canonicalize().expect("a directory");
    let (base, own) = recipes();
    let path = root.join("r.peft");
    std::fs::write(root.join("base.peft"), base).expect("written");
    let mut editor = Editor::new(&root);
    editor.open(
        &path,
        &own.replace("model = m", "modle = m")
            .replace("adapter", "adaptr"),
    );
    let on = |editor: &mut Editor, at: u32| offered(editor, &path, ([2, at], [2, at]));
    let (model, adapter) = ("write `model`".to_owned(), "write `adapter`".to_owned());
    // What the cursor stands on comes first.
    assert_eq!(on(&mut editor, 22)[0], model);
    assert_eq!(on(&mut editor, 52)[0], adapter);
    let both = on(&mut editor, 0);
    assert!(both.contains(&model) && both.contains(&adapter), "{both:?}");
    let none: [String; 0] = [];
    assert_eq!(offered(&mut editor, &path, ([0, 0], [1, 3])), none);
    assert_eq!(offered(&mut editor, &path, ([3, 0], [3, 9])), none);
    editor.end();
}

/// A recipe of about 500 lines.
fn long() -> String {
    let mut text = recipes().0;
    for i in 0..48 {
        text.push_str(&format!(
            "stage learn{i} = train {{\n  model = m\n  data = d.train\n  adapter = lora {{ rank = 2 }}\n  lr = 1e-3\n  steps = 2\n  \
             batch = 4\n  seed = {i}\n}}\n\n"
        ));
    }
    text
}

/// Prints how long answers take; `cargo test --release --test suite lsp -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_answers_take() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let root = dir.path().canonicalize().expect("a directory");
    let path = root.join("r.peft");
    let text = long();
    let lines = text.lines().count();
    let mut editor = Editor::new(&root);
    editor.open(&path, &text);
    let mut version = 1;
    let methods = [
        "textDocument/completion",
        "textDocument/hover",
        "textDocument/definition",
        "textDocument/references",
        "textDocument/documentSymbol",
        "textDocument/formatting",
        "textDocument/codeAction",
        "textDocument/codeLens",
        "textDocument/inlayHint",
    ];
    for method in methods {
        let mut took: Vec<f64> = Vec::new();
        for i in 0..60 {
            // After a keystroke, so that nothing is known yet.
            version += 1;
            editor.change(
                &path,
                version,
                ([10, 0], [10, i % 2]),
                if i % 2 == 0 { " " } else { "" },
            );
            let place = [250, 9];
            let range = json!({ "start": at(place), "end": at(place) });
            let params = json!({
                "textDocument": { "uri": uri(&path) }, "position": at(place), "range": range,
                "options": { "tabSize": 2, "insertSpaces": true },
                "context": { "diagnostics": [], "includeDeclaration": true },
            });
            let begun = Instant::now();
            editor.ask(method, params);
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let part = |p: f64| took[((took.len() - 1) as f64 * p) as usize];
        println!(
            "{lines} lines, {method}: p50 {:.1} ms, p99 {:.1} ms",
            part(0.5),
            part(0.99)
        );
    }
    editor.end();
}
