//! Whether a plan fits what is free on a device: asked once, before anything is sent there.

use std::path::Path;

use super::entry_name;
use crate::base::units::Bytes;
use crate::exec::store::Store;
use crate::files::RunError;
use crate::files::{space, sums};
use crate::library::stage::job::{Routine, Update};
use crate::plan::{Plan, Stage};

/// Refuses stages that need more of a device than is free there. `free` is what the driver says once the
/// context exists, so that the context is not asked for again; stages that run on the host need nothing.
///
/// # Errors
/// [`RunError::Budget`] with the stage that needs most, what it needs, what is free and what to change.
pub fn fits_device<'a>(
    stages: impl IntoIterator<Item = &'a Stage>,
    free: u64,
) -> Result<(), RunError> {
    let needs = |stage: &'a Stage| Some((stage.estimate.free_needed()?, stage));
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

/// Refuses a run whose stages take more of the store's disk than is free there; what an interrupted run left
/// counts as taken already.
///
/// # Errors
/// [`RunError::Budget`] with what is needed for what, what is free and what to change.
pub(in crate::exec) fn fits_disk<'a>(
    plan: &'a Plan,
    stages: impl Iterator<Item = &'a Stage>,
    store: &Store,
    out: &Path,
) -> Result<(), RunError> {
    let stages: Vec<&Stage> = stages.collect();
    if let Some(free) = space::free(store.dir()) {
        fits_store(plan, &stages, store, free)?;
    }
    // On another disk the artifacts are copied.
    let all = plan.disk(stages.iter().copied()).artifact;
    match space::free(out) {
        Some(free) if all > free && !space::is_shared(store.dir(), out) => Err(RunError::Budget {
            message: format!(
                "copies of the artifacts take {} on the disk of {}, which is not that of the store, and {} are free; nothing was \
                 executed: free the space, or name an `--out` on another disk",
                Bytes(all),
                out.display(),
                Bytes(free)
            ),
        }),
        _ => Ok(()),
    }
}

fn fits_store(plan: &Plan, stages: &[&Stage], store: &Store, free: u64) -> Result<(), RunError> {
    let all = plan.disk(stages.iter().copied());
    if all.most() <= free {
        return Ok(());
    }
    let own = stages
        .iter()
        .map(|s| sums::size(&store.path(&entry_name(s))));
    let rows = sums::size(&store.dir().join(crate::exec::store::features::DIR));
    let there = own.sum::<u64>() + rows.min(all.features);
    let need = all.most().saturating_sub(there);
    if need <= free {
        return Ok(());
    }
    Err(RunError::Budget {
        message: format!(
            "the run takes {} more on the disk of {}, and {} are free; nothing was executed. What it writes: {} of \
             artifacts and logs, {} of checkpoints, {} of kept features. Free the space (`peftc store gc --keep SIZE`), \
             name a `--store` on another disk, or write a smaller `features = …` in the stage",
            Bytes(need),
            store.dir().display(),
            Bytes(free),
            Bytes(all.artifact),
            Bytes(all.checkpoints),
            Bytes(all.features),
        ),
    })
}

/// What to say where a device has no memory left although the stage fitted into what was free: `measured` is
/// what it held of tensors at most.
pub(in crate::exec) fn ran_out(stage: &Stage, what: &str, measured: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::world::RealWorld;
    use crate::driver::compile;
    use crate::plan::disk::Disk;
    use crate::program::op::Machine;

    #[test]
    fn a_run_that_cannot_fit_on_the_disk_is_refused_with_figures_and_shared_rows_count_once() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let at = env!("CARGO_MANIFEST_DIR");
        let path = dir.path().join("r.peft");
        let stage = |name: &str, r: u64| {
            format!(
                "stage {name} = train {{ model = m, data = d.train, adapter = lst {{ r = {r} }}, lr = 1e-3, epochs = 2 }}\n"
            )
        };
        let text = format!(
            "model m = local \"{at}/tests/reference/bert-tiny\"\n\
             data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 60 }}\n{}{}",
            stage("a", 4),
            stage("b", 2)
        );
        std::fs::write(&path, text).expect("written");
        let compiled = compile(&path, &[], &RealWorld::new(true), &Machine::cpu(1));
        let plan = compiled.plan.expect("a plan");
        let store = Store::open(dir.path().join("store"));
        let stages: Vec<&Stage> = plan.stages.iter().collect();
        let [a, b] = [0, 1].map(|i| Disk::of(stages[i]));
        let all = plan.disk(stages.iter().copied());
        assert_eq!(a.features, b.features);
        assert!(a.features > 0 && all.features == a.features, "{all:?}");
        assert_eq!(all.artifact, a.artifact + b.artifact);
        assert_eq!(all.checkpoints, a.checkpoints.max(b.checkpoints));
        fits_store(&plan, &stages, &store, all.most()).expect("it fits exactly");
        let why =
            fits_store(&plan, &stages, &store, all.most() - 1).expect_err("a byte is missing");
        assert_eq!(why.exit_code(), 3);
        assert!(why.to_string().contains("of kept features"), "{why}");
        // What an interrupted run left is not asked for again.
        let entry = store.path(&entry_name(stages[0]));
        std::fs::create_dir_all(&entry).expect("made");
        std::fs::write(entry.join("x"), [0; 5000]).expect("written");
        fits_store(&plan, &stages, &store, all.most() - 5000).expect("it fits");
        fits_store(&plan, &stages, &store, all.most() - 5001).expect_err("it does not");
    }
}
