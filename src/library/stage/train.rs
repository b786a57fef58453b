//! `train`: gradient descent on a split.

use std::collections::BTreeSet;

use super::super::derive::places::Score;
use super::super::net::Mode;
use super::super::net::{Init, Param};
use super::super::optimizer::{self, Optimizer};
use super::super::schedule::{self, Rates};
use super::super::schema::{Filled, Length, Maybe, Schema, Values};
use super::super::task::Task;
use super::activations::activations;
use super::descent::build;
use super::fisher::fisher;
use super::job::{Fit, Job, Routine, Update};
use super::measures::{checked_metric, metrics, positive};
use super::network::{evaluation, is_split, verified};
use super::packing::{Batch, Extent, Packing};
use super::prefill::prefill;
use super::reference::reference;
use super::{Diag, Diags, Sound, Span, StageCx, StageKind, keys, select, taught};
use crate::library::counts::to_u32;
use crate::library::error::{BAD_METHOD_VALUES, CONFLICTING_KEYS, IDLE_KEY};
use crate::program::Verified;

/// Training by backpropagation.
#[derive(Debug)]
pub(super) struct Train;

static SCHEMA: Schema = Schema {
    name: "train",
    summary: "train a model, or an adapter on it, by backpropagation",
    doc: "Takes a model (`model = …`) or the result of another stage (`from = …`), adapts it with the methods named, and \
          leaves a model or an adapter. The task head is always trained.",
    paper: "",
    keys: &[
        keys::MODEL.key(),
        keys::FROM.key(),
        keys::DATA.key(),
        keys::OBJECTIVE.key(),
        keys::PROMPT.key(),
        keys::ADAPTER.key(),
        keys::ADAPTERS.key(),
        keys::TUNED.key(),
        keys::TEACHERS.key(),
        keys::OVER.key(),
        keys::TEACHER_WEIGHTS.key(),
        keys::UNLABELLED.key(),
        keys::GROW.key(),
        keys::TEACHER_SHARE.key(),
        keys::OPTIMIZER.key(),
        keys::LR.key(),
        keys::SCHEDULE.key(),
        keys::EPOCHS.key(),
        keys::STEPS.key(),
        keys::BATCH.key(),
        keys::MICRO_BATCH.key(),
        keys::FIT.key(),
        keys::RECOMPUTE.key(),
        keys::RECOMPUTE_BLOCKS.key(),
        keys::MAX_LENGTH.key(),
        keys::CLIP.key(),
        keys::DROPOUT.key(),
        keys::DROPOUT_FROZEN.key(),
        keys::FEATURES.key(),
        keys::FEATURES_DTYPE.key(),
        keys::SHUFFLE.key(),
        keys::SEED.key(),
        keys::DEV.key(),
        keys::EVALUATE.key(),
        keys::METRICS.key(),
        keys::POSITIVE.key(),
        keys::BEST.key(),
        keys::PATIENCE.key(),
    ],
};

impl StageKind for Train {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self) -> bool {
        true
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data", "dev", "unlabelled"]
    }

    fn reads_labels(&self, split: &str, task: &dyn Task) -> bool {
        match split {
            "data" => !task.learns_scores(),
            _ => split != keys::UNLABELLED.name(),
        }
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        check_common(values, span, diags);
        taught::check(values, diags);
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let v = cx.values;
        taught::check_drawn(cx)?;
        let split = is_split(cx);
        let optimizer = entry(v, &keys::OPTIMIZER, "adamw");
        let rule = optimizer::optimizer(&optimizer.name).unwrap_or(optimizer::OPTIMIZERS[0]);
        let of = (rule as &dyn Optimizer, &optimizer.values);
        let (update, params, sites) = build(cx, of, (split, Mode::Train), None)?;
        let evaluate = keys::DEV
            .is_written(v)
            .then(|| verified(evaluation(cx, &cx.tuning, true).0));
        let mut fit = fit(cx, &params, update, evaluate)?;
        let selection = select::selection(cx, &optimizer.values, &params, &sites);
        if selection.as_ref().is_some_and(|s| !s.rule.sm3) {
            fit.select = Some(build(cx, of, (split, Mode::Select), None)?.0);
        }
        let epoch = fit.steps_per_epoch;
        let mut begins = phases(cx, &params, (fit.steps, epoch))?;
        fit.last_phase = begins.pop().unwrap_or(0);
        for step in begins {
            let (update, ..) = build(cx, of, (split, Mode::Train), Some((step, epoch)))?;
            fit.phases.push((step, update));
        }
        fit.selection = selection;
        Ok(Job {
            params,
            sites,
            routine: Routine::Fit(Box::new(fit)),
        })
    }
}

