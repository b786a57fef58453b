//! Matthews' correlation.

use super::{HeadKind, Metric, Predictions, Schema, ratio};

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

    fn fits(&self, head: &HeadKind) -> bool {
        matches!(head, HeadKind::Classes(_))
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let pairs = p.pairs();
        let n = pairs.len() as f64;
        let right = pairs.iter().filter(|(l, p)| l == p).count() as f64;
        let top = pairs.iter().flat_map(|(l, p)| [*l, *p]).max().unwrap_or(0);
        let (mut both, mut labels, mut predicted) = (0.0, 0.0, 0.0);
        for class in 0..=top {
            let t = pairs.iter().filter(|(l, _)| *l == class).count() as f64;
            let q = pairs.iter().filter(|(_, p)| *p == class).count() as f64;
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
