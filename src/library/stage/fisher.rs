//! The program that measures what a pruning, or a choice of places, ranks by (methods A10 d 1, S3, S14): gradients of the
//! bare backbone's loss, or their squares or sizes, summed over examples.

use std::collections::BTreeSet;

use super::super::derive::BaseParam;
use super::super::derive::places::{Measure, Score, Summed};
use super::super::derive::prune::{Importance, ranked};
use super::super::method::Tuning;
use super::super::net::Mode;
use super::super::net::{Init, Param};
use super::network::{probed, verified};
use super::{Diag, StageCx};
use crate::library::error::{BAD_METHOD_VALUES, CONFLICTING_KEYS};
use crate::program::autodiff::differentiate;
use crate::program::op::{Accumulate, SquareAccumulate, Unary, UnaryKind};
use crate::program::passes::{hasten, remove_dead};
use crate::program::{Builder, Class, DType, Phase, TensorType, Value, Verified};

/// What is run before a training whose side network is pruned, or whose places are chosen, by gradients.
#[derive(Debug)]
pub struct Fisher {
    /// Forward and backward of some examples, adding to the accumulators.
    pub program: Verified,
    /// The network it is of: backbone and head, without any method.
    pub params: Vec<Param>,
    /// The matrices that are measured.
    pub sources: Vec<BaseParam>,
    /// What is summed of how many examples.
    pub measure: Measure,
}

/// Name of a matrix's accumulator.
#[must_use]
pub fn accumulator(of: &str) -> String {
    format!("fisher.{of}")
}

/// What a parameter's first value asks to be measured.
fn asked(param: &Param) -> Option<Measure> {
    match &param.init {
        Init::Pruned(cut) => match cut.rows.importance {
            Importance::Fisher { samples } => Some(Measure {
                of: Summed::Squares,
                samples,
                batch: 1,
            }),
            Importance::Magnitude => None,
        },
        Init::Chosen { by, .. } => match by.score {
            Score::Gradient(measure) => Some(measure),
            Score::Random { .. } | Score::Magnitude | Score::Smallest | Score::Moved => None,
        },
        _ => None,
    }
}

/// The program, if any of a stage's parameters asks for it.
///
/// # Errors
/// Two of them ask for different sums, or an example is several texts.
pub(super) fn fisher(cx: &StageCx<'_>, params: &[Param]) -> Result<Option<Fisher>, Vec<Diag>> {
    let mut all = params.iter().filter_map(asked);
    let Some(measure) = all.next() else {
        return Ok(None);
    };
    if cx.task.group() > 1 {
        let message = format!(
            "`{}` cannot rank by gradients yet: they are measured a text at a time, and an example here is several",
            cx.task.name()
        );
        let help = "choose in a training with `objective = causal_lm` and go on from it, or by what needs no gradients";
        return Err(vec![
            Diag::error(&BAD_METHOD_VALUES, cx.span, message).help(help),
        ]);
    }
    if all.any(|other| other != measure) {
        let message = "two methods of this stage choose by different sums over gradients";
        let help = "write the same score and the same number of samples in both, or leave one out";
        return Err(vec![
            Diag::error(&CONFLICTING_KEYS, cx.span, message).help(help),
        ]);
    }
    let mut sources = ranked(params);
    for param in params {
        let Init::Chosen { by, .. } = &param.init else {
            continue;
        };
        if matches!(by.score, Score::Gradient(_)) {
            let new = by.of.iter().filter(|m| !sources.contains(m)).cloned();
            let new: Vec<BaseParam> = new.collect();
            sources.extend(new);
        }
    }
    let names: BTreeSet<String> = sources.iter().map(|s| s.name.clone()).collect();
    let bare = Tuning::bare(cx.tuning.n_layers);
    let mut b = Builder::with_numbers("fisher", cx.numbers);
    let built = probed(&mut b, cx, &bare, Mode::Evaluate, names);
    let loss = built.loss(&mut b, cx.task.as_ref());
    b.output("loss", loss);
    let resident = |b: &mut Builder, source: &BaseParam, name: &str, class: Class| {
        b.resident(name, TensorType::fixed(DType::F32, &source.shape), class)
    };
    let weights: Vec<Value> = sources
        .iter()
        .map(|s| resident(&mut b, s, &s.name, Class::Trainable))
        .collect();
    let grads = differentiate(&mut b, loss, &weights);
    b.phase(Phase::Backward);
    for ((source, &weight), grad) in sources.iter().zip(&weights).zip(grads) {
        // A matrix the loss does not depend on keeps a sum of 0.
        let sum = resident(&mut b, source, &accumulator(&source.name), Class::Gradient);
        let Some(grad) = grad else { continue };
        b.gradient(weight, grad);
        b.label(&source.name);
        match measure.of {
            Summed::Squares => b.push(SquareAccumulate, &[sum, grad]),
            Summed::Absolutes => {
                let kind = UnaryKind::Abs;
                let size = b.push1(Unary { kind }, &[grad]);
                b.push(Accumulate, &[sum, size])
            }
            Summed::Plain | Summed::Weighted | Summed::Moving => b.push(Accumulate, &[sum, grad]),
        };
    }
    Ok(Some(Fisher {
        program: verified(hasten(&remove_dead(&b.finish()))),
        params: built.params,
        sources,
        measure,
    }))
}