/// The steps at which what is trained becomes more, from 0 on.
///
/// # Errors
/// The training ends before.
fn phases(
    cx: &StageCx<'_>,
    params: &[Param],
    (steps, epoch): (u64, u64),
) -> Result<Vec<u64>, Vec<Diag>> {
    let trained = params.iter().filter(|p| p.trainable);
    let begins = trained.map(|p| cx.tuning.begins(p, epoch));
    let begins: BTreeSet<u64> = begins.chain([0]).collect();
    match begins.last() {
        Some(&last) if last >= steps => {
            let message = format!(
                "the training has {steps} steps, and the last of what is unfrozen joins before step {last}, counted from 0"
            );
            let help = "train longer, or write a shorter `every`, or a smaller `last`";
            Err(vec![
                Diag::error(&BAD_METHOD_VALUES, cx.span, message).help(help),
            ])
        }
        _ => Ok(begins.into_iter().collect()),
    }
}

/// Complains where weights are to be compared and none are named, or the other way round.
fn check_tuned(cx: &StageCx<'_>, params: &[Param]) -> Result<(), Vec<Diag>> {
    let compares =
        |p: &Param| matches!(&p.init, Init::Chosen { by, .. } if by.score == Score::Moved);
    let named = [
        keys::ADAPTER.is_written(cx.values),
        keys::ADAPTERS.is_written(cx.values),
    ];
    if !named.contains(&true)
        && keys::FROM.is_written(cx.values)
        && !keys::TUNED.is_written(cx.values)
    {
        return Ok(()); // It goes on with an adapter, whose places are in it.
    }
    let diag = match (
        params.iter().any(compares),
        keys::TUNED.is_written(cx.values),
    ) {
        (true, false) => Diag::error(
            &CONFLICTING_KEYS,
            cx.span,
            "`lt_sft` has no training to take its places from",
        )
        .help("write `tuned = STAGE`, a stage that trains the same model with `adapter = full`"),
        (false, true) if cx.tuned => Diag::error(
            &IDLE_KEY,
            keys::TUNED.span(cx.values),
            "`tuned` has no effect without a method that compares weights",
        )
        .label("changes nothing")
        .help("write `adapter = lt_sft`, or remove `tuned`"),
        _ => return Ok(()),
    };
    Err(vec![diag])
}

/// Complaints about keys of a training that do not go together.
pub(super) fn check_common(values: &Values, span: Span, diags: &mut Diags) {
    exactly_one(values, ("model", "from"), span, diags);
    exactly_one(values, ("epochs", "steps"), span, diags);
    if keys::ADAPTER.is_written(values) && keys::ADAPTERS.is_written(values) {
        conflict(
            diags,
            keys::ADAPTERS.span(values),
            "`adapter` and `adapters` are both written",
            "keep one of them",
        );
    }
    let peak = keys::SCHEDULE
        .get(values)
        .is_some_and(|s| schedule::PEAK.get(&s.values).is_some());
    if peak && keys::LR.is_written(values) {
        conflict(
            diags,
            keys::LR.span(values),
            "the learning rate is given twice, here and as the schedule's `peak`",
            "remove one of them",
        );
    } else if !peak && !keys::LR.is_written(values) {
        conflict(
            diags,
            span,
            "the learning rate is missing",
            "write `lr = …`, or `peak = …` in the schedule",
        );
    }
    if keys::RECOMPUTE_BLOCKS.is_written(values) && !keys::RECOMPUTE.get(values) {
        diags.push(
            Diag::error(
                &IDLE_KEY,
                keys::RECOMPUTE_BLOCKS.span(values),
                "`recompute_blocks` has no effect without `recompute = true`",
            )
            .label("changes nothing")
            .help("write `recompute = true`, or remove `recompute_blocks`"),
        );
    }
    for (idle, needs) in [
        ("evaluate", "dev"),
        ("metrics", "dev"),
        ("positive", "dev"),
        ("best", "dev"),
        ("patience", "best"),
    ] {
        if values.written(idle) && !values.written(needs) {
            diags.push(
                Diag::error(
                    &IDLE_KEY,
                    values.span(idle),
                    format!("`{idle}` has no effect without `{needs}`"),
                )
                .label("changes nothing")
                .help(format!("write `{needs} = …`, or remove `{idle}`")),
            );
        }
    }
    if let (Some(micro), Batch::Examples(batch)) =
        (keys::MICRO_BATCH.get(values), keys::BATCH.get(values))
        && micro >= batch
    {
        diags.push(
            Diag::error(
                &IDLE_KEY,
                keys::MICRO_BATCH.span(values),
                "`micro_batch` is not smaller than `batch`, so it has no effect",
            )
            .label("changes nothing"),
        );
    }
}

