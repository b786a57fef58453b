//! Keys and values of a text, before a training whose prefixes begin with them: the bare backbone over it.

use super::aside;
use crate::exec::interpreter::Runner;
use crate::exec::load::Origins;
use crate::exec::load::prune::Importances;
use crate::files::RunError;
use crate::library::data::batch::pack;
use crate::library::data::tokens::{EncodedExample, EncodedSet, Target};
use crate::library::model::{Model, Positions};
use crate::library::stage::prefill::{Begun, Prefill};
use crate::program::Feed;
use crate::program::op::Tensor;

/// What the tensors begin with, by their names. All that is loaded for it is gone afterwards; the peak is noted with
/// `runner`, the tensors are the caller's to count.
///
/// # Errors
/// Weights that cannot be read.
pub(in crate::exec) fn read(
    of: &Prefill,
    model: &dyn Model,
    sources: &Origins,
    runner: &mut Runner,
) -> Result<Importances, RunError> {
    let mut own = aside(runner, (&of.program, &of.params), model, sources)?;
    own.meter.alloc(of.made_bytes());
    let want: Vec<Feed> = of.program.program().feeds().map(|(f, _)| f).collect();
    // The text's own positions, not those of texts behind the prefix.
    let positions = Positions {
        prefix: 0,
        shifts: false,
        ..model.facts().positions
    };
    let text = EncodedExample {
        segments: vec![0; of.tokens.len()],
        ids: of.tokens.clone(),
        mask: 0,
        label: Target::None,
        learned: Vec::new(),
        task: 0,
    };
    let set: EncodedSet = [text].into_iter().collect();
    let packed = pack(&set, &[0], positions, None, &want)?;
    let outputs = own.run(&of.program, packed.feeds, &packed.sizes)?;
    own.meter.alloc(outputs.bytes());
    let mut made = Importances::new();
    for one in &of.begun {
        let rows = outputs.get(&one.output).and_then(|all| rows(all, one));
        let rows = rows.ok_or_else(|| {
            RunError::bug(format!(
                "`{}` has not the rows of `{}`",
                one.output, one.name
            ))
        })?;
        made.insert(one.name.clone(), rows);
    }
    runner.note(&own);
    Ok(made)
}

/// The rows of an output that a tensor begins with.
fn rows(all: &Tensor, of: &Begun) -> Option<Tensor> {
    let width = of.width as usize;
    let [from, to] = of.rows.map(|row| row as usize);
    let own = all.slice::<f32>()?.get(from * width..to * width)?;
    Some(Tensor::new(own.to_vec(), &[to - from, width]))
}
