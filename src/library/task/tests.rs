//! Tasks by their names and by the configs of their heads.

use serde_json::json;

use super::*;

#[test]
fn every_task_is_made_by_its_name_and_writes_as_many_cells_as_columns() {
    let classes = ["a", "b", "c"].map(str::to_owned);
    for kind in TASKS {
        let task = task(kind.schema.name).expect("registered");
        assert_eq!(task.name(), kind.schema.name);
        let options: Vec<(String, f64)> = task
            .options()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let again = with_options(task.name(), &options).expect("registered");
        assert_eq!(format!("{again:?}"), format!("{task:?}"));
        let scores = [0.5, -1.0, 2.0];
        let predicted = task.predict(&scores);
        let names = Names {
            classes: &classes,
            tokens: None,
        };
        let row = Scored {
            position: 0,
            target: &predicted,
            predicted: &predicted,
            scores: &scores[..task.width(3).clamp(1, 3) as usize],
        };
        assert_eq!(
            task.cells(names, row).len(),
            task.columns(&classes).len(),
            "{}",
            task.name()
        );
        for form in [(false, false), (true, false), (false, true), (true, true)] {
            let (all, nested) = form;
            let form = Form { all, nested };
            if let Ok(columns) = task.answers(&classes, form) {
                let values = task.values(&classes, form, &scores);
                assert_eq!(values.len(), columns.len(), "{}", task.name());
            }
        }
        for metric in task.metrics() {
            let metric = crate::library::metric::metric(metric).expect("registered");
            assert!(metric.fits(task.answer(), 2, false), "{}", task.name());
        }
    }
}

#[test]
fn the_task_of_a_head_is_read_off_its_config() {
    let of = |config: Json, scores| of_config(&config, scores).map(|task| task.name());
    assert_eq!(of(json!({}), 2), Ok("classify"));
    assert_eq!(of(json!({ "problem_type": null }), 1), Ok("regress"));
    assert_eq!(
        of(json!({ "problem_type": "regression" }), 3),
        Ok("regress")
    );
    let single = json!({ "problem_type": "single_label_classification" });
    assert_eq!(of(single, 1), Ok("classify"));
    let other = json!({ "problem_type": "other" });
    assert_eq!(of(other, 1), Err("other".to_owned()));
}
