//! Labels, shuffles and errors of data sets.

use super::*;
use crate::cli::world::RealWorld;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn spec(files: Vec<PathBuf>, labels: Labels) -> DataSpec {
    DataSpec {
        files,
        format: None,
        text: vec!["t".into()],
        label: Some("l".into()),
        take: None,
        shuffle: None,
        labels,
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
    let mut spec = spec(vec![path], Labels::Derive);
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

fn labels(set: &DataSet) -> Vec<Option<Label>> {
    set.examples.iter().map(|example| example.label).collect()
}

fn classes(of: &[u32]) -> Vec<Option<Label>> {
    of.iter().map(|&class| Some(Label::Class(class))).collect()
}

fn given(names: &[&str]) -> Labels {
    Labels::Given(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn derived_classes_are_in_order() -> Outcome {
    let set = good("a.tsv", b"t\tl\na\t10\nb\t2\nc\t10\n", |_| {})?;
    assert_eq!(
        (set.classes.as_slice(), labels(&set)),
        (
            ["2".to_owned(), "10".to_owned()].as_slice(),
            classes(&[1, 0, 1])
        )
    );
    let set = good("a.csv", b"t,l\na,yes\nb,no\n", |_| {})?;
    assert_eq!(
        (set.classes.as_slice(), labels(&set)),
        (
            ["no".to_owned(), "yes".to_owned()].as_slice(),
            classes(&[1, 0])
        )
    );
    let errors = bad("a.tsv", b"t\tl\na\t0.5\nb\t\n", |_| {})?;
    assert_eq!(
        errors.iter().map(|error| error.line).collect::<Vec<_>>(),
        [Some(2), Some(3)]
    );
    assert!(errors[0].file.ends_with("a.tsv") && errors[0].message.contains("`0.5` is a score"));
    Ok(())
}

#[test]
fn given_classes_match_names_or_places() -> Outcome {
    let set = good("a.tsv", b"t\tl\na\t1\nb\t0\nc\tnegative\n", |spec| {
        spec.labels = given(&["negative", "positive"])
    })?;
    assert_eq!(labels(&set), classes(&[1, 0, 0]));
    let set = good(
        "a.jsonl",
        b"{\"t\":\"x\",\"l\":2}\n{\"t\":\"y\",\"l\":1}",
        |spec| spec.labels = given(&["2", "1"]),
    )?;
    assert_eq!(labels(&set), classes(&[0, 1]));
    let errors = bad("a.tsv", b"t\tl\na\t2\nb\tpositiv\nc\t-1\n", |spec| {
        spec.labels = given(&["negative", "positive"])
    })?;
    assert_eq!(
        errors.iter().map(|error| error.line).collect::<Vec<_>>(),
        [Some(2), Some(3), Some(4)]
    );
    assert!(
        errors[1]
            .help
            .as_deref()
            .is_some_and(|help| help.contains("did you mean `positive`"))
    );
    assert!(
        errors[2]
            .help
            .as_deref()
            .is_some_and(|help| help.contains("without a label"))
    );
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
    let set = read(Labels::Derive)?;
    assert_eq!(
        (set.classes.as_slice(), labels(&set)),
        (
            ["neg".to_owned(), "pos".to_owned()].as_slice(),
            classes(&[1, 1, 0])
        )
    );
    assert_eq!(labels(&read(given(&["bad", "good"]))?), classes(&[1, 1, 0]));
    assert_eq!(
        labels(&read(given(&["pos", "neg"]))?),
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
        labels(&set),
        [Some(Label::Score(1.0)), Some(Label::Score(-0.5))]
    );
    let errors = bad("a.tsv", b"t\tl\na\tnan\nb\tx\nc\t1e60\n", |spec| {
        spec.labels = Labels::Regression
    })?;
    assert_eq!(errors.len(), 3);
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
fn errors_are_collected_up_to_ten() -> Outcome {
    let text = format!("t\tl\n{}", "a\tx\n".repeat(30));
    assert_eq!(
        bad("a.tsv", text.as_bytes(), |spec| spec.labels = given(&["y"]))?.len(),
        10
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
            texts: vec!["a".into()],
            label: None,
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
