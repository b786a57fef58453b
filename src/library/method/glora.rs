//! GLoRA: `W = W₀ + W₀ ⊙ A + B`, `b = b₀ + b₀ ⊙ D + E + W₀ C`, each part of a form of its own.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Place, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::{ON, RANK, check_rank};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{Arrange, BinaryKind, Broadcast, Constant, MulRows};
use crate::program::{DType, Real};

/// Scalings and updates of weight and bias.
#[derive(Debug)]
pub struct Glora;

const WEIGHT: Given<str> = Given::<str>::new(
    "weight",
    kind::choice(&["lora", "vector", "constant", "none"]),
    ("lora", "lora"),
    "form of A, which multiplies the weight, and B, which is added to it: a product of rank `rank`, a number for each output, one number, or none",
);
const COUPLING: Given<str> = Given::<str>::new(
    "coupling",
    kind::choice(&["lora", "vector", "none"]),
    ("lora", "lora"),
    "form of C, by which the weight moves the bias; where a map has a bias",
);
const BIAS: Given<str> = Given::<str>::new(
    "bias",
    kind::choice(&["vector", "constant", "none"]),
    ("constant", "constant"),
    "form of D, which multiplies the bias, and E, which is added to it; where a map has a bias",
);

static SCHEMA: Schema = Schema {
    name: "glora",
    summary: "generalized LoRA: weight and bias of each map are scaled and moved, each by a form of its own",
    doc: "y = x (W0 + W0 ⊙ A + B)ᵀ + b0 + b0 ⊙ D + E + W0 C. A and B are products Xd [out, rank] · Xu [rank, in], columns, or single numbers; C is \
          such a product [in, 1] or a column; D and E are vectors or numbers. Xd and all vectors and numbers start at 0, so the model \
          starts unchanged, and Xu uniform as He et al. have it. A product for A is formed as a matrix of the weight's size in each pass; the other forms are \
          not. C, D and E are there where a map has a bias. Merges exactly; 16 bytes a trained parameter. In peft it is GLORA.",
    paper: "Chavan et al. 2023, \"One-for-All: Generalized LoRA\" (arXiv 2306.07967)",
    keys: &[
        RANK.key(),
        WEIGHT.key(),
        COUPLING.key(),
        BIAS.key(),
        ON.key(),
    ],
};

/// What a part is made of.
enum Form {
    /// `Xd [n, r]` and `Xu [r, m]`.
    Product(Value, Value),
    /// A list.
    Vector(Value),
    /// `[1]`
    Number(Value),
}

/// The tensors of a part: names and shapes; none if it is not there.
fn tensors(values: &Values, site: &Site, part: char) -> Vec<(String, Vec<u64>)> {
    let (rank, biased) = (RANK.get(values), site.has_bias());
    let (input, output) = (site.input(), site.output());
    let name = |last: &str| format!("glora_{part}.{last}");
    let (form, sides, list) = match part {
        'A' | 'B' => (WEIGHT.get(values), [output, input], vec![output, 1]),
        'C' if biased => (COUPLING.get(values), [input, 1], vec![input, 1]),
        _ if biased => (BIAS.get(values), [output, 1], vec![output]),
        _ => return Vec::new(),
    };
    match form {
        "lora" => vec![
            (name("Xd"), vec![sides[0], rank]),
            (name("Xu"), vec![rank, sides[1]]),
        ],
        "vector" => vec![(name("X"), list)],
        "constant" => vec![(name("X"), vec![1])],
        _ => Vec::new(),
    }
}

fn form(at: &At<'_>, net: &mut Net<'_>, part: char) -> Option<Form> {
    let all = tensors(at.values, at.site, part);
    let mut made = all.iter().map(|(name, shape)| {
        let param = Param::at(at.site, name).shape(shape);
        let start = match shape.get(1) {
            Some(&width) if name.ends_with(".Xu") => Init::Uniform(1.0 / (width as f64).sqrt()),
            _ => Init::Constant(0.0),
        };
        (
            net.tensor(param.start(start)),
            shape.iter().product::<u64>(),
        )
    });
    let (first, second) = (made.next()?, made.next());
    drop(made);
    Some(match (first, second) {
        ((down, _), Some((up, _))) => Form::Product(down, up),
        ((number, 1), None) => Form::Number(number),
        ((list, n), None) => Form::Vector(net.flat(list, n)),
    })
}

/// A list of `n` copies of `[1]`.
fn copies(net: &mut Net<'_>, one: Value, n: u64) -> Value {
    let one = net.reshaped(one, 1, 1);
    let row = net.arranged(one, Arrange::new(1, (0..n).map(|_| [(0, false)])));
    net.flat(row, n)
}

