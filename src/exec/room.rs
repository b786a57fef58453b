//! Whether a plan fits what is free on a device: asked once, before anything is sent there.

use crate::base::units::Bytes;
use crate::files::RunError;
use crate::library::stage::job::{Routine, Update};
use crate::plan::Stage;
use crate::plan::estimate::Home;

/// Refuses stages that need more of a device than is free there. `free` is what the driver says once the
/// context exists, so that the context is not asked for again; stages that run on the host need nothing.
///
/// # Errors
/// [`RunError::Budget`] with the stage that needs most, what it needs, what is free and what to change.
pub fn fits_device<'a>(
    stages: impl IntoIterator<Item = &'a Stage>,
    free: u64,
) -> Result<(), RunError> {
    let needs = |stage: &'a Stage| match stage.estimate.home {
        Home::Device(o) => Some((stage.estimate.needs() - o.context, stage)),
        Home::Cpu | Home::Host => None,
    };
    let most = stages
        .into_iter()
        .filter_map(needs)
        .max_by_key(|(needs, _)| *needs);
    match most {
        Some((needs, stage)) if needs > free => Err(RunError::Budget {
            message: format!(
                "stage `{}` needs {} on the device beside the context, {} of them tensors at {}, and {} are free; \
                 nothing was executed: end other programs there, or let `fit = auto` with `--budget` choose \
                 micro-batch and recompute (`peftc check --solve micro_batch` prints the largest that fits)",
                stage.name.value,
                Bytes(needs),
                Bytes(stage.estimate.peak()),
                stage.estimate.peak_op,
                Bytes(free)
            ),
        }),
        _ => Ok(()),
    }
}

/// What to say where a device has no memory left although the stage fitted into what was free: `measured` is
/// what it held of tensors at most.
pub(super) fn ran_out(stage: &Stage, what: &str, measured: u64) -> String {
    let advice = match &stage.job.routine {
        Routine::Fit(fit) if matches!(fit.update, Update::Zeroth { .. }) => {
            "write a smaller `micro_batch`, which begins anew"
        }
        Routine::Fit(_) => {
            "write `recompute = true`, which goes on from the same checkpoint, or a smaller `micro_batch`, which begins \
             anew"
        }
        Routine::Score(_) | Routine::Choose(_) | Routine::Fold(_) => "write a smaller `batch`",
    };
    format!(
        "stage `{}`: {what}; planned were {} on the device, {} of them tensors, and {} of tensors were held at most: end \
         what else uses the GPU (`nvidia-smi` lists it), or {advice}",
        stage.name.value,
        Bytes(stage.estimate.needs()),
        Bytes(stage.estimate.peak()),
        Bytes(measured)
    )
}
