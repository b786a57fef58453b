//! DoRA (methods R9): `W' = (m / ‖V‖) ⊙ V` with `V = W₀ + s · B A`, a length `m` for each row of the weight.

use serde_json::{Map, Value as Json};

use super::super::derive::{BaseParam, RowNorm};
use super::super::net::{Init, Param};
use super::super::peft::{Keys, Misfit, Place, Reading};
use super::super::schema::Schema;
use super::lora::{self, Lora};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Site, Value, Values, lora_import,
    pair,
};
use crate::program::op::{BinaryKind, Broadcast, Over, ReduceKind, UnaryKind};

/// A low-rank update of the direction, and trained lengths.
#[derive(Debug)]
pub struct Dora;

/// The lengths' name in peft's format.
const MAGNITUDE: &str = "lora_magnitude_vector";

static SCHEMA: Schema = Schema {
    name: "dora",
    summary: "weight-decomposed low-rank adaptation: LoRA on the direction of each weight's rows, and their lengths trained",
    doc: "W' = (m / ‖V‖) ⊙ V with V = W0 + s · B A as LoRA has it and a norm for each row. m [out] starts as the norms of \
          W0, so the model starts unchanged. The norms of V count as constants in the backward pass, as in the paper's \
          section 4.3. With `dropout` the update and the change of lengths read the dropped input. Merges exactly into \
          plain weights and is written in peft's format.",
    paper: "Liu et al. 2024 (arXiv 2402.09353), section 4",
    keys: &[
        lora::RANK.key(),
        lora::ALPHA.key(),
        lora::RANKS.key(),
        lora::ALPHAS.key(),
        lora::DROPOUT.key(),
        lora::RS_LORA.key(),
        lora::MODULES_TO_SAVE.key(),
        lora::ON.key(),
    ],
};

/// `m / ‖W₀ + s B A‖` for each row: `[out]`.
fn factor(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let site = at.site;
    let weight = BaseParam::weight(&site.path, [site.output(), site.input()]);
    let by = RowNorm { weight }.into();
    let start = Init::Derived { by, part: 0 };
    let magnitude = Param::at(site, MAGNITUDE).shape(&[site.output()]);
    let magnitude = net.tensor(magnitude.start(start));
    let sum = direction(at, net);
    let squares = net.reduce(ReduceKind::SumOfSquares, Over::Columns, sum);
    let norms = net.unary(UnaryKind::Sqrt, squares);
    let norms = net.detach(norms);
    net.binary(BinaryKind::Div, Broadcast::Full, magnitude, norms)
}

/// `W₀ + s B A`.
fn direction(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let weight = net.weight(at.site);
    lora::add_product(at, net, weight)
}

impl Method for Dora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        Lora.check(values, site)
    }

    /// `b + x W₀ᵀ + (f − 1) ⊙ (Drop(x) W₀ᵀ) + f ⊙ s · (Drop(x) Aᵀ) Bᵀ`; without dropout that is `b + f ⊙ (x Vᵀ)`.
    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let (weight, bias) = (net.weight(at.site), net.bias(at.site));
        let factor = factor(at, net);
        let dropped = net.dropout_before(x, lora::DROPOUT.get(at.values), factor);
        let plain = net.project(dropped, weight);
        let sum = lora::add_update(at, net, plain, dropped);
        let scaled = net.binary(BinaryKind::Mul, Broadcast::Row, sum, factor);
        if dropped == x {
            return bias.map_or(scaled, |bias| {
                net.binary(BinaryKind::Add, Broadcast::Row, scaled, bias)
            });
        }
        let base = net.dense(x, weight, bias);
        let change = net.binary(BinaryKind::Sub, Broadcast::Full, scaled, plain);
        net.add(base, change)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let sum = direction(at, net);
        let factor = factor(at, net);
        Some(net.binary(BinaryKind::Mul, Broadcast::Column, sum, factor))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm::lora(pair::product(values), true))
    }

    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        let dora = config.get("use_dora") == Some(&Json::Bool(true));
        (kind == "LORA" && dora && !lora_import::is_kasa(config)).then_some(lora_import::KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        // Some versions write it as a module of its own.
        const MODULE: &str = "lora_magnitude_vector.weight";
        let more = |file: &mut Reading<'_>, place: &Place<'_>, _| {
            let module = place.tensors.iter().any(|t| t == MODULE);
            let name = place.name(if module { MODULE } else { MAGNITUDE });
            file.take(&name, place.own(MAGNITUDE), &[place.site.output()])?;
            Ok(Vec::new())
        };
        lora_import::read(file, &Dora, (&[MAGNITUDE, MODULE], more))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let mut tensors = Lora.peft_tensors(values, site, get)?;
        let shape = vec![site.output() as usize];
        tensors.push((MAGNITUDE.to_owned(), shape, get(MAGNITUDE)?));
        Some(tensors)
    }
}
