//! Conversations.

use super::*;

/// Talks with a model through pipes; gives what it says, and what is noted.
pub(super) fn chat(model: &Path, lines: &str, more: &[&str]) -> (String, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = program()
        .arg("chat")
        .arg(model)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(lines.as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (
        text(&output.stdout),
        text(&output.stderr).replace('\n', " "),
    )
}

#[test]
fn a_conversation_goes_on_from_what_was_said() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (model, _) = setting(dir.path(), "llama", &json!([[5]]));
    let template = "{% for m in messages %}{{ m.content }} {% if m.role == 'system' %}w30 {% endif %}{% endfor %}\
                    {% if add_generation_prompt %}w7{% endif %}";
    std::fs::write(model.join("chat_template.jinja"), template).expect("written");
    let rows = |list: &[Value]| {
        let input = dir.path().join("rows.jsonl");
        let text: String = list
            .iter()
            .map(|m| json!({ "messages": m }).to_string() + "\n")
            .collect();
        std::fs::write(&input, text).expect("written");
        texts(&predict(&model, &input, &["--max-new-tokens", "6"]))
    };
    let user = |text: &str| json!({ "role": "user", "content": text });
    let first = rows(&[json!([user("w5 w9")])]).remove(0);
    let second = json!([user("w5 w9"), { "role": "assistant", "content": first }, user("w11")]);
    let again = json!([{ "role": "system", "content": "w3" }, user("w11")]);
    let rest = rows(&[second, again]);
    let lines = "w5 w9\nw11\n/system w3\nw11\n/nothing\n/exit\nw2\n";
    let (said, noted) = chat(&model, lines, &["--max-new-tokens", "6", "--speed"]);
    assert_eq!(said, format!("{first}\n{}\n{}\n", rest[0], rest[1]));
    assert!(
        noted.contains("there is no such command as `/nothing`"),
        "{noted}"
    );
    assert!(noted.contains("tokens a second"), "{noted}");
    // The model reads 64 tokens: the first turns are left out, and it is said.
    let long = "w5 w6 w7 w8 w9 w10 w11 w12 w13 w14\n".repeat(5);
    let (said, noted) = chat(&model, &long, &["--max-new-tokens", "12"]);
    assert_eq!(said.lines().count(), 5);
    assert!(
        noted.contains("longer than the model can read: its first"),
        "{noted}"
    );
    let answered = json!([user("w5"), { "role": "assistant", "content": "w6" }]);
    let input = dir.path().join("answered.jsonl");
    std::fs::write(&input, json!({ "messages": answered }).to_string()).expect("written");
    let why = complaint(&predict(&model, &input, &[]));
    assert!(
        why.contains("row 1: its last message is the assistant's"),
        "{why}"
    );
}

#[test]
fn a_template_is_given_tools_and_variables() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (model, _) = setting(dir.path(), "llama", &json!([[5]]));
    let template = "{% if tools %}{{ tools[0].name }} {% endif %}{% if mode is defined %}{{ mode }} {% endif %}\
                    {% for m in messages %}{{ m.content }} {% endfor %}";
    let input = dir.path().join("rows.jsonl");
    let rows = |list: &[Value], more: &[&str]| {
        let text: String = list.iter().map(|row| row.to_string() + "\n").collect();
        std::fs::write(&input, text).expect("written");
        predict(&model, &input, &[&["--max-new-tokens", "5"], more].concat())
    };
    let plain = |text: &str| json!({ "prompt": text });
    let wanted = texts(&rows(
        &[plain("w20 w5 "), plain("w21 w22 w6 "), plain("w20 w22 w5 ")],
        &[],
    ));
    std::fs::write(model.join("chat_template.jinja"), template).expect("written");
    let said = |text: &str| json!([{ "role": "user", "content": text }]);
    let tools = |name: &str| json!([{ "name": name }]);
    let own = json!({ "messages": said("w6"), "tools": tools("w21") });
    let file = dir.path().join("tools.json");
    std::fs::write(&file, tools("w20").to_string()).expect("written");
    let flags = ["--tools", file.to_str().expect("a path")];
    let both = [&flags[..], &["--variable", "mode=w22"]].concat();
    let bare = json!({ "messages": said("w5") });
    assert_eq!(
        texts(&rows(std::slice::from_ref(&bare), &flags)),
        wanted[..1]
    );
    // A row's own tools stand before those of the flag.
    assert_eq!(texts(&rows(&[own, bare.clone()], &both)), wanted[1..]);
    let (answer, _) = chat(
        &model,
        "w5\n",
        &[&both[..], &["--max-new-tokens", "5"]].concat(),
    );
    assert_eq!(answer, format!("{}\n", wanted[2]));
    for (more, says) in [
        (
            &["--variable", "thinking=true"][..],
            "does not read `thinking`",
        ),
        (
            &["--variable", "mode=1", "--variable", "mode=2"],
            "is given twice",
        ),
        (&["--tools", "nowhere.json"], "nowhere.json"),
    ] {
        let why = complaint(&rows(std::slice::from_ref(&bare), more));
        assert!(why.contains(says), "{why}");
    }
    std::fs::write(
        model.join("chat_template.jinja"),
        "{{ messages[0].content }}",
    )
    .expect("written");
    let own = json!({ "messages": said("w6"), "tools": tools("w21") });
    let why = complaint(&rows(&[own], &[]));
    assert!(why.contains("does not read"), "{why}");
}
