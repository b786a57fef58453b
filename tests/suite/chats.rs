//! Prompts with completions and conversations: their tokens, what is learned of them, and the proof of it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::decoders::{losses, run, traces, write_model};

use super::support::{printed, program, stderr_of, stdout_of};

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'user' %}w2 {{ m.content }} w3 {% elif m.role == 'tool' %}\
    {{ raise_exception('no tools') }}{% else %}w4 {{ m.content }} <end> {% endif %}{% endfor %}\
    {% if add_generation_prompt %}w4 {% endif %}";

/// A folder with a tiny model `m` and a split `train` of these rows.
fn folder(rows: &[Value]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_model(&dir.path().join("m"), &traces["cases"][0]);
    std::fs::write(dir.path().join("m/chat_template.jinja"), TEMPLATE).expect("written");
    write_rows(dir.path(), rows);
    dir
}

fn write_rows(dir: &Path, rows: &[Value]) {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.join("train.jsonl"), text).expect("written");
}

/// Writes a recipe with these columns, objective and keys of the stage.
fn recipe(dir: &Path, data: &str, objective: &str, more: &str) {
    let text = format!(
        "peftc 1\nmodel m = local \"m\"\ndata d = local \".\" {{ {data} }}\n\
         stage t = train {{ model = m, data = d.train, objective = {objective}, adapter = full, optimizer = sgd, lr = 0.1, \
         epochs = 2, shuffle = false, clip = 0{more} }}\n"
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
}

fn peftc(dir: &Path, args: &[&str]) -> Output {
    let mut command = program();
    command
        .current_dir(dir)
        .args(args)
        .output()
        .expect("starts")
}

/// The tokens of a row, those that are learned with a star.
fn marked(dir: &Path, row: usize) -> String {
    let output = peftc(
        dir,
        &["show", "r.peft", "t", "--json", "--row", &row.to_string()],
    );
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{stderr}");
    let json: Value = printed(&output);
    let token = |t: &Value| {
        let star = if t["learned"] == true { "*" } else { "" };
        format!("{}{star}", t["token"].as_str().expect("a token"))
    };
    let tokens = json["tokens"].as_array().expect("tokens").iter();
    tokens.map(token).collect::<Vec<_>>().join(" ")
}

/// What `check` says of a recipe that it rejects.
fn refused(dir: &Path) -> String {
    let output = peftc(dir, &["check", "r.peft", "--color", "never"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr_of(&output);
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" │ ", " ")
}

fn say(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

#[test]
fn a_completion_is_learned_with_what_ends_it() {
    let rows = [
        json!({ "q": "w5 w6", "a": " w7 w8", "text": "w9 w10" }),
        json!({ "q": "w5 w", "a": "7 w8 <end>", "text": "w9 <end>" }),
        json!({ "q": "", "a": "w7", "text": "w9" }),
    ];
    let dir = folder(&rows);
    let show = |row| marked(dir.path(), row);
    recipe(dir.path(), "prompt = q, completion = a", "causal_lm", "");
    assert_eq!(show(0), "w5 w6 w7* w8* <end>*");
    // A token across the border belongs to the completion, and what ends it is there once.
    assert_eq!(show(1), "w5 w7* w8* <end>*");
    // Nothing stands before the first token.
    assert_eq!(show(2), "w7 <end>*");
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm { learn = all }",
        "",
    );
    assert_eq!(show(0), "w5 w6* w7* w8* <end>*");
    recipe(dir.path(), "text = text", "causal_lm", "");
    assert_eq!(show(0), "w9 w10* <end>*");
    assert_eq!(show(1), "w9 <end>*");
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm",
        ", max_length = 4",
    );
    assert_eq!(show(0), "w5 w6 w7* w8*");
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm",
        ", max_length = 2",
    );
    let why = refused(dir.path());
    assert!(
        why.contains("nothing_learned")
            && why.contains("row 0 (counted from 0) has no token to learn: its prompt fills the 2"),
        "{why}"
    );
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm { skip_empty = true }",
        ", max_length = 2",
    );
    assert_eq!(show(1), "w5 w7*");
    let output = peftc(dir.path(), &["show", "r.peft", "t", "--row", "0"]);
    assert!(stderr_of(&output).contains("row 0 is not among the 2 rows"));
}

