//! A site's defaults for SLURM: `slurm.toml`.

use toml::{Table, Value};

use crate::base::suggest;

/// The file's name, in peftc's folder of settings.
pub const FILE: &str = "slurm.toml";

/// Stages of a job at most, if the site says nothing: SLURM's own bound is 1,001 (`MaxArraySize`).
const ARRAY: usize = 1000;

/// What is true of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--gres` of stages on a GPU.
    pub gres: String,
    /// Processors of a job, where `--threads` does not say.
    pub cpus: Option<usize>,
    /// Elements of an array that run at once; all of them if `None`.
    pub array_limit: Option<usize>,
    /// Elements of an array at most.
    pub array_size: usize,
    /// Seconds of a job whose time nothing tells; the partition's default if `None`.
    pub time: Option<u64>,
    /// Seconds of any job at most.
    pub max_time: Option<u64>,
    /// Percent of the estimated memory that are asked for beside it.
    pub memory_margin: u64,
    /// Percent of the estimated time that are asked for beside it.
    pub time_margin: u64,
    /// Environment modules that a job loads.
    pub modules: Vec<String>,
    /// Words in front of the program: what enters a container.
    pub container: Vec<String>,
    /// Where the program is on the nodes or in the container; that of this process if `None`.
    pub program: Option<String>,
    /// What `srun` starts ranks with: its `--mpi`.
    pub mpi: String,
    /// More options of `sbatch`.
    pub options: Vec<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            qos: None,
            gres: "gpu:1".to_owned(),
            cpus: None,
            array_limit: None,
            array_size: ARRAY,
            time: None,
            max_time: None,
            memory_margin: 10,
            time_margin: 100,
            modules: Vec::new(),
            container: Vec::new(),
            program: None,
            mpi: "pmix".to_owned(),
            options: Vec::new(),
        }
    }
}

/// Takes a value into a site, or says what is wanted.
type Take = fn(&mut Site, &Value) -> Result<(), &'static str>;

/// The keys.
const KEYS: &[(&str, Take)] = &[
    ("partition", |s, v| text(v).map(|t| s.partition = Some(t))),
    ("account", |s, v| text(v).map(|t| s.account = Some(t))),
    ("qos", |s, v| text(v).map(|t| s.qos = Some(t))),
    ("gres", |s, v| text(v).map(|t| s.gres = t)),
    ("cpus", |s, v| {
        number(v, 1, 1024).map(|n| s.cpus = Some(n as usize))
    }),
    ("array_limit", |s, v| {
        number(v, 1, 1_000_000).map(|n| s.array_limit = Some(n as usize))
    }),
    ("array_size", |s, v| {
        number(v, 1, 1_000_000).map(|n| s.array_size = n as usize)
    }),
    ("time", |s, v| time(v).map(|t| s.time = Some(t))),
    ("max_time", |s, v| time(v).map(|t| s.max_time = Some(t))),
    ("memory_margin", |s, v| {
        number(v, 0, 10_000).map(|n| s.memory_margin = n)
    }),
    ("time_margin", |s, v| {
        number(v, 0, 10_000).map(|n| s.time_margin = n)
    }),
    ("modules", |s, v| words(v).map(|w| s.modules = w)),
    ("container", |s, v| words(v).map(|w| s.container = w)),
    ("program", |s, v| text(v).map(|t| s.program = Some(t))),
    ("mpi", |s, v| text(v).map(|t| s.mpi = t)),
    ("options", |s, v| words(v).map(|w| s.options = w)),
];

/// Options that the scripts write themselves, and what says them.
const OWN: &[(&str, &str)] = &[
    ("--account", "the key `account`"),
    ("--array", "the recipe's sweeps and the key `array_limit`"),
    ("--chdir", "the folder that `peftc run` is started in"),
    ("--cpus-per-task", "`--threads` or the key `cpus`"),
    ("--dependency", "the recipe's stages"),
    ("--gres", "the key `gres`"),
    ("--job-name", "the recipe"),
    ("--mem", "the plan and the key `memory_margin`"),
    ("--mem-per-cpu", "the plan and the key `memory_margin`"),
    ("--nodes", "peftc: a stage is one process but for `--ranks`"),
    ("--ntasks", "`--ranks`"),
    (
        "--open-mode",
        "peftc: a job that runs again goes on with its log",
    ),
    ("--output", "`--out`"),
    ("--parsable", "peftc, which reads the job's number"),
    ("--partition", "the key `partition`"),
    ("--qos", "the key `qos`"),
    (
        "--signal",
        "peftc: a checkpoint is written before the limit",
    ),
    (
        "--time",
        "the plan and the keys `time_margin`, `time` and `max_time`",
    ),
];

