use super::*;

#[test]
fn answers_are_compared_as_in_the_script_of_squad() {
    let text = include_str!("../../../../tests/reference/extract.json");
    let traces: Json = serde_json::from_str(text).expect("JSON");
    let pairs = traces["pairs"].as_array().expect("pairs");
    assert!(pairs.len() > 10);
    for pair in pairs {
        let right = pair["right"].as_array().expect("a list").iter();
        let right = right.map(|text| text.as_str().expect("a text").to_owned());
        let own = Predictions {
            texts: vec![TextPair {
                generated: pair["said"].as_str().expect("a text").to_owned(),
                references: compared(right.collect()),
            }],
            ..Predictions::default()
        };
        for (name, key) in [("answer_match", "exact"), ("token_f1", "f1")] {
            let is = metric(name).expect("registered").compute(&own);
            let want = pair[key].as_f64().expect("a number");
            assert!((is - want).abs() < 1e-12, "{name}: {is} for {pair}");
        }
    }
}

#[test]
fn the_best_pair_of_all_windows_answers() {
    let seen = |first, offsets: &[[u32; 2]]| Seen {
        first,
        offsets: offsets.to_vec(),
        row: None,
    };
    let limits = |threshold| Limits {
        most: 3,
        length: 2,
        threshold,
    };
    // Two tokens before the context `ab cd ef`; the second window begins with `cd`.
    let windows = [
        (
            seen(2, &[[0, 2], [3, 5]]),
            highest(&[1.0, 1.0, 9.0, 0.0, 2.0, 0.0, 1.5, 4.0], 3),
        ),
        (
            seen(2, &[[3, 5], [6, 8]]),
            highest(&[0.5, 0.5, 0.0, 9.0, 5.0, 0.0, 0.0, 2.0], 3),
        ),
    ];
    let of = |threshold| {
        let all = windows.iter().map(|(seen, scores)| (seen, scores));
        answered(all, "ab cd ef", limits(threshold))
    };
    let own = of(None);
    let best = own.own.and_then(|at| own.all.get(at)).expect("an answer");
    // What begins or ends outside of the context does not count, nor does what ends before it begins.
    assert_eq!((best.at, best.score), (Some([3, 8]), 7.0));
    assert_eq!(own.all[1].at, Some([0, 5]));
    assert!(own.none.is_none() && own.all.len() == 3);
    // The least score of no answer is 1, and stays among the compared though others are higher.
    let own = of(Some(-6.0));
    assert_eq!((own.none, own.own, own.all.len()), (Some(-6.0), Some(0), 4));
    let own = of(Some(-6.5));
    assert_eq!(
        own.own.and_then(|at| own.all.get(at)).expect("none").at,
        None
    );
    let none = answered(std::iter::empty(), "", limits(Some(0.0)));
    assert_eq!(none, Answered::default());
}
