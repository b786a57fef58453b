//! What is counted, as Prometheus reads it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the classes of times, in milliseconds.
const BOUNDS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// Counts of a model.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) tokens: AtomicU64,
    pub(super) batches: AtomicU64,
    times: [AtomicU64; BOUNDS.len()],
    micros: AtomicU64,
}

/// All counts.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    models: Mutex<Vec<(String, Arc<Counts>)>>,
    /// Requests that were refused because too many waited.
    pub(super) refused: AtomicU64,
    /// Requests that wait or are computed.
    pub(super) waiting: AtomicU64,
    /// Passes of rows through plain weights, the models whose rows were in them, and these rows.
    pub(super) passes: AtomicU64,
    pub(super) in_passes: AtomicU64,
    pub(super) passed_rows: AtomicU64,
    /// Most tensor bytes so far.
    pub(super) peak: AtomicU64,
}

/// Kinds of counts of a model, with their names and what they are.
type Kind = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

const KINDS: [Kind; 4] = [
    (
        "failed_requests_total",
        "Requests that were answered with an error, or given up.",
        |c| &c.failed,
    ),
    (
        "rows_total",
        "Rows labelled, or prompts gone on with.",
        |c| &c.rows,
    ),
    ("generated_tokens_total", "Tokens that were made.", |c| {
        &c.tokens
    }),
    (
        "batches_total",
        "Batches that had rows or prompts of the model.",
        |c| &c.batches,
    ),
];

/// Adds to a count.
pub(super) fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl Counts {
    /// Notes how long a request took.
    pub(super) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.micros, micros);
        add(&self.requests, 1);
        for (bound, count) in BOUNDS.iter().zip(&self.times) {
            if micros <= bound * 1000 {
                add(count, 1);
            }
        }
    }

    fn histogram(&self, name: &str, model: &str, out: &mut String) {
        for (bound, count) in BOUNDS.iter().zip(&self.times) {
            let bound = *bound as f64 / 1e3;
            let _ = writeln!(
                out,
                "{name}_bucket{{model=\"{model}\",le=\"{bound}\"}} {}",
                get(count)
            );
        }
        let (requests, seconds) = (get(&self.requests), get(&self.micros) as f64 / 1e6);
        let _ = writeln!(
            out,
            "{name}_bucket{{model=\"{model}\",le=\"+Inf\"}} {requests}\n{name}_sum{{model=\"{model}\"}} {seconds}\n\
             {name}_count{{model=\"{model}\"}} {requests}"
        );
    }
}

impl Numbers {
    fn models(&self) -> MutexGuard<'_, Vec<(String, Arc<Counts>)>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts of a model; one of a name that was there before goes on counting.
    pub(super) fn of(&self, name: &str) -> Arc<Counts> {
        let mut models = self.models();
        if let Some((_, counts)) = models.iter().find(|(known, _)| known == name) {
            return counts.clone();
        }
        let counts = Arc::<Counts>::default();
        models.push((name.to_owned(), counts.clone()));
        counts
    }

    /// Notes passes, with the models whose rows were in each, all passes together, and their rows.
    pub(super) fn passed(&self, passes: u64, models: u64, rows: u64) {
        add(&self.passes, passes);
        add(&self.in_passes, models);
        add(&self.passed_rows, rows);
    }

    /// The text that Prometheus reads.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let models = self.models();
        for (name, help, of) in KINDS {
            let _ = writeln!(
                out,
                "# HELP peftc_{name} {help}\n# TYPE peftc_{name} counter"
            );
            for (model, counts) in models.iter() {
                let model = label(model);
                let _ = writeln!(out, "peftc_{name}{{model=\"{model}\"}} {}", get(of(counts)));
            }
        }
        let name = "peftc_request_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} Time from a request to the end of its answer.\n# TYPE {name} histogram"
        );
        for (model, counts) in models.iter() {
            counts.histogram(name, &label(model), &mut out);
        }
        drop(models);
        self.alone(&mut out);
        out
    }

    /// What is counted of no model.
    fn alone(&self, out: &mut String) {
        let list = [
            (
                "refused_requests_total counter",
                "Requests refused because too many waited.",
                &self.refused,
            ),
            (
                "waiting_requests gauge",
                "Requests that wait or are computed.",
                &self.waiting,
            ),
            (
                "passes_total counter",
                "Passes of rows to be labelled through plain weights.",
                &self.passes,
            ),
            (
                "pass_models_total counter",
                "Models whose rows were in these passes: more than passes where models shared one.",
                &self.in_passes,
            ),
            (
                "pass_rows_total counter",
                "Rows that were in these passes; a row of words that is read in parts counts for each.",
                &self.passed_rows,
            ),
            (
                "tensor_peak_bytes gauge",
                "Most tensor bytes so far on one set of weights.",
                &self.peak,
            ),
        ];
        for (kind, help, count) in list {
            let name = kind.split(' ').next().unwrap_or_default();
            let _ = writeln!(
                out,
                "# HELP peftc_{name} {help}\n# TYPE peftc_{kind}\npeftc_{name} {}",
                get(count)
            );
        }
    }
}

/// A label's value.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
