//! Progress as lines of JSON, for programs.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use crate::base::date::utc;
use crate::cli::output::note;
use crate::cli::signals::Asked;
use crate::exec::observe::{Event, Observer};

/// Writes a line for each event.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    asked: Arc<Asked>,
    stage: String,
}

/// Metrics as an object.
fn object(metrics: &[(String, f64)]) -> Json {
    Json::Object(
        metrics
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect(),
    )
}

impl Lines {
    pub(in crate::cli) const fn new(asked: Arc<Asked>) -> Self {
        Self {
            asked,
            stage: String::new(),
        }
    }

    /// Writes a line.
    pub(in crate::cli) fn line(&self, event: &str, stage: Option<&str>, more: Json) {
        let mut line = json!({ "event": event, "time": utc(SystemTime::now()) });
        if let Some(map) = line.as_object_mut() {
            if let Some(stage) = stage {
                map.insert("stage".to_owned(), json!(stage));
            }
            if let Json::Object(more) = more {
                map.extend(more);
            }
        }
        note(&format!("{line}\n"));
    }
}

impl Observer for Lines {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Stage { name, .. } = event {
            name.clone_into(&mut self.stage);
        }
        let own = Some(self.stage.as_str());
        match event {
            Event::Stage { name, kind, total, estimated } => {
                self.line("stage", Some(name), json!({ "kind": kind, "total": total, "estimated_peak_bytes": estimated }));
            }
            Event::Cached { name } => self.line("cached", Some(name), json!({})),
            Event::Resumed { name, step, of } => self.line("resumed", Some(name), json!({ "step": step, "of": of })),
            Event::Saved { step } => self.line("saved", own, json!({ "step": step })),
            Event::Stopped { step, of, patience } => {
                self.line("stopped", own, json!({ "step": step, "of": of, "patience": patience }));
            }
            Event::Best { step, metric, value } => {
                self.line("best", own, json!({ "step": step, "metric": metric, "value": value }));
            }
            Event::Step { step, loss, lr, grad_norm, samples_per_s, peak } => self.line(
                "step",
                own,
                json!({
                    "step": step, "loss": loss, "lr": lr, "grad_norm": grad_norm, "samples_per_s": samples_per_s,
                    "peak_bytes": peak,
                }),
            ),
            Event::Kept { done, total } => self.line("kept", own, json!({ "done": done, "total": total })),
            Event::Scored { done } => self.line("scored", own, json!({ "done": done })),
            Event::Evaluated { step, metrics, best } => {
                self.line("evaluated", own, json!({ "step": step, "metrics": object(metrics), "best": best }));
            }
            Event::Done { name, metrics } => self.line("done", Some(name), json!({ "metrics": object(metrics) })),
            Event::Note(text) => self.line("note", None, json!({ "message": text })),
        }
    }

    fn interrupted(&self) -> Option<i32> {
        self.asked.end()
    }

    fn asked(&mut self) -> bool {
        self.asked.checkpoint()
    }
}
