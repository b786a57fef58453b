//! `init = eva`: the pair of LoRA begins with principal components of what enters its map (arXiv 2410.07170).

use std::sync::Arc;

use super::super::derive::components::{Components, Eva, Factor, Half};
use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, kind};
use super::pair::{INIT, RATE_B};
use super::{At, Complaint, Lookup, Net, PeftTensor, Site, Value, Values, lora};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast};

/// The start's name.
pub(super) const EVA: &str = "eva";
/// The largest share of its rank that a map can get: that of peft, beyond which nothing changes for usual ranks.
const MOST: f64 = 1000.0;

pub(crate) const RHO: Given<f64> = Given::<f64>::tacit(
    "eva_rho",
    kind::float(Bound::Incl(1.0), Bound::Incl(MOST)),
    (2.0, "2"),
    "how many times its `rank` a map can get under `init = eva`, which also is what its tensors have room for; with 1 all keep theirs",
);
pub(crate) const TAU: Given<f64> = Given::<f64>::tacit(
    "eva_tau",
    kind::float(Bound::Incl(0.0), Bound::Incl(1.0)),
    (0.99, "0.99"),
    "the cosine of a component with that of the batch before from which on `init = eva` takes it as known",
);
pub(crate) const WHITEN: Given<bool> = Given::<bool>::tacit(
    "eva_whiten",
    kind::BOOL,
    (false, "false"),
    "whether `init = eva` divides each component by the root of its singular value",
);
pub(crate) const SCALES: Given<bool> = Given::<bool>::tacit(
    "eva_adjust_scaling",
    kind::BOOL,
    (true, "true"),
    "whether `alpha` grows and shrinks with the rank that `init = eva` gives a map, so that alpha / rank stays what it is",
);
pub(crate) const LEARNED: Given<bool> = Given::<bool>::tacit(
    "eva_learned",
    kind::BOOL,
    (true, "true"),
    "whether only tokens that are learned count for `init = eva`, where a task learns tokens; in other tasks, and for sources of targets, all count",
);

/// Whether a pair begins so.
pub(super) fn begins(values: &Values) -> bool {
    INIT.get(values) == EVA
}

/// What a pair begins with.
fn components(values: &Values, site: &Site) -> Components {
    Components {
        site: site.path.clone(),
        input: site.input(),
        rank: lora::RANK.get(values),
        how: Eva {
            rho: Real::new(RHO.get(values)),
            tau: Real::new(TAU.get(values)),
            whiten: WHITEN.get(values),
            learned: LEARNED.get(values),
        },
        factor: match (SCALES.get(values), lora::RS_LORA.get(values)) {
            (true, false) => Factor::Same,
            (true, true) => Factor::Root,
            (false, false) => Factor::Inverse,
            (false, true) => Factor::InverseRoot,
        },
    }
}

/// The rank that its tensors have room for.
pub(super) fn room(values: &Values) -> u64 {
    (lora::RANK.get(values) as f64 * RHO.get(values)).round_ties_even() as u64
}

/// Name of the factor of each row, where it is not the same for all ranks.
const FACTORS: &str = "lora_factor";

/// `A [room, in]` and `B [out, room]`. Rows of A behind the map's rank are zero, and so is what B has for them: neither
/// has a gradient.
pub(super) fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, by) = (at.site, Arc::new(components(at.values, at.site)));
    let (room, factor) = (by.room(), by.factor);
    let start = |half| Init::Component {
        by: by.clone(),
        half,
    };
    let a = Param::at(site, "lora_A.weight").shape(&[room, site.input()]);
    let b = Param::at(site, "lora_B.weight").shape(&[site.output(), room]);
    let a = net.tensor(a.start(start(Half::Rows)));
    let b = net.tensor(b.rate(RATE_B.get(at.values)));
    if factor == Factor::Same {
        return (a, b);
    }
    let own = Param::at(site, FACTORS).shape(&[room]);
    let own = net.tensor(own.frozen().start(start(Half::Factors)));
    (a, net.binary(BinaryKind::Mul, Broadcast::Row, b, own))
}

/// The pair under peft's names, with its factors in B.
pub(super) fn peft_tensors(
    values: &Values,
    site: &Site,
    get: &Lookup<'_>,
) -> Option<Vec<PeftTensor>> {
    let by = components(values, site);
    let room = by.room() as usize;
    let (input, output) = (site.input() as usize, site.output() as usize);
    let (a, mut b) = (get("lora_A.weight")?, get("lora_B.weight")?);
    if by.factor != Factor::Same {
        let own = get(FACTORS)?;
        for row in b.chunks_exact_mut(room.max(1)) {
            row.iter_mut().zip(&own).for_each(|(x, by)| *x *= by);
        }
    }
    Some(vec![
        ("lora_A.weight".to_owned(), vec![room, input], a),
        ("lora_B.weight".to_owned(), vec![output, room], b),
    ])
}

/// What is wrong with the keys of this start, if anything.
pub(super) fn check(values: &Values, site: &Site) -> Option<Complaint> {
    let wrong = |key: &'static str, message: String, help: String| {
        Some(Complaint {
            key,
            code: &BAD_METHOD_VALUES,
            message,
            help: Some(help),
        })
    };
    if !begins(values) {
        let written = [
            (RHO.name(), RHO.is_written(values)),
            (TAU.name(), TAU.is_written(values)),
            (WHITEN.name(), WHITEN.is_written(values)),
            (SCALES.name(), SCALES.is_written(values)),
            (LEARNED.name(), LEARNED.is_written(values)),
        ];
        let (key, _) = written.into_iter().find(|(_, written)| *written)?;
        return wrong(
            key,
            format!("`{key}` has no effect without `init = eva`"),
            "write `init = eva`, or remove the key".to_owned(),
        );
    }
    if site.role.is_head() {
        return wrong(
            INIT.name(),
            format!(
                "`init = eva` begins with what enters a map of the backbone, and `{}` is of the head",
                site.path
            ),
            "write two entries, and `init` in the one without the head".to_owned(),
        );
    }
    let (rank, width) = (lora::RANK.get(values), site.input());
    (room(values) > width).then(|| Complaint {
        key: RHO.name(),
        code: &BAD_METHOD_VALUES,
        message: format!(
            "`{}` reads {width} numbers, which have no {} components: `rank = {rank}` times `eva_rho = {}`",
            site.path,
            room(values),
            RHO.get(values)
        ),
        help: Some("write a smaller `rank` or `eva_rho`".to_owned()),
    })
}
