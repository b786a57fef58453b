//! What parses, what is wrong with what does not, and what survives.

use super::*;

fn good(text: &str) -> File {
    parse(text, SourceId(0))
        .ok()
        .map(|(file, _)| file)
        .unwrap_or_else(|diags| panic!("{text}\n{diags:#?}"))
}

/// Names of items that survive, and `code at "text": message` of the errors, in source order.
fn bad(text: &str) -> (Vec<String>, Vec<String>) {
    let outcome = parse(text, SourceId(0));
    let names = outcome
        .value
        .into_iter()
        .flat_map(|file| file.items)
        .map(|item| match item {
            Item::Import(import) => import.path.value,
            Item::Let(binding) => binding.name.value,
            Item::Decl(decl) => decl.name.value,
        });
    let errors = outcome.diags.into_sorted().into_iter().map(|diag| {
        let span = diag.span.unwrap_or_default();
        let place = text
            .get(span.start as usize..span.end as usize)
            .unwrap_or("not a span");
        format!(
            "{} at {place:?}: {}",
            diag.code.name.trim_start_matches("syntax::"),
            diag.message
        )
    });
    (names.collect(), errors.collect())
}

fn errors(text: &str) -> Vec<String> {
    bad(text).1
}

fn value(text: &str) -> ValueKind {
    match parse_value(text, SourceId(0)).ok() {
        Ok((value, _)) => value.value,
        Err(diags) => panic!("{text}: {diags:#?}"),
    }
}

const SKETCH: &str = r#"peftc 1
model roberta = hub "FacebookAI/roberta-large" { dtype = f32 }  # a comment
model mini = local "dir"
import "other.peft"
let top = layers[12..24].{attention.*, ffn.up}

prompt it_was {
  template   = "{sentence} It was {mask}."
  verbalizer = { 0: "terrible", 1: "great" }
}

stage warm = mezo {
  model = roberta, data = sst2.train, prompt = it_was, objective = label_words
  steps = 48_000 steps, lr = 1e-6, epsilon = 1e-3, batch = 16
}

stage ladder = train {
  # about adapters
  adapters = [siva { rank = 4, on = attention.{key, query} }, k_lst { k = 9, r = 8, dropout = 0.2 }]
  schedule = linear { peak = 2e-4, end = 2e-6, warmup = 12% }
  budget = 8GiB
  epochs   = 5 epochs, seed = -3
  sites = {attention.query, ffn.up}
}
"#;

#[test]
fn the_sketch_of_the_language_parses() {
    let file = good(SKETCH);
    assert_eq!(file.version.map(|v| v.value), Some(1));
    assert_eq!(file.items.len(), 7);
    let Some(Item::Decl(ladder)) = file.items.last() else {
        panic!("no declaration")
    };
    let keys: Vec<&str> = ladder
        .body
        .entries
        .iter()
        .map(|e| e.key.value.as_str())
        .collect();
    assert_eq!(
        keys,
        ["adapters", "schedule", "budget", "epochs", "seed", "sites"]
    );
    let Some(Item::Decl(prompt)) = file.items.get(4) else {
        panic!("no prompt")
    };
    assert_eq!(prompt.body.name.value, "prompt");
    let Some(Item::Decl(mini)) = file.items.get(1) else {
        panic!("no model")
    };
    assert_eq!(
        mini.body.arg.as_ref().map(|arg| arg.value.as_str()),
        Some("dir")
    );
}

#[test]
fn values_are_kept_as_written() {
    let number = |text: &str| match value(text) {
        ValueKind::Number { digits, unit } => format!("{digits}|{}", unit.unwrap_or_default()),
        other => panic!("{other:?}"),
    };
    assert_eq!(number("48_000 steps"), "48000|steps");
    assert_eq!(
        [number("12%"), number("8GiB"), number("2e-4"), number("-3")],
        ["12|%", "8|GiB", "2e-4|", "-3|"]
    );
    let path = |text: &str| match value(text) {
        ValueKind::Path(path) => path.to_string(),
        other => panic!("{other:?}"),
    };
    for text in [
        "none",
        "attention.{key, query}",
        "layers[-4..].*",
        "layers[3].{a.b, c.{d, e}}",
        "*.query",
        "truer",
    ] {
        assert_eq!(path(text), text);
    }
    assert!(matches!(value("true"), ValueKind::Bool(true)));
    assert!(matches!(value("{}"), ValueKind::Map(pairs) if pairs.is_empty()));
    assert!(matches!(value("{ a.b\n c }"), ValueKind::Set(paths) if paths.len() == 2));
    assert!(matches!(value("[\n 1, # one\n 2,\n]"), ValueKind::List(list) if list.len() == 2));
    assert!(matches!(value("lora {}"), ValueKind::Ctor(_)));
}

#[test]
fn spans_end_where_the_text_ends() {
    let file = good("let a = lora \"x\"   # c\ndata d = local \"dir\"  # c\n");
    let ends: Vec<(u32, u32)> = file
        .items
        .iter()
        .map(|item| match item {
            Item::Let(binding) => (binding.span.end, binding.value.span.end),
            Item::Decl(decl) => (decl.span.end, decl.body.span.end),
            Item::Import(import) => (import.span.end, import.path.span.end),
        })
        .collect();
    assert_eq!(ends, [(16, 16), (43, 43)]);
}

