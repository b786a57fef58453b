//! `serve` over a real socket: its answers are `predict`'s, whatever they are batched with, and it ends when asked to.

use std::path::Path;

use serde_json::{Value, json};

mod client;
mod vectors;

use self::client::{Running, serve};
use super::oracle::reference;
use super::support::{done, printed, program, stdout_of};
use crate::decoders::{traces, write_model};

const TEMPLATE: &str = "{% for m in messages %}w2 {{ m.content }} w3 {% endfor %}{% if add_generation_prompt %}w4 {% endif %}";

const TEXTS: [&str; 5] = [
    "a fine film",
    "dull",
    "what a mess",
    "the best of all",
    "never again",
];

const PROMPTS: [&str; 3] = ["w5 w6 w7", "w8", "w9 w10 w11 w12"];

/// Stages on one model, each with its method.
const STAGES: [(&str, &str); 8] = [
    ("lora", "adapter = lora { rank = 2 }, data = d.train"),
    ("ladder", "adapter = lst { r = 4 }, data = d.train"),
    ("wide", "adapter = k_lst { k = 3, r = 4 }, data = d.train"),
    (
        "tags",
        "adapter = lst { r = 2 }, data = t.train, objective = token_classify",
    ),
    ("head", "adapter = head_only, data = d.train"),
    ("scaled", "adapter = ia3, data = d.train"),
    (
        "prefix",
        "adapter = prefix_tuning { tokens = 3 }, data = d.train",
    ),
    ("layers", "adapter = houlsby { size = 4 }, data = d.train"),
];

/// What models share with others, in the order of the stages.
const SHARED: [&str; 8] = [
    "products", "prefix", "prefix", "prefix", "prefix", "products", "products", "products",
];

/// Where a stage's model is.
fn stage(name: &str) -> String {
    format!(".peftc/runs/r/{name}")
}

/// A folder with finished stages on one model, and a decoder.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path();
    let write = |folder: &str, file: &str, text: &str| {
        std::fs::create_dir_all(dir.join(folder)).expect("a folder");
        std::fs::write(dir.join(folder).join(file), text).expect("written");
    };
    let rows =
        "sentence\tlabel\na fine film\tgood\ndull\tbad\nwhat a mess\tbad\nthe best of all\tgood\n";
    write("data", "train.tsv", rows);
    let rows = "{\"tokens\": [\"a\", \"fine\", \"film\"], \"tags\": [\"O\", \"B-X\", \"B-Y\"]}\n\
                {\"tokens\": [\"dull\"], \"tags\": [\"B-X\"]}\n";
    write("words", "train.jsonl", rows);
    let mut case = traces()["cases"][0].clone();
    case["config"]["architectures"] = json!(["LlamaForCausalLM"]);
    write_model(&dir.join("lm"), &case);
    std::fs::write(dir.join("lm/chat_template.jinja"), TEMPLATE).expect("written");
    write(
        "plain",
        "train.jsonl",
        "{\"text\": \"w5 w6 w7 w8 w9\"}\n{\"text\": \"w8 w9 w10 w11\"}\n",
    );
    let stages = STAGES.map(|(name, how)| {
        format!("stage {name} = train {{ model = m, {how}, lr = 5e-2, steps = 4, batch = 2 }}\n")
    });
    let text = format!(
        "model m = local \"{}\"\ndata d = local \"data\" {{ text = sentence, label = label }}\n\
         data t = local \"words\" {{ tokens = tokens, label = tags }}\n{}\
         model l = local \"lm\"\ndata p = local \"plain\" {{ text = text }}\n\
         stage more = train {{ model = l, data = p.train, objective = causal_lm, adapter = lora {{ rank = 2 }}, lr = 5e-2, steps = 3 }}\n",
        reference("bert-tiny").display(),
        stages.concat(),
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
    done(
        program()
            .current_dir(dir)
            .args(["run", "--quiet", "r.peft"]),
    );
    place
}

