//! Super-Tuning: the largest numbers of each matrix are trained, alone or beside a low-rank product (Supra).

use serde_json::{Map, Value as Json, json};

use super::super::derive::places::Score;
use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Place, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::lora::{DROPOUT, ON};
use super::sparse::{self, PLACES, VALUES};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, number,
};
use crate::library::error::{BAD_METHOD_VALUES, IDLE_KEY, RANK_TOO_LARGE};

/// Trained numbers at the largest weights, and a product beside them.
#[derive(Debug)]
pub struct SuperTuning;

/// The tensors' names in peft's format.
const NUMBERS: &str = "supertuning_values";
const INDICES: &str = "supertuning_indices";
const A: &str = "supertuning_lora_A.weight";
const B: &str = "supertuning_lora_B.weight";
/// Numbers up to which f32 has all whole ones, as which peft's indices are written and read.
const EXACT: u64 = 1 << 24;

const SPARSITY: Given<f64> = Given::<f64>::new(
    "sparsity",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.99, "0.99"),
    "share of each matrix' numbers that is not trained",
);
const SELECT: Given<str> = Given::<str>::new(
    "select",
    kind::choice(&["largest", "smallest"]),
    ("largest", "largest"),
    "which numbers are trained, by their absolute values",
);
const RANK: Maybe<u64> = Maybe::new(
    "rank",
    kind::WIDTH,
    "rank of a LoRA beside the numbers (Supra); none if not written",
);
const ALPHA: Maybe<f64> = Maybe::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    "scale of the LoRA, which is multiplied by alpha / rank; twice the rank if not written",
);

static SCHEMA: Schema = Schema {
    name: "supertuning",
    summary: "super-tuning: the largest numbers of each matrix are trained, alone or beside a LoRA",
    doc: "y = x (W0 + S)ᵀ + b [+ s · (dropout(x) Aᵀ) Bᵀ], where S has trained numbers at the places of the largest |W0| of each matrix and zeros \
          elsewhere; they start at 0, so the model starts unchanged. `sparsity` is the share without one. With `rank` a LoRA \
          stands beside it (Supra). Only gradients at the places are computed: 20 bytes a trained number with AdamW, its place among them. \
          `magnitude_mask` ranks all matrices together. Merges exactly. In peft it is SUPERTUNING, on matrices of at most 2²⁴ numbers.",
    paper: "Super-Tuning and Supra, 2026 (arXiv 2607.09287)",
    keys: &[
        SPARSITY.key(),
        SELECT.key(),
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        ON.key(),
    ],
};

/// Trained numbers of a matrix, as peft counts them.
fn count(values: &Values, site: &Site) -> u64 {
    (sparse::size(site) as f64 * (1.0 - SPARSITY.get(values))) as u64
}

fn delta(at: &At<'_>, net: &mut Net<'_>) -> sparse::Delta {
    let score = match SELECT.get(at.values) {
        "smallest" => Score::Smallest,
        _ => Score::Magnitude,
    };
    sparse::own(at, net, count(at.values, at.site), score)
}

/// `A [r, in]`, `B [out, r]` and the factor of the product, if there is one.
fn pair(at: &At<'_>, net: &mut Net<'_>) -> Option<(Value, Value, f64)> {
    let (site, rank) = (at.site, RANK.get(at.values)?);
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    let (a, b) = (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b));
    let scale = ALPHA
        .get(at.values)
        .map_or(2.0, |alpha| alpha / rank as f64);
    Some((a, b, scale))
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("init_weights", WithoutEffect(BEGAN)),
    ("lora_alpha", Used),
    ("lora_dropout", Used),
    ("r", Used),
    (
        "save_precomputed_indices",
        WithoutEffect("the file has indices, or is refused"),
    ),
    (
        "select_top",
        WithoutEffect("of places that are in the file"),
    ),
    ("sparsity", Used),
];

/// Takes a matrix' numbers and places.
fn read(file: &mut Reading<'_>, place: &Place<'_>, count: u64) -> Result<(), Misfit> {
    let (values, places) = (place.name(NUMBERS), place.name(INDICES));
    file.take(&values, place.own(VALUES), &[count])?;
    if file.shape(&places).is_none() {
        return Err(Misfit::not_built(format!(
            "the adapter has no `{places}`: choosing them again by the base's weights, as `save_precomputed_indices = false` asks for,"
        )));
    }
    file.check_shape(&places, &[count])?;
    let all = sparse::size(place.site);
    let make = Make::by(move |from| {
        let (_, numbers) = from.first().ok_or("there are no places")?;
        let mut seen = std::collections::BTreeSet::new();
        let one = |&place: &f32| {
            let inside = place.fract() == 0.0 && place >= 0.0 && (place as u64) < all;
            if !inside || !seen.insert(place as u64) {
                return Err(format!(
                    "it has the place {place} twice, or the matrix has not got it"
                ));
            }
            Ok(f32::from_bits(place as u32))
        };
        numbers.iter().map(one).collect()
    });
    file.make(Taken {
        own: place.own(PLACES),
        shape: vec![count],
        from: vec![places],
        make,
    })
}

