//! What methods share whose update is sparse: numbers at places of frozen matrices, chosen before the first step.
//!
//! A matrix has a list of its own, or a part of one list that all matrices share, where the places are chosen among
//! those of all of them.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::derive::BaseParam;
use super::super::derive::places::{Choice, Part, Score};
use super::super::net::{Init, Param};
use super::super::peft::{Make, Misfit, Place, Reading, Taken};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::{At, Complaint, Lookup, Net, PeftForm, PeftTensor, PeftTogether, Site, Value, Values};
use crate::library::counts::to_u32;
use crate::library::error::CONFLICTING_KEYS;
use crate::library::placement::Placement;
use crate::program::op::{AddAt, Indices, Places, SparseProduct};

/// Names of a matrix' own tensors, as peft has them.
pub(super) const VALUES: &str = "shira_weight";
pub(super) const PLACES: &str = "shira_indices";
/// Names of those that all matrices share.
const SHARED: [&str; 3] = ["sparse.values", "sparse.places", "sparse.bounds"];

/// A sparse update of more than this share of a matrix is added to the weight, and multiplied with it: a product of all
/// costs less then, and so does the gradient of all of it.
const DENSE: f64 = 0.25;

pub(super) const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention.*, ffn.*}",
    "which linear maps have trained numbers",
);
pub(super) const DENSITY: Given<f64> = Given::<f64>::new(
    "density",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.005, "0.005"),
    "share of the numbers of these matrices that is trained",
);

/// The update of a matrix.
pub(super) struct Delta {
    places: Places,
    values: Value,
    ids: Value,
    bounds: Option<Value>,
    /// Whether it has a large share of the matrix' numbers.
    dense: bool,
}

fn weight(site: &Site) -> BaseParam {
    BaseParam::weight(&site.path, [site.output(), site.input()])
}

/// Numbers of a matrix.
pub(super) fn size(site: &Site) -> u64 {
    site.input().saturating_mul(site.output())
}

/// A share of so many, one at least.
pub(super) fn share(density: f64, of: u64) -> u64 {
    ((density * of as f64).round() as u64).clamp(1.min(of), of)
}

/// An update of `count` places, ranked among those of the matrix itself.
pub(super) fn own(at: &At<'_>, net: &mut Net<'_>, count: u64, score: Score) -> Delta {
    let site = at.site;
    let by = Arc::new(Choice {
        score,
        of: vec![weight(site)],
        count,
        side: 1,
    });
    let part = Part::Places;
    let ids = Param::at(site, PLACES).shape(&[count]).of_places();
    Delta {
        places: Places::entries(site.output(), site.input()),
        ids: net.places(ids.start(Init::Chosen { by, part })),
        values: net.tensor(Param::at(site, VALUES).shape(&[count])),
        bounds: None,
        dense: count as f64 > DENSE * size(site) as f64,
    }
}

/// How many places all matrices share.
pub(super) enum Count {
    /// A share of all numbers.
    Share(f64),
    /// So many blocks of so many rows and columns.
    Blocks(u64, u64),
}

/// An update of the matrix' share of places that are ranked among those of all matrices the method is placed at.
pub(super) fn shared(
    at: &At<'_>,
    net: &mut Net<'_>,
    count: &Count,
    (score, goes_on): (Score, bool),
) -> Delta {
    let placed = at.placed(net);
    let segment = placed.iter().position(|s| s.path == at.site.path);
    let of: Vec<BaseParam> = placed.into_iter().map(weight).collect();
    let all: u64 = of.iter().map(|m| m.shape.iter().product::<u64>()).sum();
    let (lists, side) = (of.len() as u64, count.side());
    let count = match *count {
        Count::Share(density) => share(density, all),
        Count::Blocks(blocks, side) => blocks.clamp(1, (all / (side * side)).max(1)),
    };
    let by = Arc::new(Choice {
        score,
        of,
        count,
        side,
    });
    let ([values, places, bounds], blocks) = (SHARED, [count * side, side]);
    let chosen = |name: &str, count: u64, part: Part| {
        let by = by.clone();
        let list = Param::shared(name).shape(&[count]).of_places();
        list.start(Init::Chosen { by, part })
    };
    let ids = net.places(chosen(places, count, Part::Places));
    let bounds = net.places(chosen(bounds, lists + 1, Part::Bounds));
    let numbers = if side == 1 { &[count][..] } else { &blocks };
    let own = Param::shared(values).shape(numbers);
    let own = match goes_on {
        true => own.start(Init::Chosen {
            by: by.clone(),
            part: Part::Moved,
        }),
        false => own,
    };
    Delta {
        places: Places {
            segment: Some(to_u32(segment.unwrap_or(0))),
            side: to_u32(side),
            ..Places::entries(at.site.output(), at.site.input())
        },
        ids,
        bounds: Some(bounds),
        values: net.tensor(own),
        dense: (count * side * side) as f64 > DENSE * all as f64,
    }
}

