//! Whether the frozen prefix of a training is computed once an example and kept, and of how many
//! examples: the frozen part of a model is a function of the example alone, and every epoch after the
//! first would compute it again.

use super::estimate::evaluation_sizes;
use super::split::Lengths;
use crate::library::counts::to_u32;
use crate::library::net::{Owner, Param};
use crate::library::schema::Values;
use crate::library::stage::job::{Features, Fit, Job, Routine, Update, kept_as};
use crate::library::stage::keys;
use crate::library::task::{Reads, Task};
use crate::program::prefix::{Cut, cut};
use crate::program::{Axis, Bindings, DType, Feed, Verified};

/// Share of a step's operations below which keeping is not worth the disk.
const LEAST_SHARE: f64 = 0.15;

/// What a recipe says about it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Most bytes on disk.
    pub bound: u64,
    /// Numbers in which they are kept.
    pub stored: DType,
    /// Whether dropout acts before the first trained tensor too.
    pub dropout_frozen: bool,
    /// Whether the task changes the inputs from pass to pass.
    pub inputs_vary: bool,
    /// Whether the prompt is known.
    pub decided: bool,
    /// Whether rows are drawn when the stage runs.
    pub draws: bool,
}

impl Asked {
    /// What a stage's values say; a kind without these keys keeps nothing.
    #[must_use]
    pub fn of(values: &Values, task: &dyn Task) -> Self {
        Self {
            bound: keys::FEATURES.get(values).unwrap_or(0),
            stored: match keys::FEATURES_DTYPE.get(values) {
                Some("bf16") => DType::BF16,
                _ => DType::F32,
            },
            dropout_frozen: keys::DROPOUT_FROZEN.get(values),
            inputs_vary: task.inputs_vary(),
            decided: true,
            draws: keys::UNLABELLED.is_written(values),
        }
    }
}

/// Cuts the programs of a training behind their frozen prefix where that pays. Otherwise gives the
/// reason why the features are not kept; `None` where the question does not arise.
pub fn keep(job: &mut Job, splits: &[Option<&Lengths>], asked: Asked) -> Option<String> {
    let Routine::Fit(fit) = &mut job.routine else {
        return None;
    };
    if let Some(Reads::Targets { .. }) = fit.reads {
        return Some("a source and its target are two streams".to_owned());
    }
    plan(fit, &job.params, splits, asked).err()
}

fn plan(
    fit: &mut Fit,
    params: &[Param],
    splits: &[Option<&Lengths>],
    asked: Asked,
) -> Result<(), String> {
    let split = |i: usize| splits.get(i).copied().flatten();
    let Some(train) = split(0) else {
        return Ok(());
    };
    if !fit.phases.is_empty() {
        return Err("what is trained becomes more while training".to_owned());
    }
    if fit.select.is_some() {
        return Err("places are chosen by gradients of frozen weights".to_owned());
    }
    let typical = evaluation_sizes(train, fit.micro_batch, fit.reads.as_ref())
        .first()
        .copied()
        .unwrap_or_default();
    let whole = match &fit.update {
        Update::Whole(step) => step,
        Update::Split { accumulate, .. } => accumulate,
        Update::Zeroth { loss, .. } => loss,
    };
    // What a decomposition leaves of a matrix is made together with its trained vectors.
    let decomposed = |name: &str| {
        let mut own = params.iter().filter(|p| p.name == name);
        own.any(|p| p.derivation().is_some())
    };
    let cut_at = |verified: &Verified| -> Result<Option<Cut>, String> {
        cut(verified.program(), &typical, &decomposed)
    };
    // A pass that breaks a program is a bug, but here there is a way on: the uncut program.
    let Ok(Some(parts)) = cut_at(whole) else {
        return Ok(());
    };
    let share = parts.flops.0 as f64 / parts.flops.1.max(1) as f64;
    if share < LEAST_SHARE {
        return if asked.dropout_frozen {
            Err("`dropout_frozen` makes every pass differ".to_owned())
        } else {
            Ok(())
        };
    }
    pays(fit, train, asked)?;
    let evaluate = match &fit.evaluate {
        Some(evaluate) => match cut_at(evaluate) {
            Ok(Some(own)) if own.kept == parts.kept => Some(own.rest),
            _ => return Ok(()),
        },
        None => None,
    };
    let (examples, bytes) = within_bound(&parts, [Some(train), split(1)], asked)?;
    let everything = (0..2).all(|i| match split(i) {
        Some(Lengths::Known(list)) => examples[i] == list.len() as u64,
        _ => i == 1,
    });
    // What an adapter leaves must be in memory at the end.
    let plain = parts.prefix.program().residents.iter().all(|r| {
        let mut own = params.iter().filter(|p| p.name == r.name);
        own.any(|p| p.owner == Owner::Base)
    });
    let rest = parts.rest;
    match &mut fit.update {
        Update::Whole(step) => *step = rest,
        Update::Split { accumulate, .. } => *accumulate = rest,
        Update::Zeroth { loss, .. } => *loss = rest,
    }
    fit.evaluate = evaluate;
    fit.features = Some(Features {
        prefix: parts.prefix,
        kept: parts.kept,
        examples,
        everything,
        plain,
        stored: asked.stored,
        together: u64::MAX,
        bytes,
        share,
    });
    Ok(())
}

