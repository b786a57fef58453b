//! Orthogonal fine-tuning: `y = (x R) W₀ᵀ + b` with a block-diagonal rotation `R`.

use serde_json::{Map, Value as Json, json};

use super::super::net::Param;
use super::super::peft::Fate::{Only, Refused, Used, WithoutEffect};
use super::super::peft::{Floats, Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::lora::ON;
use super::rotation::{Rotation, above, check_blocks, side, skew};
use super::{
    After, At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values,
};
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Constant, Over, ReduceKind, UnaryKind,
};
use crate::program::{DType, Real};

/// A block-diagonal rotation of a map's input.
#[derive(Debug)]
pub struct Oft;

/// The angles' name in peft's format.
const ANGLES: &str = "oft_R.weight";

const BLOCK_SIZE: Given<u64> = Given::<u64>::new(
    "block_size",
    kind::int(2, 1 << 16),
    (32, "32"),
    "width of the blocks that are rotated; it divides the input's width",
);
const SHARE: Given<bool> = Given::<bool>::new(
    "share",
    kind::BOOL,
    (false, "false"),
    "one rotation for all blocks of a map",
);
const EXACT: Given<bool> = Given::<bool>::new(
    "exact",
    kind::BOOL,
    (false, "false"),
    "Cayley's transform itself, with an inverse, in the place of its series",
);
const TERMS: Given<u64> =
    Given::<u64>::tacit("terms", kind::int(2, 64), (5, "5"), "terms of the series");
const CONSTRAINT: Maybe<f64> = Maybe::new(
    "constraint",
    kind::float(Bound::Excl(0.0), Bound::None),
    "largest Frobenius norm ε of the Q of all blocks together (constrained OFT, peft's `coft`): behind each update a longer one of a block is shortened to ε / √blocks",
);

static SCHEMA: Schema = Schema {
    name: "oft",
    summary: "orthogonal fine-tuning: the input of each matrix is rotated, block by block",
    doc: "y = (x R) W0ᵀ + b with R block-diagonal. A block is Cayley's transform (I − Q)(I + Q)⁻¹ of a skew-symmetric Q [b, b], \
          or the first `terms` terms of its series, I + 2Q + 2Q² + … , whose last has the factor 1, as peft sums it. What is \
          trained is Q above its diagonal, [in / b, b(b−1)/2], which starts at 0, so the model starts unchanged. Rows of x are \
          rotated; no rotated weight is formed but in a merge, which is exact. `share = true` trains one block for all. \
          `constraint` bounds Q (constrained OFT). 16 bytes a trained parameter. In peft it is OFT.",
    paper: "Qiu et al. 2023 (arXiv 2306.07280); the series: Qiu et al. 2025 (arXiv 2506.19847)",
    keys: &[
        BLOCK_SIZE.key(),
        SHARE.key(),
        EXACT.key(),
        TERMS.key(),
        CONSTRAINT.key(),
        ON.key(),
    ],
};

/// Blocks of a site, and of them those that are trained.
fn blocks(values: &Values, site: &Site) -> (u64, u64) {
    let all = site.input() / BLOCK_SIZE.get(values).max(1);
    (all, if SHARE.get(values) { 1 } else { all })
}

/// The angles of a site's own blocks.
fn angles(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let (_, own) = blocks(values, site);
    let angles = Param::at(site, ANGLES).shape(&[own, above(BLOCK_SIZE.get(values))]);
    net.tensor(angles)
}

/// The norm that a block's Q may have.
fn longest(values: &Values, site: &Site) -> Option<f64> {
    Some(CONSTRAINT.get(values)? / (blocks(values, site).1 as f64).sqrt())
}

