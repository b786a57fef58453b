//! Gradual unfreezing (methods R16): the model's own parts are trained one after the other.

use super::super::net::{Owner, Param, Role};
use super::super::schema::{Bound, Given, Length, Maybe, kind};
use super::{Complaint, Facts, Method, Schema, Values};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY};

/// Parts that begin to be trained while a training runs.
#[derive(Debug)]
pub struct Unfreeze;

const MODULES: Maybe<[String]> = Maybe::new(
    "modules",
    kind::NAMES,
    "what is unfrozen, in this order: modules by their paths or ends of them, such as `layer.11` or `LayerNorm`. The blocks from the last to the first, and then what lies before them, if not written",
);
const EVERY: Maybe<Length> = Maybe::filled(
    "every",
    kind::LENGTH,
    "1 epochs",
    "time from one to the next; the first is trained from the start",
);
const AT: Maybe<[String]> = Maybe::new(
    "at",
    kind::NUMBERS,
    "the step before which each begins to be trained, counted from 0, instead of `every`: as many as there are `modules`",
);
const LAST: Maybe<u64> = Maybe::new(
    "last",
    kind::COUNT,
    "how many are unfrozen at most; all if not written",
);
const RATE: Given<f64> = Given::<f64>::new(
    "rate",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "factor of the learning rate of what is unfrozen",
);
const DECAY: Given<f64> = Given::<f64>::new(
    "rate_decay",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (1.0, "1"),
    "factor of the rate from each to the next; ULMFiT takes 1/2.6",
);

static SCHEMA: Schema = Schema {
    name: "unfreeze",
    summary: "gradual unfreezing: the last block is trained first, and the others join it one after the other",
    doc: "The first of `modules` is trained from the start, the next joins after `every`, and so on; what has joined stays. \
          Without `modules` the last block comes first, with the norm and the language model's head behind it, then each block before it, and the embeddings in \
          the end. Each phase has a program of its own, whose backward ends at the lowest part that is trained, and the plan \
          takes the memory of the largest. The optimizer's state of what joins begins at zero, and its step counts from \
          there. A training that ends before the last part joins is refused. Frozen results are not kept. With `adapters = \
          [lora, unfreeze { … }]` it stands beside other methods. 16 bytes a parameter.",
    paper: "Howard and Ruder 2018 (arXiv 1801.06146), section 3.3",
    keys: &[
        MODULES.key(),
        EVERY.key(),
        AT.key(),
        LAST.key(),
        RATE.key(),
        DECAY.key(),
    ],
};

/// Which it is of what is unfrozen, in order.
fn place(values: &Values, param: &Param, n_layers: u64) -> Option<u64> {
    if param.owner != Owner::Base {
        return None;
    }
    let place = match MODULES.get(values) {
        Some(modules) => modules.iter().position(|m| param.is_in(m))? as u64,
        None => match param.layer {
            Some(layer) => n_layers.saturating_sub(layer + 1),
            None if param.role == Role::FinalNorm || param.role.is_lm() => 0,
            None => n_layers,
        },
    };
    LAST.get(values)
        .is_none_or(|last| place < last)
        .then_some(place)
}

/// The step at which one of them begins.
fn begin(values: &Values, place: u64, epoch: u64) -> u64 {
    if let Some(at) = AT.get(values) {
        let own = at.get(place as usize).and_then(|n| n.parse().ok());
        return own.unwrap_or(0);
    }
    let every = match EVERY.get(values) {
        Some(Length::Steps(n)) => n,
        Some(Length::Epochs(n)) => n.saturating_mul(epoch),
        _ => epoch,
    };
    place.saturating_mul(every)
}

impl Method for Unfreeze {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self, values: &Values, param: &Param, n_layers: u64) -> bool {
        place(values, param, n_layers).is_some()
    }

    fn joins(
        &self,
        values: &Values,
        param: &Param,
        (n_layers, epoch): (u64, u64),
    ) -> Option<(u64, f64)> {
        let own = place(values, param, n_layers)?;
        let rate = RATE.get(values) * DECAY.get(values).powi(own.min(1 << 20) as i32);
        Some((begin(values, own, epoch), rate))
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn modules<'a>(&self, values: &'a Values) -> (&'static str, &'a [String]) {
        (MODULES.name(), MODULES.get(values).unwrap_or_default())
    }

    fn check_model(&self, values: &Values, facts: &Facts) -> Option<Complaint> {
        let count = MODULES
            .get(values)
            .map_or(facts.blocks + 1, |m| m.len() as u64);
        let complaint = |key, message: String, help: String| {
            let code = &CONFLICTING_KEYS;
            Some(Complaint {
                key,
                code,
                message,
                help: Some(help),
            })
        };
        if count == 0 {
            let message = "`modules` names nothing".to_owned();
            return complaint(
                MODULES.name(),
                message,
                "name modules, or remove it".to_owned(),
            );
        }
        if let Some(last) = LAST.get(values).filter(|&last| last > count) {
            let message = format!("`last` is {last}, and {count} parts are unfrozen");
            let help = format!("write at most `last = {count}`, or remove it");
            return complaint(LAST.name(), message, help);
        }
        let count = LAST.get(values).unwrap_or(count);
        let at = AT.get(values)?;
        if values.written(EVERY.name()) {
            let message = "`every` and `at` both say when parts join".to_owned();
            return complaint(AT.name(), message, "keep one of them".to_owned());
        }
        if at.len() as u64 != count {
            let message = format!(
                "`at` names {} steps, and {count} parts are unfrozen",
                at.len()
            );
            return complaint(AT.name(), message, "write one step for each".to_owned());
        }
        let steps: Option<Vec<u64>> = at.iter().map(|n| n.parse().ok()).collect();
        let rises = steps.is_some_and(|s| s.windows(2).all(|pair| pair.is_sorted()));
        (!rises).then(|| Complaint {
            key: AT.name(),
            code: &IDLE_KEY,
            message: "the steps of `at` do not rise".to_owned(),
            help: Some("write them in the order in which the parts join".to_owned()),
        })
    }
}