/// What is added to the bias, `[out]`.
fn moved_bias(at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
    let own = net.bias(at.site)?;
    let mut sum: Option<Value> = None;
    let mut add = |net: &mut Net<'_>, x: Value| {
        sum = Some(sum.map_or(x, |sum| net.add(sum, x)));
    };
    match form(at, net, 'D') {
        Some(Form::Vector(d)) => {
            let x = net.binary(BinaryKind::Mul, Broadcast::Full, own, d);
            add(net, x);
        }
        Some(Form::Number(d)) => {
            let x = net.binary(BinaryKind::Mul, Broadcast::Scalar, own, d);
            add(net, x);
        }
        _ => {}
    }
    match form(at, net, 'E') {
        Some(Form::Vector(e)) => add(net, e),
        Some(Form::Number(e)) => {
            let e = copies(net, e, at.site.output());
            add(net, e);
        }
        _ => {}
    }
    let input = at.site.input();
    let column = match form(at, net, 'C') {
        Some(Form::Product(down, up)) => Some(net.times((down, false), (up, false))),
        Some(Form::Vector(c)) => Some(net.reshaped(c, input, 1)),
        _ => None,
    };
    if let Some(column) = column {
        let weight = net.weight(at.site);
        let x = net.times((weight, false), (column, false));
        let x = net.flat(x, at.site.output());
        add(net, x);
    }
    sum
}

/// `y + x (W₀ ⊙ A)ᵀ`; `plain` is `x W₀ᵀ` where it is known.
fn scaled(at: &At<'_>, net: &mut Net<'_>, (x, y): (Value, Value), plain: Option<Value>) -> Value {
    let Some(form) = form(at, net, 'A') else {
        return y;
    };
    let weight = net.weight(at.site);
    if let Form::Product(down, up) = form {
        let a = net.times((down, false), (up, false));
        let a = net.binary(BinaryKind::Mul, Broadcast::Full, a, weight);
        return net.project_onto(y, x, a, 1.0);
    }
    let plain = plain.unwrap_or_else(|| net.project(x, weight));
    let more = match form {
        Form::Vector(a) | Form::Product(a, _) => net.b.push1(MulRows, &[plain, a]),
        Form::Number(a) => net.binary(BinaryKind::Mul, Broadcast::Scalar, plain, a),
    };
    net.add(y, more)
}

/// `y + x Bᵀ`
fn moved(at: &At<'_>, net: &mut Net<'_>, (x, y): (Value, Value)) -> Value {
    let (input, output) = (at.site.input(), at.site.output());
    let column = match form(at, net, 'B') {
        None => return y,
        Some(Form::Product(down, up)) => {
            let z = net.project(x, up);
            return net.project_onto(y, z, down, 1.0);
        }
        Some(Form::Vector(b)) => b,
        Some(Form::Number(b)) => copies(net, b, output),
    };
    // All columns are alike: rows of x meet their sum.
    let (value, dtype) = (Real::new(1.0), DType::F32);
    let one = net.b.push1(Constant { value, dtype }, &[]);
    let ones = copies(net, one, input);
    let ones = net.reshaped(ones, 1, input);
    let sums = net.project(x, ones);
    let column = net.reshaped(column, output, 1);
    net.project_onto(y, sums, column, 1.0)
}

