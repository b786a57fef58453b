//! The programs of a stage that are no training: evaluations, choices, folds, and what is measured or made of texts
//! before a training.

use super::Estimate;
use super::host::deriving_of;
use super::programs::over;
use super::sizes::{evaluation_sizes, every_size, fisher_sizes};
use crate::library::combine;
use crate::library::export::Target;
use crate::library::net::{Owner, Param, Site};
use crate::library::stage::activations::pass;
use crate::library::stage::job::{Fold, Job, Routine};
use crate::plan::features::reference_sizes;
use crate::plan::split::Lengths;
use crate::program::Bindings;
use crate::program::device::Device;
use crate::program::op::Machine;

/// What is measured of a backbone before a training.
pub(super) fn fisher_estimate(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
) -> Option<Estimate> {
    let Routine::Fit(fit) = &job.routine else {
        return None;
    };
    let fisher = fit.fisher.as_ref()?;
    let sizes = splits.first().copied().flatten();
    let sizes = sizes.map(|l| fisher_sizes(fit, fisher, l));
    let first = over(&[(&fisher.program, &sizes.unwrap_or_default())], machine);
    Some(Estimate {
        // Nothing is trained yet.
        frozen_weights: first.frozen_weights + first.trainable_weights,
        trainable_weights: 0,
        ..first
    })
}

/// What is read of the backbone before a training: a batch's run, and the components that are sought of what it gave.
pub(super) fn activation_estimates(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
) -> Option<(Estimate, Estimate)> {
    let Routine::Fit(fit) = &job.routine else {
        return None;
    };
    let of = fit.activations.as_ref()?;
    let sizes = splits.first().copied().flatten();
    let sizes = sizes.map_or_else(Vec::new, |l| pass(fit, &l.list(fit.batch)).0);
    let sizes: Vec<Bindings> = sizes.iter().map(|part| part.sizes).collect();
    let bytes = |sizes: &Bindings| {
        let rows = of.rows(sizes, fit.reads.as_ref());
        (of.output_bytes(sizes), of.scratch_bytes(rows))
    };
    let most = sizes
        .iter()
        .map(bytes)
        .max_by_key(|(made, beside)| made + beside);
    let run = over(&[(&of.program, &sizes)], machine);
    let op = "components of what enters linear maps";
    Some(taken_in(
        run,
        (of.held_bytes(), most.unwrap_or_default(), op),
        machine,
    ))
}

/// The text that is read before a training: the run, and the copies of what it gives.
pub(super) fn prefill_estimates(job: &Job, machine: &Machine) -> Option<(Estimate, Estimate)> {
    let Routine::Fit(fit) = &job.routine else {
        return None;
    };
    let of = fit.prefill.as_ref()?;
    let run = over(&[(&of.program, &[of.sizes()])], machine);
    let op = "keys and values of a text";
    Some(taken_in(
        run,
        (of.made_bytes(), (of.output_bytes(), 0), op),
        machine,
    ))
}

/// Runs whose outputs the host takes in: the runs, and what there is behind each. `held` bytes are there all the time, and
/// behind a run its outputs and a workspace.
fn taken_in(
    run: Estimate,
    (held, (activations, workspace), op): (u64, (u64, u64), &str),
    machine: &Machine,
) -> (Estimate, Estimate) {
    let taken = Estimate {
        frozen_weights: match machine.device {
            Device::Cpu => run.frozen_weights,
            Device::Cuda(_) => 0,
        },
        activations,
        transient: held,
        workspace,
        peak_op: op.to_owned(),
        ..Estimate::default()
    };
    let run = match machine.device {
        Device::Cpu => Estimate {
            transient: run.transient + held,
            ..run
        },
        Device::Cuda(_) => run,
    };
    (run, taken)
}

