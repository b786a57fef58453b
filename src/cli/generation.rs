//! Flags of commands that generate text.

use clap::Args;

use crate::library::generate::{Beams, Early, Sampling, Settings};

/// Flags of generation.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Generation")]
pub(super) struct Generation {
    /// Most tokens that are made of a text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_new_tokens: Option<u64>,
    /// What logits are divided by before a token is drawn; 0 takes the likeliest
    #[arg(long, value_name = "X", value_parser = temperature)]
    temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    top_k: Option<u64>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f64>,
    /// Draw from tokens with at least this share of the likeliest one's probability
    #[arg(long, value_name = "P", value_parser = share)]
    min_p: Option<f64>,
    /// What the logits of tokens that occurred are divided by
    #[arg(long, value_name = "X", value_parser = factor)]
    repetition_penalty: Option<f64>,
    /// Seed of the draws
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A string at which a text ends, no part of it; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Texts that are gone on with at once of each row, of which the likeliest is taken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 10))]
    num_beams: Option<u64>,
    /// Power of its length that a text's log-probability is divided by, with `--num-beams`
    #[arg(long, value_name = "X", value_parser = power, allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// When a search with `--num-beams` ends
    #[arg(long, value_name = "WHEN", value_parser = ["off", "on", "never"])]
    early_stopping: Option<String>,
}

fn number(text: &str, fits: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if fits(x) => Ok(x),
        _ => Err(format!("{wanted} is wanted")),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| (0.0..=100.0).contains(&x),
        "a number from 0 to 100",
    )
}

fn share(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| x > 0.0 && x <= 1.0,
        "a number above 0, and at most 1",
    )
}

fn factor(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| x > 0.0 && x <= 100.0,
        "a number above 0, and at most 100",
    )
}

fn power(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| (-100.0..=100.0).contains(&x),
        "a number from -100 to 100",
    )
}

impl Generation {
    /// The first flag that was given.
    pub(super) fn first(&self) -> Option<&'static str> {
        [
            ("--max-new-tokens", self.max_new_tokens.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--repetition-penalty", self.repetition_penalty.is_some()),
            ("--seed", self.seed.is_some()),
            ("--stop", !self.stop.is_empty()),
            ("--num-beams", self.num_beams.is_some()),
            ("--length-penalty", self.length_penalty.is_some()),
            ("--early-stopping", self.early_stopping.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// What they say, with these settings where they say nothing.
    ///
    /// # Errors
    /// A flag that has no effect beside the others.
    pub(super) fn settings(&self, usual: &Settings) -> Result<Settings, String> {
        let own = &usual.sampling;
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.or(own.top_k),
            top_p: self.top_p.or(own.top_p),
            min_p: self.min_p.or(own.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            seed: self.seed.unwrap_or(own.seed),
        };
        if let Some(name) = sampling.idle() {
            let flag = name.replace('_', "-");
            return Err(format!(
                "`--{flag}` has no effect: without `--temperature` the likeliest token is always taken"
            ));
        }
        let usual_beams = &usual.beams;
        let beams = Beams {
            count: self.num_beams.unwrap_or(usual_beams.count),
            length_penalty: self.length_penalty.unwrap_or(usual_beams.length_penalty),
            early: match &self.early_stopping {
                Some(name) => Early::named(name),
                None => usual_beams.early,
            },
        };
        let settings = Settings {
            max_new_tokens: self.max_new_tokens.unwrap_or(usual.max_new_tokens),
            sampling,
            stop: match self.stop.is_empty() {
                true => usual.stop.clone(),
                false => self.stop.clone(),
            },
            beams,
        };
        if let Some((name, why)) = settings.conflict() {
            let flag = name.replace('_', "-");
            return Err(format!("`--{flag}` cannot be followed here: {why}"));
        }
        Ok(settings)
    }
}
