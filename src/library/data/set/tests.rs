//! Labels, shuffles and errors of data sets.

mod several;
mod spellings;

use super::*;
use crate::cli::world::RealWorld;
use crate::library::schema::Portion;
use std::path::PathBuf;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const DERIVE: Labels = Labels::Classes(Naming {
    given: Given::Nothing,
    fixed: None,
    preferred: None,
});

fn spec(files: Vec<PathBuf>, labels: Labels) -> DataSpec {
    DataSpec {
        files,
        format: None,
        text: vec!["t".into()],
        form: Form::Text,
        first_answer: 0,
        label: Some("l".into()),
        task: None,
        take: None,
        shuffle: None,
        labels,
        separator: None,
        beside: None,
        carve: None,
    }
}

/// Loads one file of that name and content.
fn with(
    name: &str,
    bytes: &[u8],
    change: impl FnOnce(&mut DataSpec),
) -> Result<Result<DataSet, Vec<DataError>>, std::io::Error> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(name);
    std::fs::write(&path, bytes)?;
    let mut spec = spec(vec![path], DERIVE);
    change(&mut spec);
    Ok(load(
        &spec,
        &RealWorld::with_cache(true, dir.path().to_owned()),
    ))
}

fn good(
    name: &str,
    bytes: &[u8],
    change: impl FnOnce(&mut DataSpec),
) -> Result<DataSet, Box<dyn std::error::Error>> {
    with(name, bytes, change)?.map_err(|errors| format!("{errors:?}").into())
}

fn bad(
    name: &str,
    bytes: &[u8],
    change: impl FnOnce(&mut DataSpec),
) -> Result<Vec<DataError>, Box<dyn std::error::Error>> {
    with(name, bytes, change)?
        .err()
        .ok_or_else(|| "it was loaded".into())
}

fn labels_of(set: &DataSet) -> Vec<Option<Label>> {
    set.examples.iter().map(|e| e.label.clone()).collect()
}

fn classes(of: &[u32]) -> Vec<Option<Label>> {
    of.iter().map(|&class| Some(Label::Class(class))).collect()
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn given(names: &[&str]) -> Labels {
    Labels::Classes(Naming {
        given: Given::List(list(names)),
        ..Naming::default()
    })
}

/// Names of the data set, those of the stage, and both.
fn fixed(given: Given, names: &[&str]) -> Labels {
    Labels::Classes(Naming {
        given,
        fixed: Some(list(names)),
        preferred: None,
    })
}

fn map(pairs: &[(&str, &str)]) -> Given {
    let own = |text: &str| text.to_owned();
    Given::Map(pairs.iter().map(|(a, b)| (own(a), own(b))).collect())
}

#[test]
fn derived_classes_are_in_order() -> Outcome {
    let set = good("a.tsv", b"t\tl\na\t10\nb\t2\nc\t10\n", |_| {})?;
    assert_eq!(
        (set.classes.as_slice(), labels_of(&set)),
        (
            ["2".to_owned(), "10".to_owned()].as_slice(),
            classes(&[1, 0, 1])
        )
    );
    let set = good("a.csv", b"t,l\na,yes\nb,no\n", |_| {})?;
    assert_eq!(
        (set.classes.as_slice(), labels_of(&set)),
        (
            ["no".to_owned(), "yes".to_owned()].as_slice(),
            classes(&[1, 0])
        )
    );
    let errors = bad("a.tsv", b"t\tl\na\t0.5\nb\t\n", |_| {})?;
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [Some(2), Some(3)]);
    assert!(errors[0].file.ends_with("a.tsv") && errors[0].message.contains("`0.5` is a score"));
    Ok(())
}

