//! A merging stage: adapters are folded into plain weights, tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::Work;
use crate::exec::export::{self, gguf::Rounded};
use crate::exec::interpreter::Runner;
use crate::exec::load::{Origins, load};
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::export::Target;
use crate::library::net::Param;
use crate::library::stage::job::Fold;
use crate::program::op::Tensor;
use crate::program::{Bindings, Class, DType, Resident, TensorType, Verified};

impl Work<'_> {
    /// Folds adapters in, one tensor at a time: the rest is copied through.
    pub(in crate::exec) fn fold(
        &self,
        job: &Fold,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let sources = self.sources()?;
        let weights = job
            .sites
            .iter()
            .map(|(site, p)| (format!("{}.weight", site.path), p));
        let biases = job
            .biases
            .iter()
            .map(|(site, p)| (format!("{}.bias", site.path), p));
        let by_name: BTreeMap<String, &Verified> = weights.chain(biases).collect();
        let folding = Folding {
            work: self,
            sources: &sources,
            by_name,
        };
        let mut done = 0;
        let mut rounded = Vec::new();
        let mut converted = Json::Null;
        let dir = self.dir.join("model");
        let mut tell = |peak: u64, folded: bool| {
            runner.meter.scratch(peak);
            if folded {
                done += 1;
                observer.event(Event::Scored { done });
            }
        };
        match job.target {
            Target::Folder(dtype) => {
                rounded = self.plain(&dir, dtype, &folding, &mut tell)?;
                note_rounding(dtype, &rounded, observer);
                export::write_description(&dir, self.stage, None, self.texts())?;
            }
            Target::Gguf(_) => {
                let own = self.stage.gguf_model();
                let own = own.map_err(|why| RunError::file(&dir, why))?;
                let stage = self.stage;
                rounded =
                    export::gguf::write_model((&dir, stage), &own, job.force, &mut |param| {
                        let (tensor, peak) = folding.tensor(param)?;
                        let update = folding.update(param, &tensor)?;
                        tell(peak, folding.folds(param));
                        Ok((tensor, update))
                    })?;
            }
            Target::Lora(keep) => {
                converted = self.convert(&dir, (job, keep), &folding, &mut tell)?;
            }
            Target::GgufAdapter | Target::Mlx => {
                let mut get = |name: &str| {
                    let (tensor, peak) = folding.own(name)?;
                    tell(peak, false);
                    Ok(tensor)
                };
                if job.target == Target::Mlx {
                    export::mlx::write(&dir, self.stage, &mut get)?;
                } else {
                    export::gguf_adapter::write_adapter(&dir, self.stage, &mut get)?;
                }
            }
        }

        Ok(result(&rounded, converted))
    }

    /// Writes the folder of a plain model, and says of each matrix that was rounded what that changed.
    fn plain(
        &self,
        dir: &Path,
        dtype: DType,
        folding: &Folding<'_>,
        tell: &mut dyn FnMut(u64, bool),
    ) -> Result<Vec<Rounded>, RunError> {
        let mut rounded = Vec::new();
        export::write_model_from(dir, self.stage, dtype, &mut |param| {
            let (tensor, peak) = folding.tensor(param)?;
            tell(peak, folding.folds(param));
            if dtype.is_half()
                && let Some(update) = folding.update(param, &tensor)?
            {
                let (name, error) = (param.name.clone(), lost(&tensor, dtype));
                rounded.push(Rounded {
                    name,
                    error,
                    update,
                });
            }
            Ok(tensor)
        })?;
        Ok(rounded)
    }
}

/// What a merge says of itself in its results: what rounding changed of each matrix, and what a conversion lost.
fn result(rounded: &[Rounded], converted: Json) -> Json {
    let certificate: Vec<Json> = rounded
        .iter()
        .map(|r| json!({ "name": r.name, "rounding": r.error, "update": r.update }))
        .collect();
    let mut result = json!({
        "metrics": {}, "loss_first": null, "loss_last": null, "steps": 0, "epochs": 0, "samples_per_s": null
    });
    if let (false, Some(map)) = (certificate.is_empty(), result.as_object_mut()) {
        map.insert("rounded".to_owned(), Json::Array(certificate));
    }
    if let (false, Some(map)) = (converted.is_null(), result.as_object_mut()) {
        map.insert("converted".to_owned(), converted);
    }
    result
}

