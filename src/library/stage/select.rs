//! Places that change while training (methods S6, S7): which, and the updates of the numbers at them.

use super::super::method::{SPARSE, Selecting};
use super::super::net::{Param, Site, watched, watched_parts};
use super::super::optimizer::{self, adamw_numbers, state_name};
use super::super::schema::Values;
use super::StageCx;
use super::network::Built;
use crate::program::op::{Accumulate, AgedAdamW, Fill, Nominate, Places, Sm3, SquareAccumulate};
use crate::program::{Builder, Class, DType, Feed, Real, TensorType, Value};

/// What SM3 adds to its moments.
const SM3_EPSILON: f64 = 1e-8;

/// A map whose places change.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Its path.
    pub path: String,
    /// Rows of its matrix.
    pub rows: u64,
    /// Its columns.
    pub columns: u64,
}

impl Selected {
    /// Name of the numbers.
    #[must_use]
    pub fn values(&self) -> String {
        format!("{}.{}", self.path, SPARSE[0])
    }

    /// Name of the places.
    #[must_use]
    pub fn places(&self) -> String {
        format!("{}.{}", self.path, SPARSE[1])
    }

    /// Name of what the optimizer keeps of the numbers.
    #[must_use]
    pub fn state(&self, suffix: &str) -> String {
        state_name(&self.values(), suffix)
    }
}

/// The changes of a training.
#[derive(Clone, Debug)]
pub struct Selection {
    /// When, and how.
    pub rule: Selecting,
    /// The maps.
    pub of: Vec<Selected>,
    /// Decays of AdamW's moments.
    pub betas: [f64; 2],
}

impl Selection {
    /// Whether candidates are chosen in the step after so many.
    #[must_use]
    pub fn begins(&self, step: u64) -> bool {
        !self.rule.sm3 && (step == 0 || (step + 1).is_multiple_of(self.rule.period))
    }

    /// Whether places change after so many steps.
    #[must_use]
    pub fn changes(&self, steps: u64) -> bool {
        steps > 0 && steps % self.rule.period == self.rule.accumulate
    }

    /// Steps of the phase that ends after so many.
    #[must_use]
    pub fn phase(&self, steps: u64) -> u64 {
        self.rule.accumulate + u64::from(steps > self.rule.accumulate)
    }

    /// How many of `count` places change after `steps` of `all`.
    #[must_use]
    pub fn share(&self, count: usize, steps: u64, all: u64) -> usize {
        let done = steps as f64 / all.max(1) as f64;
        let rate = self.rule.rate
            * match self.rule.cosine {
                true => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                false if steps == self.rule.accumulate => return count,
                false => 1.0 - done,
            };
        (count as f64 * rate) as usize
    }

    /// Bytes held while the places of a map change: scores of all places, and lists of the chosen.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        // A score and a place of each, and a flag; or nothing of note.
        let scores = |s: &Selected| {
            if self.rule.sm3 {
                9 * s.rows * s.columns
            } else {
                0
            }
        };
        self.of.iter().map(scores).max().unwrap_or(0)
    }
}

/// The changes that a stage's method makes.
pub(super) fn selecting(cx: &StageCx<'_>) -> Option<Selecting> {
    let mut methods = cx.tuning.methods.iter();
    methods.find_map(|(method, filled)| method.selecting(&filled.values))
}

/// The maps they are made on.
pub(super) fn selection(
    cx: &StageCx<'_>,
    values: &Values,
    params: &[Param],
    sites: &[Site],
) -> Option<Selection> {
    let rule = selecting(cx)?;
    let of = sites.iter().filter(|site| {
        let mut methods = cx.tuning.stack(site).into_iter();
        methods.any(|(method, values)| method.selecting(values).is_some())
    });
    let of = of.map(|site| Selected {
        path: site.path.clone(),
        rows: site.output(),
        columns: site.input(),
    });
    let known = |s: &Selected| params.iter().any(|p| p.name == s.values());
    Some(Selection {
        rule,
        of: of.filter(known).collect(),
        betas: adamw_numbers(values).0,
    })
}