/// The rows that `predict` gives.
fn predicted(dir: &Path, model: &str, rows: &[Value], more: &[&str]) -> Vec<Value> {
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.join("in.jsonl"), rows).expect("written");
    let output = done(
        program()
            .current_dir(dir)
            .args(["predict", model, "--quiet", "--input", "in.jsonl"])
            .args(more),
    );
    stdout_of(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Requests for a model: its rows, and those that `predict` makes of them.
struct Labelled {
    name: &'static str,
    rows: Vec<Value>,
    made: Vec<Value>,
}

fn labelled(dir: &Path) -> Vec<Labelled> {
    let of = |name: &'static str| {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let row = |text: &&str| match name {
            "tags" => json!({ "tokens": words(text) }),
            _ => json!({ "sentence": text }),
        };
        let rows: Vec<Value> = TEXTS.iter().map(row).collect();
        let more: &[&str] = if name == "tags" { &[] } else { &["--all"] };
        let made = predicted(dir, &stage(name), &rows, more);
        Labelled { name, rows, made }
    };
    STAGES.map(|(name, _)| of(name)).into()
}

/// Asks for some rows of a model, which are to be labelled as `predict` labels them.
fn ask_rows(server: &Running, of: &Labelled, from: usize, to: usize) {
    let body = json!({ "model": of.name, "rows": &of.rows[from..to], "all": of.name != "tags" });
    let (status, answer) = server.post("/v1/predict", &body);
    let wanted = json!(of.made[from..to]);
    assert_eq!((status, &answer["rows"]), (200, &wanted), "{}", of.name);
}

