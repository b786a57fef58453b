//! Names from outside hold what acts on a terminal; no command lets it through, and none of them can begin a
//! line of its own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::support::{here, program};

/// Clears the screen, sets a title, rings, ends a line and begins another, turns the direction.
const BAD: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\r\nFORGED \u{202e}z";
/// The same as JSON and recipes write it.
const WRITTEN: &str = "x\\u001b[2J\\u001b]0;t\\u0007\\u009b31m\\r\\nFORGED \\u202ez";
const IN_RECIPE: &str = "x\\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{9b}31m\\u{d}\\nFORGED \\u{202e}z";

fn peftc(args: &[&OsStr], dir: &Path) -> Output {
    program()
        .args(args)
        .current_dir(dir)
        .env("HF_HOME", dir.join("hf"))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("starts")
}

/// The text without sequences that set a colour, which were asked for.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end.and_then(|end| part[end..].strip_prefix('m')) {
            Some(rest) => plain.push_str(rest),
            None => plain.extend(["\u{1b}[", part]),
        }
    }
    plain
}

/// What a command wrote, if nothing of it acts.
fn tame(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let words: Vec<&OsStr> = args
        .iter()
        .map(|a| OsStr::from_bytes(a.as_bytes()))
        .collect();
    let output = peftc(&words, dir);
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let mut text = String::from_utf8(bytes.clone()).expect("UTF-8");
        if args.contains(&"always") {
            text = without_colours(&text);
        }
        let bad = |c: char| {
            c.is_control() && !matches!(c, '\n' | '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
        };
        let at = text.find(bad);
        assert!(at.is_none(), "{args:?}: {name} at {at:?}: {text:?}");
        let forged = text.lines().find(|l| l.trim_start().starts_with("FORGED"));
        assert!(forged.is_none(), "{args:?}: {name}: {text}");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

/// A folder with a hostile name, in it a recipe with one, data, a model and an adapter with such in them.
fn place(root: &Path) -> (PathBuf, String) {
    let dir = root.join(BAD);
    std::fs::create_dir(&dir).expect("a folder");
    let here = here();
    let at = here.join("tests/reference/bert-tiny");
    for split in ["train", "test"] {
        let rows: String = (0..8)
            .map(|i| {
                let class = if i % 2 == 0 { WRITTEN } else { "fine" };
                format!("{{\"text\": \"a film {i} {WRITTEN}\", \"label\": \"{class}\"}}\n")
            })
            .collect();
        std::fs::write(dir.join(format!("{split}.jsonl")), rows).expect("written");
    }
    let body = format!(
        "# {}\nmodel m = local \"{}\"\n\
         data d = local \".\" {{ text = text, label = label }}\n\
         stage learn = train {{ model = m, data = d.train, adapter = lora, lr = 1e-3, steps = 2, batch = 4 }}\n\
         stage end = eval {{ from = learn, data = d.test, metrics = [accuracy, f1_macro] }}\n",
        BAD.replace("\r\n", " "),
        at.display()
    );
    let recipe = format!("{BAD}.peft");
    std::fs::write(dir.join(&recipe), body).expect("written");
    (dir, recipe)
}

#[test]
fn what_runs_shows_names_and_nothing_acts() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let (dir, recipe) = place(root.path());
    let done = |args: &[&str]| {
        let (code, text) = tame(args, &dir);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        text
    };
    let path = dir.join(&recipe).to_string_lossy().into_owned();
    for file in [recipe.as_str(), path.as_str()] {
        let text = done(&["check", file]);
        assert!(text.contains("x\\u001b[2J"), "the name is shown: {text}");
        done(&["check", "--json", file]);
        done(&[
            "check", "--color", "always", "--solve", "batch", "--budget", "1GiB", file,
        ]);
    }
    for format in ["text", "json", "dot", "mermaid"] {
        done(&["plan", "--format", format, &recipe]);
    }
    let text = done(&["plan", "--format", "mermaid", &recipe]);
    assert!(text.contains("stage1[\"end = eval"), "{text}");
    assert!(
        !text.contains(" end["),
        "`end` is a word of Mermaid's: {text}"
    );
    done(&["plan", "--program", "learn", &recipe]);
    done(&["run", "--dry-run", &recipe]);
    done(&["run", "--out", BAD, &recipe]);
    done(&["run", "--out", BAD, "--profile", &recipe]);
    done(&["run", "--out", BAD, "--json", &recipe]);
    for format in ["table", "markdown", "csv", "html", "json"] {
        done(&["report", "--format", format, BAD]);
    }
    let page = format!("{BAD}.html");
    done(&["report", "--output", &page, BAD]);
    done(&["doctor", "--store", BAD]);
    done(&["doctor", "--store", BAD, "--json"]);
}

#[test]
fn what_is_wrong_is_said_and_nothing_acts() {
    let root = tempfile::tempdir().expect("a scratch directory");
    let (dir, recipe) = place(root.path());
    let fails = |args: &[&str]| {
        let (code, text) = tame(args, &dir);
        assert!(matches!(code, Some(1..=3)), "{args:?}: {code:?}: {text}");
        assert!(!text.is_empty(), "{args:?}");
    };
    let set = format!("{BAD}=1");
    let value = format!("a={BAD}");
    for args in [
        &["check", BAD][..],
        &["check", "--set", BAD, &recipe],
        &["check", "--set", &set, &recipe],
        &["check", "--set", &value, &recipe],
        &["check", "--json", "--set", &value, &recipe],
        &["check", "--device", BAD, &recipe],
        &["check", "--budget", BAD, &recipe],
        &["check", "--budget", "1GiB", "--solve", BAD, &recipe],
        &[
            "check", "--solve", "batch", "--budget", "1GiB", "--stage", BAD, &recipe,
        ],
        &["check", BAD, "--no-such-flag\u{1b}"],
        &["plan", BAD],
        &["plan", "--program", BAD, &recipe],
        &["plan", "--format", BAD, &recipe],
        &["run", BAD],
        &["run", "--stage", BAD, &recipe],
        &["run", "--budget", "1MiB", &recipe],
        &["replay", BAD, "--stage", "learn"],
        &["replay", &recipe, "--stage", BAD],
        &["report", BAD],
        &["report", "--by", BAD, "."],
        &["fmt", BAD],
        &["fmt", "--check", &recipe, BAD],
        &["predict", BAD, "--input", BAD],
        &["explain", BAD],
        &["list", BAD],
        &["doctor", "--device", BAD],
        &[BAD],
        &[],
    ] {
        fails(args);
    }
    // Recipes: raw characters, and such that are written as escapes.
    let model = "model m = local \"../../nowhere\"\n";
    for (i, text) in [
        BAD.to_owned(),
        format!("model m = local \"{BAD}\"\n"),
        format!("model {BAD} = local \"a\"\r\n"),
        format!("model m = local \"{IN_RECIPE}\"\n"),
        format!("model m = hub \"{IN_RECIPE}\"\n"),
        format!("model m = hub \"org/a\" {{ revision = \"{IN_RECIPE}\" }}\n"),
        format!("import \"{IN_RECIPE}\"\n"),
        format!("{model}data d = local \"{IN_RECIPE}\" {{ text = text, label = label }}\n"),
        format!("{model}data d = local \".\" {{ text = text, label = label, labels = [\"{IN_RECIPE}\", \"{IN_RECIPE}\"] }}\n"),
        format!("{model}stage s = train {{ model = m, adapter = \"{IN_RECIPE}\", lr = \"{IN_RECIPE}\" }}\n"),
        format!("{model}stage s = train {{ model = m, adapter = peft \"{IN_RECIPE}\" }}\n"),
        format!("let a = \"{IN_RECIPE}\"\nstage s = train {{ model = a, x{BAD} = a }}\r\n"),
    ]
    .iter()
    .enumerate()
    {
        let file = format!("{i}.peft");
        std::fs::write(dir.join(&file), text).expect("written");
        for args in [
            &["check", &file][..],
            &["check", "--json", &file],
            &["check", "--set", "a=1", "--color", "never", &file],
            &["fmt", "--check", &file],
        ] {
            // What no stage uses need not be wrong.
            let (code, text) = tame(args, &dir);
            assert!(matches!(code, Some(0..=3)), "{args:?}: {code:?}: {text}");
        }
    }
    files(&dir, &fails);
}

/// Hostile files of other programs: a model's, an adapter's, data, results.
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn files(dir: &Path, fails: &dyn Fn(&[&str])) {
    let model = dir.join("model");
    std::fs::create_dir(&model).expect("a folder");
    std::fs::write(
        dir.join("m.peft"),
        "model m = local \"model\"\ndata d = local \".\" { text = text, label = label }\nstage s = eval { model = m, data = d.test }\n",
    )
    .expect("written");
    for config in [
        format!("{{\"model_type\": \"{WRITTEN}\"}}"),
        format!("{{\"{WRITTEN}\": {WRITTEN}"),
        format!(
            "{{\"model_type\": \"bert\", \"hidden_act\": \"{WRITTEN}\", \"hidden_size\": \"{WRITTEN}\"}}"
        ),
        BAD.to_owned(),
    ] {
        std::fs::write(model.join("config.json"), config).expect("written");
        fails(&["check", "m.peft"]);
    }
    let tiny = std::env::current_dir()
        .expect("a working directory")
        .join("tests/reference/bert-tiny");
    let adapter = dir.join("adapter");
    std::fs::create_dir(&adapter).expect("a folder");
    std::fs::write(
        dir.join("a.peft"),
        format!(
            "model m = local \"{}\"\ndata d = local \".\" {{ text = text, label = label }}\n\
             stage s = train {{ model = m, data = d.train, adapter = peft \"adapter\", lr = 1e-3, steps = 1 }}\n",
            tiny.display()
        ),
    )
    .expect("written");
    for config in [
        format!("{{\"peft_type\": \"{WRITTEN}\"}}"),
        format!(
            "{{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"{WRITTEN}\"]}}"
        ),
        BAD.to_owned(),
    ] {
        std::fs::write(adapter.join("adapter_config.json"), config).expect("written");
        fails(&["check", "a.peft"]);
    }
    for (name, text) in [
        ("train.jsonl", format!("{{\"{WRITTEN}\": \"{WRITTEN}\"}}\n")),
        (
            "train.jsonl",
            format!("{{\"text\": \"{WRITTEN}\", \"label\": {BAD}}}\n"),
        ),
        (
            "train.jsonl",
            format!("{{\"text\": [\"{WRITTEN}\"], \"label\": {{\"{WRITTEN}\": 1}}}}\n"),
        ),
    ] {
        std::fs::write(dir.join(name), text).expect("written");
        fails(&["check", "a.peft"]);
    }
    let out = dir.join("out");
    std::fs::create_dir(&out).expect("a folder");
    for (result, fine) in [
        (format!("{{\"schema\": \"{WRITTEN}\"}}"), false),
        (BAD.to_owned(), false),
        (
            format!(
                "{{\"schema\": 1, \"recipe\": \"{WRITTEN}\", \"stages\": [{{\"name\": \"{WRITTEN}\", \"kind\": \"train\", \"methods\": [\"{WRITTEN}\"], \
                 \"variant\": \"a\", \"metrics\": {{\"{WRITTEN}\": 0.5}}, \"memory\": {{\"peak_op\": \"{WRITTEN}\"}}, \
                 \"memory_profile\": [{{\"op\": \"{WRITTEN}\", \"bytes\": 9}}]}}]}}"
            ),
            true,
        ),
    ] {
        std::fs::write(out.join("result.json"), result).expect("written");
        for format in ["table", "markdown", "csv", "html", "json"] {
            let args = ["report", "--format", format, "out"];
            if fine {
                assert_eq!(tame(&args, dir).0, Some(0), "{format}");
            } else {
                fails(&args);
            }
        }
    }
    std::fs::write(
        out.join("peftc.json"),
        format!("{{\"{WRITTEN}\": \"{WRITTEN}\"}}"),
    )
    .expect("written");
    fails(&["predict", "out", "--input", "train.jsonl"]);
}