/// What a step of several runs added up of watched gradients, at its end: in a step that chooses candidates they, and the first
/// of their sums; in the others, what is added to these.
pub(super) fn gathered(
    b: &mut Builder,
    cx: &StageCx<'_>,
    (values, built): (&Values, &Built),
    chooses: bool,
) {
    let own = selection(cx, values, &built.params, &built.sites);
    let Some(selection) = own.filter(|s| !s.rule.sm3) else {
        return;
    };
    let whole = chooses && selection.rule.whole;
    for own in &selection.of {
        let count = built.params.iter().find(|p| p.name == own.values());
        let shape = count.map(|p| p.shape.clone()).unwrap_or_default();
        let list = TensorType::fixed(DType::F32, &shape);
        let [candidates, sums, squares] = watched(&own.path);
        let [part, all] = watched_parts(&own.path);
        b.label(&own.path);
        let sums = b.resident(&sums, list.clone(), Class::Optimizer);
        let squares = b.resident(&squares, list.clone(), Class::Optimizer);
        if whole {
            let ids = TensorType::fixed(DType::U32, &shape);
            let ids = b.resident(&candidates, ids, Class::Optimizer);
            let ty = TensorType::fixed(DType::F32, &[own.rows, own.columns]);
            let all = b.resident(&all, ty, Class::Gradient);
            b.push(Nominate, &[ids, sums, squares, all]);
            zero(b, all);
            continue;
        }
        if chooses {
            zero(b, sums);
            zero(b, squares);
        }
        let part = b.resident(&part, list, Class::Gradient);
        b.push(Accumulate, &[sums, part]);
        b.push(SquareAccumulate, &[squares, part]);
        zero(b, part);
    }
}

fn zero(b: &mut Builder, list: Value) {
    let value = Real::new(0.0);
    b.push(Fill { value }, &[list]);
}

/// The update of numbers whose places change; `false` if this tensor has none.
pub(super) fn update(
    b: &mut Builder,
    selection: &Selection,
    values: &Values,
    (param, weight, grad): (&Param, Value, Value),
    factor: Value,
) -> bool {
    let Some(own) = selection.of.iter().find(|s| s.values() == param.name) else {
        return false;
    };
    let ([beta1, beta2], eps, decay) = adamw_numbers(values);
    let lr = b.feed(Feed::LearningRate);
    let state = |b: &mut Builder, suffix: &str, shape: &[u64]| {
        let ty = TensorType::fixed(DType::F32, shape);
        b.resident(&own.state(suffix), ty, Class::Optimizer)
    };
    b.label(&param.name);
    if selection.rule.sm3 {
        let ty = TensorType::fixed(DType::U32, &param.shape);
        let ids = b.resident(&own.places(), ty, Class::Chosen);
        let rows = state(b, "rows", &[own.rows]);
        let columns = state(b, "columns", &[own.columns]);
        let op = Sm3 {
            places: Places::entries(own.rows, own.columns),
            eps: Real::new(SM3_EPSILON),
            weight_decay: Real::new(decay),
        };
        b.push(op, &[weight, grad, ids, rows, columns, lr, factor]);
        return true;
    }
    let [m, v, age] = ["m", "v", "age"].map(|suffix| state(b, suffix, &param.shape));
    let op = AgedAdamW {
        beta1: Real::new(beta1),
        beta2: Real::new(beta2),
        eps: Real::new(eps),
        weight_decay: Real::new(decay),
    };
    b.push(op, &[weight, grad, m, v, age, lr, factor]);
    true
}

/// Whether numbers whose places change can be updated by this rule.
pub(super) fn goes_with(rule: &dyn optimizer::Optimizer) -> bool {
    rule.schema().name == "adamw"
}
