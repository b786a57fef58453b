//! SLURM's queue, asked by its own commands, and the journal of what was submitted to it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::journal::{self, Entry, JOURNAL, is_job};
use crate::cluster::queue::{self, Answer, SACCT, SQUEUE};
use crate::files::durable;

/// The folder of a run's jobs in OUT: scripts, logs, the journal. No stage's name begins with a point.
pub(super) fn folder(out: &Path) -> PathBuf {
    out.join(".slurm")
}

/// What was submitted, the last stage last.
///
/// # Errors
/// The journal cannot be read, or is damaged.
pub(super) fn submitted(folder: &Path) -> Result<Vec<Entry>, String> {
    let path = folder.join(JOURNAL);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|e| durable::failed(&path, "read", &e).to_string())?,
    };
    journal::read(&text).map_err(|line| {
        format!(
            "{}: line {line} is not what was written; take it out, and cancel by hand (`scancel`) the job that it may \
             have named",
            path.display()
        )
    })
}

/// Notes what was submitted.
///
/// # Errors
/// What the file system says.
pub(super) fn note(folder: &Path, entries: &[Entry]) -> Result<(), String> {
    let path = folder.join(JOURNAL);
    let lines: String = entries.iter().map(Entry::line).collect();
    let opened = File::options().create(true).append(true).open(&path);
    opened
        .and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            file.sync_all()
        })
        .map_err(|e| durable::failed(&path, "write", &e).to_string())
}

/// The jobs of the user that the queue knows, ended ones for a while too, by their numbers.
///
/// # Errors
/// Why it cannot be asked.
pub(super) fn known() -> Result<HashMap<String, Answer>, String> {
    said("squeue", SQUEUE.iter().copied()).map(|text| queue::read(&text))
}

/// Ended jobs by the site's accounting; none where there is no accounting.
pub(super) fn ended<'a>(jobs: impl Iterator<Item = &'a str>) -> HashMap<String, Answer> {
    let mut list: Vec<&str> = jobs.filter_map(|job| job.split('_').next()).collect();
    list.sort_unstable();
    list.dedup();
    if list.is_empty() {
        return HashMap::new();
    }
    let list = format!("--jobs={}", list.join(","));
    let flags = SACCT.iter().copied().chain([list.as_str()]);
    let text = said("sacct", flags).unwrap_or_default();
    queue::read(&text)
}

/// Submits a script; gives the job's number.
///
/// # Errors
/// What `sbatch` says.
pub(super) fn submit(script: &Path, dependency: Option<String>) -> Result<String, String> {
    let waits = dependency.map(|d| format!("--dependency={d}"));
    let script = script.display().to_string();
    let flags = ["--parsable"].into_iter().chain(waits.as_deref());
    let text = said("sbatch", flags.chain([script.as_str()]))?;
    // On several clusters, `NUMBER;CLUSTER`.
    let number = text.trim().split(';').next().unwrap_or_default();
    if is_job(number) {
        Ok(number.to_owned())
    } else {
        Err(format!("`sbatch` gave no job's number: {}", text.trim()))
    }
}

/// What a command of SLURM's prints.
fn said<'a>(name: &str, flags: impl Iterator<Item = &'a str>) -> Result<String, String> {
    let mut command = Command::new(name);
    let output = command.args(flags).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("SLURM's `{name}` does not start: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why: Vec<&str> = why
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match why.is_empty() {
        true => Err(format!("`{name}` fails: {}", output.status)),
        false => Err(format!("`{name}` fails: {}", why.join("; "))),
    }
}
