//! KronA (methods R7): `ΔW = s · A ⊗ B`, a Kronecker product of two full matrices.

use serde_json::json;

use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::lokr::{NAMES, Sides, added, applied, form};
use super::lora::{MODULES_TO_SAVE, ON};
use super::{At, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values};

/// A Kronecker product of two full matrices.
#[derive(Debug)]
pub struct KronA;

const FACTOR: Maybe<u64> = Maybe::new(
    "factor",
    kind::WIDTH,
    "rows and columns of A where that divides the side; the divisors nearest to the root of each side where it is not written",
);
const SCALE: Given<f64> = Given::<f64>::new(
    "scale",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "factor s of the update",
);

static SCHEMA: Schema = Schema {
    name: "krona",
    summary: "Kronecker adapter: the Kronecker product of two trained matrices beside each frozen one",
    doc: "y = x W0ᵀ + b + s · x (A ⊗ B)ᵀ, with s = `scale`. Each side of the weight is cut into two factors, A has the smaller \
          ones. A is normal with standard deviation 1/√columns and B zero, so the model starts unchanged. The Kronecker product is \
          never formed: it costs two small products. Merges exactly into plain weights and is written in peft's format as \
          LoKr.",
    paper: "Edalati et al. 2022 (arXiv 2212.10650), section 3",
    keys: &[FACTOR.key(), SCALE.key(), MODULES_TO_SAVE.key(), ON.key()],
};

/// KronA's A and B.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> [Value; 2] {
    let site = at.site;
    let sides = Sides::of(site, FACTOR.get(at.values));
    let [a, b] = ["krona_A", "krona_B"];
    let a = Param::at(site, a).shape(&[sides.rows.0, sides.columns.0]);
    let b = Param::at(site, b).shape(&[sides.rows.1, sides.columns.1]);
    let std = 1.0 / (sides.columns.0 as f64).sqrt();
    [net.tensor(a.start(Init::Normal(std))), net.tensor(b)]
}

impl Method for KronA {
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
        let base = at.linear(net, x);
        let sides = Sides::of(at.site, FACTOR.get(at.values));
        let factors = factors(at, net);
        let update = applied(net, sides, factors, (x, SCALE.get(at.values)));
        net.add(base, update)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let sides = Sides::of(at.site, FACTOR.get(at.values));
        let factors = factors(at, net);
        Some(added(net, sides, factors, (weight, SCALE.get(at.values))))
    }

    /// A rank so large that peft keeps both factors whole.
    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let rank = 1_u64 << 24;
        let alpha = SCALE.get(values) * rank as f64;
        Some(form((rank, alpha), FACTOR.get(values), values, json!(true)))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let sides = Sides::of(site, FACTOR.get(values));
        let shape = |rows: u64, columns: u64| vec![rows as usize, columns as usize];
        let [one, two] = NAMES.map(str::to_owned);
        Some(vec![
            (one, shape(sides.rows.0, sides.columns.0), get("krona_A")?),
            (two, shape(sides.rows.1, sides.columns.1), get("krona_B")?),
        ])
    }
}
