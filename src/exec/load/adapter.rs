//! The tensors of an adapter in peft's format, for the parameters of a model.

use std::path::Path;

use super::Origins;
use crate::files::RunError;
use crate::files::peft;
use crate::library::model::Model;
use crate::library::peft::{Edit, Edited, Stored};
use crate::library::stage::network::anatomy;
use crate::program::op::Tensor;

impl Origins {
    /// Takes over the tensors of an adapter in peft's format.
    ///
    /// # Errors
    /// What of it cannot be read, or does not fit the model.
    pub fn take_peft(&mut self, dir: &Path, model: &dyn Model) -> Result<(), RunError> {
        let read = peft::read(dir)?;
        let fitted = read.fit(model, &anatomy(model)).map_err(|misfit| {
            RunError::file(dir, format!("{}; {}", misfit.message, misfit.help))
        })?;
        let get = |name: &str| {
            let found = read.tensors.numbers(name);
            found.map_err(|why| RunError::file(dir, format!("`{name}` {why}")))
        };
        for taken in fitted.tensors {
            let from: Result<Vec<_>, RunError> = taken.from.iter().map(|n| get(n)).collect();
            let data = taken.make.numbers(from?);
            let data =
                data.map_err(|why| RunError::file(dir, format!("`{}`: {why}", taken.own)))?;
            let dims: Vec<usize> = taken.shape.iter().map(|&n| n as usize).collect();
            if dims.iter().product::<usize>() != data.len() {
                let what = format!(
                    "`{}` of {dims:?} was made of {} numbers",
                    taken.own,
                    data.len()
                );
                return Err(RunError::bug(what));
            }
            self.given.insert(taken.own, Tensor::new(data, &dims));
        }
        let in_head = fitted.head.into_iter().map(|update| Edited {
            own: format!("{}.weight", update.module),
            edit: Edit::Product {
                a: update.a,
                b: update.b,
                scale: update.scale,
            },
        });
        for edited in in_head.chain(fitted.edits) {
            if let Some(ready) = edited.edit.ready(get)? {
                self.edits.entry(edited.own).or_default().push(ready);
            }
        }
        Ok(())
    }
}