/// What is computed of every text beforehand.
pub(super) fn reference_estimate(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
) -> Option<Estimate> {
    let features = &job.reference()?.features;
    let reads = match &job.routine {
        Routine::Fit(fit) => [fit.reads.as_ref(), fit.dev_reads.as_ref()],
        Routine::Score(score) => [score.reads.as_ref(), None],
        Routine::Choose(_) | Routine::Fold(_) => [None, None],
    };
    let each = splits.iter().zip(reads);
    let sizes = each.flat_map(|(lengths, reads)| {
        lengths.map_or_else(Vec::new, |l| reference_sizes(l, reads, features.together))
    });
    let sizes: Vec<Bindings> = sizes.collect();
    Some(over(&[(&features.prefix, &sizes)], machine))
}

/// What is generated once a split is scored.
pub(super) fn generation_estimate(job: &Job, machine: &Machine) -> Option<Estimate> {
    let Routine::Score(score) = &job.routine else {
        return None;
    };
    let generate = score.generate.as_ref()?;
    let sizes = [generate.reading(), generate.making()].concat();
    let (sources, copying) = (generate.sources(), generate.copying());
    let programs = &generate.programs;
    let mut runs = vec![
        (&programs.next, &sizes[..]),
        (&programs.copies, &copying[..]),
    ];
    runs.extend(
        programs
            .sources
            .iter()
            .map(|program| (program, &sources[..])),
    );
    Some(over(&runs, machine))
}

/// Estimates what is no training.
pub(super) fn other_estimate(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
) -> Estimate {
    match &job.routine {
        Routine::Score(score) => {
            let sizes = splits
                .first()
                .copied()
                .flatten()
                .map(|l| evaluation_sizes(l, score.batch, score.reads.as_ref()))
                .unwrap_or_default();
            over(&[(&score.evaluate, &sizes)], machine)
        }
        Routine::Choose(choose) => {
            let sizes = every_size(splits, choose.batch);
            over(&[(&choose.evaluate, &sizes)], machine)
        }
        Routine::Fold(fold) => {
            let none = [Bindings::default()];
            let each = fold
                .sites
                .iter()
                .map(|(_, program)| over(&[(program, &none)], machine));
            // What no adapter keeps is made again, site by site.
            let all = fold.sites.iter().chain(&fold.biases);
            let again = all.filter_map(|(_, v)| deriving_of(job, std::iter::once(v), false));
            let folded = each.chain(again).max_by_key(Estimate::peak);
            let folded = folded.unwrap_or_default();
            let folded = converted(fold, job)
                .filter(|c| c.peak() > folded.peak())
                .unwrap_or(folded);
            // All other tensors pass through, one at a time, in f32.
            let written = |p: &&Param| fold.target.is_model() || p.owner == Owner::Adapter;
            let passing = job.params.iter().filter(written);
            let largest = passing.max_by_key(|p| p.elements());
            match largest.filter(|p| 4 * p.elements() > folded.peak()) {
                Some(param) => Estimate {
                    frozen_weights: 4 * param.elements(),
                    peak_op: format!("copy {}", param.name),
                    ..Estimate::default()
                },
                None => folded,
            }
        }
        Routine::Fit(_) => Estimate::default(),
    }
}

/// The matrix whose update takes most to become a pair.
fn converted(fold: &Fold, job: &Job) -> Option<Estimate> {
    let Target::Lora(keep) = fold.target else {
        return None;
    };
    let sizes = |site: &Site| (site.output(), site.input());
    let bytes = |site: &Site| match &fold.mix {
        None => combine::bytes(sizes(site), keep, 0),
        Some(mix) if mix.how.updates => {
            let each = 4 * site.output() * site.input();
            // The largest rank is at most the sum of theirs, which is not known here.
            let most = site.output().min(site.input());
            mix.folders.len() as u64 * each + combine::bytes(sizes(site), keep, most)
        }
        Some(_) => 0,
    };
    let of_sites = fold.sites.iter().map(|(site, _)| site);
    let all = job
        .sites
        .iter()
        .filter(|s| fold.mix.is_some() && s.is_linear());
    let largest = of_sites.chain(all).max_by_key(|site| bytes(site))?;
    Some(Estimate {
        transient: bytes(largest),
        peak_op: format!("decompose {}", largest.path),
        ..Estimate::default()
    })
}