impl Count {
    const fn side(&self) -> u64 {
        match self {
            Self::Share(_) => 1,
            Self::Blocks(_, side) => *side,
        }
    }
}

impl Delta {
    /// Of numbers at distinct places of the matrix, which are the same in every pass.
    pub(super) fn at(net: &mut Net<'_>, site: &Site, values: Value, places: Vec<u32>) -> Self {
        let dense = places.len() as f64 > DENSE * size(site) as f64;
        Self {
            places: Places::entries(site.output(), site.input()),
            values,
            ids: net.b.push1(Indices { list: places }, &[]),
            bounds: None,
            dense,
        }
    }

    /// `W + S`
    fn added(&self, net: &mut Net<'_>, weight: Value) -> Value {
        let mut inputs = vec![weight, self.values, self.ids];
        inputs.extend(self.bounds);
        let places = self.places;
        net.b.push1(AddAt { places }, &inputs)
    }

    /// The linear map with the update: the map below and a sparse product, or a product with the sum of both.
    pub(super) fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        // Methods below may do more than their weight, as dropout does.
        if self.dense
            && at.below.is_empty()
            && let Some(weight) = at.weight(net)
        {
            let weight = self.added(net, weight);
            return net.affine(at.site, x, weight);
        }
        let base = at.linear(net, x);
        let mut inputs = vec![base, x, self.values, self.ids];
        inputs.extend(self.bounds);
        net.b.push1(SparseProduct::new(self.places, true), &inputs)
    }

    /// The plain weight that does the same.
    pub(super) fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        Some(self.added(net, weight))
    }
}

/// A complaint about a matrix whose places do not fit into 32 bits.
pub(super) fn check_size(site: &Site) -> Option<Complaint> {
    (size(site) > u64::from(u32::MAX)).then(|| Complaint {
        key: ON.name(),
        code: &CONFLICTING_KEYS,
        message: format!(
            "`{}` has {} × {} numbers, and places are counted in 32 bits",
            site.path,
            site.output(),
            site.input()
        ),
        help: Some("leave this matrix out of `on`".to_owned()),
    })
}

/// What the update is in peft's format, where its rank is known: places and numbers at them.
pub(super) fn form(rank: Option<u64>) -> PeftForm {
    let mut keys = vec![
        ("fan_in_fan_out", json!(false)),
        ("init_weights", json!(true)),
        ("mask_type", json!("random")),
        ("random_seed", Json::Null),
    ];
    keys.extend(rank.map(|r| ("r", json!(r))));
    PeftForm {
        kind: "SHIRA",
        keys,
        product: None,
    }
}

/// A site's tensors in peft's format.
pub(super) fn own_tensors(site: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
    let (values, places) = (get(VALUES)?, get(PLACES)?);
    Some(tensors(site, &values, &places, values.len()))
}

/// Numbers at places in peft's format, filled up with zeros at places that are free.
fn tensors(site: &Site, values: &[f32], places: &[f32], count: usize) -> Vec<PeftTensor> {
    // Places come as numbers: rows and columns are small, places themselves need not be, so they are split first.
    let width = site.input().max(1);
    let mut list: Vec<u64> = places.iter().map(|&p| u64::from(p.to_bits())).collect();
    let mut values = values.to_vec();
    let mut taken = list.clone();
    taken.sort_unstable();
    let mut taken = taken.into_iter().peekable();
    let free = (0..size(site)).filter(|place| {
        while taken.next_if(|t| t < place).is_some() {}
        taken.peek() != Some(place)
    });
    list.extend(free.take(count.saturating_sub(values.len())));
    values.resize(list.len(), 0.0);
    let rows = list.iter().map(|p| (p / width) as f32);
    let columns = list.iter().map(|p| (p % width) as f32);
    let indices: Vec<f32> = rows.chain(columns).collect();
    vec![
        (VALUES.to_owned(), vec![values.len()], values),
        (PLACES.to_owned(), vec![2, list.len()], indices),
    ]
}

