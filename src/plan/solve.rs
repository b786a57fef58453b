//! The inverse question: the largest value of a key that fits a budget.

use super::split::Lengths;
use super::stages::Sets;
use super::{Stage, choice, estimate, features};
use crate::library::counts::to_u32;
use crate::library::method::Tuning;
use crate::library::schema::{Checked, Values};
use crate::library::stage::keys;
use crate::library::stage::packing::Batch;
use crate::program::op::Machine;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solution {
    /// This value fits, the next does not (or there is none).
    Fits {
        /// The value.
        value: u64,
        /// Bytes needed with it.
        needs: u64,
    },
    /// Not even the smallest fits.
    Never {
        /// Bytes needed with the smallest.
        needs: u64,
    },
    /// The stage has no such key.
    NotAKey,
}

/// Solves for a whole-number key of a stage, or of its methods.
#[must_use]
pub fn solve(stage: &Stage, key: &str, budget: u64, machine: &Machine) -> Solution {
    let most = match key {
        "max_length" => stage.model.facts().max_length,
        "batch" | "micro_batch" => stage
            .splits
            .first()
            .and_then(|s| s.as_ref()?.lengths.count())
            .unwrap_or(1 << 16),
        "rank" => stage.model.facts().hidden,
        _ => return Solution::NotAKey,
    };
    let least = if key == "max_length" { 2 } else { 1 };
    let Some(needs) = needs(stage, key, least, machine) else {
        return Solution::NotAKey;
    };
    if needs > budget {
        return Solution::Never { needs };
    }
    let (mut low, mut high) = (least, most.max(least));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match self::needs(stage, key, middle, machine) {
            Some(bytes) if bytes <= budget => low = middle,
            _ => high = middle - 1,
        }
    }
    let needs = self::needs(stage, key, low, machine).unwrap_or(needs);
    Solution::Fits { value: low, needs }
}

/// Bytes a stage needs with another value of a key; `None` if it has no such key or cannot be built
/// with the value.
fn needs(stage: &Stage, key: &str, value: u64, machine: &Machine) -> Option<u64> {
    let mut values = stage.filled.values.clone();
    let mut tuning = stage.trained_with.clone();
    let schema = stage.kind.schema();
    if key == "rank" {
        let mut found = false;
        for (_, filled) in tuning
            .methods
            .iter_mut()
            .filter(|(m, _)| m.schema().key("rank").is_some())
        {
            filled
                .values
                .insert("rank", Checked::Int(value), filled.span, true);
            found = true;
        }
        if !found {
            return None;
        }
    } else {
        schema.key(key)?;
        values.insert(key, Checked::Int(value), stage.filled.span, true);
        if let ("micro_batch", Batch::Examples(batch)) = (key, keys::BATCH.get(&values)) {
            values.insert(
                keys::BATCH.name(),
                Checked::Int(batch.max(value)),
                stage.filled.span,
                true,
            );
        }
    }
    // Which template takes most may change with the value.
    let one = std::slice::from_ref(&stage.splits);
    let sets = stage.open.as_ref().map_or(one, |open| &open.sets);
    let each = sets
        .iter()
        .map(|set| needs_of(stage, (key, value), (&values, &tuning), set, machine));
    each.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// Bytes a stage needs with these values over these splits.
fn needs_of(
    stage: &Stage,
    (key, value): (&str, u64),
    (values, tuning): (&Values, &Tuning),
    set: &Sets,
    machine: &Machine,
) -> Option<u64> {
    if key == "max_length" && stage.start.task.target_length().is_some() {
        // It cuts the sources alone.
        return None;
    }
    let lengths: Vec<Option<Lengths>> = choice::lengths(set)
        .into_iter()
        .map(|lengths| {
            let lengths = lengths?;
            Some(if key == "max_length" {
                lengths.cut(to_u32(value))
            } else {
                lengths.clone()
            })
        })
        .collect();
    let views: Vec<Option<&Lengths>> = lengths.iter().map(Option::as_ref).collect();
    let cx = stage.context(&stage.start, values, tuning, &views)?;
    let mut job = stage.kind.lower(&cx).ok()?;
    features::keep(&mut job, &views, stage.asked(values));
    let estimate = estimate::estimate(&job, &views, machine, stage.around());
    Some(estimate.needs())
}
