//! Measuring Fisher information before a training: the bare backbone over some examples, one at a time.

use super::aside;
use crate::exec::interpreter::Runner;
use crate::exec::load::Origins;
use crate::exec::load::prune::Importances;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::batch::pack;
use crate::library::data::tokens::EncodedSet;
use crate::library::model::Model;
use crate::library::stage::fisher::{Fisher, accumulator};
use crate::library::stage::job::Fit;
use crate::program::Feed;
use crate::program::op::Tensor;

/// Sums of squared gradients. All else that is loaded for it is gone afterwards; the peak is noted with
/// `meter`, the sums are the caller's to count.
///
/// # Errors
/// Weights that cannot be read, or an interruption.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
pub(in crate::exec) fn measure(
    (fisher, fit): (&Fisher, &Fit),
    set: &EncodedSet,
    model: &dyn Model,
    sources: &Origins,
    runner: &mut Runner,
    observer: &mut dyn Observer,
) -> Result<Importances, RunError> {
    let mut own = aside(runner, (&fisher.program, &fisher.params), model, sources)?;
    let want: Vec<Feed> = fisher.program.program().feeds().map(|(f, _)| f).collect();
    let order = fit.order(set.len(), 0);
    let measure = fisher.measure;
    let examples = order.len().min(measure.samples as usize);
    let batches = order.get(..examples).unwrap_or_default();
    let mut done = 0;
    for batch in batches.chunks(measure.batch.max(1) as usize) {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        let reads = fit.reads.as_ref().map(|m| m.epoch(fit.seed, 0));
        let mut packed = pack(set, batch, model.facts().positions, reads, &want)?;
        let scale = Tensor::new(vec![1.0 / batch.len() as f32], &[1]);
        packed.feeds.push((Feed::LossScale, scale));
        let outputs = own.run(&fisher.program, packed.feeds, &packed.sizes)?;
        let loss = outputs.scalar("loss").map_or(f64::NAN, f64::from);
        if !loss.is_finite() {
            return Err(RunError::NotFinite {
                what: format!(
                    "the loss of example {} is {loss} before any training",
                    batch.first().copied().unwrap_or_default()
                ),
            });
        }
        done += batch.len() as u64;
        observer.event(Event::Scored { done });
    }
    own.fetch()?;
    runner.note(&own);
    let mut importances = Importances::new();
    for source in &fisher.sources {
        if let Some(sum) = own.residents.take(&accumulator(&source.name)) {
            importances.insert(source.name.clone(), sum);
        }
    }
    Ok(importances)
}
