//! How fast a machine does each op: what profiles of real runs came to, and the times of programs by
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::graph::Program;
use super::memory::sized;
use super::op::Cost;
use super::types::Bindings;

/// Calls of one op of about one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// How many.
    pub calls: u64,
    /// Seconds, together.
    pub seconds: f64,
    /// Operations, together.
    pub flops: f64,
    /// Bytes read and written, together.
    pub bytes: f64,
}

impl Spent {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// Ops that are bound by arithmetic; all others by memory.
const ARITHMETIC: [&str; 9] = [
    "matmul",
    "matmul_bf16",
    "attention",
    "attention_bias_grad",
    "attention_grad",
    "head_loss",
    "head_loss_bf16",
    "head_loss_grad",
    "head_loss_grad_bf16",
];

/// Without any run: operations and bytes a second of one core of a present desktop processor, and what
/// the start of a call on all of them takes. An op that is bound by arithmetic reads its weights first, for a
/// few rows as for many: that is why small micro-batches are slow.
const DEFAULT_FLOPS: f64 = 6e10;
const DEFAULT_BYTES: f64 = 4e9;
const DEFAULT_CALL: f64 = 3e-6;

/// Work of one call as the rate counts it.
fn work(op: &str, cost: Cost) -> f64 {
    if ARITHMETIC.contains(&op) {
        cost.flops as f64
    } else {
        cost.bytes as f64
    }
}

/// Times by op and by the power of two its work is near.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    ops: BTreeMap<String, BTreeMap<u32, Spent>>,
}

impl Rates {
    /// Counts a call.
    pub fn note(&mut self, op: &str, cost: Cost, seconds: f64) {
        let size = work(op, cost).max(1.0).log2() as u32;
        let spent = Spent {
            calls: 1,
            seconds,
            flops: cost.flops as f64,
            bytes: cost.bytes as f64,
        };
        match self.ops.get_mut(op) {
            Some(sizes) => sizes.entry(size).or_default().add(&spent),
            None => {
                self.ops
                    .insert(op.to_owned(), BTreeMap::from([(size, spent)]));
            }
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What another run came to takes the place of what was known of the same ops and sizes.
    pub fn learn(&mut self, newer: &Self) {
        for (op, sizes) in &newer.ops {
            self.ops.entry(op.clone()).or_default().extend(sizes);
        }
    }

    /// All calls of each op, the most time first.
    #[must_use]
    pub fn by_op(&self) -> Vec<(&str, Spent)> {
        let mut list: Vec<(&str, Spent)> = self
            .ops
            .iter()
            .map(|(op, sizes)| {
                let mut sum = Spent::default();
                sizes.values().for_each(|s| sum.add(s));
                (op.as_str(), sum)
            })
            .collect();
        list.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
        list
    }

    /// Seconds of one call: by the calls nearest in size, or by what such processors do.
    #[must_use]
    pub fn seconds(&self, op: &str, cost: Cost, threads: usize) -> f64 {
        let own = work(op, cost);
        let size = own.max(1.0).log2() as u32;
        let nearest = self
            .ops
            .get(op)
            .and_then(|sizes| sizes.iter().min_by_key(|(n, _)| n.abs_diff(size)));
        match nearest {
            // Small calls cost what starting them costs.
            Some((n, spent)) if *n > size + 2 && spent.calls > 0 => {
                let each = spent.seconds / spent.calls as f64;
                each / f64::from(1_u32 << (n - size).min(31)).max(1.0)
            }
            Some((_, spent)) => {
                let all = if ARITHMETIC.contains(&op) {
                    spent.flops
                } else {
                    spent.bytes
                };
                own * spent.seconds / all.max(1.0)
            }
            None => {
                let arithmetic = if ARITHMETIC.contains(&op) {
                    cost.flops as f64 / DEFAULT_FLOPS
                } else {
                    0.0
                };
                let traffic = cost.bytes as f64 / DEFAULT_BYTES;
                (arithmetic + traffic) / threads as f64 + DEFAULT_CALL
            }
        }
    }

    /// Seconds of one run of a program.
    #[must_use]
    pub fn time(&self, program: &Program, sizes: &Bindings, threads: usize) -> f64 {
        let nodes = program.nodes.iter().map(|node| {
            let cost = node.op.rule().cost(&sized(program, node, sizes));
            self.seconds(node.op.kernel(), cost, threads)
        });
        nodes.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_near_in_size_tell_the_time_of_others() {
        let cost = |flops: u64| Cost {
            flops,
            bytes: flops,
        };
        let mut rates = Rates::default();
        let by_default = rates.seconds("matmul", cost(1 << 30), 2);
        let usual = (1u64 << 30) as f64 * (1.0 / 1.2e11 + 1.0 / 8e9) + 3e-6;
        assert!((by_default - usual).abs() < 1e-9);
        rates.note("matmul", cost(1 << 30), 0.5);
        rates.note("matmul", cost(1 << 30), 1.5);
        rates.note("matmul", cost(1 << 10), 0.25);
        assert!((rates.seconds("matmul", cost(1 << 31), 2) - 2.0).abs() < 1e-9);
        assert!((rates.seconds("matmul", cost(1 << 10), 2) - 0.25).abs() < 1e-9);
        let mut newer = Rates::default();
        newer.note("matmul", cost(1 << 30), 0.1);
        rates.learn(&newer);
        assert!((rates.seconds("matmul", cost(1 << 30), 2) - 0.1).abs() < 1e-9);
        assert!((rates.seconds("matmul", cost(1 << 10), 2) - 0.25).abs() < 1e-9);
        assert_eq!(rates.by_op()[0].0, "matmul");
    }
}
