//! Templates give the bytes that transformers gives; `tests/reference/make_chat_templates.py` made them.

use serde_json::{Map, Value as Json, json};

use super::*;

const REFERENCE: &str = include_str!("../../../tests/reference/chat_templates.json");

fn reference() -> Json {
    serde_json::from_str(REFERENCE).expect("JSON")
}

fn specials(bos: &str, eos: &str) -> Map<String, Json> {
    let pairs = [("bos_token", bos), ("eos_token", eos)];
    pairs
        .map(|(name, token)| (name.to_owned(), json!(token)))
        .into_iter()
        .collect()
}

fn made(text: &str) -> Result<ChatTemplate, TemplateError> {
    ChatTemplate::parse(text, specials("<s>", "</s>"), Date::parse("2026-11-26"))
}

/// The difference of what is rendered from a vector of the reference; `None` where it refuses what the reference renders.
fn difference(
    vector: &Json,
    text: &str,
    messages: &[Json],
    rendering: &Rendering<'_>,
) -> Option<String> {
    let wanted = vector["rendered"].as_str();
    let chat = made(text).and_then(|t| {
        let chat = t.chat(messages, rendering, Turns::All, &[]);
        // Turns of other templates are looked for by what is rendered of some messages, which may be refused.
        if t.marks_generation() {
            return chat;
        }
        let text = t.render(messages, rendering)?;
        Ok(Chat {
            text,
            learned: Vec::new(),
        })
    });
    match (wanted, chat) {
        (None, Err(_)) => Some(String::new()),
        (Some(_), Err(_)) => None,
        (wanted, Ok(chat)) if wanted != Some(&chat.text) => {
            Some(format!("{wanted:?}\n  {:?} {}", chat.text, vector["error"]))
        }
        (_, Ok(chat)) => {
            let chars = |byte: usize| chat.text[..byte].chars().count();
            let own = chat.learned.iter();
            let own: Json = own.map(|r| json!([chars(r.start), chars(r.end)])).collect();
            let wanted = &vector["spans"];
            let same = wanted.is_null() || *wanted == own;
            Some(if same {
                String::new()
            } else {
                format!("{own}, not {wanted}")
            })
        }
    }
}

#[test]
fn templates_of_known_models_give_the_bytes_that_transformers_gives() {
    let reference = reference();
    let vectors = reference["vectors"].as_array().expect("vectors");
    assert_eq!(vectors.len(), 60);
    for vector in vectors {
        let case = &reference["cases"][vector["case"].as_str().expect("a case")];
        let source = &reference["templates"][vector["template"].as_str().expect("a name")];
        let rendering = Rendering {
            generation_prompt: case["prompt"] == true,
            tools: Some(&case["tools"]).filter(|t| !t.is_null()),
            extra: case["extra"].as_object(),
        };
        let messages = case["messages"].as_array().expect("messages");
        let differs = difference(
            vector,
            source.as_str().expect("a text"),
            messages,
            &rendering,
        );
        let name = format!("{} {}", vector["template"], vector["case"]);
        assert_eq!(differs.as_deref(), Some(""), "{name}");
    }
}

/// What is not built is refused; nothing is rendered in another way than in Python.
#[test]
fn expressions_give_what_python_gives_or_are_refused() {
    let reference = reference();
    let rendering = Rendering {
        extra: reference["values"].as_object(),
        ..Rendering::default()
    };
    let messages = [json!({"role": "user", "content": "Hi"})];
    let (mut refused, mut wrong) = (Vec::new(), Vec::new());
    for vector in reference["snippets"].as_array().expect("snippets") {
        let text = vector["template"].as_str().expect("a text");
        match difference(vector, text, &messages, &rendering) {
            None => refused.push(text),
            Some(same) if same.is_empty() => {}
            // Python refuses to iterate over nothing; here there is nothing to iterate over.
            Some(_) if text.starts_with("{% for a in nothing") => {}
            Some(other) => wrong.push(format!("{text}\n  {other}")),
        }
    }
    assert!(wrong.is_empty(), "{}\n{refused:#?}", wrong.join("\n"));
    assert_eq!(refused.len(), 2, "{refused:#?}");
}

#[test]
fn turns_are_found_in_what_templates_without_marks_render() {
    let reference = reference();
    let messages = reference["cases"]["multi"]["messages"]
        .as_array()
        .expect("messages");
    let found = |name: &str, turns| {
        let source = reference["templates"][name].as_str().expect("a template");
        let ends = ["<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "</s>"];
        let chat = made(source).expect("a template").chat(
            messages,
            &Rendering::default(),
            turns,
            &ends.map(str::to_owned),
        )?;
        let said = chat
            .learned
            .iter()
            .map(|range| chat.text[range.clone()].to_owned());
        Ok::<Vec<String>, TemplateError>(said.collect())
    };
    let all = |name| found(name, Turns::All);
    assert_eq!(
        all("qwen2_5").expect("turns"),
        ["b<|im_end|>", "d<|im_end|>"]
    );
    // What stands behind the last turn only is no part of those before it.
    assert_eq!(all("phi3").expect("turns"), ["b<|end|>", "d<|end|>\n</s>"]);
    // The last turn is rendered with an empty thought, the first one without.
    let refused = all("qwen3").expect_err("no beginning");
    assert!(
        refused.message.contains("turn 3") && refused.message.contains("<think>"),
        "{refused}"
    );
    assert_eq!(
        found("qwen3", Turns::Last).expect("a turn"),
        ["<think>\n\n</think>\n\nd<|im_end|>"]
    );
    assert_eq!(all("cohere_training").expect("turns").len(), 2);
}

#[test]
fn what_a_template_may_do_is_bounded() {
    let refused = |text: &str| {
        let made = made(text).and_then(|t| t.render(&[], &Rendering::default()));
        made.expect_err(text).to_string()
    };
    let work =
        refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    assert!(work.contains("more work"), "{work}");
    let bytes = refused(
        "{% set ns = namespace(a='aaaaaaaa') %}{% for a in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    );
    assert!(bytes.contains("more work"), "{bytes}");
    let depth = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    // As little stack as a worker has.
    let run = std::thread::Builder::new().stack_size(1 << 20);
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let all = [depth.to_owned(), deep];
    let texts = run
        .spawn(move || {
            all.map(|text| {
                made(&text)
                    .and_then(|t| t.render(&[], &Rendering::default()))
                    .is_err()
            })
        })
        .expect("a thread");
    assert_eq!(texts.join().expect("no panic"), [true, true]);
    assert!(refused(&" ".repeat(LONGEST + 1)).contains("at most"));
    let line = refused("a\n{% if %}");
    assert!(line.starts_with("line 2 of the chat template"), "{line}");
    assert!(refused("{% include 'x' %}").contains("include"));
    let dated = ChatTemplate::parse("{{ strftime_now('%Y') }}", Map::new(), None);
    let dated = dated
        .and_then(|t| t.render(&[], &Rendering::default()))
        .expect_err("no day");
    assert!(dated.message.contains("today ="), "{dated}");
    let moved = made(
        "{% macro m() %}{% generation %}{{ 'ab' }}{% endgeneration %}{% endmacro %}{{ m()|length }}",
    );
    let moved = moved
        .expect("a template")
        .chat(&[], &Rendering::default(), Turns::All, &[]);
    assert!(
        moved
            .expect_err("no place")
            .message
            .contains("changed before")
    );
}
