//! BEFT: `y = x W₀ᵀ + b + v`, a trained shift of a map's output.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Param, ParamKind};
use super::super::peft::Fate::WithoutEffect;
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Maybe, kind};
use super::{At, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values};
use crate::library::placement::Placement;
use crate::program::op::{BinaryKind, Broadcast};

/// Trained shifts.
#[derive(Debug)]
pub struct Beft;

/// The shift's name in peft's format.
const SHIFT: &str = "beft_bias";

const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention.value",
    "which linear maps are shifted",
);

static SCHEMA: Schema = Schema {
    name: "beft",
    summary: "bias-efficient fine-tuning: a trained shift of some maps' outputs, the values' at first",
    doc: "y = x W0ᵀ + b + v with v [out], which starts at 0, so the model starts unchanged; maps without a bias get one. Nothing \
          of the forward pass is kept for it: 16 bytes a trained parameter. It merges exactly into the bias where the model \
          has one, and cannot be merged elsewhere. In peft it is BEFT.",
    paper: "Huang et al. 2025 (arXiv 2509.15974)",
    keys: &[ON.key()],
};

/// The shift `[out]`.
fn shift(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let out = at.site.output();
    let own = Param::at(at.site, SHIFT).shape(&[1, out]);
    let own = net.tensor(own.kind(ParamKind::Bias));
    net.flat(own, out)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[("init_weights", WithoutEffect(BEGAN))];

impl Method for Beft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let y = at.linear(net, x);
        let shift = shift(at, net);
        net.binary(BinaryKind::Add, Broadcast::Row, y, shift)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        if !at.site.has_bias() {
            return None;
        }
        at.weight(net)
    }

    fn moves_bias(&self, _: &Values, _: &Site) -> bool {
        true
    }

    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let bias = at.bias(net)?;
        let shift = shift(at, net);
        Some(net.binary(BinaryKind::Add, Broadcast::Full, bias, shift))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "BEFT",
            keys: vec![("init_weights", json!(true))],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "BEFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        for place in file.places()? {
            place.only(&[SHIFT])?;
            let name = place.name(SHIFT);
            file.take(&name, place.own(SHIFT), &[1, place.site.output()])?;
            file.idle(&name, 0.0);
            file.put(&Beft, place.site, Vec::new());
        }
        Ok(())
    }

    fn peft_tensors(&self, _: &Values, site: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![1, site.output() as usize];
        Some(vec![(SHIFT.to_owned(), shape, get(SHIFT)?)])
    }
}
