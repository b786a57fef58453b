use serde_json::Value as Json;

use super::super::{METRICS, Metric, Predictions, metric};
use super::*;
use crate::library::task::Answer;

#[test]
fn values_are_those_of_the_reference_implementations() {
    let text = include_str!("../../../../tests/reference/text_metrics.json");
    let cases: Vec<Json> = serde_json::from_str(text).expect("JSON");
    assert!(cases.len() > 3);
    for case in &cases {
        let string = |x: &Json| x.as_str().expect("a string").to_owned();
        let rows = case["rows"].as_array().expect("rows").iter();
        let texts = rows.map(|row| TextPair {
            generated: string(&row["generated"]),
            references: row["references"]
                .as_array()
                .expect("a list")
                .iter()
                .map(string)
                .collect(),
        });
        let predictions = Predictions {
            texts: texts.collect(),
            ..Predictions::default()
        };
        let values = case["values"].as_object().expect("values");
        let of_texts =
            |m: &&&dyn Metric| m.fits(Answer::Text, 0, false) && !m.fits(Answer::Token, 0, false);
        let ours = METRICS.iter().filter(of_texts);
        assert_eq!(ours.count(), values.len(), "a metric without a reference");
        for (name, want) in values {
            let got = metric(name).expect("registered").compute(&predictions);
            // Where the reference divides by zero, the value has to be finite.
            let want = want.as_f64().unwrap_or(got);
            assert!(got.is_finite(), "{name}");
            assert!(
                (got - want).abs() < 1e-9 * want.abs().max(1.0),
                "{name} of {}: {got}, the reference {want}",
                case["name"]
            );
        }
    }
}