#[test]
fn given_classes_match_names_or_places() -> Outcome {
    let set = good("a.tsv", b"t\tl\na\t1\nb\t0\nc\tnegative\n", |spec| {
        spec.labels = given(&["negative", "positive"])
    })?;
    assert_eq!(labels_of(&set), classes(&[1, 0, 0]));
    let set = good(
        "a.jsonl",
        b"{\"t\":\"x\",\"l\":2}\n{\"t\":\"y\",\"l\":1}",
        |spec| spec.labels = given(&["2", "1"]),
    )?;
    assert_eq!(labels_of(&set), classes(&[0, 1]));
    let errors = bad("a.tsv", b"t\tl\na\t0\nb\tpositiv\nc\tx\nd\t2\n", |spec| {
        spec.labels = given(&["negative", "positive"])
    })?;
    assert_eq!(errors.len(), 1, "one cause, one error: {errors:?}");
    assert_eq!(errors[0].line, Some(3));
    assert!(errors[0].message.contains("2 more like it (line 4, 5)"));
    let help = errors[0].help.as_deref().unwrap_or_default();
    assert!(help.contains("did you mean `positive`"), "{help}");
    let errors = bad("a.tsv", b"t\tl\na\t-1\nb\t1\n", |spec| {
        spec.labels = given(&["negative", "positive"])
    })?;
    let help = errors[0].help.as_deref().unwrap_or_default();
    assert!(help.contains("without a label"), "{help}");
    Ok(())
}

#[test]
fn a_trained_head_keeps_the_order_of_its_classes() -> Outcome {
    for (bytes, labels) in [
        (
            b"t\tl\na\t0\nb\t1\n".as_slice(),
            Given::List(list(&["neg", "pos"])),
        ),
        (b"t\tl\na\tneg\nb\tpos\n".as_slice(), Given::Nothing),
    ] {
        let naming = |preferred: &[&str]| {
            Labels::Classes(Naming {
                given: labels.clone(),
                fixed: None,
                preferred: Some(list(preferred)),
            })
        };
        let set = good("a.tsv", bytes, |spec| spec.labels = naming(&["pos", "neg"]))?;
        assert_eq!(
            (set.classes.as_slice(), labels_of(&set)),
            (list(&["pos", "neg"]).as_slice(), classes(&[1, 0]))
        );
        let set = good("a.tsv", bytes, |spec| {
            spec.labels = naming(&["pos", "other"])
        })?;
        assert_eq!(set.classes, list(&["neg", "pos"]));
    }
    Ok(())
}

