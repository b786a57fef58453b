//! Steps without a gradient: moves along random directions, and a training done again from its log.

use crate::exec::interpreter::Runner;
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::stage::job::{Fit, Update};
use crate::program::op::Tensor;
use crate::program::{Bindings, Feed, Verified};

fn apply(
    runner: &mut Runner,
    perturb: &Verified,
    (step, sample): (u64, u64),
    by: [f64; 3],
) -> Result<(), RunError> {
    let feeds = vec![
        (
            Feed::Perturbation,
            Tensor::new(by.map(|x| x as f32).to_vec(), &[3]),
        ),
        (
            Feed::Draw,
            Tensor::new(vec![to_u32(step), to_u32(sample)], &[2]),
        ),
    ];
    runner.run(perturb, feeds, &Bindings::default()).map(drop)
}

/// Moves the weights by `by` along the direction of a step's sample.
///
/// # Errors
/// What a kernel refuses.
pub(in crate::exec) fn shift(
    runner: &mut Runner,
    perturb: &Verified,
    at: (u64, u64),
    by: f64,
) -> Result<(), RunError> {
    apply(runner, perturb, at, [by, 0.0, 0.0])
}

/// The update of a step with these projected gradients. With one sample the weights still stand at
/// `−ε`, and one pass restores and updates them.
///
/// # Errors
/// What a kernel refuses.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
pub(in crate::exec) fn update(
    runner: &mut Runner,
    perturb: &Verified,
    step: u64,
    lr: f64,
    epsilon: f64,
    projected: &[f32],
) -> Result<(), RunError> {
    let n = projected.len() as f64;
    for (sample, &g) in projected.iter().enumerate() {
        let restore = if projected.len() == 1 { epsilon } else { 0.0 };
        let decay = if sample == 0 { lr } else { 0.0 };
        apply(
            runner,
            perturb,
            (step, sample as u64),
            [restore, lr * f64::from(g) / n, decay],
        )?;
    }
    Ok(())
}

/// Does a training again from its trajectory, without a forward pass: every in-place move of the
/// weights is repeated, since their rounding is part of the result.
///
/// # Errors
/// A job that is no such training; what a kernel refuses.
pub fn replay(
    runner: &mut Runner,
    fit: &Fit,
    trajectory: impl IntoIterator<Item = Vec<f32>>,
) -> Result<u64, RunError> {
    let Update::Zeroth {
        perturb, epsilon, ..
    } = &fit.update
    else {
        return Err(RunError::bug(
            "only a zeroth-order training can be replayed",
        ));
    };
    let mut step = 0;
    for projected in trajectory {
        for sample in 0..projected.len() as u64 {
            shift(runner, perturb, (step, sample), *epsilon)?;
            shift(runner, perturb, (step, sample), -2.0 * epsilon)?;
            if projected.len() > 1 {
                shift(runner, perturb, (step, sample), *epsilon)?;
            }
        }
        update(
            runner,
            perturb,
            step,
            fit.rates.at(step),
            *epsilon,
            &projected,
        )?;
        step += 1;
    }
    Ok(step)
}
