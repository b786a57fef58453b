//! An adapter against a model: modules that were saved whole, then what the method reads.

use std::collections::BTreeSet;

use super::reading::{Reading, other_shape};
use super::{Config, Fitted, Make, Misfit, Stored, Taken};
use crate::library::model::Model;
use crate::library::net::{Owner, Param, ParamKind};
use crate::library::stage::network::Anatomy;

/// Finds each tensor's place in a model.
///
/// # Errors
/// The tensors that have none, and the first that is missing.
pub fn fit(
    config: &Config,
    stored: &dyn Stored,
    model: &dyn Model,
    parts: &Anatomy,
) -> Result<Fitted, Misfit> {
    let mut reading = Reading::new((config, stored), (model, parts));
    for name in reading.unread() {
        // Buffers, which count 0, 1, 2, …
        if name.ends_with(".position_ids") || name.ends_with(".token_type_ids") {
            reading.read(&name)?;
        } else {
            whole(&mut reading, &name)?;
        }
    }
    config.method.peft_read(&mut reading)?;
    reading.finish()?;
    check_present(&reading)?;
    Ok(reading.fitted)
}

/// Takes a tensor that is the value of one of the model's own parameters, if it is.
fn whole(reading: &mut Reading<'_>, name: &str) -> Result<(), Misfit> {
    // What is below an adapter, and tables that were saved because their size changed.
    let below = name.replace(".base_layer.", ".");
    if let Some(param) = reading.param(&below) {
        let table = param.kind == ParamKind::Embedding && param.owner != Owner::Head;
        let saved = reading
            .config()
            .saves(below.rsplit_once('.').map_or("", |(m, _)| m));
        if below != name || (table && !saved) {
            return reading.replace(name, param);
        }
    }
    let Some(param) = reading.param(name) else {
        return Ok(());
    };
    if param.owner != Owner::Head {
        reading.note_outer(&param.name, name);
    }
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    if !reading.config().saves(module) {
        // The method may read it, or nobody.
        return Ok(());
    }
    let turned = reading.model().transposed(&param.name);
    let shape = reading.shape(name).unwrap_or_default();
    let mut own = shape.to_vec();
    if turned {
        own.reverse();
    }
    if param.owner != Owner::Head {
        if own != param.shape {
            let mut wanted = param.shape.clone();
            if turned {
                wanted.reverse();
            }
            return Err(other_shape(name, shape, &wanted));
        }
        let whole = &mut reading.fitted.whole;
        if !whole.iter().any(|m| m == param.module()) {
            whole.push(param.module().to_owned());
        }
    }
    // How many classes a head has is known later.
    reading.make(Taken {
        own: param.name.clone(),
        shape: own,
        from: vec![name.to_owned()],
        make: if turned { Make::Transposed } else { Make::Same },
    })
}

/// What the config promises to save whole is there.
fn check_present(reading: &Reading<'_>) -> Result<(), Misfit> {
    let (config, params) = (reading.config(), &reading.parts().params);
    let taken = &reading.fitted.tensors;
    let present: BTreeSet<&str> = taken.iter().map(|t| t.own.as_str()).collect();
    let any = |wanted: &dyn Fn(&Param) -> bool| {
        let mut own = params.iter().filter(|p| wanted(p));
        own.any(|p| present.contains(p.name.as_str()))
    };
    let head = (config.classifies() && config.saves_modules) || any(&|p| p.owner == Owner::Head);
    let lm = any(&|p| p.role.is_lm());
    for param in params {
        let there = match param.owner {
            Owner::Head => head,
            _ => lm || !param.role.is_lm(),
        };
        let name = reading.theirs(&param.name);
        let module = reading.theirs(param.module());
        if there && config.saves(module) && !present.contains(param.name.as_str()) {
            return Err(Misfit::damaged(format!(
                "the adapter has no `{name}`, although `modules_to_save` names its module"
            )));
        }
    }
    Ok(())
}
