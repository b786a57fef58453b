//! IA3 (methods R8): `y = (x W₀ᵀ + b) ⊙ l`, or `y = (x ⊙ l) W₀ᵀ + b` at the feed-forward network's last map.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::WithoutEffect;
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Maybe, kind};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::{CONFLICTING_KEYS, IDLE_KEY};
use crate::library::placement::{Pattern, Placement};
use crate::program::op::{BinaryKind, Broadcast, MulRows};

/// Trained factors of activations.
#[derive(Debug)]
pub struct Ia3;

/// The factors' name in peft's format.
const FACTORS: &str = "ia3_l";

const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention.{key, value, qkv}, ffn.down}",
    "which linear maps are rescaled",
);
const FEEDFORWARD: Maybe<Placement> = Maybe::filled(
    "feedforward",
    kind::PLACEMENT,
    "ffn.down",
    "those among them whose input is rescaled; of the others it is the output",
);

static SCHEMA: Schema = Schema {
    name: "ia3",
    summary: "infused adapter by inhibiting and amplifying inner activations: trained factors of keys, values and feed-forward activations",
    doc: "y = (x W0ᵀ + b) ⊙ l with l [out], bias included, and at the maps that `feedforward` names y = (x ⊙ l) W0ᵀ + b with \
          l [in]. l starts at 1, so the model starts unchanged. A factor needs the activation that it multiplies and no more: \
          16 bytes a trained parameter. Merges exactly into plain weights and biases and is peft's IA3.",
    paper: "Liu et al. 2022 (arXiv 2205.05638), section 3.3",
    keys: &[FEEDFORWARD.key(), ON.key()],
};

/// Whether a site's input is rescaled. Blocks play no part in it ([`Ia3::check`]).
fn is_feedforward(values: &Values, site: &Site) -> bool {
    FEEDFORWARD.get(values).is_some_and(|p| p.matches(site, 0))
}

/// The factors: of the input's columns, or of the output's.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> Value {
    // peft's shape says which.
    let shape = if is_feedforward(at.values, at.site) {
        [1, at.site.input()]
    } else {
        [at.site.output(), 1]
    };
    let own = Param::at(at.site, FACTORS).shape(&shape);
    let own = net.tensor(own.start(Init::Constant(1.0)));
    net.flat(own, shape.iter().product())
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    (
        "feedforward_modules",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("init_ia3_weights", WithoutEffect(BEGAN)),
];

impl Method for Ia3 {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, _: &Site) -> Option<Complaint> {
        let placement = FEEDFORWARD.get(values)?;
        let in_some = placement.any.iter().any(|p| p.layers.is_some());
        in_some.then(|| Complaint {
            key: FEEDFORWARD.name(),
            code: &CONFLICTING_KEYS,
            message:
                "`feedforward` says which maps are rescaled at their input, in all blocks alike"
                    .to_owned(),
            help: Some("write it without `layers[…]`; `on` limits the blocks".to_owned()),
        })
    }

    fn check_sites(&self, values: &Values, sites: &[&Site]) -> Option<Complaint> {
        let placement = FEEDFORWARD.get(values)?;
        if !values.written(FEEDFORWARD.name()) {
            return None;
        }
        let mut patterns = placement.any.iter();
        let outside = patterns.find(|p| !sites.iter().any(|s| p.matches(s, 0)))?;
        Some(Complaint {
            key: FEEDFORWARD.name(),
            code: &IDLE_KEY,
            message: format!(
                "`feedforward` names `{outside}`, which is none of the maps that `on` names"
            ),
            help: Some(format!("add it to `{}`, or leave it out here", ON.name())),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let factors = factors(at, net);
        if is_feedforward(at.values, at.site) {
            let x = net.b.push1(MulRows, &[x, factors]);
            return at.linear(net, x);
        }
        let y = at.linear(net, x);
        net.b.push1(MulRows, &[y, factors])
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let factors = factors(at, net);
        let over = if is_feedforward(at.values, at.site) {
            Broadcast::Row
        } else {
            Broadcast::Column
        };
        Some(net.binary(BinaryKind::Mul, over, weight, factors))
    }

    fn moves_bias(&self, values: &Values, site: &Site) -> bool {
        !is_feedforward(values, site)
    }

    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let bias = at.bias(net)?;
        if is_feedforward(at.values, at.site) {
            return Some(bias);
        }
        let factors = factors(at, net);
        Some(net.binary(BinaryKind::Mul, Broadcast::Full, bias, factors))
    }

    fn peft(&self, _: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "IA3",
            keys: vec![
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_ia3_weights", json!(true)),
            ],
            product: None,
        })
    }

    fn peft_targets(&self, values: &Values, sites: &[&Site]) -> Vec<(&'static str, Json)> {
        let fed = sites.iter().filter(|s| is_feedforward(values, s));
        let fed: Vec<&str> = fed.map(|s| s.path.as_str()).collect();
        vec![("feedforward_modules", json!(fed))]
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "IA3").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        for place in file.places()? {
            place.only(&[FACTORS])?;
            let name = place.name(FACTORS);
            let fed = file.shape(&name).is_some_and(|s| s.first() == Some(&1));
            let shape = if fed {
                [1, place.site.input()]
            } else {
                [place.site.output(), 1]
            };
            file.take(&name, place.own(FACTORS), &shape)?;
            file.idle(&name, 1.0);
            let any = fed.then(|| Pattern {
                layers: None,
                path: "*".to_owned(),
                raw: true,
            });
            let any = any.into_iter().collect();
            let values = vec![(FEEDFORWARD.name(), Checked::Placement(Placement { any }))];
            file.put(&Ia3, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let shape = if is_feedforward(values, site) {
            vec![1, site.input() as usize]
        } else {
            vec![site.output() as usize, 1]
        };
        Some(vec![(FACTORS.to_owned(), shape, get(FACTORS)?)])
    }
}