#[test]
fn of_a_conversation_assistants_are_learned() {
    let chat = json!([
        say("user", "w5"),
        say("assistant", "w6 w7"),
        say("user", "w8"),
        say("assistant", "w9")
    ]);
    let shared = json!([{ "from": "human", "value": "w5" }, { "from": "gpt", "value": "w6 w7" }]);
    let rows = [
        json!({ "chat": chat, "id": 1 }),
        json!({ "chat": shared }),
        json!({ "chat": shared.to_string() }),
    ];
    let dir = folder(&rows);
    let show = |row| marked(dir.path(), row);
    recipe(dir.path(), "messages = chat", "causal_lm", "");
    assert_eq!(show(0), "w2 w5 w3 w4 w6* w7* <end>* w2 w8 w3 w4 w9* <end>*");
    assert_eq!(show(1), "w2 w5 w3 w4 w6* w7* <end>*");
    assert_eq!(show(2), show(1));
    recipe(
        dir.path(),
        "messages = chat",
        "causal_lm { learn = last }",
        "",
    );
    assert_eq!(show(0), "w2 w5 w3 w4 w6 w7 <end> w2 w8 w3 w4 w9* <end>*");
    recipe(
        dir.path(),
        "messages = chat",
        "causal_lm { learn = all }",
        ", max_length = 5",
    );
    assert_eq!(show(0), "w2 w5* w3* w4* w6*");
    // A template that says itself what is learned is believed.
    let own = "{% for m in messages %}{% if m.role == 'assistant' %}w4{% generation %} {{ m.content }}{% endgeneration %} <end> \
               {% else %}{{ m.content }} {% endif %}{% endfor %}";
    std::fs::write(dir.path().join("own.jinja"), own).expect("written");
    recipe(dir.path(), "messages = chat", "causal_lm", "");
    let text = std::fs::read_to_string(dir.path().join("r.peft")).expect("text");
    let text = text.replace(
        "local \"m\"",
        "local \"m\" { chat_template = \"own.jinja\" }",
    );
    std::fs::write(dir.path().join("r.peft"), text).expect("written");
    assert_eq!(show(0), "w5 w4 w6* w7* <end> w8 w4 w9* <end>");
}