/// Takes a site's numbers and places of a file of peft's.
pub(super) fn read(file: &mut Reading<'_>, place: &Place<'_>, rank: u64) -> Result<(), Misfit> {
    place.only(&[VALUES, PLACES])?;
    let (input, output) = (place.site.input(), place.site.output());
    let count = rank.saturating_mul(input + output);
    let (values, places) = (place.name(VALUES), place.name(PLACES));
    file.take(&values, place.own(VALUES), &[count])?;
    file.idle(&values, 0.0);
    if file.shape(&places) != Some(&[2, count]) {
        let message = format!("`{places}` is not the rows and columns of {count} places");
        return Err(Misfit::damaged(message));
    }
    let make = Make::by(move |from| {
        let (_, numbers) = from.first().ok_or("there are no places")?;
        let (rows, columns) = numbers.split_at(numbers.len() / 2);
        let inside = |x: f32, most: u64| x.fract() == 0.0 && x >= 0.0 && x < most as f32;
        let mut seen = std::collections::BTreeSet::new();
        let one = |(&row, &column): (&f32, &f32)| {
            if !inside(row, output) || !inside(column, input) {
                return Err(format!(
                    "it has a place ({row}, {column}), and the matrix is {output} × {input}"
                ));
            }
            let flat = row as u64 * input + column as u64;
            if !seen.insert(flat) {
                return Err(format!("it has the place ({row}, {column}) twice"));
            }
            Ok(f32::from_bits(to_u32(flat)))
        };
        rows.iter().zip(columns).map(one).collect()
    });
    file.make(Taken {
        own: place.own(PLACES),
        shape: vec![count],
        from: vec![places],
        make,
    })
}

/// A shared list in peft's format: the rank that has room for the most of a matrix, and tensors of each site; `None` where
/// that is more than a matrix has.
pub(super) fn together(sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
    let [values, places, bounds] = SHARED;
    let (values, places, bounds) = (get(values)?, get(places)?, get(bounds)?);
    let bounds: Vec<usize> = bounds.iter().map(|b| b.to_bits() as usize).collect();
    joined(sites, &values, &places, &bounds)
}

/// Lists of each site in peft's format, likewise.
pub(super) fn lists(sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
    let (mut values, mut places, mut bounds) = (Vec::new(), Vec::new(), vec![0]);
    for site in sites {
        values.extend(get(&format!("{}.{VALUES}", site.path))?);
        places.extend(get(&format!("{}.{PLACES}", site.path))?);
        bounds.push(values.len());
    }
    joined(sites, &values, &places, &bounds)
}

fn joined(sites: &[&Site], values: &[f32], places: &[f32], bounds: &[usize]) -> PeftTogether {
    let ranges = || {
        bounds
            .iter()
            .zip(bounds.iter().skip(1))
            .map(|(&a, &b)| a..b)
    };
    let edge = |site: &Site| site.input() + site.output();
    let ranks = sites
        .iter()
        .zip(ranges())
        .map(|(s, r)| (r.len() as u64).div_ceil(edge(s).max(1)));
    let rank = ranks.max()?.max(1);
    let mut made = Vec::new();
    for (site, range) in sites.iter().zip(ranges()) {
        let count = rank * edge(site);
        if count > size(site) {
            return None;
        }
        let own = tensors(
            site,
            values.get(range.clone())?,
            places.get(range)?,
            count as usize,
        );
        let named = own
            .into_iter()
            .map(|(name, dims, data)| (format!("{}.{name}", site.path), dims, data));
        made.extend(named);
    }
    Some((vec![("r", json!(rank))], made))
}

/// The share of numbers that a block of a recipe asks for.
pub(super) fn density(values: &Values) -> Count {
    Count::Share(DENSITY.get(values))
}
