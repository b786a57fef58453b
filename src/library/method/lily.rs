//! Lily: LoRA whose down maps neighbouring layers share, and whose up map is a mixture of a few that all layers share.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Config, Keys, Misfit, Reading, START as BEGAN, Targets, as_declared};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::lora::{self, MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{Arrange, BinaryKind, Broadcast, Epilogue, MatMul, TopSoftmax};

/// Products that layers share, mixed by a router.
#[derive(Debug)]
pub struct Lily;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (32, "32"),
    "rank r of the products; two to four times that of a LoRA, since there are fewer of them",
);
const STRIDE: Given<u64> = Given::<u64>::new(
    "stride",
    kind::int(1, 1 << 16),
    (1, "1"),
    "neighbouring maps of a group that share a map down; peft calls it `stride_A`",
);
const EXPERTS: Given<u64> = Given::<u64>::new(
    "experts",
    kind::int(2, 1 << 12),
    (2, "2"),
    "maps up that a group shares; peft calls it `num_B`",
);
const SCALING: Given<f64> = Given::<f64>::new(
    "scaling",
    kind::float(Bound::None, Bound::None),
    (1.0, "1"),
    "factor of the update",
);
const GROUPS: Maybe<[String]> = Maybe::new(
    "groups",
    kind::TEXTS,
    "ends of paths: maps whose paths have the same end, and that have one shape, share what they share. Maps of one role if not written",
);