#[test]
fn what_is_learned_is_proved_before_anything_runs() {
    let rows = [
        json!({ "q": "w5 w6", "a": " w7" }),
        json!({ "q": "w5 w6 w7", "a": " w8 w9 w10 w11" }),
        json!({ "q": "w5 w6 w7 w8 w9", "a": " w8" }),
    ];
    let dir = folder(&rows);
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm { skip_empty = true }",
        ", max_length = 5",
    );
    let output = peftc(dir.path(), &["check", "r.peft", "--json"]);
    let json: Value = printed(&output);
    let wanted = json!({
        "rows": 2, "tokens": 9, "learned_tokens": 4, "learned_share": 4.0 / 9.0, "cut_rows": 1, "lost_tokens": 3,
        "ended_rows": 1, "skipped_rows": 1,
    });
    assert_eq!(json["recipes"][0]["data"][0]["supervision"], wanted);
    assert_eq!(
        json["recipes"][0]["stages"][0]["supervision"]["data"],
        wanted
    );
    let plan = peftc(dir.path(), &["plan", "r.peft"]);
    let plan = stdout_of(&plan)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(plan.contains("learned: 4 of 9 tokens (44.4 %)"), "{plan}");
    let text = peftc(dir.path(), &["show", "r.peft", "t", "--color", "never"]);
    let text = stdout_of(&text);
    assert!(text.ends_with("\nw5│w6⟦w7│<end>⟧\n"), "{text}");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn bad_rows_and_templates_are_refused_by_their_places() {
    let good = json!([say("user", "w5"), say("assistant", "w6")]);
    let dir = folder(&[]);
    let with = |chat: &Value| {
        write_rows(
            dir.path(),
            &[
                json!({ "chat": good, "a": "w5" }),
                json!({ "chat": chat, "a": null }),
            ],
        );
        recipe(dir.path(), "messages = chat", "causal_lm", "");
        refused(dir.path())
    };
    for (chat, says) in [
        (
            json!([say("asistant", "w5")]),
            "train.jsonl:2: `chat`: message 1 has the role `asistant`",
        ),
        (
            json!([]),
            "train.jsonl:2: `chat`: the conversation has no messages",
        ),
        (json!("w5"), "is a text that is no JSON"),
        (json!(3), "is a list of messages"),
        (json!(null), "the conversation `chat` is missing"),
        (
            json!([say("user", "w5")]),
            "row 1 (counted from 0) has no token to learn: no assistant says anything",
        ),
        (
            json!([say("tool", "w5"), say("assistant", "w6")]),
            "row 1 (counted from 0): line 1 of the chat template: the template refuses the conversation: no tools",
        ),
    ] {
        let why = with(&chat);
        assert!(why.contains(says), "{says}\n{why}");
    }
    write_rows(
        dir.path(),
        &[
            json!({ "chat": good, "a": "w5" }),
            json!({ "chat": good, "a": null }),
        ],
    );
    for (data, objective, says) in [
        (
            "prompt = a, completion = a",
            "causal_lm",
            "the text `a` is missing",
        ),
        (
            "messages = chat",
            "classify",
            "`classify` reads texts, and these data have conversations",
        ),
        (
            "messages = chat, text = a",
            "causal_lm",
            "`text` and `messages` are both written",
        ),
        (
            "prompt = a",
            "causal_lm",
            "`prompt` is written without `completion`",
        ),
        ("take = 1", "causal_lm", "needs the key `text`"),
        (
            "text = chat, tools = a",
            "causal_lm",
            "`tools` has no effect without `messages`",
        ),
        (
            "messages = chat, enable_thinking = false",
            "causal_lm",
            "`enable_thinking` has no effect",
        ),
        ("messages = nope", "causal_lm", "there is no column `nope`"),
        (
            "prompt = a, completion = a",
            "causal_lm { learn = last }",
            "`learn = last` has nothing to act on",
        ),
    ] {
        recipe(dir.path(), data, objective, "");
        let why = refused(dir.path());
        assert!(why.contains(says), "{says}\n{why}");
    }
    recipe(dir.path(), "messages = chat", "causal_lm", "");
    std::fs::write(dir.path().join("m/chat_template.jinja"), "\n{% for %}").expect("written");
    assert!(refused(dir.path()).contains("cannot be read: line 2 of the chat template"));
    std::fs::remove_file(dir.path().join("m/chat_template.jinja")).expect("removed");
    assert!(refused(dir.path()).contains("`m` has no chat template"));
}

/// The gradient is the mean over the learned tokens of a step, however they are grouped, and memory is as estimated.
#[test]
fn grouping_changes_no_gradient() {
    let dir = folder(&mixed_rows());
    let groups = [
        "batch = 6",
        "batch = 6, micro_batch = 4",
        "batch = 6, micro_batch = 1",
    ];
    let all = grouped(dir.path(), &groups);
    assert_eq!(all.len(), 4);
}