#[test]
fn words_for_missing_values_and_joined_labels_are_no_classes() -> Outcome {
    let of = |labels: &[&str]| -> Vec<u8> {
        let rows: Vec<String> = labels.iter().map(|l| format!("x\t{l}\n")).collect();
        format!("t\tl\n{}", rows.concat()).into_bytes()
    };
    for word in ["nan", "NaN", "NA", "N/A", "null", "None", "<NA>"] {
        let errors = bad("a.tsv", &of(&["1", "0", word, "1.0"]), |_| {})?;
        assert_eq!((errors.len(), errors[0].line), (1, Some(4)));
        assert!(
            errors[0]
                .message
                .contains(&format!("`{word}` stands among numbers")),
            "{errors:?}"
        );
        // Among names it may be one of them; what is listed is meant.
        assert_eq!(good("a.tsv", &of(&["yes", word]), |_| {})?.classes.len(), 2);
        let listed = |spec: &mut DataSpec| spec.labels = given(&["0", "1", word]);
        assert_eq!(
            labels_of(&good("a.tsv", &of(&["1", "0", word]), listed)?),
            classes(&[1, 0, 2])
        );
    }
    for separator in ['|', ';', ','] {
        let joined = format!("a{separator}b");
        let errors = bad("a.tsv", &of(&["a", "b", "c", &joined]), |_| {})?;
        assert!(
            errors[0]
                .message
                .contains(&format!("`{joined}` is made of other labels")),
            "{errors:?}"
        );
        let listed = |spec: &mut DataSpec| spec.labels = given(&["a", "b", "c", &joined]);
        good("a.tsv", &of(&["a", "b", "c", &joined]), listed)?;
        good("a.tsv", &of(&["a", "b", &format!("x{separator}y")]), |_| {})?;
    }
    let many: Vec<String> = (0..10_001).map(|n| format!("text {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(
        bad("a.tsv", &of(&many), |_| {})?[0]
            .message
            .contains("more than 10000 different labels")
    );
    Ok(())
}

#[test]
fn splits_are_carved_out_of_the_rows() -> Outcome {
    let text: String = (0..101)
        .map(|row| format!("{row}\t{}\n", usize::from(row % 10 == 0)))
        .collect();
    let text = format!("t\tl\n{text}");
    let part = |own: Option<usize>, seed: u64, stratify: bool, label: bool| {
        good("a.tsv", text.as_bytes(), |spec| {
            if !label {
                spec.labels = Labels::None;
            }
            spec.carve = Some(Carve {
                shares: vec![Portion::Share(10, 100), Portion::Share(20, 100)],
                own,
                seed,
                stratify: stratify.then(|| "l".to_owned()),
            });
        })
    };
    let rows = |set: &DataSet| -> Vec<u32> {
        set.examples
            .iter()
            .filter_map(|e| e.texts[0].parse().ok())
            .collect()
    };
    for stratify in [false, true] {
        let parts: Vec<DataSet> = [Some(0), Some(1), None]
            .into_iter()
            .map(|own| part(own, 1, stratify, true))
            .collect::<Result<_, _>>()?;
        let sizes: Vec<usize> = parts.iter().map(|p| p.examples.len()).collect();
        assert_eq!(sizes, [10, 20, 71]);
        let mut all: Vec<u32> = parts.iter().flat_map(rows).collect();
        all.sort_unstable();
        assert_eq!(
            all,
            (0..101).collect::<Vec<u32>>(),
            "every row is in one split"
        );
        assert!(
            parts.iter().all(|p| rows(p).is_sorted()),
            "in the order of the file"
        );
        if stratify {
            let ones = |p: &DataSet| {
                labels_of(p)
                    .iter()
                    .filter(|l| **l == Some(Label::Class(1)))
                    .count()
            };
            assert_eq!(parts.iter().map(ones).collect::<Vec<_>>(), [1, 2, 8]);
        }
        // What is learned has no part in it.
        assert_eq!(rows(&part(Some(0), 1, stratify, false)?), rows(&parts[0]));
        assert_ne!(rows(&part(Some(0), 2, stratify, true)?), rows(&parts[0]));
    }
    let none = bad("a.tsv", b"t\tl\na\tx\nb\ty\n", |spec| {
        spec.carve = Some(Carve {
            shares: vec![Portion::Share(1, 100)],
            own: Some(0),
            seed: 0,
            stratify: None,
        });
    })?;
    assert!(
        none[0].message.contains("gives this part none of 2 rows"),
        "{none:?}"
    );
    Ok(())
}

#[test]
fn class_names_lie_beside_the_files() -> Outcome {
    let dir = tempfile::tempdir()?;
    let world = RealWorld::new(true);
    let beside =
        |config: Option<&str>| super::super::names::beside(dir.path(), config, "label", &world);
    assert_eq!(beside(None), None);
    let page = "---\nlicense: mit\ndataset_info:\n- config_name: two\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': neg\n          '1': pos\n- config_name: three\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': a\n          '1': b\n          '2': c\n---\n# Reviews\n";
    std::fs::write(dir.path().join("README.md"), page)?;
    assert_eq!(beside(Some("two")), Some(list(&["neg", "pos"])));
    assert_eq!(beside(None), None, "which of the two is not said");
    let infos = r#"{"default": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}}}"#;
    std::fs::write(dir.path().join("dataset_infos.json"), infos)?;
    assert_eq!(beside(None), Some(list(&["no", "yes"])));
    Ok(())
}

#[test]
fn parquet_classes_have_their_own_names() -> Outcome {
    let bytes = super::super::tests::parquet_bytes()?;
    let read = |labels: Labels| {
        good("a.parquet", &bytes, |spec| {
            spec.text = vec!["score".into()];
            spec.label = Some("label".into());
            spec.labels = labels;
        })
    };
    let set = read(DERIVE)?;
    assert_eq!(
        (set.classes.as_slice(), labels_of(&set)),
        (
            ["neg".to_owned(), "pos".to_owned()].as_slice(),
            classes(&[1, 1, 0])
        )
    );
    let other = bad("a.parquet", &bytes, |spec| {
        spec.text = vec!["score".into()];
        spec.label = Some("label".into());
        spec.labels = given(&["bad", "good"]);
    })?;
    let help = other[0].help.as_deref().unwrap_or_default();
    assert!(
        help.contains("\"neg\": \"bad\", \"pos\": \"good\""),
        "{other:?}"
    );
    let naming = Naming {
        given: map(&[("neg", "bad"), ("pos", "good")]),
        ..Naming::default()
    };
    assert_eq!(
        labels_of(&read(Labels::Classes(naming))?),
        classes(&[1, 1, 0])
    );
    assert_eq!(
        labels_of(&read(given(&["POS", "NEG"]))?),
        classes(&[0, 0, 1])
    );
    assert_eq!(
        labels_of(&read(given(&["pos", "neg"]))?),
        classes(&[0, 0, 1]),
        "the name decides"
    );
    assert!(
        bad("a.parquet", &bytes, |spec| {
            spec.text = vec!["text".into()];
            spec.labels = Labels::None;
        })?[0]
            .to_string()
            .ends_with("a.parquet:2: the text `text` is missing")
    );
    Ok(())
}

#[test]
fn scores_are_finite() -> Outcome {
    let set = good("a.tsv", b"t\tl\na\t1\nb\t-0.5\n", |spec| {
        spec.labels = Labels::Regression
    })?;
    assert_eq!(
        labels_of(&set),
        [Some(Label::Score(1.0)), Some(Label::Score(-0.5))]
    );
    let errors = bad("a.tsv", b"t\tl\na\tnan\nb\tx\nc\t1e60\n", |spec| {
        spec.labels = Labels::Regression
    })?;
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("2 more like it"), "{errors:?}");
    Ok(())
}

