//! The log-likelihoods that preferences are compared with: filled or found before the first step.

use super::Work;
use crate::exec::features::{self, Reader};
use crate::exec::interpreter::Runner;
use crate::exec::load::load;
use crate::exec::observe::Observer;
use crate::exec::store::features::DIR;
use crate::files::RunError;
use crate::files::durable::create_dirs;
use crate::library::stage::job::Routine;
use crate::library::stage::reference::Reference;
use crate::library::task::Reads;
use crate::program::Resident;

impl Work<'_> {
    /// What is kept of the texts of each split. The reference's weights are gone afterwards; the peak is noted with
    /// `runner`.
    pub(in crate::exec) fn referred(
        &self,
        reference: &Reference,
        reads: [Option<&Reads>; 2],
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<[Option<Reader>; 2], RunError> {
        let mut readers = [None, None];
        let mut own = runner.another()?;
        own.accepts([&reference.features.prefix])?;
        let mut loaded = false;
        for (index, (reader, reads)) in readers.iter_mut().zip(reads).enumerate() {
            let Some(set) = self.set(index) else { continue };
            let mut weights = |own: &mut Runner| -> Result<(), RunError> {
                if std::mem::replace(&mut loaded, true) {
                    return Ok(());
                }
                let program = reference.features.prefix.program();
                let residents: Vec<&Resident> = program.residents.iter().collect();
                let sources = self.bare_sources(self.reference_weights())?;
                load(
                    own,
                    &reference.params,
                    &residents,
                    self.stage.model.as_ref(),
                    &sources,
                )
            };
            let identity = self.rows_identity(self.reference_weights(), true);
            let root = self.features_root();
            create_dirs(&root)?;
            let place = features::Cache {
                root: &root,
                identity: &identity,
                positions: self.stage.model.facts().positions,
                // A few bytes a text, for which nothing else makes room.
                bound: u64::MAX,
                reads,
            };
            let split = (set, set.len() as u64);
            let opened = features::open(
                &mut own,
                &reference.features,
                split,
                place,
                &mut weights,
                observer,
            )?;
            *reader = Some(opened);
        }
        own.fetch()?;
        runner.note(&own);
        Ok(readers)
    }

    /// The stage that left the reference's weights; `None` where they are the model's own. That of a training is what it starts
    /// from, without an adapter. That of a score is what the training of its weights started from.
    fn reference_weights(&self) -> Option<&str> {
        let start = &self.stage.start;
        let trains = matches!(self.stage.job.routine, Routine::Fit(_));
        let own = start.weights.as_deref();
        if trains || start.adapter.is_some() {
            return own;
        }
        self.plan.stage(own?)?.start.weights.as_deref()
    }

    /// The folder that kept rows lie in.
    pub(in crate::exec) fn features_root(&self) -> std::path::PathBuf {
        match &self.stage.fingerprint {
            Some(_) => self.store.dir().join(DIR),
            None => self.dir.join(DIR),
        }
    }

    /// What rows are made with beside the tokens: the weights that a stage left, or the model's own; and, unless they are all that is
    /// read, what is the stage's own.
    pub(in crate::exec) fn rows_identity(&self, weights: Option<&str>, plain: bool) -> String {
        let parts = &self.stage.parts;
        let part = |key: &str| parts.get(key).map(String::as_str).unwrap_or_default();
        let own = match &self.stage.fingerprint {
            Some(fingerprint) if !plain => fingerprint.as_str(),
            _ => "",
        };
        let weights = match weights {
            Some(stage) => self
                .plan
                .stage(stage)
                .and_then(|s| s.fingerprint.as_deref()),
            None => self.stage.start.model.identity.as_deref(),
        };
        let identity = [
            part("schema"),
            part("numeric"),
            weights.unwrap_or_default(),
            own,
        ];
        identity.join("\u{1f}")
    }
}
