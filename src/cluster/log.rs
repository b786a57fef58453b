//! How far a job is, and why it failed, by the end of its log: lines of `run --log-format json` among others.

use serde_json::Value as Json;

/// What the end of a log tells of its last start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The last step.
    pub step: Option<u64>,
    /// Its loss.
    pub loss: Option<f64>,
    /// Examples that were scored.
    pub scored: Option<u64>,
    /// Why the run failed, and its exit code where it said one.
    pub failed: Option<(String, Option<i64>)>,
}

/// Reads the end of a log. What a start of the job said before another one does not count.
#[must_use]
pub fn read(text: &str) -> Progress {
    let mut progress = Progress::default();
    let mut last = None;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let event: Option<Json> = line
            .starts_with('{')
            .then(|| serde_json::from_str(line).ok())
            .flatten();
        let Some(event) = event else {
            // What the scheduler or the program says beside them.
            if let Some((_, why)) = line.split_once("error: ") {
                last = Some(why.trim_matches(['*', ' ']).to_owned());
            }
            continue;
        };
        let number = |key: &str| event.get(key).and_then(Json::as_u64);
        match event.get("event").and_then(Json::as_str) {
            Some("stage" | "cached") => (progress, last) = (Progress::default(), None),
            Some("resumed") => progress.step = number("step"),
            Some("step") => {
                progress.step = number("step");
                progress.loss = event.get("loss").and_then(Json::as_f64);
            }
            Some("scored") => progress.scored = number("done"),
            Some("failed") => {
                let message = event.get("message").and_then(Json::as_str);
                let code = event.get("exit_code").and_then(Json::as_i64);
                progress.failed = Some((message.unwrap_or_default().to_owned(), code));
            }
            _ => {}
        }
    }
    if progress.failed.is_none() {
        progress.failed = last.map(|why| (why, None));
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_start_of_a_job_counts() {
        let first = "module: nothing\n{\"event\":\"stage\",\"stage\":\"s\",\"total\":9}\n{\"event\":\"step\",\"step\":3,\"loss\":0.5}\n\
                     {\"event\":\"failed\",\"message\":\"interrupted by SIGTERM: kept\",\"exit_code\":143}\n";
        let progress = read(first);
        assert_eq!((progress.step, progress.loss), (Some(3), Some(0.5)));
        assert_eq!(
            progress.failed,
            Some(("interrupted by SIGTERM: kept".to_owned(), Some(143)))
        );
        let killed = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n";
        // A cut line, as where the end of a long log begins.
        let both = format!(
            "p\":1}}\n{first}{{\"event\":\"stage\"}}\n{{\"event\":\"resumed\",\"step\":3}}\n{killed}"
        );
        let progress = read(&both);
        assert_eq!(progress.step, Some(3));
        let (why, code) = progress.failed.expect("an end");
        assert!(
            why.ends_with("DUE TO TIME LIMIT") && code.is_none(),
            "{why}"
        );
        assert_eq!(
            read("error: r.peft is rejected: nothing was executed")
                .failed
                .expect("one")
                .0,
            "r.peft is rejected: nothing was executed"
        );
        assert_eq!(read(""), Progress::default());
    }
}
