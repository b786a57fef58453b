//! A merging stage: adapters are folded into plain weights, tensor by tensor.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::Work;
use crate::exec::export;
use crate::exec::interpreter::Runner;
use crate::exec::load::load;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::stage::job::Fold;
use crate::program::{Bindings, Resident, Verified};

impl Work<'_> {
    /// Folds adapters in, one tensor at a time: the rest is copied through.
    pub(in crate::exec) fn fold(
        &self,
        job: &Fold,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let sources = self.sources()?;
        let model = self.stage.model.as_ref();
        let by_name: BTreeMap<String, &Verified> = job
            .sites
            .iter()
            .map(|(site, p)| (format!("{}.weight", site.path), p))
            .collect();
        let mut done = 0;
        let machine = self.options.machine;
        let dir = self.dir.join("model");
        export::write_model_from(&dir, self.stage, job.dtype, &mut |param| {
            let mut own = Runner::new(machine);
            let tensor = match by_name.get(&param.name) {
                Some(program) => {
                    let residents: Vec<&Resident> = program.program().residents.iter().collect();
                    load(
                        &mut own,
                        &self.stage.job.params,
                        &residents,
                        model,
                        &sources,
                    )?;
                    let mut outputs = own.run(program, Vec::new(), &Bindings::default())?;
                    done += 1;
                    observer.event(Event::Scored { done });
                    outputs
                        .take("weight")
                        .ok_or_else(|| RunError::bug("a merge gave no weight"))?
                }
                None => {
                    let plain = Resident {
                        name: param.name.clone(),
                        ty: crate::program::TensorType::fixed(
                            crate::program::DType::F32,
                            &param.shape,
                        ),
                        class: crate::program::Class::Frozen,
                    };
                    let params = [param.clone()];
                    load(&mut own, &params, &[&plain], model, &sources)?;
                    own.residents
                        .take(&param.name)
                        .ok_or_else(|| RunError::bug("a tensor was not loaded"))?
                }
            };
            runner.meter.scratch(own.meter.peak());
            Ok(tensor)
        })?;
        export::write_description(&dir, self.stage, None, &self.columns())?;
        Ok(
            json!({ "metrics": {}, "loss_first": null, "loss_last": null, "steps": 0, "epochs": 0, "samples_per_s": null }),
        )
    }
}
