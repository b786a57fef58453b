//! What a recipe will take, as an editor shows it beside the stages.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::base::units::{About, Bytes, Count};
use crate::library::stage::job::Routine;
use crate::plan::estimate::Residence;
use crate::plan::{Plan, Stage};
use crate::program::op::Machine;
use crate::program::rates::Rates;

/// The estimate of a stage; of a stage with variants, that of the variant that needs most.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimated {
    /// Bytes that a budget has to hold.
    pub needs: u64,
    /// Tensors and scratch at the peak.
    pub peak: u64,
    /// Where the peak is.
    pub peak_op: String,
    /// Updates, where it trains and their number is known.
    pub steps: Option<u64>,
    /// Seconds of its arithmetic, of all variants together.
    pub seconds: Option<f64>,
    /// Parameters that are trained.
    pub trained: u64,
    /// How many stages it becomes.
    pub variants: usize,
    /// How many of them are in the store.
    pub finished: usize,
}

/// The estimate of a recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// By the stages' names in the recipe.
    pub stages: BTreeMap<String, Estimated>,
    /// Whether the text has changed since.
    pub stale: bool,
}

impl Estimated {
    fn of(stage: &Stage, finished: bool, rates: &Rates, machine: &Machine) -> Self {
        let estimate = &stage.estimate;
        Self {
            needs: match estimate.residence {
                Residence::Host => estimate.process(),
                Residence::Cpu | Residence::Device(_) => estimate.needs(),
            },
            peak: estimate.peak(),
            peak_op: estimate.peak_op.clone(),
            steps: match &stage.job.routine {
                Routine::Fit(fit) if !stage.steps_unknown() => Some(fit.steps),
                _ => None,
            },
            // The time of a merge is that of reading and writing, which is not estimated.
            seconds: match stage.job.routine {
                Routine::Fold(_) => None,
                _ => stage.seconds(rates, machine),
            },
            trained: stage.job.parameters().1,
            variants: 1,
            finished: usize::from(finished),
        }
    }

    fn join(&mut self, other: Self) {
        let seconds = self.seconds.zip(other.seconds).map(|(a, b)| a + b);
        let (variants, finished) = (
            self.variants + other.variants,
            self.finished + other.finished,
        );
        if other.needs > self.needs {
            *self = other;
        }
        self.seconds = seconds;
        self.variants = variants;
        self.finished = finished;
    }

    /// In a few words, for the end of a line.
    fn line(&self) -> String {
        let mut parts = vec![Bytes(self.needs).to_string()];
        if let Some(steps) = self.steps {
            parts.push(format!("{} steps", Count(steps)));
        }
        if let Some(seconds) = self.seconds {
            parts.push(About(seconds).to_string());
        }
        if self.variants > 1 {
            parts.push(format!("× {}", self.variants));
        }
        if self.finished == self.variants {
            parts.push("finished".to_owned());
        } else if self.finished > 0 {
            parts.push(format!("{} finished", self.finished));
        }
        parts.join(" · ")
    }
}

impl Shown {
    /// The estimate of a plan; `finished` says which stages a store holds.
    #[must_use]
    pub fn of(
        plan: &Plan,
        finished: &dyn Fn(&Stage) -> bool,
        rates: &Rates,
        machine: &Machine,
    ) -> Self {
        let mut stages: BTreeMap<String, Estimated> = BTreeMap::new();
        for stage in &plan.stages {
            let own = Estimated::of(stage, finished(stage), rates, machine);
            match stages.get_mut(&stage.declared) {
                Some(known) => known.join(own),
                None => {
                    stages.insert(stage.declared.clone(), own);
                }
            }
        }
        Self {
            stages,
            stale: false,
        }
    }

    /// What stands at the end of a stage's first line.
    #[must_use]
    pub fn hint(&self, stage: &str) -> Option<String> {
        let line = self.stages.get(stage)?.line();
        // What is shown of an older text says so.
        Some(if self.stale {
            format!("{line} …")
        } else {
            line
        })
    }

    /// What stands above the recipe.
    #[must_use]
    pub fn lens(&self) -> String {
        let Some((name, peak)) = self.stages.iter().max_by_key(|(_, s)| s.needs) else {
            return "no stages".to_owned();
        };
        let all: usize = self.stages.values().map(|s| s.variants).sum();
        let noun = if all == 1 { "stage" } else { "stages" };
        let mut line = format!("peak {} in `{name}` · {all} {noun}", Bytes(peak.needs));
        let times: Vec<f64> = self.stages.values().filter_map(|s| s.seconds).collect();
        if !times.is_empty() {
            let _ = write!(line, " · {}", About(times.iter().sum()));
        }
        if self.stale {
            line.push_str(" · of the text before the last change …");
        }
        line
    }

    /// What is said of a stage at length, in Markdown.
    #[must_use]
    pub fn about(&self, stage: &str) -> Option<String> {
        let own = self.stages.get(stage)?;
        let mut text = format!(
            "Memory: **{}**, of which tensors {} at the peak ({})\n",
            Bytes(own.needs),
            Bytes(own.peak),
            own.peak_op
        );
        if own.trained > 0 {
            let _ = write!(text, "\nTrained: {} parameters\n", Count(own.trained));
        }
        if let Some(steps) = own.steps {
            let _ = write!(text, "\nSteps: {}\n", Count(steps));
        }
        if let Some(seconds) = own.seconds {
            let _ = write!(text, "\nTime of the arithmetic: {}\n", About(seconds));
        }
        if own.variants > 1 {
            let _ = write!(
                text,
                "\n{} variants; the memory is that of the largest, the time that of all\n",
                own.variants
            );
        }
        if own.finished > 0 {
            let _ = write!(text, "\nFinished in the store: {}\n", own.finished);
        }
        if self.stale {
            text.push_str("\n*Of the text before the last change.*\n");
        }
        Some(text)
    }
}
