//! Matthews' correlation.

use super::{Answer, Confusion, Metric, Predictions, Schema, ratio};

/// Matthews' correlation coefficient, for any number of classes.
#[derive(Debug)]
pub(super) struct Matthews;

static SCHEMA: Schema = Schema {
    name: "matthews",
    summary: "Matthews' correlation between labels and predictions, the metric of CoLA",
    doc: "(c·n − Σ tₖpₖ) / √((n² − Σ pₖ²)(n² − Σ tₖ²)) with c right of n, tₖ labels and pₖ predictions of class k.",
    paper: "Matthews 1975; Gorodkin 2004",
    keys: &[],
};

impl Metric for Matthews {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        matches!(answer, Answer::Class | Answer::Grade)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let confusion = Confusion::of(p);
        let (n, right) = (confusion.rows() as f64, confusion.right() as f64);
        let (mut both, mut labels, mut predicted) = (0.0, 0.0, 0.0);
        for class in confusion.classes() {
            let own = confusion.class(class);
            let (t, q) = (own.support as f64, own.predicted as f64);
            both += t * q;
            labels += t * t;
            predicted += q * q;
        }
        ratio(
            right * n - both,
            ((n * n - predicted) * (n * n - labels)).sqrt(),
        )
    }
}
