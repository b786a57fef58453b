//! A training stage: its features are filled or found, its tensors loaded, its steps made, its result
//! left.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::Work;
use super::activations;
use super::fisher;
use super::prefill;
use super::steps::{Context, Fitted, fit};
use crate::exec::backend::alloc;
use crate::exec::checkpoint::log::Log;
use crate::exec::checkpoint::resume;
use crate::exec::export;
use crate::exec::features::{self, Examples, Reader};
use crate::exec::interpreter::Runner;
use crate::exec::load::Initial;
use crate::exec::load::prune::{Guide, Importances};
use crate::exec::observe::Observer;
use crate::files::RunError;
use crate::files::durable::create_dirs;
use crate::library::stage::job::{Features, Fit};
use crate::library::stage::keys;
use crate::program::{Class, Verified};

/// Name of the log of steps.
const LOG: &str = "metrics.jsonl";

impl Work<'_> {
    /// A split's examples, and their kept features after filling what is missing.
    fn kept(
        &self,
        runner: &mut Runner,
        features: &Features,
        index: usize,
        observer: &mut dyn Observer,
    ) -> Result<Option<Reader>, RunError> {
        let (Some(set), Some(&examples)) = (self.set(index), features.examples.get(index)) else {
            return Ok(None);
        };
        let root = self.features_root();
        create_dirs(&root)?;
        let identity = self.rows_identity(self.stage.start.weights.as_deref(), features.plain);
        let place = features::Cache {
            root: &root,
            identity: &identity,
            positions: self.stage.model.facts().positions,
            bound: keys::FEATURES.get(&self.stage.filled.values).unwrap_or(0),
            reads: None,
        };
        let mut weights = |runner: &mut Runner| -> Result<(), RunError> {
            self.load_for(runner, &[&features.prefix], (Guide::nothing(), false))
                .map(|_| ())
        };
        let split = (set, examples);
        features::open(runner, features, split, place, &mut weights, observer).map(Some)
    }

    /// What the backbone is pruned by, measured if need be. An adapter that is continued brings its own
    /// tensors.
    pub(in crate::exec) fn guide(
        &self,
        fit: &Fit,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Guide, RunError> {
        let mut measured = match &fit.fisher {
            Some(fisher) if self.stage.start.adapter.is_none() => {
                let (set, sources) = (self.required(0)?, self.sources()?);
                let model = self.stage.model.as_ref();
                fisher::measure((fisher, fit), set, model, &sources, runner, observer)?
            }
            _ => Importances::new(),
        };
        if let (Some(of), None) = (&fit.activations, &self.stage.start.adapter) {
            let (set, sources) = (self.required(0)?, self.sources()?);
            let model = self.stage.model.as_ref();
            let made = activations::measure((of, fit), set, model, &sources, runner, observer)?;
            measured.extend(made);
        }
        if let (Some(of), None) = (&fit.prefill, &self.stage.start.adapter) {
            let (model, sources) = (self.stage.model.as_ref(), self.sources()?);
            measured.extend(prefill::read(of, model, &sources, runner)?);
        }
        Ok(Guide::Importances(measured))
    }

    /// Whether tensors that nothing trains begin with what is measured: no checkpoint holds them.
    fn begins_frozen(&self) -> bool {
        let mut all = self.stage.job.params.iter();
        self.stage.start.adapter.is_none() && all.any(|p| !p.trainable && p.init.is_measured())
    }

    /// Writes what was trained to a folder: an adapter, with the initial values that exports of it need, or else the
    /// whole model.
    pub(in crate::exec) fn export(
        &self,
        dir: &Path,
        runner: &mut Runner,
        adapter: Option<&Initial>,
    ) -> Result<(), RunError> {
        if let Some(initial) = adapter {
            let base = self.base()?;
            export::write_adapter(dir, self.stage, &base, runner, initial)?;
            return export::write_description(dir, self.stage, Some(&base), self.texts());
        }
        runner.fetch_all()?;
        if let Some(features) = self.stage.job.features().filter(|f| f.everything) {
            // The weights that only the cached features needed belong to the model.
            runner.residents.retain(&mut runner.meter, |_, class| {
                matches!(class, Class::Frozen | Class::Trainable | Class::Chosen)
            });
            self.load_for(runner, &[&features.prefix], (Guide::nothing(), false))?;
        }
        export::write_model(dir, self.stage, runner)?;
        export::write_description(dir, self.stage, None, self.texts())
    }

    pub(in crate::exec) fn fit(
        &self,
        job: &Fit,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let train = self.required(0)?;
        let ranks = &self.options.ranks;
        let taught = self.taught(train)?;
        let begun = Instant::now();
        let mut readers = [None, None];
        if let Some(features) = &job.features {
            for (index, reader) in readers.iter_mut().enumerate() {
                *reader = ranks.first(|| self.kept(runner, features, index, observer))?;
            }
            // What filled them makes room for the reference's weights.
            runner.clear();
        }
        let mut references = [None, None];
        if let Some(reference) = &job.reference {
            let reads = [job.reads.as_ref(), job.dev_reads.as_ref()];
            references = ranks.first(|| self.referred(reference, reads, runner, observer))?;
        }
        let spent = begun.elapsed();
        // What filled them makes room; what the steps need of it is read again.
        runner.clear();
        alloc::release_freed_blocks();
        let checkpoints = self.dir.join("checkpoint");
        let stored = self.dir.join(LOG);
        let point = self.point(&checkpoints, &stored, observer)?;
        let guide = match point {
            Some(_) if !self.begins_frozen() => Guide::Later,
            _ => self.guide(job, runner, observer)?,
        };
        let all = self.stage.job.programs().into_iter();
        let gone = job.features.as_ref().filter(|f| f.everything);
        let steps: Vec<&Verified> = all
            .filter(|v| gone.is_none_or(|f| **v != f.prefix))
            .collect();
        let hands_on = self.stage.hands_on.as_ref();
        let exports_adapter = hands_on.is_some_and(|l| l.adapter.is_some());
        let initial = self.load_for(runner, &steps, (guide, exports_adapter))?;
        let source = |set, index: usize| Examples {
            set,
            made: None,
            taught: taught.as_ref().filter(|_| index == 0),
            positions: self.stage.model.facts().positions,
            kept: job
                .features
                .as_ref()
                .zip(readers.get(index).and_then(Option::as_ref)),
            reference: job
                .reference
                .as_ref()
                .map(|r| &r.features)
                .zip(references.get(index).and_then(Option::as_ref)),
        };
        let cx = Context {
            stage: &self.stage.name.value,
            train: source(train, 0),
            dev: self.set(1).map(|set| source(set, 1)),
            task: self.stage.start.task.as_ref(),
            classes: &self.stage.start.classes,
            spent,
            checkpoints: &checkpoints,
            every: self.options.checkpoint_every,
            point: point.as_ref(),
            again: self.again(),
            ranks,
        };
        let fitted = self.stepped(job, &cx, runner, observer)?;
        if !ranks.leads() {
            // The result is rank 0's.
            return Ok(Json::Null);
        }
        let drawn = self.drawn_rows(observer)?;
        let (name, adapter) = match exports_adapter {
            true => ("adapter", Some(&initial)),
            false => ("model", None),
        };
        self.export(&self.dir.join(name), runner, adapter)?;
        let mut result = result(&fitted, ranks.count());
        if let (Some(result), Some(drawn)) = (result.as_object_mut(), drawn) {
            result.insert("drawn".to_owned(), drawn);
        }
        Ok(result)
    }

    /// Makes the steps, with their log: in the store and, as a copy, where the user looks.
    fn stepped(
        &self,
        job: &Fit,
        cx: &Context<'_>,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Fitted, RunError> {
        let stored = self.dir.join(LOG);
        let copy = self.options.out.join(&self.stage.name.value).join(LOG);
        let places: &[&Path] = match cx.ranks.leads() {
            true => &[&stored, &copy],
            false => &[],
        };
        let mut log = Log::open(places)?;
        fit(runner, job, cx, &mut log, observer)
    }

    /// Where the training goes on from: rank 0 looks, the others take the same.
    fn point(
        &self,
        checkpoints: &Path,
        log: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<resume::Point>, RunError> {
        let ranks = &self.options.ranks;
        let found = match ranks.leads() {
            true => resume::point(checkpoints, log, observer)?,
            false => None,
        };
        let step = found.as_ref().map_or(0, |point| point.progress.step + 1);
        let announced = u64::from_le_bytes(ranks.broadcast(step.to_le_bytes())?);
        match announced.checked_sub(1).filter(|_| !ranks.leads()) {
            Some(step) => resume::at(checkpoints, step).map(Some),
            None => Ok(found),
        }
    }
}

/// What a training says of itself in its results.
fn result(fitted: &Fitted, ranks: usize) -> Json {
    let metrics: serde_json::Map<String, Json> = fitted
        .metrics
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    let mut own = json!({
        "metrics": metrics, "loss_first": fitted.loss_first, "loss_last": fitted.loss_last, "steps": fitted.steps,
        "epochs": fitted.epochs, "samples_per_s": fitted.samples_per_s,
        "kept_step": fitted.kept_step, "stopped_early": fitted.stopped_early,
    });
    if let (Some(own), 2..) = (own.as_object_mut(), ranks) {
        own.insert("ranks".to_owned(), json!(ranks));
        own.insert("sent_bytes".to_owned(), json!(fitted.sent));
        own.insert("planned_sent_bytes".to_owned(), json!(fitted.planned));
    }
    own
}