/// Steps of the training.
pub(super) fn steps(values: &Values, steps_per_epoch: u64) -> u64 {
    keys::STEPS.get(values).unwrap_or_else(|| {
        keys::EPOCHS
            .get(values)
            .unwrap_or(1)
            .saturating_mul(steps_per_epoch)
    })
}

/// Steps of one walk over the data, in batches of so many examples where their tokens are not bounded.
pub(super) fn steps_per_epoch(cx: &StageCx<'_>, (batch, packing): (u64, Option<&Packing>)) -> u64 {
    let examples = cx.splits.first().and_then(|s| s.as_ref()?.examples);
    match packing {
        Some(packing) => packing.batches,
        None => examples.unwrap_or(batch).div_ceil(batch).max(1),
    }
}

/// A training around a way to update.
pub(super) fn fit(
    cx: &Sound<StageCx<'_>>,
    params: &[Param],
    update: Update,
    evaluate: Option<Verified>,
) -> Result<Fit, Vec<Diag>> {
    let v = cx.values;
    check_tuned(cx, params)?;
    compares(cx)?;
    let metrics = metrics(cx, "metrics")?;
    let has_dev = keys::DEV.is_written(v);
    let best = match keys::BEST.get(v) {
        Some(entry) => Some(checked_metric(cx, &entry.name, "best")?),
        None => None,
    };
    let positive = positive(cx, metrics.iter().copied().chain(best))?;
    let (batch, packing) = batches(cx)?;
    let steps_per_epoch = steps_per_epoch(cx, (batch, packing.as_ref()));
    let most = packing
        .as_ref()
        .map_or(batch, |packing| packing.most * cx.task.group());
    let micro_batch = keys::MICRO_BATCH
        .get(v)
        .map_or(most, |micro| micro.saturating_mul(cx.task.group()));
    let steps = steps(v, steps_per_epoch);
    let every = match keys::EVALUATE.get(v) {
        Some(Length::Steps(n)) => n,
        Some(Length::Epochs(n)) => n.saturating_mul(steps_per_epoch),
        _ => steps_per_epoch,
    };
    let schedule = entry(v, &keys::SCHEDULE, "constant");
    let kind = schedule::schedule(&schedule.name).unwrap_or(schedule::SCHEDULES[0]);
    let fisher = fisher(cx, params)?;
    if fisher.is_some() {
        taught::refuse_measures(cx)?;
    }
    Ok(Fit {
        update,
        features: None,
        evaluate,
        phases: Vec::new(),
        last_phase: 0,
        activations: activations(cx, params, fisher.is_some())?,
        prefill: prefill(cx, params)?,
        fisher,
        selection: None,
        select: None,
        reference: reference(cx, micro_batch),
        group: cx.task.group(),
        rates: Rates::new(kind, &schedule.values, keys::LR.get(v), steps),
        batch,
        packing,
        micro_batch,
        ranks: cx.ranks.max(1),
        steps,
        steps_per_epoch,
        seed: keys::SEED.get(v),
        shuffle: keys::SHUFFLE.get(v),
        reads: cx.reads(0),
        dev_reads: cx.reads(1),
        evaluate_every: has_dev.then_some(every),
        metrics,
        positive,
        best,
        patience: keys::PATIENCE.get(v),
    })
}

