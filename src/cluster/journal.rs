//! What was submitted: a line a stage, `JOB`, `FINGERPRINT` and `NAME` with tabs between. A script that is run by hand
//! writes the same lines.

/// The journal's name, in the folder of a run's jobs.
pub const JOURNAL: &str = "jobs.tsv";

/// A stage that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The job's number; an element's is `12_3`.
    pub job: String,
    /// The fingerprint that the stage had.
    pub fingerprint: String,
    /// The stage.
    pub stage: String,
}

impl Entry {
    /// Its line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\t{}\t{}\n", self.job, self.fingerprint, self.stage)
    }
}

/// Whether a text is a job's number.
#[must_use]
pub fn is_job(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    match text.split_once('_') {
        Some((job, element)) => digits(job) && digits(element),
        None => digits(text),
    }
}

/// Reads a journal.
///
/// # Errors
/// The number of the first line that is not one of ours.
pub fn read(text: &str) -> Result<Vec<Entry>, usize> {
    let entry = |(at, line): (usize, &str)| {
        let mut parts = line.split('\t').map(str::to_owned);
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        match parts {
            (Some(job), Some(fingerprint), Some(stage), None)
                if is_job(&job) && !fingerprint.is_empty() && !stage.is_empty() =>
            {
                Ok(Entry {
                    job,
                    fingerprint,
                    stage,
                })
            }
            _ => Err(at + 1),
        }
    };
    text.lines().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_others_are_named() {
        let entry = Entry {
            job: "12_3".to_owned(),
            fingerprint: "ab".to_owned(),
            stage: "learn@seed=1".to_owned(),
        };
        assert_eq!(read(&entry.line()), Ok(vec![entry.clone()]));
        for wrong in [
            "12_\tab\tlearn",
            "12\tab",
            "x\tab\tlearn",
            "1\tab\tl\tm",
            "",
        ] {
            assert_eq!(
                read(&format!("{}{wrong}\n", entry.line())),
                Err(2),
                "{wrong:?}"
            );
        }
    }
}
