//! The schedule registry: the learning rate of each step (methods 0.5).

use super::schema::{Bound, Given, Maybe, Portion, Schema, Values, kind};

mod constant;
mod cosine;
mod linear;

/// A learning-rate schedule.
pub trait Schedule: Sync + Send + std::fmt::Debug {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// The factor between end (0) and peak (1) at step `t` of `total`, after `warmup` steps.
    fn factor(&self, t: u64, total: u64, warmup: u64) -> f64;
}

/// Every schedule.
pub const SCHEDULES: &[&dyn Schedule] = &[&constant::Constant, &linear::Linear, &cosine::Cosine];

/// Looks a schedule up by name.
#[must_use]
pub fn schedule(name: &str) -> Option<&'static dyn Schedule> {
    SCHEDULES.iter().copied().find(|s| s.schema().name == name)
}

pub(super) const PEAK: Maybe<f64> = Maybe::new(
    "peak",
    kind::float(Bound::Excl(0.0), Bound::None),
    "highest learning rate; the stage's `lr` if not written",
);
const END: Given<f64> = Given::<f64>::new(
    "end",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "learning rate that the last step approaches",
);
const WARMUP: Maybe<Portion> = Maybe::filled(
    "warmup",
    kind::PORTION,
    "0%",
    "part of the training, or number of steps, over which the rate rises from 0 to the peak",
);

/// A schedule with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    schedule: &'static dyn Schedule,
    peak: f64,
    end: f64,
    warmup: u64,
    total: u64,
}

impl Rates {
    /// The rates of a stage of `total` steps.
    #[must_use]
    pub fn new(
        schedule: &'static dyn Schedule,
        values: &Values,
        lr: Option<f64>,
        total: u64,
    ) -> Self {
        let warmup = match WARMUP.get(values) {
            Some(part) => part.of(total),
            _ => Portion::Steps(0).of(total),
        };
        let peak = PEAK.get(values).or(lr).unwrap_or(0.0);
        Self {
            schedule,
            peak,
            end: END.get(values),
            warmup,
            total,
        }
    }

    /// The learning rate of step `t`, counted from 0: `t/W` of the peak while warming up, then what
    /// the schedule says between peak and end.
    #[must_use]
    pub fn at(&self, t: u64) -> f64 {
        if t < self.warmup {
            return self.peak * t as f64 / self.warmup as f64;
        }
        self.end + (self.peak - self.end) * self.schedule.factor(t, self.total, self.warmup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::schema::Checked;

    #[test]
    fn linear_with_warmup_and_floor_matches_the_formula() {
        let mut values = Values::default();
        let at = crate::base::Span::default();
        values.insert("peak", Checked::Float(2e-4), at, true);
        values.insert("end", Checked::Float(2e-6), at, true);
        values.insert(
            "warmup",
            Checked::Portion(Portion::Share(12, 100)),
            at,
            true,
        );
        let rates = Rates::new(schedule("linear").expect("registered"), &values, None, 101);
        assert_eq!(Portion::Share(12, 100).of(101), 13);
        assert!((rates.at(0)).abs() < 1e-18);
        assert!((rates.at(13) - 2e-4).abs() < 1e-12);
        let expected = 2e-6 + (2e-4 - 2e-6) * (101.0 - 100.0) / (101.0 - 13.0);
        assert!((rates.at(100) - expected).abs() < 1e-15);
    }
}
