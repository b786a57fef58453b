//! What a preference is compared with: the log-likelihoods of the model without the stage's adapter, computed once a text.

use super::super::method::Tuning;
use super::super::net::Param;
use super::StageCx;
use super::job::Features;
use super::network::{reference_losses, verified};
use crate::program::prefix::{Kept, identity};
use crate::program::{Builder, DType, Feed};

/// What is computed of every text before the first step.
#[derive(Debug)]
pub struct Reference {
    /// The program, and what is kept of it: a number a text.
    pub features: Features,
    /// The network it is of: the model and its head, without any method.
    pub params: Vec<Param>,
}

/// The program, if the stage's task compares with a reference. It runs for at most `together` texts at once, those of a run of
/// the stage's own, so that it needs no more memory than they do.
pub(super) fn reference(cx: &StageCx<'_>, together: u64) -> Option<Reference> {
    if !cx.task.compares() {
        return None;
    }
    let bare = Tuning::bare(cx.tuning.n_layers);
    let mut b = Builder::with_numbers("reference", cx.numbers);
    let (losses, params) = reference_losses(&mut b, cx, &bare)?;
    b.output("feature.0", losses);
    let program = verified(b.finish());
    let made = program.program().output("feature.0")?;
    let id = identity(program.program(), made);
    let count = |split: usize| {
        let facts = cx.splits.get(split).and_then(Option::as_ref);
        facts.and_then(|f| f.examples).unwrap_or(0)
    };
    let examples = [count(0), count(1)];
    Some(Reference {
        features: Features {
            prefix: program,
            kept: vec![Kept {
                id,
                feed: Feed::REFERENCE,
            }],
            examples,
            everything: true,
            plain: true,
            stored: DType::F32,
            together,
            bytes: 4 * examples.iter().sum::<u64>(),
            share: 0.0,
        },
        params,
    })
}