#[test]
fn several_broken_items_give_several_errors_and_good_ones_survive() {
    let text = "stage a train { x = 1 }\nlet b = 2\nstage c = train {\n  x = 1\nstage d = train { x = 1 }\nlet e = \"x\n\
                let f = 1\nstage g = train { x = 1 } }\n";
    let (names, errors) = bad(text);
    assert_eq!(names, ["b", "d", "f"]);
    assert_eq!(
        errors,
        [
            "missing_equals at \"train\": expected `=` after `a`, found `train`",
            "unclosed_bracket at \"{\": `{` is never closed",
            "unclosed_string at \"\\\"x\": a string is not closed on its line",
            "stray_bracket at \"}\": `}` closes nothing",
        ]
    );
}

#[test]
fn a_header_behind_an_open_bracket_is_named_as_well() {
    let text = "let a = 1\nstage s = train {\n  seed = [1, 2\n}\npeftc 1\nlet b = 2\n";
    let (names, errors) = bad(text);
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        errors,
        [
            "unclosed_bracket at \"[\": `[` is closed by `}`",
            "misplaced_header at \"peftc 1\": the header is not the first item of the file",
        ]
    );
}

#[test]
fn several_broken_entries_give_several_errors_in_one_block() {
    let text = "stage a = train {\n  lr =\n  steps 5\n  data = \"x\n  seed = 1 batch = 2\n  from: warm\n  ok = 1\n}\n";
    let outcome = parse(text, SourceId(0));
    let Some(Item::Decl(decl)) = outcome.value.and_then(|file| file.items.into_iter().next())
    else {
        panic!("lost")
    };
    assert_eq!(
        decl.body
            .entries
            .iter()
            .map(|e| e.key.value.as_str())
            .collect::<Vec<_>>(),
        ["ok"]
    );
    assert_eq!(
        errors(text),
        [
            "missing_value at \"=\": `lr` has no value",
            "missing_equals at \"5\": expected `=` after `steps`, found `5`",
            "unclosed_string at \"\\\"x\": a string is not closed on its line",
            "missing_separator at \"batch\": nothing separates `batch` from what comes before",
            "missing_equals at \":\": expected `=` after `from`, found `:`",
        ]
    );
}

#[test]
fn single_mistakes_are_named() {
    let one = |text: &str| match errors(text).as_slice() {
        [error] => error.clone(),
        other => panic!("{text:?}: {other:?}"),
    };
    assert_eq!(
        one("stage a = train { lr = , b = 1 }"),
        "missing_value at \"=\": `lr` has no value"
    );
    assert_eq!(
        one("stage a = train { lr }"),
        "missing_equals at \"lr\": `lr` has no `=` and no value"
    );
    assert_eq!(one("let x = "), "missing_value at \"=\": `x` has no value");
    assert_eq!(
        one("let x = ;"),
        "unexpected at \";\": expected a value, found `;`"
    );
    assert_eq!(
        one("let x = 'a'"),
        "unexpected at \"'\": expected a value, found `'`"
    );
    assert_eq!(
        one("let x = [1, 2"),
        "unclosed_bracket at \"[\": `[` is never closed"
    );
    assert_eq!(
        one("let x = [1, 2 }"),
        "unclosed_bracket at \"[\": `[` is closed by `}`"
    );
    assert_eq!(
        one("let x = [1 \"b\"]"),
        "missing_separator at \"\\\"b\\\"\": nothing separates `\"b\"` from what comes before"
    );
    assert_eq!(
        one("let x = { 0: }"),
        "missing_value at \":\": `0` has no value"
    );
    assert_eq!(
        one("let x = 1e999"),
        "number_out_of_range at \"1e999\": `1e999` is out of range"
    );
    assert_eq!(
        one("let x = a[99999999999999999999]").split(':').next(),
        Some("number_out_of_range at \"99999999999999999999\"")
    );
    assert_eq!(
        one("let x = \"a\\qb\""),
        "unknown_escape at \"\\\\q\": `\\q` is not an escape"
    );
    assert_eq!(
        one("let a = 1\npeftc 1"),
        "misplaced_header at \"peftc 1\": the header is not the first item of the file"
    );
    assert_eq!(
        one("peftc 2\nlet a = 1"),
        "unsupported_version at \"2\": version 2 of the language is unknown"
    );
    assert_eq!(
        one("let x = 1 2"),
        "unexpected at \"2\": expected the end of the line, found `2`"
    );
    assert_eq!(
        one("model m = \"x\""),
        "unexpected at \"\\\"x\\\"\": expected a name, found `\"x\"`"
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let nested = |n: usize| format!("let x = {}{}", "[".repeat(n), "]".repeat(n));
    good(&nested(64));
    assert_eq!(
        errors(&nested(65)),
        ["too_deep at \"[\": brackets are nested more than 64 deep"]
    );
    assert_eq!(errors(&"{".repeat(100_000)).len(), 1);
    assert!(!errors(&"{]".repeat(2_000)).is_empty());
    assert!(
        parse_value(&nested(100_000).replace("let x = ", ""), SourceId(0))
            .ok()
            .is_err()
    );
}

#[test]
fn hostile_texts_take_no_time() {
    let start = std::time::Instant::now();
    let open = "a = b { ".repeat(60);
    for text in [
        format!("stage x = {open}"),
        format!("stage x = {open};{}", "}".repeat(59)),
        format!("let x = {}", "[a.{".repeat(30)),
        format!("let x = {}", "{".repeat(60)).repeat(20),
        format!("let x = {} = {}", "[{ a: ".repeat(31), "}]".repeat(31)),
        "x ".repeat(20_000),
        "let x = 1\n".repeat(5_000),
        "let x = \n".repeat(5_000),
        format!("let x = {}", "{}".repeat(20_000)),
    ] {
        let _ = parse(&text, SourceId(0));
    }
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
