//! SLURM: a script a job, and one that submits them all by hand.
//!
//! ```text
//! #SBATCH lines     what the job asks for, by the plan and the site
//! trap TERM         cancelled: the program writes its checkpoint, and the job ends
//! trap USR1         the limit is near: the same, and the job goes back into the queue
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;

use super::jobs::{Job, Wants};
use super::journal::JOURNAL;
use super::site::{Site, is_plain};
use crate::base::units::{About, Bytes};
use crate::plan::Stage;

/// Seconds that are asked for beside the estimate and its margin: reading, loading and writing take them.
pub const MORE_TIME: u64 = 600;

/// Seconds before the limit at which a checkpoint is asked for, beside two steps. SLURM may be a minute early.
const LEAD: u64 = 120;

/// Most seconds that SLURM takes there.
const LONGEST_LEAD: u64 = 65_535;

/// How often a job goes back into the queue, beside what its estimate makes likely: an estimate may be wrong, and a
/// job that makes no step has to end.
const AGAIN: u64 = 5;

/// The same where nothing tells a time.
const AGAIN_UNKNOWN: u64 = 20;

/// What all jobs of a submission have in common.
pub struct Setting<'a> {
    /// The site's defaults.
    pub site: &'a Site,
    /// The recipe's name without its ending.
    pub recipe: String,
    /// The folder that the command was given in.
    pub folder: PathBuf,
    /// Where scripts, logs and the journal are.
    pub jobs: PathBuf,
    /// Processors of a job, or of each rank of it.
    pub cpus: usize,
    /// Bytes that a job takes beside its stage.
    pub beside: u64,
    /// The program.
    pub program: String,
    /// Its arguments but for the stage, in front of those that say it.
    pub arguments: Vec<String>,
    /// Seconds that a stage takes.
    pub seconds: &'a dyn Fn(&Stage) -> Option<f64>,
}

/// What a job asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// MiB of memory.
    pub memory: u64,
    /// Seconds; the partition's default if `None`.
    pub time: Option<u64>,
    /// Seconds before the limit at which a checkpoint is asked for; none where none is written.
    pub lead: Option<u64>,
    /// How often it goes back into the queue at its limit.
    pub again: u64,
}

impl Asked {
    /// What a job with these wants, and so many bytes beside its stage, asks of a site.
    #[must_use]
    pub fn of(wants: &Wants, beside: u64, site: &Site) -> Self {
        let share = |percent: u64| 1.0 + percent as f64 / 100.0;
        let memory = wants.memory as f64 * share(site.memory_margin) + beside as f64;
        let step = wants.step.unwrap_or(0.0);
        let lead = LEAD + (2.0 * step).round() as u64;
        let estimated = wants.seconds.map(|seconds| {
            let all = (seconds * share(site.time_margin)).ceil() as u64;
            // SLURM counts minutes.
            (all + MORE_TIME + lead).div_ceil(60) * 60
        });
        let bounded = |time: u64| time.min(site.max_time.unwrap_or(u64::MAX));
        let time = estimated.or(site.time).map(bounded);
        let again = match (estimated, time) {
            (Some(estimated), Some(time)) => estimated.div_ceil(time.max(1)) - 1 + AGAIN,
            _ => AGAIN_UNKNOWN,
        };
        Self {
            memory: (memory / f64::from(1 << 20)).ceil() as u64,
            time,
            // Of a short time the first half is worked in.
            lead: wants.step.map(|_| {
                let most = time.map_or(LONGEST_LEAD, |time| time / 2);
                lead.min(most).min(LONGEST_LEAD)
            }),
            again,
        }
    }
}

/// A time as SLURM writes it.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@=,+:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn all_quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

