//! The spellings in which a label is given and found.

use super::*;

/// A label in every spelling that a format has for it.
#[test]
fn a_label_is_the_same_in_every_spelling_and_format() -> Outcome {
    let csv =
        |labels: [&str; 3]| format!("t,l\na,{}\nb,{}\nc,{}\n", labels[0], labels[1], labels[2]);
    let json = |labels: [&str; 3]| {
        let row = |(t, l): (&str, &str)| format!("{{\"t\": \"{t}\", \"l\": {l}}}");
        let rows: Vec<String> = ["a", "b", "c"].into_iter().zip(labels).map(row).collect();
        rows
    };
    // What each spelling is called, and whether it is a place in a list of two.
    for (labels, classes_found, is_place) in [
        (["1", "0", "1"], ["0", "1"], true),
        (["1.0", "0.0", "1.0"], ["0", "1"], true),
        (["1.0", "0", "1"], ["0", "1"], true),
        (["true", "false", "true"], ["false", "true"], true),
        (["\"1\"", "\"0\"", "\"1\""], ["0", "1"], true),
        (["\"1.0\"", "\"0.0\"", "\"1\""], ["0", "1"], true),
        (
            ["\"True\"", "\"False\"", "\"TRUE\""],
            ["false", "true"],
            true,
        ),
        (["\"pos\"", "\"neg\"", "\"pos\""], ["neg", "pos"], false),
    ] {
        let bare = labels.map(|l| l.trim_matches('"'));
        let lines = json(labels);
        let mut tables = vec![
            ("a.csv", csv(bare)),
            ("a.tsv", csv(bare).replace(',', "\t")),
            ("a.csv", csv(labels)),
            ("a.jsonl", lines.join("\n")),
            ("a.json", lines.join("\n")),
            ("a.json", format!("[{}]", lines.join(",\n"))),
        ];
        // A table has no other quotes than CSV's.
        tables.retain(|(name, _)| *name != "a.tsv" || !bare.is_empty());
        for (name, text) in tables {
            let packed = [
                (name.to_owned(), text.clone().into_bytes()),
                (
                    format!("{name}.gz"),
                    crate::library::data::tests::gzip(text.as_bytes()),
                ),
                (format!("{name}.zst"), zstd::encode_all(text.as_bytes(), 1)?),
            ];
            for (name, bytes) in packed {
                let found = good(&name, &bytes, |_| {})?;
                assert_eq!(found.classes, classes_found, "{name}: {text}");
                assert_eq!(labels_of(&found), classes(&[1, 0, 1]), "{name}: {text}");
                let listed = |spec: &mut DataSpec| spec.labels = given(&["no", "yes"]);
                if is_place {
                    let set = good(&name, &bytes, listed)?;
                    assert_eq!(labels_of(&set), classes(&[1, 0, 1]), "{name}: {text}");
                } else {
                    assert_eq!(bad(&name, &bytes, listed)?.len(), 1, "{name}: {text}");
                }
                // What the head knows by name is found by name.
                let turned = |spec: &mut DataSpec| {
                    let [a, b] = classes_found;
                    spec.labels = fixed(map(&[(a, "A"), (b, "B")]), &["B", "A"]);
                };
                let set = good(&name, &bytes, turned)?;
                assert_eq!(labels_of(&set), classes(&[0, 1, 0]), "{name}: {text}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_number_is_a_place_in_the_list_of_the_data_set() -> Outcome {
    let numbers = b"t\tl\na\t0\nb\t1\nc\t1\n".as_slice();
    let names = b"t\tl\na\tneg\nb\tpos\nc\tpos\n".as_slice();
    let of = |bytes, labels: Labels| good("a.tsv", bytes, |spec| spec.labels = labels);
    let no = |bytes, labels: Labels| -> Result<String, Box<dyn std::error::Error>> {
        let list = bad("a.tsv", bytes, |spec| spec.labels = labels)?;
        assert_eq!(list.len(), 1, "one cause: {list:?}");
        Ok(format!(
            "{} | {}",
            list[0].message,
            list[0].help.as_deref().unwrap_or_default()
        ))
    };
    let own = |names: &[&str]| Given::List(list(names));
    // The stage's classes are in another order: names decide.
    let set = of(numbers, fixed(own(&["neg", "pos"]), &["pos", "neg"]))?;
    assert_eq!(
        (set.classes.as_slice(), labels_of(&set)),
        (list(&["pos", "neg"]).as_slice(), classes(&[1, 0, 0]))
    );
    let set = of(names, fixed(own(&["neg", "pos"]), &["pos", "neg"]))?;
    assert_eq!(labels_of(&set), classes(&[1, 0, 0]));
    let set = of(names, fixed(Given::Nothing, &["pos", "neg"]))?;
    assert_eq!(labels_of(&set), classes(&[1, 0, 0]));
    // A stage may know more classes.
    let set = of(
        numbers,
        fixed(own(&["neg", "pos"]), &["pos", "mixed", "neg"]),
    )?;
    assert_eq!(labels_of(&set), classes(&[2, 0, 0]));
    // Classes without names take those of the data set.
    for generic in [["LABEL_0", "LABEL_1"], ["0", "1"]] {
        let set = of(numbers, fixed(own(&["neg", "pos"]), &generic))?;
        assert_eq!(
            (set.classes.as_slice(), labels_of(&set)),
            (list(&["neg", "pos"]).as_slice(), classes(&[0, 1, 1]))
        );
        let set = of(names, fixed(own(&["pos", "neg"]), &generic))?;
        assert_eq!(labels_of(&set), classes(&[1, 0, 0]));
        assert_eq!(
            labels_of(&of(numbers, fixed(Given::Nothing, &generic))?),
            classes(&[0, 1, 1])
        );
        assert!(no(names, fixed(Given::Nothing, &generic))?.contains("in the model's order"));
        let three = no(numbers, fixed(own(&["a", "b", "c"]), &generic))?;
        assert!(
            three.contains("has 3 classes") && three.contains("the model has 2"),
            "{three}"
        );
    }
    // Numbers without a list, where classes have names.
    assert!(no(numbers, fixed(Given::Nothing, &["neg", "pos"]))?.contains("`labels = […]`"));
    // Lists of different names.
    let other = no(numbers, fixed(own(&["bad", "good"]), &["neg", "pos"]))?;
    assert!(other.contains("`bad` is none of them"), "{other}");
    let case = no(numbers, fixed(own(&["Pos", "NEG"]), &["neg", "pos"]))?;
    assert!(case.contains("labels = [\"pos\", \"neg\"]"), "{case}");
    // Numbers that do not begin at 0.
    let from_one = b"t\tl\na\t1\nb\t2\nc\t2\n".as_slice();
    for classes in [&["neg", "pos"][..], &["a", "b", "c"]] {
        let error = no(from_one, given(classes))?;
        assert!(
            error.contains("numbers from 1 to 2") && error.contains("{ 1: "),
            "{error}"
        );
    }
    let pairs = map(&[("2", "pos"), ("1", "neg")]);
    let naming = Naming {
        given: pairs,
        ..Naming::default()
    };
    let set = of(from_one, Labels::Classes(naming))?;
    assert_eq!(
        (set.classes.as_slice(), labels_of(&set)),
        (list(&["neg", "pos"]).as_slice(), classes(&[0, 1, 1]))
    );
    // Names that are numbers are names.
    let set = of(from_one, given(&["2", "1"]))?;
    assert_eq!(labels_of(&set), classes(&[1, 0, 0]));
    assert!(no(numbers, given(&["2", "1"]))?.contains("none of the classes"));
    assert!(no(numbers, given(&["a", "a"]))?.contains("twice"));
    Ok(())
}
