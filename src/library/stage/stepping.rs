//! The end of a step: what methods add to the loss, clipping, the optimizer's updates, and what methods do behind them.

use std::collections::BTreeMap;

use super::super::method::{After, Complaint};
use super::super::net::{Param, Site};
use super::super::optimizer::{self, Optimizer, Trained};
use super::super::schema::{Filled, Values};
use super::network::again;
use super::train::{batches, steps, steps_per_epoch};
use super::{Diag, StageCx, keys, masks, select};
use crate::library::counts::to_u32;
use crate::program::autodiff::differentiate;
use crate::program::op::{Accumulate, ClipFactor, Constant, GradNorm};
use crate::program::passes::is_large;
use crate::program::{Builder, DType, Feed, Phase, Real, Value};

/// A complaint of a method, where its value is written, or the method where it is not.
fn complained(filled: &Filled, complaint: Complaint) -> Diag {
    let at = if filled.values.written(complaint.key) {
        filled.values.span(complaint.key)
    } else {
        filled.span
    };
    let diag = Diag::error(complaint.code, at, complaint.message);
    Diag {
        help: complaint.help,
        ..diag
    }
}

/// What methods add to the loss once a step.
pub(super) fn penalties(b: &mut Builder, cx: &StageCx<'_>, sites: &[Site]) -> Option<Value> {
    again(b, cx, |net| {
        let mut sum: Option<Value> = None;
        for (method, values, sites) in cx.tuning.stepping(sites) {
            net.b.label(method.schema().name);
            if let Some(own) = method.penalty(values, &sites, net) {
                sum = Some(sum.map_or(own, |sum| net.add(sum, own)));
            }
        }
        sum
    })
}

/// Adds the gradient of what is in no micro-batch to those of all of them, and hands the loss itself back.
pub(super) fn penalise(
    b: &mut Builder,
    penalty: Value,
    trained: &[Param],
    pairs: &[(Value, Value)],
) {
    b.output("loss", penalty);
    let weights: Vec<Value> = pairs.iter().map(|(weight, _)| *weight).collect();
    let grads = differentiate(b, penalty, &weights);
    for ((param, &(_, acc)), grad) in trained.iter().zip(pairs).zip(grads) {
        if let Some(grad) = grad {
            b.label(&param.name);
            b.push(Accumulate, &[acc, grad]);
        }
    }
}

/// What a step is made of beside its rule: sites, trained parameters, and each with its gradient.
pub(super) type Stepped<'a> = (&'a [Site], &'a [Param], &'a [(Value, Value)]);

/// The global norm. Without clipping no update waits for it, and each large gradient gives its part where it is made.
fn norm(b: &mut Builder, grads: &[Value], clips: bool) -> Value {
    let (large, small): (Vec<Value>, Vec<Value>) = grads.iter().partition(|&&g| is_large(b.ty(g)));
    if clips || large.is_empty() {
        return b.push1(GradNorm, grads);
    }
    let mut parts: Vec<Value> = large.iter().map(|&g| b.push1(GradNorm, &[g])).collect();
    if !small.is_empty() {
        parts.push(b.push1(GradNorm, &small));
    }
    b.push1(GradNorm, &parts)
}

/// Global norm, clipping factor, one update a parameter, and what methods do behind them.
pub(super) fn updates(
    b: &mut Builder,
    cx: &StageCx<'_>,
    (rule, values): (&dyn Optimizer, &Values),
    (sites, trained, pairs): Stepped<'_>,
) -> Result<(), Vec<Diag>> {
    b.phase(Phase::Update);
    b.label("clip");
    let grads: Vec<Value> = pairs.iter().map(|(_, g)| *g).collect();
    let max = keys::CLIP.get(cx.values);
    let norm = norm(b, &grads, max > 0.0);
    b.output("grad_norm", norm);
    let factor = if max > 0.0 {
        b.push1(
            ClipFactor {
                max: Real::new(max),
            },
            &[norm],
        )
    } else {
        b.push1(
            Constant {
                value: Real::new(1.0),
                dtype: DType::F32,
            },
            &[],
        )
    };
    let lr = b.feed(Feed::LearningRate);
    let selection = select::selection(cx, values, trained, sites);
    let (batch, packing) = batches(cx)?;
    let epoch = steps_per_epoch(cx, (batch, packing.as_ref()));
    let mut rates = BTreeMap::new();
    for (param, &(weight, grad)) in trained.iter().zip(pairs) {
        let one = (param, weight, grad);
        if selection
            .as_ref()
            .is_some_and(|s| select::update(b, s, values, one, factor))
        {
            continue;
        }
        b.label(&param.name);
        let (grad, mask) = masks::begin(b, cx, param, (weight, grad));
        let lr = *rates
            .entry(param.rate.to_bits())
            .or_insert_with(|| again(b, cx, |net| net.scaled(lr, param.rate)));
        let own = Trained {
            name: &param.name,
            param: weight,
            grad,
            decays: param.decays(),
            since: to_u32(cx.tuning.begins(param, epoch).min(u64::from(u32::MAX))),
        };
        optimizer::apply((rule, values), b, own, (lr, factor));
        masks::end(b, mask, weight);
    }
    let steps = steps(cx.values, epoch);
    let complaints = cx.tuning.methods.iter();
    let complaints: Vec<Diag> = complaints
        .filter_map(|(m, f)| Some(complained(f, m.check_steps(&f.values, steps)?)))
        .collect();
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let gradients: BTreeMap<String, Value> = trained
        .iter()
        .zip(pairs)
        .map(|(param, (_, grad))| (param.name.clone(), *grad))
        .collect();
    again(b, cx, |net| {
        let mut after = After::new(net, &gradients, factor, steps);
        for (method, values, sites) in cx.tuning.stepping(sites) {
            after.net.b.label(method.schema().name);
            method.after_update(values, &sites, &mut after);
        }
    });
    Ok(())
}