#[test]
fn a_shuffle_is_repeatable_and_comes_before_take() -> Outcome {
    let mut text = "t\tl\n".to_owned();
    for row in 0..50 {
        text.push_str(&format!("{row}\t{}\n", row % 3));
    }
    let read = |shuffle, take| {
        good("a.tsv", text.as_bytes(), |spec| {
            (spec.shuffle, spec.take) = (shuffle, take)
        })
    };
    let (all, some) = (read(Some(7), None)?, read(Some(7), Some(5))?);
    assert_eq!(some.examples.as_slice(), &all.examples[..5]);
    assert_eq!(some.classes, all.classes);
    assert_ne!(read(Some(8), None)?.examples, all.examples);
    let mut texts: Vec<u32> = all
        .examples
        .iter()
        .filter_map(|example| example.texts[0].parse().ok())
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..50).collect::<Vec<u32>>());
    assert_eq!(read(None, Some(2))?.examples[1].texts, ["1"]);
    Ok(())
}

#[test]
fn files_and_columns_have_their_errors() -> Outcome {
    let text = format!("t\tl\n{}", "a\tx\n".repeat(30));
    let errors = bad("a.tsv", text.as_bytes(), |spec| spec.labels = given(&["y"]))?;
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .message
            .contains("29 more like it (line 3, 4, 5, 6, …)"),
        "{errors:?}"
    );
    assert!(
        bad("a.tsv", b"t\tl\n", |_| {})?[0]
            .message
            .contains("no examples")
    );
    assert!(
        bad("a.tsv", b"t\tl\na\t1\n", |spec| spec.label = None)?[0]
            .message
            .contains("no label column")
    );
    assert!(
        bad("a.txt", b"t\tl\na\t1\n", |_| {})?[0]
            .message
            .contains("names no data format")
    );
    assert!(
        bad("a.txt", b"t\tl\na\t1\n", |spec| spec.format =
            Some("tvs".into()))?[0]
            .message
            .contains("no data format `tvs`")
    );
    assert!(bad("a.tsv", b"", |spec| spec.files.push("none.tsv".into()))?.len() == 2);
    let set = good("a.txt", b"t\tx\na\t1\n", |spec| {
        (spec.format, spec.labels) = (Some("tsv".into()), Labels::None)
    })?;
    assert_eq!(
        set.examples,
        [Example {
            spoken: false,
            texts: vec!["a".into()],
            label: None,
            task: 0,
            row: 0
        }]
    );
    Ok(())
}

#[test]
fn the_sample_reviews_load() -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/reviews/train.tsv");
    let mut spec = spec(vec![path], given(&["negative", "positive"]));
    (spec.text, spec.label) = (vec!["sentence".into()], Some("label".into()));
    let set = load(&spec, &RealWorld::new(true)).map_err(|errors| format!("{errors:?}"))?;
    assert!(set.examples.len() > 1000);
    assert_eq!(set.examples[1].label, Some(Label::Class(0)));
    Ok(())
}
