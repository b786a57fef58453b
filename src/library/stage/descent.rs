//! The programs of a step of gradient descent: forward, backward and update, whole or with micro-batches.

use super::super::net::{Mode, Param, Site};
use super::super::optimizer::Optimizer;
use super::super::schema::Values;
use super::consistency::minimised;
use super::job::Update;
use super::network::{Built, phase, verified};
use super::stepping::{penalise, penalties, updates};
use super::{Diag, Sound, StageCx, keys, masks, select};
use crate::library::error::{CONFLICTING_KEYS, NO_GRADIENT};
use crate::program::autodiff::differentiate;
use crate::program::op::{Accumulate, Add, Fill};
use crate::program::{Builder, Class, DType, Phase, Real, TensorType, Value, Verified};
use crate::program::{passes, verify};

pub(super) type Parts = (Update, Vec<Param>, Vec<Site>);

/// Builds the programs of a step.
pub(super) fn build(
    cx: &Sound<StageCx<'_>>,
    (rule, values): (&dyn Optimizer, &Values),
    (split, mode): (bool, Mode),
    until: Option<(u64, u64)>,
) -> Result<Parts, Vec<Diag>> {
    if select::selecting(cx).is_some() && !select::goes_with(rule) {
        let message = "places that change are updated by rules of their own, beside `adamw`";
        let help = "write `optimizer = adamw`, or leave it out";
        return Err(vec![
            Diag::error(&CONFLICTING_KEYS, keys::OPTIMIZER.span(cx.values), message).help(help),
        ]);
    }
    let name = if split { "accumulate" } else { "step" };
    let mut b = Builder::with_numbers(name, cx.numbers);
    let built = phase(&mut b, cx, (mode, until));
    let loss = minimised(&mut b, cx, &built, (mode, until));
    let mut loss = loss.map_err(|diag| vec![*diag])?;
    if !split && let Some(penalty) = penalties(&mut b, cx, &built.sites) {
        loss = b.push1(Add, &[loss, penalty]);
    }
    b.output("loss", loss);
    let trained: Vec<Param> = built
        .params
        .iter()
        .filter(|p| p.trainable)
        .cloned()
        .collect();
    let weights: Vec<Value> = trained.iter().map(|p| trainable(&mut b, p)).collect();
    let grads = differentiate(&mut b, loss, &weights);
    check_gradients(cx, &trained, &grads)?;
    let grads: Vec<Value> = grads.into_iter().flatten().collect();
    for (&weight, &grad) in weights.iter().zip(&grads) {
        b.gradient(weight, grad);
    }
    let update = if split {
        b.phase(Phase::Backward);
        for (param, &grad) in trained.iter().zip(&grads) {
            let acc = accumulator(&mut b, param);
            b.label(&param.name);
            b.push(Accumulate, &[acc, grad]);
        }
        let accumulate = finished(b, cx.values);
        let apply = applied(cx, (rule, values), (&built, &trained), mode)?;
        Update::Split { accumulate, apply }
    } else {
        let pairs: Vec<(Value, Value)> = weights.iter().copied().zip(grads).collect();
        let stepped = (built.sites.as_slice(), trained.as_slice(), pairs.as_slice());
        updates(&mut b, cx, (rule, values), stepped)?;
        let step = finished(b, cx.values);
        // Where the norm of all gradients clips, each waits for it.
        let clips = keys::CLIP.get(cx.values) > 0.0;
        Update::Whole(if clips { step } else { updating(&step) })
    };
    let mut params = built.params;
    params.extend(masks::fixed(cx, &trained));
    Ok((update, params, built.sites))
}

/// The program that updates by the gradients which micro-batches summed, and sets them to zero.
fn applied(
    cx: &Sound<StageCx<'_>>,
    (rule, values): (&dyn Optimizer, &Values),
    (built, trained): (&Built, &[Param]),
    mode: Mode,
) -> Result<Verified, Vec<Diag>> {
    let mut b = Builder::new("apply");
    let pairs: Vec<(Value, Value)> = trained
        .iter()
        .map(|p| (trainable(&mut b, p), accumulator(&mut b, p)))
        .collect();
    if let Some(penalty) = penalties(&mut b, cx, &built.sites) {
        penalise(&mut b, penalty, trained, &pairs);
    }
    let stepped = (built.sites.as_slice(), trained, pairs.as_slice());
    updates(&mut b, cx, (rule, values), stepped)?;
    select::gathered(&mut b, cx, (values, built), mode == Mode::Select);
    for (_, acc) in &pairs {
        b.push(
            Fill {
                value: Real::new(0.0),
            },
            &[*acc],
        );
    }
    Ok(verified(b.finish()))
}

/// Refuses tensors that are to be trained and that the loss does not depend on, and trainings of nothing.
fn check_gradients(
    cx: &StageCx<'_>,
    trained: &[Param],
    grads: &[Option<Value>],
) -> Result<(), Vec<Diag>> {
    let cut: Vec<Diag> = trained
        .iter()
        .zip(grads)
        .filter(|(_, g)| g.is_none())
        .map(|(p, _)| {
            Diag::error(
                &NO_GRADIENT,
                cx.span,
                format!(
                    "`{}` is to be trained, but the loss does not depend on it",
                    p.name
                ),
            )
            .label("in this stage")
        })
        .collect();
    if !cut.is_empty() {
        return Err(cut);
    }
    if trained.is_empty() {
        let diag = Diag::error(
            &NO_GRADIENT,
            cx.span,
            "nothing is trained: the model has no tensor that these methods train, and its pretrained head stays as it is",
        )
        .help("write `adapter = full`, or a method that adds tensors or trains blocks");
        return Err(vec![diag]);
    }
    Ok(())
}

/// The finished program of a forward and backward, with the recompute that is asked for.
fn finished(b: Builder, values: &Values) -> Verified {
    let mut program = b.finish();
    if keys::RECOMPUTE.get(values) {
        let blocks = keys::RECOMPUTE_BLOCKS.get(values).unwrap_or(u64::MAX);
        program = passes::recompute(&program, blocks);
    }
    verified(passes::rematerialize(&program))
}

/// A step whose large tensors are updated as soon as their gradients are whole.
fn updating(step: &Verified) -> Verified {
    match verify(passes::early(step.program())) {
        Ok(verified) => verified,
        Err(why) => panic!("moving updates broke a program: {why}"),
    }
}

pub(super) fn trainable(b: &mut Builder, param: &Param) -> Value {
    b.resident(
        &param.name,
        TensorType::fixed(DType::F32, &param.shape),
        Class::Trainable,
    )
}

fn accumulator(b: &mut Builder, param: &Param) -> Value {
    b.resident(
        &format!("gradient.{}", param.name),
        TensorType::fixed(DType::F32, &param.shape),
        Class::Gradient,
    )
}