/// `W + W₀ ⊙ A + B`
fn weight(at: &At<'_>, net: &mut Net<'_>, below: Value) -> Value {
    let mut sum = below;
    if let Some(form) = form(at, net, 'A') {
        let own = net.weight(at.site);
        let (over, by) = match form {
            Form::Product(down, up) => (Broadcast::Full, net.times((down, false), (up, false))),
            Form::Vector(a) => (Broadcast::Column, a),
            Form::Number(a) => (Broadcast::Scalar, a),
        };
        let scaled = net.binary(BinaryKind::Mul, over, own, by);
        sum = net.add(sum, scaled);
    }
    match form(at, net, 'B') {
        None => sum,
        Some(Form::Product(down, up)) => {
            let product = net.times((down, false), (up, false));
            net.add(sum, product)
        }
        Some(Form::Vector(b)) => net.binary(BinaryKind::Add, Broadcast::Column, sum, b),
        Some(Form::Number(b)) => net.binary(BinaryKind::Add, Broadcast::Scalar, sum, b),
    }
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("config_A_B", Used),
    ("config_C", Used),
    ("config_D_E", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("r", Used),
];

/// The parts.
const PARTS: [char; 5] = ['A', 'B', 'C', 'D', 'E'];

/// peft's shape of zeros in the place of a part that is not there.
fn absent(site: &Site, part: char) -> Vec<u64> {
    match part {
        'A' | 'B' => vec![site.output(), site.input()],
        'C' => vec![site.input(), 1],
        _ => vec![site.output()],
    }
}

/// Takes a map's tensors.
fn read(file: &mut Reading<'_>, place: &Place<'_>, values: &Values) -> Result<(), Misfit> {
    for part in PARTS {
        let own = tensors(values, place.site, part);
        if own.is_empty() {
            let zeros = place.name(&format!("glora_{part}.zeros"));
            if file.shape(&zeros).is_some() {
                file.read(&zeros)?;
                if file.numbers(&zeros)?.iter().any(|&x| x != 0.0) {
                    return Err(Misfit::damaged(format!("`{zeros}` holds other numbers")));
                }
            }
        }
        for (name, shape) in own {
            file.take(&place.name(&name), place.own(&name), &shape)?;
            if !name.ends_with(".Xu") {
                file.idle(&place.name(&name), 0.0);
            }
        }
    }
    Ok(())
}

impl Method for Glora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let nothing = PARTS
            .iter()
            .all(|&part| tensors(values, site, part).is_empty());
        let complaint = nothing.then(|| Complaint {
            key: WEIGHT.name(),
            code: &BAD_METHOD_VALUES,
            message: format!(
                "nothing is trained at `{}`, which has {} bias",
                site.path,
                if site.has_bias() { "a" } else { "no" }
            ),
            help: Some("write another form than `none`, or place the method elsewhere".to_owned()),
        });
        complaint.or_else(|| check_rank(values, &RANK, site))
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let (plain, below, own) = if at.is_bare() {
            let weight = net.weight(at.site);
            let plain = net.project(x, weight);
            (Some(plain), plain, net.bias(at.site))
        } else {
            (None, at.linear(net, x), None)
        };
        let y = scaled(at, net, (x, below), plain);
        let y = moved(at, net, (x, y));
        let bias = match (own, moved_bias(at, net)) {
            (Some(own), Some(more)) => Some(net.add(own, more)),
            (own, more) => own.or(more),
        };
        match bias {
            Some(bias) => net.binary(BinaryKind::Add, Broadcast::Row, y, bias),
            None => y,
        }
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let below = at.weight(net)?;
        Some(weight(at, net, below))
    }

    fn moves_bias(&self, values: &Values, site: &Site) -> bool {
        ['C', 'D', 'E']
            .iter()
            .any(|&part| !tensors(values, site, part).is_empty())
    }

    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let below = at.bias(net)?;
        Some(match moved_bias(at, net) {
            Some(more) => net.add(below, more),
            None => below,
        })
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "GLORA",
            keys: vec![
                ("bias", json!("none")),
                ("config_A_B", json!(WEIGHT.get(values))),
                ("config_C", json!(COUPLING.get(values))),
                ("config_D_E", json!(BIAS.get(values))),
                ("init_weights", json!(true)),
                ("r", json!(RANK.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "GLORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let choice = |key: &str, known: &[&str], default: &str| match config.get(key) {
            None => Ok(default.to_owned()),
            Some(Json::String(name)) if known.contains(&name.as_str()) => Ok(name.clone()),
            Some(other) => Err(Misfit::of_config(format!(
                "`{key}` is {other}, and {} are known",
                known.join(", ")
            ))),
        };
        let list = vec![
            (RANK.name(), Checked::Int(config.positive("r", 8)?)),
            (
                WEIGHT.name(),
                Checked::Str(choice(
                    "config_A_B",
                    &["lora", "vector", "constant", "none"],
                    "lora",
                )?),
            ),
            (
                COUPLING.name(),
                Checked::Str(choice("config_C", &["lora", "vector", "none"], "lora")?),
            ),
            (
                BIAS.name(),
                Checked::Str(choice(
                    "config_D_E",
                    &["vector", "constant", "none"],
                    "constant",
                )?),
            ),
        ];
        let mut values = Values::default();
        for (key, value) in &list {
            values.insert(key, value.clone(), crate::base::Span::default(), false);
        }
        for place in file.places()? {
            read(file, &place, &values)?;
            file.put(&Glora, place.site, list.clone());
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let dims = |shape: &[u64]| shape.iter().map(|&n| n as usize).collect::<Vec<_>>();
        let mut made = Vec::new();
        for part in PARTS {
            let own = tensors(values, site, part);
            if own.is_empty() {
                let shape = absent(site, part);
                let zeros = vec![0.0; shape.iter().product::<u64>() as usize];
                made.push((format!("glora_{part}.zeros"), dims(&shape), zeros));
            }
            for (name, shape) in own {
                let data = get(&name)?;
                made.push((name, dims(&shape), data));
            }
        }
        Some(made)
    }
}