/// Says where rounding changes matrices more than the adapter did.
fn note_rounding(dtype: DType, rounded: &[Rounded], observer: &mut dyn Observer) {
    let small = rounded.iter().filter(|r| r.error > r.update).count();
    if small > 0 {
        observer.event(Event::Note(&format!(
            "rounding to {dtype} changes {small} of {} matrices more than the adapter did, so that part of what was learned is lost; \
             `dtype = f32` keeps it",
            rounded.len()
        )));
    }
}

/// Numbers that are rounded at a time.
const PIECE: usize = 1 << 16;

/// Length of what rounding to 16 bits changes of a matrix.
fn lost(tensor: &Tensor, dtype: DType) -> f64 {
    let pieces = tensor.slice::<f32>().unwrap_or_default().chunks(PIECE);
    let squares = pieces.map(|piece| {
        let own = Tensor::new(piece.to_vec(), &[piece.len()]);
        let back = own.cast(dtype).cast(DType::F32);
        let back = back.slice::<f32>().unwrap_or_default().iter();
        let each = piece.iter().zip(back);
        each.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

/// Tensors of a model with its adapters folded in, one at a time.
pub(super) struct Folding<'a> {
    work: &'a Work<'a>,
    sources: &'a Origins,
    /// The program of each tensor that something is folded into.
    by_name: BTreeMap<String, &'a Verified>,
}

impl Folding<'_> {
    fn folds(&self, param: &Param) -> bool {
        self.by_name.contains_key(&param.name)
    }

    /// A tensor of the plain model in f32, and the bytes that were in memory for it.
    pub(super) fn tensor(&self, param: &Param) -> Result<(Tensor, u64), RunError> {
        let Some(program) = self.by_name.get(&param.name) else {
            return self.loaded(param);
        };
        let mut own = Runner::new(self.work.options.machine);
        let residents: Vec<&Resident> = program.program().residents.iter().collect();
        let params = &self.work.stage.job.params;
        load(
            &mut own,
            params,
            &residents,
            self.work.stage.model.as_ref(),
            self.sources,
        )?;
        let mut outputs = own.run(program, Vec::new(), &Bindings::default())?;
        let made = outputs.take("folded");
        let made = made.ok_or_else(|| RunError::bug("a merge gave no tensor"))?;
        Ok((made, own.meter.peak()))
    }

    /// A parameter by name.
    fn own(&self, name: &str) -> Result<(Tensor, u64), RunError> {
        let param = self.work.stage.job.params.iter().find(|p| p.name == name);
        self.loaded(param.ok_or_else(|| RunError::bug(format!("no parameter `{name}`")))?)
    }

    /// A parameter as it is loaded.
    pub(super) fn loaded(&self, param: &Param) -> Result<(Tensor, u64), RunError> {
        let mut own = Runner::new(self.work.options.machine);
        let plain = Resident {
            name: param.name.clone(),
            ty: TensorType::fixed(DType::F32, &param.shape),
            class: Class::Frozen,
        };
        let params = [param.clone()];
        load(
            &mut own,
            &params,
            &[&plain],
            self.work.stage.model.as_ref(),
            self.sources,
        )?;
        let made = own.residents.take(&param.name);
        let made = made.ok_or_else(|| RunError::bug("a tensor was not loaded"))?;
        Ok((made, own.meter.peak()))
    }

    /// Length of what adapters add to a matrix that is the model's own.
    fn update(&self, param: &Param, folded: &Tensor) -> Result<Option<f64>, RunError> {
        let own = self
            .work
            .stage
            .job
            .params
            .iter()
            .find(|p| p.name == param.name);
        let (true, Some(own)) = (self.folds(param), own) else {
            return Ok(None);
        };
        let (before, _) = self.loaded(own)?;
        let pair = (before.slice::<f32>(), folded.slice::<f32>());
        let (Some(before), Some(after)) = pair else {
            return Err(RunError::bug("a weight is not in f32"));
        };
        let each = before
            .iter()
            .zip(after)
            .map(|(a, b)| f64::from(a - b).powi(2));
        Ok(Some(each.sum::<f64>().sqrt()))
    }
}