static SCHEMA: Schema = Schema {
    name: "lily",
    summary: "low-rank interconnected adaptation: layers share the factors of their updates, and a router mixes those that lead up",
    doc: "y = x W0ᵀ + b + scaling · Σ_e p_e (x Aᵀ) B_e with p = the mean over the text of softmax(x Aᵀ Rᵀ). `stride` neighbouring maps of \
          a group share A [rank, in], all maps of it share the `experts` B_e [rank, out], and each has a router R [experts, rank]. A and R start \
          uniform in ±1/√in and ±1/√rank, and all B_e at 0, so the model starts unchanged. In peft it is LILY, which takes the mean over all \
          texts of a batch and their padding; on one text without padding it is the same. The mean is over the whole text, also for a \
          language model, so text cannot be generated. Backward goes to the lowest adapted map; 16 bytes a trained number. It cannot be merged.",
    paper: "Zhong et al. 2025, \"Low-Rank Interconnected Adaptation across Layers\" (arXiv 2407.09946)",
    keys: &[
        RANK.key(),
        STRIDE.key(),
        EXPERTS.key(),
        SCALING.key(),
        GROUPS.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// Names of the tensors, as peft has them at each map.
const A: &str = "lily_A";
const B: &str = "lily_B";
const ROUTER: &str = "lily_router.weight";

/// What the maps that share are called: their end or role, and their shape.
fn group(values: &Values, site: &Site) -> String {
    let ends = GROUPS.get(values).unwrap_or_default();
    let end = ends.iter().find(|end| site.path.ends_with(end.as_str()));
    let name = end.map_or_else(|| site.role.path(), String::as_str);
    format!("{name}.{}x{}", site.output(), site.input())
}

/// Names of the tensors that the map at a site shares, among the maps of the method.
fn shared(values: &Values, site: &Site, sites: Vec<&Site>) -> [String; 2] {
    let own = group(values, site);
    let mut alike = as_declared(sites)
        .into_iter()
        .filter(|s| group(values, s) == own);
    let number = alike.position(|s| s.path == site.path).unwrap_or_default();
    let leader = number as u64 / STRIDE.get(values);
    [format!("{A}.{own}.{leader}"), format!("{B}.{own}")]
}

/// `A [r, in]`, the `B_e` one below the other `[e r, out]`, and the router `[e, r]`.
fn tensors(at: &At<'_>, net: &mut Net<'_>) -> [Value; 3] {
    let (site, values) = (at.site, at.values);
    let (rank, experts) = (RANK.get(values), EXPERTS.get(values));
    let uniform = |width: u64| Init::Uniform(1.0 / (width as f64).sqrt());
    let [a, b] = shared(values, site, at.placed(net));
    let a = Param::shared(a).shape(&[rank, site.input()]);
    let b = Param::shared(b).shape(&[experts * rank, site.output()]);
    let router = Param::at(site, ROUTER).shape(&[experts, rank]);
    [
        net.tensor(a.start(uniform(site.input()))),
        net.tensor(b),
        net.tensor(router.start(uniform(rank))),
    ]
}

const PEFT_KEYS: Keys = &[
    ("init_weights", WithoutEffect(BEGAN)),
    ("num_B", Used),
    ("r", Used),
    ("scaling", Used),
    ("stride_A", Used),
];

/// The ends of paths by which peft tells groups, if it does so by other than the modules' own names.
fn ends(config: &Config) -> Option<Vec<String>> {
    match &config.targets {
        Targets::Names(names) => {
            let mut names = names.clone();
            names.sort_unstable();
            Some(names)
        }
        // A pattern is one group.
        Targets::Regex(_) => Some(vec![String::new()]),
        Targets::AllLinear | Targets::Present => None,
    }
}

impl Method for Lily {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn averages_texts(&self) -> bool {
        true
    }

    fn adapts(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    /// The router reads whole texts.
    fn reads_all(&self, _: &Values) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let lost = || {
            let ends = GROUPS.get(values)?;
            let found = ends.iter().any(|end| site.path.ends_with(end.as_str()));
            (!found).then(|| Complaint {
                key: GROUPS.name(),
                code: &BAD_METHOD_VALUES,
                message: format!("no end in `groups` is that of `{}`", site.path),
                help: Some("add the end of its path, or remove `groups`".to_owned()),
            })
        };
        lora::check_rank(values, &RANK, site).or_else(lost)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (rank, experts) = (RANK.get(at.values), EXPERTS.get(at.values));
        let [a, b, router] = tensors(at, net);
        let hidden = net.project(x, a);
        let scores = net.project(hidden, router);
        let k = to_u32(experts);
        let shares = net.b.push1(TopSoftmax { k }, &[scores]);
        let shares = net.text_mean(shares);
        // Each text's mixture of the maps up, without a matrix for each text.
        let all = 0..experts * rank;
        let wide = Arrange::new(experts, all.clone().map(|c| [(c / rank, false)]));
        let copies = Arrange::new(rank, all.map(|c| [(c % rank, false)]));
        let (shares, hidden) = (net.arranged(shares, wide), net.arranged(hidden, copies));
        let mixed = net.binary(BinaryKind::Mul, Broadcast::Full, hidden, shares);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(SCALING.get(at.values)))
        };
        net.b.push1(op, &[mixed, b, base])
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("exclude_modules", Json::Null),
            ("init_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("num_B", json!(EXPERTS.get(values))),
            ("r", json!(RANK.get(values))),
            ("scaling", json!(SCALING.get(values))),
            ("stride_A", json!(STRIDE.get(values))),
        ];
        Some(PeftForm {
            kind: "LILY",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "LILY").then_some(PEFT_KEYS)
    }

    /// The file has the shared tensors once for each module.
    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, stride) = (config.positive("r", 32)?, config.positive("stride_A", 1)?);
        let experts = config.positive("num_B", 2)?;
        if experts < 2 {
            return Err(Misfit::of_config("`num_B` must be at least 2"));
        }
        let mut written = vec![
            (RANK.name(), Checked::Int(rank)),
            (STRIDE.name(), Checked::Int(stride)),
            (EXPERTS.name(), Checked::Int(experts)),
            (
                SCALING.name(),
                Checked::Float(config.number("scaling", 1.0)?),
            ),
        ];
        let places = file.places()?;
        if let Some(ends) = ends(config) {
            for place in &places {
                let path = place.module.as_str();
                let mut own = ends.iter().filter(|end| path.ends_with(end.as_str()));
                if let (Some(one), Some(other)) = (own.next(), own.next()) {
                    return Err(Misfit::of_config(format!(
                        "`target_modules` has `{one}` and `{other}`, which both are ends of `{path}`: which modules share is unknown"
                    )));
                }
            }
            written.push((GROUPS.name(), Checked::Names(ends)));
        }
        let mut values = Values::default();
        for (key, value) in &written {
            values.insert(key, value.clone(), crate::base::Span::default(), false);
        }
        let sites: Vec<&Site> = places.iter().map(|p| p.site).collect();
        let mut first: Vec<(String, String)> = Vec::new();
        for place in &places {
            let site = place.site;
            let [a, b, router] =
                [&format!("{A}.weight"), &format!("{B}.weight"), ROUTER].map(|s| place.name(s));
            place.only(&["lily_A.weight", "lily_B.weight", ROUTER])?;
            let wide = experts.saturating_mul(rank);
            file.idle(&b, 0.0);
            let shapes = [[rank, site.input()], [wide, site.output()]];
            let own = shared(&values, site, sites.clone());
            for ((name, own), shape) in [a, b].into_iter().zip(own).zip(shapes) {
                file.check_shape(&name, &shape)?;
                match first.iter().find(|(known, _)| *known == own) {
                    Some((_, other)) if file.numbers(other)? == file.numbers(&name)? => {
                        file.read(&name)?;
                    }
                    Some((_, other)) => {
                        return Err(Misfit::damaged(format!(
                            "`{name}` is another than `{other}`, which share one tensor by `stride_A` and `target_modules`"
                        )));
                    }
                    None => {
                        file.take(&name, own.clone(), &shape)?;
                        first.push((own, name));
                    }
                }
            }
            file.take(&router, place.own(ROUTER), &[experts, rank])?;
            file.put(&Lily, site, written.clone());
        }
        Ok(())
    }

    fn peft_tensors(&self, values: &Values, _: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let [rank, experts] = [&RANK, &EXPERTS].map(|key| key.get(values) as usize);
        Some(vec![(ROUTER.to_owned(), vec![experts, rank], get(ROUTER)?)])
    }

    fn peft_together(&self, values: &Values, sites: &[&Site], get: &Lookup<'_>) -> PeftTogether {
        let [rank, experts] = [&RANK, &EXPERTS].map(|key| key.get(values) as usize);
        let mut made = Vec::new();
        for site in sites {
            let [a, b] = shared(values, site, sites.to_vec());
            let (input, output) = (site.input() as usize, site.output() as usize);
            let name = |part: &str| format!("{}.{part}.weight", site.path);
            made.push((name(A), vec![rank, input], get(&a)?));
            made.push((name(B), vec![experts * rank, output], get(&b)?));
        }
        Some((Vec::new(), made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::net::Role;

    #[test]
    fn neighbours_of_a_group_share_a_map_down_and_all_of_it_a_map_up() {
        let site = |layer: u64, name: &str, role, sizes| {
            Site::linear(format!("h.{layer}.{name}"), role, sizes).in_layer(Some(layer))
        };
        let mut sites: Vec<Site> = (0..3)
            .flat_map(|i| {
                [
                    site(i, "q", Role::Query, (8, 8)),
                    site(i, "v", Role::Value, (8, 4)),
                ]
            })
            .collect();
        sites.push(site(3, "q", Role::Query, (8, 6)));
        let mut values = Values::default();
        values.insert(
            STRIDE.name(),
            Checked::Int(2),
            crate::base::Span::default(),
            true,
        );
        let names = |path: &str| {
            let site = sites.iter().find(|s| s.path == path).unwrap();
            shared(&values, site, sites.iter().collect())
        };
        assert_eq!(names("h.0.q"), names("h.1.q"));
        assert_ne!(names("h.1.q")[0], names("h.2.q")[0]);
        assert_eq!(names("h.1.q")[1], names("h.2.q")[1]);
        assert_ne!(names("h.0.q")[1], names("h.0.v")[1]);
        // Another shape is another group.
        assert_ne!(names("h.3.q")[1], names("h.0.q")[1]);
    }
}