impl Setting<'_> {
    /// What cannot be said to SLURM.
    ///
    /// # Errors
    /// The text, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let paths = [&self.folder, &self.jobs].map(|path| path.display().to_string());
        if let Some(text) = paths.iter().chain([&self.recipe]).find(|t| !is_plain(t)) {
            return Err(format!(
                "`{text}` holds a quotation mark, a backslash or a line end, which SLURM's options cannot say; give the \
                 folder or file another name"
            ));
        }
        let ends = |text: &&String| text.contains(char::is_control);
        if let Some(text) = self.arguments.iter().chain([&self.program]).find(ends) {
            return Err(format!(
                "`{text}` holds a line end or another control character, which cannot stand in a job's script"
            ));
        }
        Ok(())
    }

    /// Where a job's script is.
    #[must_use]
    pub fn path(&self, job: &Job<'_>) -> PathBuf {
        self.jobs.join(format!("{}.sh", job.name))
    }

    /// The log of a job's stage.
    #[must_use]
    pub fn log(jobs: &std::path::Path, declared: &str, id: &str) -> PathBuf {
        jobs.join(format!("{declared}-{id}.log"))
    }

    /// What a job asks for.
    #[must_use]
    pub fn asked(&self, job: &Job<'_>) -> Asked {
        Asked::of(&job.wants(self.seconds), self.beside, self.site)
    }

    /// A job's script, which SLURM takes as it is; what it waits for is said when it is submitted.
    #[must_use]
    pub fn script(&self, job: &Job<'_>) -> String {
        let wants = job.wants(self.seconds);
        let asked = Asked::of(&wants, self.beside, self.site);
        let mut out = String::from("#!/bin/bash\n");
        for option in self.options(job, &wants, &asked) {
            let _ = writeln!(out, "#SBATCH {option}");
        }
        let _ = writeln!(out, "{}", self.reasons(&wants, &asked));
        if !self.site.modules.is_empty() {
            let _ = writeln!(
                out,
                "module load {} || exit 1",
                all_quoted(&self.site.modules)
            );
        }
        if job.is_array() {
            out.push_str("stages=(\n");
            for stage in &job.stages {
                let _ = writeln!(out, "  {}", quoted(&stage.name.value));
            }
            out.push_str(")\nstage=${stages[SLURM_ARRAY_TASK_ID]}\n");
        } else {
            let name = job.stages.first().map_or("", |s| s.name.value.as_str());
            let _ = writeln!(out, "stage={}", quoted(name));
        }
        let mut words = self.step(job);
        words.extend_from_slice(&self.site.container);
        words.push(self.program.clone());
        words.extend_from_slice(&self.arguments);
        let _ = write!(
            out,
            "# The program is a group of its own, with the container that it may be in.\n\
             set -m\n\
             {} --stage \"$stage\" --log-format json &\n\
             run=$!\n\
             # Cancelled: it writes its checkpoint, and the job ends.\n\
             trap 'signal=1; kill -TERM -- \"-$run\" 2>/dev/null' TERM INT HUP\n",
            all_quoted(&words)
        );
        if asked.lead.is_some() {
            out.push_str(
                "# The limit is near: the same, and the job goes back into the queue.\n\
                 trap 'signal=1; limit=1; kill -TERM -- \"-$run\" 2>/dev/null' USR1\n",
            );
        }
        out.push_str("while signal=; wait \"$run\"; code=$?; [ \"$signal\" ]; do :; done\n");
        if asked.lead.is_some() {
            let _ = write!(
                out,
                "if [ \"$limit\" ] && [ \"$code\" = 143 ]; then\n  \
                   if [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {} ]; then\n    \
                     scontrol requeue \"$SLURM_JOB_ID\" && sleep 300\n  \
                   else\n    \
                     echo \"error: the job reached its limit again and again; submit what is left with the same command\" >&2\n  \
                   fi\n\
                 fi\n",
                asked.again
            );
        }
        out.push_str("exit \"$code\"\n");
        out
    }

    /// What starts the ranks of a job that trains; nothing where the job is one process.
    fn step(&self, job: &Job<'_>) -> Vec<String> {
        match job.ranks() {
            1 => Vec::new(),
            // A rank that is gone ends the others.
            ranks => [
                "srun".to_owned(),
                format!("--mpi={}", self.site.mpi),
                format!("--ntasks={ranks}"),
                format!("--cpus-per-task={}", self.cpus),
                "--kill-on-bad-exit=1".to_owned(),
            ]
            .to_vec(),
        }
    }

    /// The options of a job.
    fn options(&self, job: &Job<'_>, wants: &Wants, asked: &Asked) -> Vec<String> {
        let site = self.site;
        let declared = job.stages.first().map_or("", |s| s.declared.as_str());
        let number = if job.is_array() { "%A_%a" } else { "%j" };
        // A `%` of a path is none of SLURM's.
        let folder = self.jobs.display().to_string().replace('%', "%%");
        let mut options = vec![
            format!("--job-name=\"{}-{}\"", self.recipe, job.name),
            format!("--output=\"{folder}/{declared}-{number}.log\""),
            "--open-mode=append".to_owned(),
            format!("--chdir=\"{}\"", self.folder.display()),
        ];
        let cpus = format!("--cpus-per-task={}", self.cpus);
        match job.ranks() {
            1 => {
                options.extend(["--nodes=1".to_owned(), "--ntasks=1".to_owned(), cpus]);
                options.push(format!("--mem={}M", asked.memory));
            }
            // Where ranks are is SLURM's choice; each needs the memory.
            ranks => {
                let each = asked.memory.div_ceil(self.cpus.max(1) as u64);
                options.extend([format!("--ntasks={ranks}"), cpus]);
                options.push(format!("--mem-per-cpu={each}M"));
            }
        }
        options.extend(asked.time.map(|time| format!("--time={}", clock(time))));
        let lead = asked.lead.map(|lead| format!("--signal=B:USR1@{lead}"));
        options.extend(lead);
        options.push("--requeue".to_owned());
        options.push("--kill-on-invalid-dep=yes".to_owned());
        if job.is_array() {
            let bound = site.array_limit.map(|n| format!("%{n}"));
            let last = job.stages.len() - 1;
            options.push(format!("--array=0-{last}{}", bound.unwrap_or_default()));
        }
        for (name, value) in [
            ("partition", site.partition.as_deref()),
            ("account", site.account.as_deref()),
            ("qos", site.qos.as_deref()),
            ("gres", wants.gpu.then_some(site.gres.as_str())),
        ] {
            options.extend(value.map(|value| format!("--{name}=\"{value}\"")));
        }
        options.extend(
            site.options
                .iter()
                .map(|option| match option.split_once('=') {
                    Some((name, value)) => format!("{name}=\"{value}\""),
                    None => option.clone(),
                }),
        );
        options
    }

    /// A line on where memory and time come from.
    fn reasons(&self, wants: &Wants, asked: &Asked) -> String {
        let site = self.site;
        let memory = format!(
            "{} by the plan, {} % and {} more",
            Bytes(wants.memory),
            site.memory_margin,
            Bytes(self.beside)
        );
        let time = match (wants.seconds, asked.time) {
            (Some(seconds), Some(_)) => {
                let bound = site
                    .max_time
                    .map(|most| format!(", at most {}", clock(most)));
                format!(
                    "{} by the plan, {} % and {} more{}",
                    About(seconds),
                    site.time_margin,
                    About((MORE_TIME + asked.lead.unwrap_or(LEAD)) as f64),
                    bound.unwrap_or_default()
                )
            }
            (None, Some(_)) => "nothing tells it; the site's `time`".to_owned(),
            (_, None) => "nothing tells it; the partition's default".to_owned(),
        };
        format!("# memory: {memory}\n# time: {time}")
    }

    /// A script that submits jobs and writes the journal, for `sh`.
    #[must_use]
    pub fn by_hand(&self, jobs: &[Job<'_>]) -> String {
        let folder = quoted(&self.jobs.display().to_string());
        let journal = quoted(&self.jobs.join(JOURNAL).display().to_string());
        let mut out = format!(
            "#!/bin/sh\n# The jobs of `{}` for SLURM; `sh` submits them.\nset -eu\n\
             submit() {{ number=$(sbatch --parsable \"$@\") && echo \"${{number%%;*}}\"; }}\n\
             mkdir -p {folder}\n",
            self.recipe
        );
        for (at, job) in jobs.iter().enumerate() {
            let path = quoted(&self.path(job).display().to_string());
            let _ = write!(out, "\ncat >{path} <<'END'\n{}END\n", self.script(job));
            let dependency = dependency(job, &|n| format!("$job{n}"));
            let waits = dependency.map(|d| format!("--dependency={d} "));
            let _ = writeln!(out, "job{at}=$(submit {}{path})", waits.unwrap_or_default());
            let _ = write!(out, "printf \"$job{at}%s\\t%s\\t%s\\n\"");
            for (element, stage) in job.stages.iter().enumerate() {
                let element = match job.is_array() {
                    true => format!("_{element}"),
                    false => "''".to_owned(),
                };
                let print = stage.fingerprint.as_deref().unwrap_or_default();
                let _ = write!(
                    out,
                    " \\\n  {element} {print} {}",
                    quoted(&stage.name.value)
                );
            }
            let _ = writeln!(out, " >>{journal}");
        }
        out
    }
}