/// The rotation at a site; `None` where it is none.
fn rotation(at: &At<'_>, net: &mut Net<'_>) -> Option<Rotation> {
    let size = BLOCK_SIZE.get(at.values);
    let (all, own) = blocks(at.values, at.site);
    let angles = angles(at.values, at.site, net);
    let q = skew(net, angles, (own, size));
    let made = if EXACT.get(at.values) {
        Rotation::cayley(net, q, own)
    } else {
        Rotation::neumann(net, q, (own, TERMS.get(at.values)))?
    };
    Some(if own == all {
        made
    } else {
        made.repeated(net, all, size)
    })
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("block_share", Used),
    ("coft", Used),
    ("eps", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("module_dropout", Refused),
    ("num_cayley_neumann_terms", Used),
    (
        "oft_block_size",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("r", WithoutEffect("the shapes of the tensors say it")),
    ("use_cayley_neumann", Used),
];

/// Angles of blocks whose Q is longer than it may be are made smaller.
fn shortened(from: &[Floats], width: usize, most: f64) -> Result<Vec<f32>, String> {
    let (_, data) = from.first().ok_or("there are no angles")?;
    let mut data = data.clone();
    for block in data.chunks_exact_mut(width.max(1)) {
        let squares: f64 = block
            .iter()
            .map(|&x| 2.0 * f64::from(x) * f64::from(x))
            .sum();
        let length = squares.sqrt();
        if length > most {
            let factor = (most / length) as f32;
            block.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Ok(data)
}

impl Method for Oft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let size = BLOCK_SIZE.get(values);
        check_blocks(BLOCK_SIZE.name(), size, site, &[("input", site.input())]).or_else(|| {
            let idle = EXACT.get(values) && TERMS.is_written(values);
            idle.then(|| Complaint {
                key: TERMS.name(),
                code: &crate::library::error::IDLE_KEY,
                message: "`terms` counts terms of the series, which `exact = true` does without"
                    .to_owned(),
                help: Some("remove one of the two".to_owned()),
            })
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn steps(&self, values: &Values) -> bool {
        CONSTRAINT.get(values).is_some()
    }

    fn after_update(&self, values: &Values, sites: &[&Site], after: &mut After<'_, '_>) {
        for site in sites {
            let Some(most) = longest(values, site) else {
                return;
            };
            let angles = angles(values, site, after.net);
            let net = &mut *after.net;
            // Each angle is in Q twice. min(1, most / ‖Q‖) = 1 − relu(1 − most / ‖Q‖)
            let squares = net.reduce(ReduceKind::SumOfSquares, Over::Columns, angles);
            let squares = net.scaled(squares, 2.0);
            let constant = |net: &mut Net<'_>, value: f64| {
                let (value, dtype) = (Real::new(value), DType::F32);
                net.b.push1(Constant { value, dtype }, &[])
            };
            let tiny = constant(net, 1e-24);
            let squares = net.binary(BinaryKind::Add, Broadcast::Scalar, squares, tiny);
            let shorter = net.unary(UnaryKind::Rsqrt, squares);
            let shorter = net.scaled(shorter, -most);
            let one = constant(net, 1.0);
            let less = net.binary(BinaryKind::Add, Broadcast::Scalar, shorter, one);
            let less = net.activation(ActivationKind::Relu, less);
            let less = net.scaled(less, -1.0);
            let factor = net.binary(BinaryKind::Add, Broadcast::Scalar, less, one);
            let moved = net.binary(BinaryKind::Mul, Broadcast::Column, angles, factor);
            after.set(angles, moved);
        }
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let x = match rotation(at, net) {
            Some(rotation) => rotation.of_rows(net, x, false),
            None => x,
        };
        at.linear(net, x)
    }

    /// `W Rᵀ`
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        Some(match rotation(at, net) {
            Some(rotation) => rotation.of_rows(net, weight, true),
            None => weight,
        })
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "OFT",
            keys: vec![
                ("bias", json!("none")),
                ("block_share", json!(SHARE.get(values))),
                ("coft", json!(CONSTRAINT.get(values).is_some())),
                ("eps", json!(CONSTRAINT.get(values).unwrap_or(6e-5))),
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_weights", json!(true)),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("module_dropout", json!(0.0)),
                ("num_cayley_neumann_terms", json!(TERMS.get(values))),
                ("oft_block_size", json!(BLOCK_SIZE.get(values))),
                ("r", json!(0)),
                ("use_cayley_neumann", json!(!EXACT.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "OFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let share = config.flag("block_share", false)?;
        let exact = !config.flag("use_cayley_neumann", true)?;
        let terms = config.positive("num_cayley_neumann_terms", 5)?;
        if !exact && !(2..=64).contains(&terms) {
            return Err(Misfit::not_built(format!(
                "`num_cayley_neumann_terms` is {terms}, and 2 to 64 are summed here: this adapter"
            )));
        }
        let constraint = match (config.flag("coft", false)?, config.number("eps", 6e-5)?) {
            (false, _) => None,
            (true, eps) if eps > 0.0 => Some(eps),
            (true, eps) => {
                let message = format!("`eps` is {eps}, and `coft` wants a bound above 0");
                return Err(Misfit::of_config(message));
            }
        };
        for place in file.places()? {
            place.only(&[ANGLES])?;
            let name = place.name(ANGLES);
            let numbers = file.shape(&name).and_then(|s| s.get(1)).copied();
            let size = side(numbers.unwrap_or_default());
            let input = place.site.input();
            if size < 2 || !input.is_multiple_of(size) {
                return Err(Misfit::damaged(format!(
                    "the rotations `{name}` are no blocks of a width of {input}"
                )));
            }
            let own = if share { 1 } else { input / size };
            match constraint {
                None => file.take(&name, place.own(ANGLES), &[own, above(size)])?,
                Some(eps) => {
                    // peft shortens them before each use, and saves them behind the last update.
                    file.check_shape(&name, &[own, above(size)])?;
                    let most = eps / (own as f64).sqrt();
                    file.make(Taken {
                        own: place.own(ANGLES),
                        shape: vec![own, above(size)],
                        from: vec![name.clone()],
                        make: Make::by(move |from| shortened(from, above(size) as usize, most)),
                    })?;
                }
            }
            file.idle(&name, 0.0);
            let mut values = vec![
                (BLOCK_SIZE.name(), Checked::Int(size)),
                (SHARE.name(), Checked::Bool(share)),
                (EXACT.name(), Checked::Bool(exact)),
            ];
            if !exact {
                values.push((TERMS.name(), Checked::Int(terms)));
            }
            values.extend(constraint.map(|eps| (CONSTRAINT.name(), Checked::Float(eps))));
            file.put(&Oft, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (_, own) = blocks(values, site);
        let shape = vec![own as usize, above(BLOCK_SIZE.get(values)) as usize];
        Some(vec![(ANGLES.to_owned(), shape, get(ANGLES)?)])
    }
}