#[test]
fn answers_are_those_of_predict() {
    let place = place();
    let dir = place.path();
    let paths = STAGES.map(|(name, _)| stage(name));
    let mut args: Vec<&str> = paths.iter().map(String::as_str).collect();
    let more = stage("more");
    args.extend(["lm", &more, "--batch", "8", "--context", "64"]);
    let told = printed(&done(
        program()
            .current_dir(dir)
            .args(["serve", "--check", "--json"])
            .args(&args),
    ));
    let models = told["models"].as_array().expect("models");
    let backbones: Vec<&Value> = models.iter().map(|m| &m["backbone"]).collect();
    assert_eq!(backbones, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    let shared: Vec<&Value> = models.iter().map(|m| &m["shared"]).collect();
    assert_eq!(shared[..8], SHARED);
    assert_eq!(shared[8..], ["nothing"; 2]);
    let shares = models.iter().map(|m| m["shares_passes"] == true);
    assert!(shares.eq((0..10).map(|i| i < 8)));

    let more = ["--max-body", "4096", "--linger", "400"];
    let server = serve(dir, &[&args[..], &more].concat(), None);
    let all = labelled(dir);
    // Labels differ between the models, or the test would show nothing.
    assert!(all.windows(2).all(|pair| pair[0].made != pair[1].made));
    together(&server, &all);
    std::thread::scope(|scope| {
        for turn in 0..15 {
            let (server, own) = (&server, &all[turn % all.len()]);
            scope.spawn(move || ask_rows(server, own, turn % TEXTS.len(), TEXTS.len()));
        }
    });
    generation(dir, &server);
    refusals(&server);
    let requests = "peftc_request_seconds_count{model=\"lora\"}";
    assert_eq!(server.number(requests), 4);
    let peak = server.number("peftc_tensor_peak_bytes");
    assert!(Some(peak) <= told["total_bytes"].as_u64(), "{peak} {told}");
    let (status, page) = server.ask("GET", "/", "text/plain", "");
    assert!(status == 200 && page.contains("<title>peftc</title>"));
    ends(server, &all[1]);
    comes_and_goes(dir, &all);
    limits(dir, &all[0]);
}

/// Rows of side networks, a head and adapters, of two tasks, go through the frozen model once.
fn together(server: &Running, all: &[Labelled]) {
    let names = [
        "peftc_passes_total",
        "peftc_pass_models_total",
        "peftc_pass_rows_total",
    ];
    let counts = || names.map(|name| server.number(name));
    // As many rows as a batch holds: nobody waits for more.
    for (own, each) in [(&all[1..5], 2), (all, 1), (&all[4..], 2)] {
        let before = counts();
        std::thread::scope(|scope| {
            for own in own {
                scope.spawn(move || ask_rows(server, own, 0, each));
            }
        });
        let made: Vec<u64> = counts()
            .iter()
            .zip(before)
            .map(|(n, was)| n - was)
            .collect();
        assert_eq!(made, [1, own.len() as u64, 8]);
    }
}

fn generation(dir: &Path, server: &Running) {
    let rows = PROMPTS.map(|text| json!({ "prompt": text }));
    let made = [("lm", "lm".to_owned()), ("more", stage("more"))].map(|(name, path)| {
        let own = predicted(dir, &path, &rows, &["--max-new-tokens", "8"]);
        let texts: Vec<Value> = own.iter().map(|row| row["generated"].clone()).collect();
        let body = json!({ "model": name, "prompt": PROMPTS, "max_tokens": 8 });
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().expect("choices").iter();
        let made: Vec<Value> = choices.map(|c| c["text"].clone()).collect();
        assert_eq!(made, texts);
        assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(0));
        made
    });
    assert_ne!(made[0], made[1]);

    let said = json!([{ "role": "user", "content": "w5 w6" }]);
    let draws = [
        "--temperature",
        "0.9",
        "--seed",
        "7",
        "--max-new-tokens",
        "9",
    ];
    let own = predicted(dir, "lm", &[json!({ "messages": said })], &draws);
    let own = own[0]["generated"].clone();
    let mut body =
        json!({ "model": "lm", "messages": said, "temperature": 0.9, "seed": 7, "max_tokens": 9 });
    let (_, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(answer["choices"][0]["message"]["content"], own, "{answer}");
    body["stream"] = json!(true);
    let (status, events) = server.ask(
        "POST",
        "/v1/chat/completions",
        "application/json",
        &body.to_string(),
    );
    let mut data: Vec<&str> = events
        .split_terminator("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!((status, data.pop()), (200, Some("[DONE]")));
    let chunks: Vec<Value> = data
        .iter()
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(json!(text), own);
    assert_eq!(
        chunks.last().map(|c| &c["choices"][0]["finish_reason"]),
        Some(&answer["choices"][0]["finish_reason"])
    );
}

fn refusals(server: &Running) {
    for (path, body, status, why) in [
        (
            "/v1/predict",
            json!({ "model": "x", "texts": ["a"] }),
            404,
            "no model `x`",
        ),
        (
            "/v1/predict",
            json!({ "texts": ["a"] }),
            400,
            "`model` is wanted",
        ),
        (
            "/v1/predict",
            json!({ "model": "lora", "rows": [{ "other": "a" }] }),
            400,
            "sentence",
        ),
        (
            "/v1/predict",
            json!({ "model": "lora", "texts": ["a"], "draws": 2 }),
            400,
            "draws",
        ),
        (
            "/v1/predict",
            json!({ "model": "lora", "texts": ["a".repeat(5000)] }),
            413,
            "--max-body",
        ),
        (
            "/v1/predict",
            json!({ "model": "lm", "texts": ["a"] }),
            400,
            "goes on with texts",
        ),
        (
            "/v1/completions",
            json!({ "model": "lora", "prompt": "a" }),
            400,
            "labels texts",
        ),
        (
            "/v1/completions",
            json!({ "model": "lm", "prompt": "w5 ".repeat(70) }),
            400,
            "64",
        ),
        (
            "/v1/chat/completions",
            json!({ "model": "lm", "messages": [], "tools": [] }),
            400,
            "messages",
        ),
        (
            "/v1/embeddings",
            json!({ "model": "lm" }),
            400,
            "goes on with texts",
        ),
        ("/v1/images", json!({}), 404, "no such endpoint"),
        (
            "/v1/predict",
            json!({ "model": "lora", "texts": vec!["a"; 300] }),
            400,
            "--max-rows",
        ),
        ("/v1/models", json!({ "path": "lm" }), 403, "--changes"),
    ] {
        let (found, answer) = server.post(path, &body);
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            found == status && said.contains(why),
            "{path} {body}: {found} {said}"
        );
    }
    assert_eq!(server.ask("POST", "/v1/predict", "text/plain", "{}").0, 415);
    assert_eq!(server.ask("GET", "/readyz", "text/plain", "").0, 200);
}

/// It ends by a signal, with all that was asked for answered.
fn ends(mut server: Running, of: &Labelled) {
    let id = server.child.id().to_string();
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || ask_rows(server, of, 0, 1));
        server.until_waiting(1);
        done(std::process::Command::new("kill").args(["-TERM", &id]));
    });
    let status = server.child.wait().expect("an end");
    assert_eq!(status.code(), Some(0));
}