impl Method for SuperTuning {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        if count(values, site) == 0 {
            return Some(Complaint {
                key: SPARSITY.name(),
                code: &BAD_METHOD_VALUES,
                message: format!(
                    "`sparsity` leaves none of the {} numbers of `{}` to train",
                    sparse::size(site),
                    site.path
                ),
                help: Some(format!("write a lower `{}`", SPARSITY.name())),
            });
        }
        let Some(rank) = RANK.get(values) else {
            // An artifact has a value for every key with a default, so that what is written tells nothing there.
            let given = [
                (ALPHA.name(), ALPHA.get(values).is_some()),
                (DROPOUT.name(), DROPOUT.get(values) > 0.0),
            ];
            let idle = given.into_iter().find(|(_, is_given)| *is_given);
            return idle
                .map(|(key, _)| Complaint {
                    key,
                    code: &IDLE_KEY,
                    message: format!("`{key}` says something of the LoRA that `rank` puts beside"),
                    help: Some(format!("remove `{key}`, or write `rank`")),
                })
                .or_else(|| sparse::check_size(site));
        };
        let most = site.input().min(site.output());
        let large = (rank > most).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, but `{}` is a matrix of {} × {}",
                site.path,
                site.output(),
                site.input()
            ),
            help: Some(format!("write at most `rank = {most}`")),
        });
        large.or_else(|| sparse::check_size(site))
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let sum = delta(at, net).linear(at, net, x);
        let Some((a, b, scale)) = pair(at, net) else {
            return sum;
        };
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        net.project_onto(sum, z, b, scale)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let sum = delta(at, net).merged(at, net)?;
        let Some((a, b, scale)) = pair(at, net) else {
            return Some(sum);
        };
        let product = net.times((b, false), (a, false));
        let product = net.scaled(product, scale);
        Some(net.add(sum, product))
    }

    fn peft_turned(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "SUPERTUNING",
            keys: vec![
                ("init_weights", json!(true)),
                ("lora_alpha", ALPHA.get(values).map_or(Json::Null, number)),
                ("lora_dropout", json!(DROPOUT.get(values))),
                ("r", json!(RANK.get(values))),
                ("save_precomputed_indices", json!(true)),
                ("select_top", json!(SELECT.get(values) == "largest")),
                ("sparsity", json!(SPARSITY.get(values))),
            ],
            product: None,
        })
    }

    fn peft_at(&self, values: &Values, site: &Site) -> Option<PeftForm> {
        (sparse::size(site) <= EXACT).then(|| self.peft(values))?
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "SUPERTUNING").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (sparsity, rank) = (config.number("sparsity", 0.99)?, config.whole("r", 0)?);
        if !(0.0..1.0).contains(&sparsity) {
            return Err(Misfit::of_config(format!(
                "`sparsity` is {sparsity}, which is no share below 1"
            )));
        }
        let alpha = config.number("lora_alpha", 2.0 * rank as f64)?;
        let mut values = vec![(SPARSITY.name(), Checked::Float(sparsity))];
        if rank > 0 {
            values.push((RANK.name(), Checked::Int(rank)));
            values.push((ALPHA.name(), Checked::Float(alpha)));
            let dropout = config.rate("lora_dropout")?;
            values.push((DROPOUT.name(), Checked::Float(dropout)));
        }
        for place in file.places()? {
            place.only(&[NUMBERS, INDICES, A, B])?;
            let site = place.site;
            let count = (sparse::size(site) as f64 * (1.0 - sparsity)) as u64;
            read(file, &place, count)?;
            if rank > 0 {
                file.take(&place.name(A), place.own(A), &[rank, site.input()])?;
                file.take(&place.name(B), place.own(B), &[site.output(), rank])?;
                file.idle(&place.name(B), 0.0);
            }
            file.idle(&place.name(NUMBERS), 0.0);
            file.put(&SuperTuning, site, values.clone());
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (numbers, places) = (get(VALUES)?, get(PLACES)?);
        let count = numbers.len();
        let places = places.iter().map(|p| p.to_bits() as f32).collect();
        let mut made = vec![
            (NUMBERS.to_owned(), vec![count], numbers),
            (INDICES.to_owned(), vec![count], places),
        ];
        if let Some(rank) = RANK.get(values) {
            let [rank, input, output] = [rank, site.input(), site.output()].map(|n| n as usize);
            made.push((A.to_owned(), vec![rank, input], get(A)?));
            made.push((B.to_owned(), vec![output, rank], get(B)?));
        }
        Some(made)
    }
}
