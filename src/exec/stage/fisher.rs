//! Measuring Fisher information before a training: the bare backbone over some examples, one at a time.

use crate::exec::interpreter::Runner;
use crate::exec::load::prune::Importances;
use crate::exec::load::{Origins, load};
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::batch::pack;
use crate::library::data::tokens::EncodedSet;
use crate::library::model::Model;
use crate::library::stage::fisher::{Fisher, accumulator};
use crate::library::stage::job::Fit;
use crate::program::op::Tensor;
use crate::program::{Feed, Resident};

/// Sums of squared gradients. All else that is loaded for it is gone afterwards; the peak is noted with
/// `meter`, the sums are the caller's to count.
///
/// # Errors
/// Weights that cannot be read, or an interruption.
pub(in crate::exec) fn measure(
    (fisher, fit): (&Fisher, &Fit),
    set: &EncodedSet,
    model: &dyn Model,
    sources: &Origins,
    runner: &mut Runner,
    observer: &mut dyn Observer,
) -> Result<Importances, RunError> {
    let mut own = runner.another()?;
    let residents: Vec<&Resident> = fisher.program.program().residents.iter().collect();
    own.accepts([&fisher.program])?;
    load(&mut own, &fisher.params, &residents, model, sources)?;
    let want: Vec<Feed> = fisher.program.program().feeds().map(|(f, _)| f).collect();
    let order = fit.order(set.len(), 0);
    for (done, index) in order.iter().take(fisher.samples as usize).enumerate() {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        let reads = fit.reads.as_ref().map(|m| m.epoch(fit.seed, 0));
        let mut packed = pack(set, &[*index], model.facts().positions, reads, &want)?;
        let one = Tensor::new(vec![1.0_f32], &[1]);
        packed.feeds.push((Feed::LossScale, one));
        let outputs = own.run(&fisher.program, packed.feeds, &packed.sizes)?;
        let loss = outputs.scalar("loss").map_or(f64::NAN, f64::from);
        if !loss.is_finite() {
            return Err(RunError::NotFinite {
                what: format!("the loss of example {index} is {loss} before any training"),
            });
        }
        observer.event(Event::Scored {
            done: done as u64 + 1,
        });
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