/// How many examples of each split are kept under the bound on their size, and the bytes they take.
fn within_bound(
    parts: &Cut,
    splits: [Option<&Lengths>; 2],
    asked: Asked,
) -> Result<([u64; 2], u64), String> {
    let mut left = asked.bound;
    let examples = splits.map(|of| within(&mut left, parts, of, asked.stored));
    // Rounding changes results, so it must not depend on the space that there is.
    if examples[0] == 0 && asked.stored == DType::F32 {
        return Err("the bound on their size (`features`) leaves no room".to_owned());
    }
    Ok((examples, asked.bound - left))
}

/// Whether features of all examples would be read more often than they are made; the reason where not.
fn pays(fit: &Fit, train: &Lengths, asked: Asked) -> Result<(), String> {
    if !asked.decided {
        return Err("the prompt is not chosen yet".to_owned());
    }
    if asked.draws {
        // Runs that fill features take as many texts as are short enough, so that longer texts bound no draw.
        return Err("rows that it learns are drawn when it runs".to_owned());
    }
    if asked.inputs_vary {
        return Err("the objective masks other tokens in every pass".to_owned());
    }
    let Lengths::Known(lengths) = train else {
        return Err("the data are not at hand, so their size is not known".to_owned());
    };
    let passes = fit.steps as f64 * fit.batch as f64 / lengths.len().max(1) as f64
        * match &fit.update {
            Update::Zeroth { samples, .. } => 2.0 * *samples as f64,
            _ => 1.0,
        };
    if passes < 1.5 {
        return Err("the data are walked over once only".to_owned());
    }
    Ok(())
}

/// How many examples of a split have their features within the bytes that are left, from the first on.
fn within(left: &mut u64, parts: &Cut, lengths: Option<&Lengths>, stored: DType) -> u64 {
    let row = |of: Axis| -> u64 {
        let widths = parts.kept.iter().filter_map(|k| match k.feed {
            Feed::Feature { width, of: own, .. } if own == of => {
                Some(u64::from(width) * kept_as(k.feed, stored).size())
            }
            _ => None,
        });
        widths.sum::<u64>()
    };
    let (per_token, per_sequence) = (row(Axis::Tokens), row(Axis::Sequences));
    let Some(Lengths::Known(list)) = lengths else {
        return 0;
    };
    let mut kept = 0;
    for &n in list {
        let bytes = per_sequence + per_token * u64::from(n);
        if bytes > *left {
            break;
        }
        *left -= bytes;
        kept += 1;
    }
    kept
}

/// Sizes of the runs that fill the features of a split: consecutive examples of about
/// [`Features::CHUNK`] tokens.
pub(super) fn fill_sizes(lengths: &Lengths, examples: u64, together: u64) -> Vec<Bindings> {
    let Lengths::Known(list) = lengths else {
        return Vec::new();
    };
    Features::chunks(list, examples, together)
        .map(|range| {
            Bindings::of_lengths(list.get(range).into_iter().flatten().map(|&n| n as usize))
        })
        .collect()
}

/// Sizes of the runs that compute a number of each text of a split, with the places that are read.
pub(super) fn reference_sizes(
    lengths: &Lengths,
    reads: Option<&Reads>,
    together: u64,
) -> Vec<Bindings> {
    let list = lengths.list(1);
    let length = |i: usize| list.get(i).map_or(0, |&n| n as usize);
    Features::chunks(&list, list.len() as u64, together)
        .map(|range| {
            let own = range.clone().map(|i| (to_u32(i), length(i)));
            let places = reads.map_or(0, |reads| reads.places(own));
            Bindings::of_lengths(range.map(length)).reading(places)
        })
        .collect()
}

/// Bytes of the kept values of a batch.
pub(super) fn feed_bytes(features: &Features, sizes: &Bindings) -> u64 {
    let each = features.kept.iter().map(|k| k.feed.ty().bytes(sizes));
    each.sum()
}