/// Models are added and removed while it runs.
fn comes_and_goes(dir: &Path, all: &[Labelled]) {
    let server = serve(dir, &[&stage("ladder"), "--changes"], None);
    let names = || {
        let (_, text) = server.ask("GET", "/v1/models", "text/plain", "");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let data = json["data"].as_array().expect("models").clone();
        data.into_iter()
            .map(|m| m["id"].clone())
            .collect::<Vec<_>>()
    };
    for name in ["wide", "lora"] {
        let (status, made) = server.post("/v1/models", &json!({ "path": stage(name) }));
        assert_eq!(
            (status, &made["peftc"]["backbone"]),
            (201, &json!(0)),
            "{made}"
        );
    }
    let (status, made) = server.post("/v1/models", &json!({ "path": stage("lora") }));
    assert_eq!(status, 400, "{made}");
    let (status, made) = server.post("/v1/models", &json!({ "path": "nowhere" }));
    assert_eq!(status, 400, "{made}");
    assert_eq!(names(), ["ladder", "wide", "lora"]);
    let ask = || all[..3].iter().for_each(|own| ask_rows(&server, own, 0, 2));
    ask();
    let removed = |name: &str| {
        server
            .ask("DELETE", &format!("/v1/models/{name}"), "", "")
            .0
    };
    assert_eq!([removed("ladder"), removed("ladder")], [200, 404]);
    assert_eq!(names(), ["wide", "lora"]);
    let body = json!({ "model": "ladder", "rows": all[1].rows });
    assert_eq!(server.post("/v1/predict", &body).0, 404);
    all[2..3]
        .iter()
        .for_each(|own| ask_rows(&server, own, 0, 2));
    // It comes again, and the others have lost nothing.
    let body = json!({ "path": stage("ladder"), "name": "ladder" });
    assert_eq!(server.post("/v1/models", &body).0, 201);
    ask();
    assert_eq!(["ladder", "wide", "lora"].map(removed), [200; 3]);
    assert!(names().is_empty());
    assert_eq!(
        server
            .post("/v1/models", &json!({ "path": stage("wide") }))
            .0,
        201
    );
    ask_rows(&server, &all[2], 0, 2);
}

/// What waits too long or too many is refused, and who has no key.
fn limits(dir: &Path, of: &Labelled) {
    let args = ["--queue", "1", "--timeout", "1", "--linger", "1500"];
    let server = serve(
        dir,
        &[&[stage("lora").as_str()][..], &args].concat(),
        Some("k"),
    );
    let body = json!({ "rows": of.rows[..1] });
    assert_eq!(server.post("/v1/predict", &body).0, 401);
    assert_eq!(server.ask("GET", "/healthz", "", "").0, 200);
    drop(server);
    let server = serve(dir, &[&[stage("lora").as_str()][..], &args].concat(), None);
    std::thread::scope(|scope| {
        let server = &server;
        let first = scope.spawn(|| server.post("/v1/predict", &body));
        server.until_waiting(1);
        let (status, why) = server.post("/v1/predict", &body);
        assert!(
            status == 503 && why.to_string().contains("--queue"),
            "{why}"
        );
        let (status, why) = first.join().expect("an answer");
        assert!(
            status == 504 && why.to_string().contains("--timeout"),
            "{why}"
        );
    });
    assert_eq!(server.number("peftc_refused_requests_total"), 1);
}
