//! The program that measures the empirical Fisher information of the matrices a pruning ranks
//! (methods A10 d 1): squared gradients of the bare backbone's loss, summed over examples.

use std::collections::BTreeSet;

use super::super::derive::BaseParam;
use super::super::derive::prune::{Importance, ranked};
use super::super::method::Tuning;
use super::super::net::Mode;
use super::super::net::{Init, Param};
use super::StageCx;
use super::network::{probed, verified};
use crate::program::autodiff::differentiate;
use crate::program::op::SquareAccumulate;
use crate::program::passes::{hasten, remove_dead};
use crate::program::{Builder, Class, DType, Phase, TensorType, Value, Verified};

/// What is run before a training whose side network is pruned by Fisher information.
#[derive(Debug)]
pub struct Fisher {
    /// Forward and backward of one example, adding squares to the accumulators.
    pub program: Verified,
    /// The network it is of: backbone and head, without any method.
    pub params: Vec<Param>,
    /// The matrices that are measured.
    pub sources: Vec<BaseParam>,
    /// Examples.
    pub samples: u64,
}

/// Name of a matrix's accumulator.
#[must_use]
pub fn accumulator(of: &str) -> String {
    format!("fisher.{of}")
}

/// The program, if any of a stage's parameters asks for it.
pub(super) fn fisher(cx: &StageCx<'_>, params: &[Param]) -> Option<Fisher> {
    let samples = params.iter().find_map(|p| match &p.init {
        Init::Pruned(cut) => match cut.rows.importance {
            Importance::Fisher { samples } => Some(samples),
            Importance::Magnitude => None,
        },
        _ => None,
    })?;
    let sources = ranked(params);
    let names: BTreeSet<String> = sources.iter().map(|s| s.name.clone()).collect();
    let bare = Tuning {
        methods: Vec::new(),
        n_layers: cx.tuning.n_layers,
        frozen: true,
    };
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
        // A matrix the loss does not depend on keeps a Fisher information of 0.
        let sum = resident(&mut b, source, &accumulator(&source.name), Class::Gradient);
        let Some(grad) = grad else { continue };
        b.gradient(weight, grad);
        b.label(&source.name);
        b.push(SquareAccumulate, &[sum, grad]);
    }
    Some(Fisher {
        program: verified(hasten(&remove_dead(&b.finish()))),
        params: built.params,
        sources,
        samples,
    })
}