/// What a job waits for, by the numbers of the jobs before it.
#[must_use]
pub fn dependency(job: &Job<'_>, number: &dyn Fn(usize) -> String) -> Option<String> {
    let all = job.needs.iter().filter(|need| !need.each);
    let all: Vec<String> = all
        .map(|need| number(need.job))
        .chain(job.queued.iter().cloned())
        .collect();
    let each = job.needs.iter().filter(|need| need.each);
    let mut list: Vec<String> = each
        .map(|need| format!("aftercorr:{}", number(need.job)))
        .collect();
    if !all.is_empty() {
        list.insert(0, format!("afterok:{}", all.join(":")));
    }
    (!list.is_empty()).then(|| list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_has_its_margins_and_bounds() {
        let site = Site::default();
        let wants = Wants {
            memory: 1000 << 20,
            seconds: Some(3600.0),
            step: Some(10.0),
            gpu: false,
        };
        let asked = Asked::of(&wants, 256 << 20, &site);
        assert_eq!(asked.memory, 1100 + 256);
        // Twice an hour, ten minutes, and the lead of 120 s and two steps, in whole minutes.
        assert_eq!(asked.time, Some(7200 + 600 + 180));
        assert_eq!((asked.lead, asked.again), (Some(140), 5));
        let short = Site {
            max_time: Some(1800),
            ..Site::default()
        };
        let asked = Asked::of(&wants, 256 << 20, &short);
        assert_eq!((asked.time, asked.again), (Some(1800), 4 + 5));
        let unknown = Wants {
            seconds: None,
            step: None,
            ..wants
        };
        let asked = Asked::of(&unknown, 256 << 20, &site);
        assert_eq!((asked.time, asked.lead), (None, None));
        assert_eq!(clock(7980), "02:13:00");
        assert_eq!(clock(90_061), "1-01:01:01");
    }
}
