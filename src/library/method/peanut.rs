//! PEANuT: `ΔW = s · B f(… f(A W₀) …)`: a small network makes the update out of the weight itself.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::bottleneck::{FUNCTIONS, SCALING, function};
use super::lora::ON;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::RANK_TOO_LARGE;

/// An update that a network makes of the weight.
#[derive(Debug)]
pub struct Peanut;

/// The tensors' names in peft's format.
const A: &str = "peanut_A.weight";
const B: &str = "peanut_B.weight";

const RANK: Given<u64> =
    Given::<u64>::new("rank", kind::WIDTH, (32, "32"), "width r of the network");
const DEPTH: Given<u64> = Given::<u64>::new(
    "depth",
    kind::int(0, 64),
    (0, "0"),
    "layers between A and B on each side: so many encoders, and as many decoders with what the encoders read added",
);
const FUNCTION: Given<str> = Given::<str>::new(
    "function",
    kind::choice(FUNCTIONS),
    ("relu", "relu"),
    "function behind A and behind each layer",
);

static SCHEMA: Schema = Schema {
    name: "peanut",
    summary: "weight-aware neural tweakers: a small network makes each matrix' update out of the matrix",
    doc: "y = x W0ᵀ + b + scaling · (x H) Bᵀ with H = f(W0ᵀ Aᵀ) [in, rank], then `depth` encoders H ← f(H Eᵀ) and as many decoders H ← f(H \
          Dᵀ) + what the encoder on the other side read. A [rank, out], the E and D [rank, rank] and B [out, rank] are trained; B starts at 0, so the \
          model starts unchanged, and the others uniform in one over the root of their width. Each pass reads the whole of W0 for H. Merges \
          exactly; 16 bytes a trained parameter. In peft it is PEANUT.",
    paper: "Zhong et al. 2024, \"PEANuT\" (arXiv 2410.01870)",
    keys: &[
        RANK.key(),
        DEPTH.key(),
        FUNCTION.key(),
        SCALING.key(),
        ON.key(),
    ],
};

/// Names of a layer's tensors: the encoder's and the decoder's.
fn layer(i: u64) -> [String; 2] {
    ["encoders", "decoders"].map(|side| format!("peanut_{side}.{i}.weight"))
}

/// `H [in, r]` and `B [out, r]`.
fn network(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, values) = (at.site, at.values);
    let rank = RANK.get(values);
    let map = |net: &mut Net<'_>, name: &str, width: u64| {
        let start = Init::Uniform(1.0 / (width as f64).sqrt());
        net.tensor(Param::at(site, name).shape(&[rank, width]).start(start))
    };
    let a = map(net, A, site.output());
    let weight = net.weight(site);
    let function = function(Some(FUNCTION.get(values)));
    let h = net.times((weight, true), (a, true));
    let mut h = net.activation(function, h);
    let mut read = Vec::new();
    let names: Vec<[String; 2]> = (0..DEPTH.get(values)).map(layer).collect();
    for [encoder, _] in &names {
        read.push(h);
        let e = map(net, encoder, rank);
        h = net.project(h, e);
        h = net.activation(function, h);
    }
    for ([_, decoder], read) in names.iter().zip(read.into_iter().rev()) {
        let d = map(net, decoder, rank);
        h = net.project(h, d);
        h = net.activation(function, h);
        h = net.add(h, read);
    }
    let b = net.tensor(Param::at(site, B).shape(&[site.output(), rank]));
    (h, b)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("act_fn", Used),
    ("depth", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("r", WithoutEffect("the shapes of the tensors say it")),
    ("scaling", Used),
];

impl Method for Peanut {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, most) = (RANK.get(values), site.output());
        (rank > most).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!("`rank` is {rank}, but `{}` has {most} outputs", site.path),
            help: Some(format!("write at most `rank = {most}`")),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (h, b) = network(at, net);
        let z = net.times((x, false), (h, false));
        net.project_onto(base, z, b, SCALING.get(at.values))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (h, b) = network(at, net);
        Some(net.project_onto(weight, b, h, SCALING.get(at.values)))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "PEANUT",
            keys: vec![
                ("act_fn", json!(FUNCTION.get(values))),
                ("depth", json!(DEPTH.get(values))),
                ("exclude_modules", json!(null)),
                ("init_weights", json!(true)),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("r", json!(RANK.get(values))),
                ("scaling", json!(SCALING.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "PEANUT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (depth, scaling) = (config.whole("depth", 0)?, config.number("scaling", 1.0)?);
        if depth > 64 {
            return Err(Misfit::not_built(format!(
                "`depth` is {depth}; more than 64"
            )));
        }
        let function = match config.get("act_fn").and_then(Json::as_str) {
            None => "relu",
            // One function, two names.
            Some("swish") => "silu",
            Some(name) => FUNCTIONS
                .iter()
                .find(|f| **f == name)
                .ok_or_else(|| Misfit::not_built(format!("`act_fn` is \"{name}\", which")))?,
        };
        let layers: Vec<String> = (0..depth).flat_map(layer).collect();
        for place in file.places()? {
            let known: Vec<&str> = [A, B]
                .into_iter()
                .chain(layers.iter().map(String::as_str))
                .collect();
            place.only(&known)?;
            let (name, output) = (place.name(A), place.site.output());
            let rank = file.shape(&name).and_then(|s| s.first()).copied();
            let rank = rank.unwrap_or_default();
            file.take(&name, place.own(A), &[rank, output])?;
            for own in &layers {
                file.take(&place.name(own), place.own(own), &[rank, rank])?;
            }
            file.take(&place.name(B), place.own(B), &[output, rank])?;
            file.idle(&place.name(B), 0.0);
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (DEPTH.name(), Checked::Int(depth)),
                (FUNCTION.name(), Checked::Str(function.to_owned())),
                (SCALING.name(), Checked::Float(scaling)),
            ];
            file.put(&Peanut, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (rank, output) = (RANK.get(values) as usize, site.output() as usize);
        let layers = (0..DEPTH.get(values)).flat_map(layer);
        let mut made = vec![
            (A.to_owned(), vec![rank, output], get(A)?),
            (B.to_owned(), vec![output, rank], get(B)?),
        ];
        for name in layers {
            let data = get(&name)?;
            made.push((name, vec![rank, rank], data));
        }
        Some(made)
    }
}