/// Complains about a batch in parts, or of one row, where rows of a batch are compared with each other.
fn compares(cx: &StageCx<'_>) -> Result<(), Vec<Diag>> {
    let (v, name) = (cx.values, cx.task.name());
    if !cx.task.compares_rows() {
        return Ok(());
    }
    let refuse = |at: Span, message: String, help: &str| {
        Err(vec![Diag::error(&CONFLICTING_KEYS, at, message).help(help)])
    };
    if is_split(cx) {
        let message = format!(
            "`{name}` compares the rows of a batch with each other, so that a batch in parts has another loss"
        );
        let help = "remove `micro_batch`; where memory is short, write a smaller `batch`, which has fewer rows to compare with, or `recompute`";
        return refuse(keys::MICRO_BATCH.span(v), message, help);
    }
    if keys::BATCH.get(v) == Batch::Examples(1) && cx.task.needs_others() && cx.task.group() <= 2 {
        let message = format!(
            "`{name}` takes the other rows of a batch as negatives, and this batch has none"
        );
        let help = "write a larger `batch`: 32 or more is usual";
        return refuse(keys::BATCH.span(v), message, help);
    }
    Ok(())
}

/// Sequences of a batch, and how epochs are cut where its tokens are bounded. Of data that are not at hand it is the
/// number of rows of the assumed length.
pub(super) fn batches(cx: &StageCx<'_>) -> Result<(u64, Option<Packing>), Vec<Diag>> {
    let (v, group) = (cx.values, cx.task.group().max(1));
    let budget = match keys::BATCH.get(v) {
        Batch::Examples(batch) => return Ok((batch.max(1).saturating_mul(group), None)),
        Batch::Tokens(budget) => budget,
    };
    let facts = cx.splits.first().and_then(Option::as_ref);
    let lengths = facts.map(|f| f.lengths.as_slice()).unwrap_or_default();
    // The sequences of a row are together.
    let lengths: Vec<u32> = match facts.and_then(|f| f.examples) {
        Some(_) => lengths
            .chunks(group as usize)
            .map(|row| row.iter().sum())
            .collect(),
        None => lengths.iter().map(|n| n * to_u32(group)).collect(),
    };
    let longest = u64::from(lengths.iter().copied().max().unwrap_or(1));
    let extent = Extent {
        epochs: keys::EPOCHS.get(v),
        steps: keys::STEPS.get(v),
        seed: keys::SEED.get(v),
        shuffle: keys::SHUFFLE.get(v),
    };
    let packing = Packing::of(&lengths, budget, extent).ok_or_else(|| {
        let message = format!(
            "a batch of {budget} tokens has no room for the longest row, which has {longest}"
        );
        let help = format!("write at least `batch = {longest} tokens`, or lower `max_length`");
        vec![Diag::error(&CONFLICTING_KEYS, keys::BATCH.span(v), message).help(help)]
    })?;
    match facts.and_then(|f| f.examples) {
        Some(examples) => {
            let rows = (examples / group).div_ceil(packing.batches).max(1);
            Ok((rows * group, Some(packing)))
        }
        None => Ok(((budget / longest.max(1)).max(1) * group, None)),
    }
}

fn entry(values: &Values, key: &Maybe<Filled>, default: &str) -> Filled {
    key.get(values).cloned().unwrap_or_else(|| Filled {
        name: default.to_owned(),
        values: Values::default(),
        span: Span::default(),
    })
}

pub(super) fn conflict(diags: &mut Diags, span: Span, message: &str, help: &str) {
    diags.push(Diag::error(&CONFLICTING_KEYS, span, message).help(help));
}

/// Complains unless exactly one of two keys is written.
pub(super) fn exactly_one(values: &Values, (a, b): (&str, &str), span: Span, diags: &mut Diags) {
    match (values.written(a), values.written(b)) {
        (true, true) => conflict(
            diags,
            values.span(b),
            &format!("`{a}` and `{b}` are both written"),
            "keep one of them",
        ),
        (false, false) => conflict(
            diags,
            span,
            &format!("neither `{a}` nor `{b}` is written"),
            &format!("write `{a} = …` or `{b} = …`"),
        ),
        _ => {}
    }
}
