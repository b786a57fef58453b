//! The arguments.

use std::path::PathBuf;
use std::time::Duration;

/// What is asked for.
pub struct Asked {
    /// Recipes drawn at random.
    pub draws: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// The one draw that runs.
    pub only: Option<u64>,
    /// Where recipes run.
    pub device: String,
    /// What products are computed in.
    pub precision: Option<String>,
    /// The compiler.
    pub peftc: Option<PathBuf>,
    /// After how long it ends.
    pub limit: Option<Duration>,
    /// Whether each stage runs again in a control group.
    pub confine: bool,
    /// Whether every draw is shown.
    pub verbose: bool,
    /// Where figures are written.
    pub csv: Option<PathBuf>,
    /// Where recipes that ran are left.
    pub keep: Option<PathBuf>,
    /// How many draws run at once.
    pub jobs: usize,
}

impl Asked {
    /// Reads the arguments of the process.
    ///
    /// # Errors
    /// One of them is not known, or its value does not fit it.
    pub fn from_args() -> Result<Self, String> {
        let mut asked = Self {
            draws: 300,
            seed: 7,
            only: None,
            device: "cpu".to_owned(),
            precision: None,
            peftc: None,
            limit: None,
            confine: false,
            verbose: false,
            csv: None,
            keep: None,
            jobs: 1,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--verbose" => asked.verbose = true,
                "--confine" => asked.confine = true,
                _ => {}
            }
            if matches!(arg.as_str(), "--verbose" | "--confine") {
                continue;
            }
            let value = args.next().ok_or(format!("`{arg}` lacks a value"))?;
            let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
            match arg.as_str() {
                "--draws" => asked.draws = number()?,
                "--seed" => asked.seed = number()?,
                "--only" => asked.only = Some(number()?),
                "--device" => asked.device = value,
                "--precision" => asked.precision = Some(value),
                "--peftc" => asked.peftc = Some(value.into()),
                "--limit" => asked.limit = Some(Duration::from_secs(number()?)),
                "--csv" => asked.csv = Some(value.into()),
                "--keep" => asked.keep = Some(value.into()),
                "--jobs" => asked.jobs = number()?.max(1) as usize,
                _ => return Err(format!("there is no argument `{arg}`")),
            }
        }
        Ok(asked)
    }
}