impl Site {
    /// Reads a site's file. Every key is used or refused.
    ///
    /// # Errors
    /// What is wrong, with the key and what may stand there.
    pub fn read(text: &str) -> Result<Self, String> {
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| e.to_string().trim().replace('\n', " "))?;
        let mut site = Self::default();
        for (key, value) in &table {
            let Some((_, take)) = KEYS.iter().find(|(name, _)| name == key) else {
                let valid = KEYS.iter().map(|(name, _)| *name);
                let hint = suggest::did_you_mean(key, valid);
                return Err(format!(
                    "there is no key `{key}`; {}",
                    hint.unwrap_or_default()
                ));
            };
            take(&mut site, value).map_err(|wanted| format!("`{key}` wants {wanted}"))?;
        }
        site.check()?;
        Ok(site)
    }

    fn check(&self) -> Result<(), String> {
        for option in &self.options {
            if !option.starts_with("--") {
                return Err(format!(
                    "`options` holds options of `sbatch` in their long form, such as \"--mail-type=END\", and not `{option}`"
                ));
            }
            let name = option.split('=').next().unwrap_or_default();
            if let Some((_, by)) = OWN.iter().find(|(own, _)| *own == name) {
                return Err(format!(
                    "`{name}` cannot stand in `options`: it is said by {by}"
                ));
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> Result<String, &'static str> {
    let text = value.as_str().filter(|t| !t.is_empty() && is_plain(t));
    text.map(str::to_owned)
        .ok_or("a text of one line, without quotation marks and backslashes")
}

/// Whether a text can stand in a line of options.
pub(super) fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

fn words(value: &Value) -> Result<Vec<String>, &'static str> {
    let list = value.as_array().map(|list| list.iter().map(text).collect());
    let wanted = "a list of texts, each of one line, without quotation marks and backslashes";
    list.unwrap_or(Err(wanted)).map_err(|_| wanted)
}

fn number(value: &Value, least: u64, most: u64) -> Result<u64, &'static str> {
    let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
    number
        .filter(|n| (least..=most).contains(n))
        .ok_or(match (least, most) {
            (0, _) => "a whole number of percent, from 0 to 10,000",
            (_, 1024) => "a whole number from 1 to 1,024",
            _ => "a whole number from 1 to 1,000,000",
        })
}

/// SLURM's own way to write a time: `[DAYS-]HOURS:MINUTES:SECONDS`.
fn time(value: &Value) -> Result<u64, &'static str> {
    let wanted = "a time as SLURM writes it, as a text: \"HH:MM:SS\" or \"D-HH:MM:SS\"";
    let parse = |text: &str| -> Option<u64> {
        let (days, clock) = text.split_once('-').unwrap_or(("0", text));
        let mut parts = clock.split(':').map(|p| p.parse::<u64>().ok());
        let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
        let whole = parts.next().is_none() && minutes < 60 && seconds < 60 && hours < 100_000;
        let days: u64 = days.parse().ok().filter(|d| *d < 100_000)?;
        let all = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
        (whole && all >= 60).then_some(all)
    };
    value.as_str().and_then(parse).ok_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_used() {
        let text = "partition = \"long\"\naccount = \"lab\"\nqos = \"high\"\ngres = \"gpu:a100:1\"\ncpus = 8\narray_limit = 4\n\
                    array_size = 100\ntime = \"02:00:00\"\nmax_time = \"1-12:30:00\"\nmemory_margin = 20\ntime_margin = 50\n\
                    modules = [\"gcc/13\", \"cuda\"]\ncontainer = [\"apptainer\", \"exec\", \"p.sif\"]\nprogram = \"/bin/peftc\"\nmpi = \"pmi2\"\n\
                    options = [\"--mail-type=END\", \"--exclusive\"]\n";
        let read = Site::read(text).unwrap();
        let wanted = Site {
            partition: Some("long".to_owned()),
            account: Some("lab".to_owned()),
            qos: Some("high".to_owned()),
            gres: "gpu:a100:1".to_owned(),
            cpus: Some(8),
            array_limit: Some(4),
            array_size: 100,
            time: Some(7200),
            max_time: Some(36 * 3600 + 1800),
            memory_margin: 20,
            time_margin: 50,
            modules: vec!["gcc/13".to_owned(), "cuda".to_owned()],
            container: ["apptainer", "exec", "p.sif"].map(str::to_owned).to_vec(),
            program: Some("/bin/peftc".to_owned()),
            mpi: "pmi2".to_owned(),
            options: vec!["--mail-type=END".to_owned(), "--exclusive".to_owned()],
        };
        assert_eq!(read, wanted);
        assert_eq!(text.lines().count(), KEYS.len(), "a key is not tried");
        assert_eq!(Site::read("").unwrap(), Site::default());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (text, said) in [
            ("partitoin = \"a\"", "did you mean `partition`?"),
            ("zzz = 1", "valid here: `partition`"),
            ("cpus = 0", "`cpus` wants a whole number from 1 to 1,024"),
            ("cpus = \"8\"", "`cpus` wants"),
            ("time = \"2h\"", "`time` wants a time as SLURM writes it"),
            ("time = \"00:61:00\"", "`time` wants"),
            ("time = \"-1-00:01:00\"", "`time` wants"),
            ("modules = \"gcc\"", "`modules` wants a list"),
            (
                "partition = \"a\\nb\"",
                "`partition` wants a text of one line",
            ),
            ("memory_margin = -1", "`memory_margin` wants"),
            ("options = [\"-p x\"]", "in their long form"),
            (
                "options = [\"--mem=1G\"]",
                "`--mem` cannot stand in `options`: it is said by the plan",
            ),
            ("cpus = 1\ncpus = 2", "duplicate key"),
            ("[cpus]", "`cpus` wants"),
        ] {
            let why = Site::read(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }
}
