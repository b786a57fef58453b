//! Several labels a row.

use super::*;

const SEVERAL: Labels = Labels::Several(Naming {
    given: Given::Nothing,
    fixed: None,
    preferred: None,
});

fn sets(of: &[&[u32]]) -> Vec<Option<Label>> {
    of.iter()
        .map(|set| Some(Label::Classes(set.to_vec())))
        .collect()
}

#[test]
fn several_labels_are_lists_or_texts_with_a_separator() -> Outcome {
    let wanted = sets(&[&[0, 2], &[1], &[], &[2]]);
    let lists = br#"{"t": "x", "l": ["b", "a", "b"]}
{"t": "y", "l": ["ab"]}
{"t": "z", "l": []}
{"t": "w", "l": "[\"b\"]"}"#;
    let set = good("f.jsonl", lists, |s| s.labels = SEVERAL)?;
    assert_eq!(set.classes, ["a", "ab", "b"]);
    assert_eq!(labels_of(&set), wanted);
    let texts = b"t\tl\nx\tb; a\ny\tab\nz\t\nw\tb;\n";
    let set = good("f.tsv", texts, |s| {
        s.labels = SEVERAL;
        s.separator = Some(";".into());
    })?;
    assert_eq!(
        (set.classes.len(), labels_of(&set)),
        (3, wanted),
        "spaces, and what follows the last separator, are no labels"
    );
    let json = b"t\tl\nx\t[\"b\", \"a\"]\ny\t[]\n";
    let set = good("f.tsv", json, |s| s.labels = SEVERAL)?;
    assert_eq!(labels_of(&set), sets(&[&[0, 1], &[]]));
    // Numbers are places in the list that the recipe gives.
    let numbers = br#"{"t": "x", "l": [2, 0]}"#;
    let set = good("f.jsonl", numbers, |s| {
        s.labels = Labels::Several(Naming {
            given: Given::List(["p", "q", "r"].map(str::to_owned).to_vec()),
            ..Naming::default()
        });
    })?;
    assert_eq!(labels_of(&set), sets(&[&[0, 2]]));
    Ok(())
}

#[test]
fn what_is_no_list_of_labels_is_refused() -> Outcome {
    let said =
        |name: &str, bytes: &[u8], labels: &Labels| -> Result<String, Box<dyn std::error::Error>> {
            let list = bad(name, bytes, |s| s.labels = labels.clone())?;
            let first = &list[0];
            Ok(format!(
                "{first} | {}",
                first.help.as_deref().unwrap_or("-")
            ))
        };
    let plain = said("f.tsv", b"t\tl\nx\ta,b\n", &SEVERAL)?;
    assert!(plain.contains(":2: `a,b` is no list of labels"), "{plain}");
    assert!(plain.contains("label_separator"), "{plain}");
    let null = said("f.jsonl", br#"{"t": "x", "l": null}"#, &SEVERAL)?;
    assert!(
        null.contains("the label is missing") && null.contains("`[]`"),
        "{null}"
    );
    let inside = said("f.jsonl", br#"{"t": "x", "l": ["a", null]}"#, &SEVERAL)?;
    assert!(inside.contains("the label is missing"), "{inside}");
    let nested = said("f.jsonl", br#"{"t": "x", "l": [["a"]]}"#, &SEVERAL)?;
    assert!(nested.contains("hold a list or an object"), "{nested}");
    // One label a row, and texts, are no lists.
    let label = said("f.jsonl", br#"{"t": "x", "l": ["a", "b"]}"#, &DERIVE)?;
    assert!(
        label.contains(":1: `l` is a list") && label.contains("\"l[0]\""),
        "{label}"
    );
    let text = said("f.jsonl", br#"{"t": ["x"], "l": ["a"]}"#, &SEVERAL)?;
    assert!(
        text.contains(":1: `t` is a list") && text.contains("\"t[0]\""),
        "{text}"
    );
    Ok(())
}