/// The same of batches whose tokens are bounded: every epoch has as many.
#[test]
fn batches_by_tokens_are_within_their_budget() {
    let dir = folder(&mixed_rows());
    let groups = [
        "batch = 40 tokens",
        "batch = 40 tokens, micro_batch = 1",
        "batch = 40 tokens, micro_batch = 3",
    ];
    let all = grouped(dir.path(), &groups);
    let plan = peftc(dir.path(), &["plan", "0.peft", "--json"]);
    let plan: Value = printed(&plan);
    let stage = &plan["stages"][0];
    assert_eq!(
        (&stage["batch_tokens"], stage["steps"].as_u64()),
        (&json!(40), Some(all.len() as u64))
    );
    assert!(stage["max_tokens"].as_u64() <= Some(40), "{stage}");
    recipe(
        dir.path(),
        "prompt = q, completion = a",
        "causal_lm",
        ", batch = 9 tokens",
    );
    assert!(refused(dir.path()).contains("a batch of 9 tokens has no room for the longest row"));
}

/// Rows of different lengths, with different numbers of tokens to learn.
fn mixed_rows() -> Vec<Value> {
    let word = |i: usize| format!("w{}", 5 + i * 7 % 44);
    let words = |from: usize, n: usize| (from..from + n).map(word).collect::<Vec<_>>().join(" ");
    let row = |i: usize| json!({ "q": words(i, 1 + i * 5 % 9), "a": format!(" {}", words(3 * i, 1 + i * 3 % 7)) });
    (0..12).map(row).collect()
}

/// Trains once with each of these ways to group rows; the losses, which are the same, as memory is as estimated.
fn grouped(dir: &Path, groups: &[&str]) -> Vec<f64> {
    let mut all = Vec::new();
    for (i, more) in groups.iter().enumerate() {
        recipe(
            dir,
            "prompt = q, completion = a",
            "causal_lm",
            &format!(", {more}"),
        );
        let path = dir.join(format!("{i}.peft"));
        std::fs::rename(dir.join("r.peft"), &path).expect("renamed");
        let result = run(&path, &[]);
        let stage = &result["stages"][0];
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{more}: {share}");
        all.push(losses(dir, &i.to_string(), "t"));
    }
    let (first, others) = all.split_first().expect("some");
    for (a, b) in others.iter().flat_map(|other| first.iter().zip(other)) {
        assert!((a - b).abs() < 1e-5 * a.abs(), "{all:?}");
    }
    assert!(others.iter().all(|other| other.len() == first.len()));
    first.clone()
}

/// What a template was given in training it is given when text is generated.
#[test]
fn an_artifact_keeps_what_its_template_was_given() {
    let row = json!({ "chat": [say("user", "w5"), say("assistant", "w6 w7")] });
    let dir = folder(&[row.clone(), row]);
    let template = "{{ strftime_now('%Y') | replace('2026', 'w8') }} {% if not enable_thinking %}w9 {% endif %}".to_owned() + TEMPLATE;
    std::fs::write(dir.path().join("m/chat_template.jinja"), template).expect("written");
    recipe(
        dir.path(),
        "messages = chat, enable_thinking = false",
        "causal_lm",
        ", batch = 2",
    );
    assert!(refused(dir.path()).contains("give the date in the model"));
    let text = std::fs::read_to_string(dir.path().join("r.peft")).expect("text");
    let text = text.replace("local \"m\"", "local \"m\" { today = \"2026-01-31\" }");
    std::fs::write(dir.path().join("r.peft"), text).expect("written");
    assert_eq!(marked(dir.path(), 0), "w8 w9 w2 w5 w3 w4 w6* w7* <end>*");
    run(&dir.path().join("r.peft"), &[]);
    let model = dir.path().join(".peftc/runs/r/t/model");
    let kept = std::fs::read(model.join("peftc.json")).expect("a description");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(
        kept["chat"],
        json!({ "today": "2026-01-31", "variables": { "enable_thinking": false } })
    );
    let asked = json!({ "messages": [say("user", "w5")] });
    std::fs::write(dir.path().join("asked.jsonl"), format!("{asked}\n")).expect("written");
    let output = peftc(
        dir.path(),
        &[
            "predict",
            &model.display().to_string(),
            "--input",
            "asked.jsonl",
            "--max-new-tokens",
            "2",
        ],
    );
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{stderr}");
    let row: Value = printed(&output);
    assert!(row["generated"].is_string(), "{row}");
}
