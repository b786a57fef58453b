use super::*;

#[test]
fn mean_and_deviation_are_those_of_a_sample() {
    let stat: Stat = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0, f64::NAN]
        .into_iter()
        .collect();
    assert_eq!(stat.n(), 8);
    assert_eq!(stat.mean(), Some(5.0));
    let sd = stat.sd().expect("a deviation");
    assert!((sd - (32.0f64 / 7.0).sqrt()).abs() < 1e-12, "{sd}");
    let one: Stat = [3.0].into_iter().collect();
    assert_eq!((one.mean(), one.sd()), (Some(3.0), None));
    assert_eq!(Stat::default().mean(), None);
}

fn row(name: &str, accuracy: f64, mib: u64, hash: &str) -> Row {
    let of = |x: f64| std::iter::once(x).collect::<Stat>();
    Row {
        name: name.to_owned(),
        metrics: [("accuracy".to_owned(), of(accuracy))].into(),
        measured: of((mib << 20) as f64),
        scored_on: Some(Data {
            name: "d".to_owned(),
            hash: (!hash.is_empty()).then(|| hash.to_owned()),
            rows: Some(100),
            ..Data::default()
        }),
        recipe: name.to_owned(),
        ..Row::default()
    }
}

#[test]
fn the_front_is_what_nothing_beats_in_both() {
    let points = [
        (0.5, 10),
        (0.7, 20),
        (0.7, 20),
        (0.6, 30),
        (0.9, 40),
        (0.9, 50),
        (0.4, 10),
    ];
    let rows = points.map(|(accuracy, mib)| row("r", accuracy, mib, "a"));
    let group = Group::new(rows.to_vec(), None);
    let beats = |a: &Row, b: &Row| {
        let of = |r: &Row| (-r.metric("accuracy").unwrap_or(0.0), r.measured.mean());
        let (a, b) = (of(a), of(b));
        a.0 <= b.0 && a.1 <= b.1 && a != b
    };
    for own in &group.rows {
        let beaten = group.rows.iter().any(|other| beats(other, own));
        assert_eq!(own.pareto, !beaten, "{:?}", own.measured);
    }
    assert_eq!(group.front().count(), 4);
}

#[test]
fn only_what_was_scored_on_the_same_data_is_compared() {
    let rows = vec![
        row("a", 0.9, 10, "one"),
        row("b", 0.5, 20, "two"),
        row("c", 0.8, 20, "one"),
        row("old", 0.99, 1, ""),
        row("older", 0.98, 2, ""),
    ];
    let found = groups(rows, None);
    let names: Vec<Vec<&str>> = found
        .iter()
        .map(|g| g.rows.iter().map(|r| r.name.as_str()).collect())
        .collect();
    assert_eq!(
        names,
        [vec!["a", "c"], vec!["b"], vec!["old"], vec!["older"]]
    );
    let front: Vec<&str> = found
        .iter()
        .flat_map(Group::front)
        .map(|(_, r)| r.name.as_str())
        .collect();
    assert_eq!(front, ["a", "b", "old", "older"]);
    assert_eq!(found[0].title().as_deref(), Some("d, 100 rows"));
}

#[test]
fn rows_are_the_same_whatever_the_order_of_their_classes() {
    let with = |name: &str, hash: &str, rows: &str| {
        let mut own = row(name, 0.5, 10, hash);
        if let Some(data) = &mut own.scored_on {
            data.rows_hash = (!rows.is_empty()).then(|| rows.to_owned());
        }
        own
    };
    // The last one is of an older version, which knew the files alone.
    let rows = vec![
        with("a", "ab of a file", "the rows"),
        with("b", "ba of a file", "the rows"),
        with("c", "of another", "others"),
        with("old", "ba of a file", ""),
    ];
    let found = groups(rows, None);
    let sizes: Vec<usize> = found.iter().map(|g| g.rows.len()).collect();
    assert_eq!(sizes, [3, 1]);
}

#[test]
fn what_is_of_unlike_classes_ranks_nothing() {
    let of = |name: &str, f1: f64, class: Option<&str>| {
        let mut own = row(name, 0.5, 10, "a");
        own.metrics
            .insert("f1".to_owned(), std::iter::once(f1).collect());
        own.f1_of = class
            .map(|c| ("f1".to_owned(), c.to_owned()))
            .into_iter()
            .collect();
        own
    };
    for others in [Some("ham"), None] {
        let rows = vec![
            of("a", 0.2, Some("spam")),
            of("b", 0.9, others),
            of("c", 0.4, Some("spam")),
        ];
        let group = Group::new(rows.clone(), Some("f1"));
        assert_eq!(group.main, None);
        let names: Vec<&str> = group.rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"], "in the order in which they came");
        assert_eq!(group.front().count(), 0);
        assert_eq!(group.metrics.first().map(String::as_str), Some("f1"));
        let report = Report {
            groups: vec![group],
            ..Report::default()
        };
        for text in [
            table::terminal(&report, 100),
            table::markdown(&report),
            page::html(&report),
        ] {
            assert!(text.contains("not ranked by it"), "{text}");
            assert!(
                !text.contains("0.9000*") && !text.contains("**0.9000**"),
                "{text}"
            );
            assert!(!text.contains("nothing beats"), "{text}");
        }
        let group = Group::new(rows, None);
        assert_eq!(
            group.main.as_deref(),
            Some("accuracy"),
            "what can be compared is taken"
        );
    }
    let rows = vec![of("a", 0.2, Some("spam")), of("b", 0.9, Some("spam"))];
    assert_eq!(Group::new(rows, Some("f1")).main.as_deref(), Some("f1"));
}

#[test]
fn twenty_thousand_rows_take_a_moment() {
    let results: Vec<RunResult> = (0..20_000)
        .map(|i| {
            rows::tests::result(
                &format!("o/{i}"),
                &format!("r{}.peft", i % 7),
                &format!("m{i}"),
                i,
                0.5 + i as f64 * 1e-6,
                10 + i,
            )
        })
        .collect();
    let begun = std::time::Instant::now();
    let report = Report::new(&results, None);
    let made = [
        table::terminal(&report, 100),
        export::csv(&report),
        page::html(&report),
    ];
    let took = begun.elapsed();
    assert_eq!(report.rows().count(), 20_000);
    assert!(made[0].lines().count() > 20_000 && made[2].len() < 20_000_000);
    assert!(took.as_secs() < 20, "{took:?}");
}
