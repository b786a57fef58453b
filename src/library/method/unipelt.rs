//! UniPELT (methods A5): a prefix, a Pfeiffer adapter and LoRA in each block, each behind a gate that reads the text.

use super::super::model::Reserved;
use super::super::net::{Attend, Init, Param, Part, Role};
use super::super::schema::{Given, Maybe, kind};
use super::bottleneck::{self, Bottleneck, First, REDUCTION, SIZE};
use super::encoder::map;
use super::{At, Method, Net, Schema, Site, Value, Values, lora};
use crate::library::counts::to_u32;
use crate::library::decl::RATE;
use crate::library::placement::Placement;
use crate::program::op::{ActivationKind, BinaryKind, Broadcast};

/// Three methods behind gates.
#[derive(Debug)]
pub struct Unipelt;

const TOKENS: Given<u64> = Given::<u64>::new(
    "tokens",
    kind::int(1, 1 << 20),
    (10, "10"),
    "keys and values of the prefix",
);
const HIDDEN: Given<u64> = Given::<u64>::new(
    "hidden",
    kind::int(1, 1 << 20),
    (512, "512"),
    "width of the network that makes the prefix",
);
const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (8, "8"),
    "rank of LoRA's updates, whose factor is the gate",
);
const DROPOUT: Given<f64> =
    Given::<f64>::new("dropout", RATE, (0.0, "0"), "dropout on what LoRA reads");
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "{attention, ffn, attention.{query, value}}",
    "attentions get a prefix, feed-forward networks an adapter, linear maps LoRA; without the maps it is the paper's AP",
);

static SCHEMA: Schema = Schema {
    name: "unipelt",
    summary: "UniPELT: a prefix, an adapter and LoRA in each block, each behind a gate that reads the text",
    doc: "A gate is the mean over a text's tokens of sigmoid(w x + b), one number a text and module, of what the module reads. On \
          linear maps y = x Wᵀ + b + G · (drop(x) Aᵀ) Bᵀ, the gate in the place of alpha / rank. On attentions the keys and \
          values [G · P_K; K] and [G · P_V; V], with a prefix made by a network as in `prefix_tuning { projection = true }`; a \
          text's positions stay. On feed-forward networks a Pfeiffer adapter, times its gate. It cannot be merged, since its gates \
          read the text, nor generate token by token. peft has no equal. Backward goes through the whole model; 16 bytes a \
          trained number.",
    paper: "Mao et al. 2022 (arXiv 2110.07577), section 3",
    keys: &[
        TOKENS.key(),
        HIDDEN.key(),
        RANK.key(),
        DROPOUT.key(),
        REDUCTION.key(),
        SIZE.key(),
        ON.key(),
    ],
};

/// Keys and values of the prefix at a site, `[P, width]` both.
fn prefix(values: &Values, site: &Site, net: &mut Net<'_>) -> [Value; 2] {
    let (count, width, hidden) = (TOKENS.get(values), site.input(), HIDDEN.get(values));
    let rows = Param::shared("unipelt.embedding").shape(&[count, width]);
    let rows = net.tensor(rows.start(Init::Normal(1.0)));
    let down = |kind: &str| Param::shared(format!("unipelt.down.{kind}"));
    let (weight, bias) = map(net, &down, (hidden, width));
    let z = net.dense(rows, weight, bias);
    let z = net.activation(ActivationKind::Tanh, z);
    ["key", "value"].map(|name| {
        let made = |kind: &str| Param::at(site, &format!("unipelt.{name}.{kind}"));
        let (weight, bias) = map(net, &made, (width, hidden));
        net.dense(z, weight, bias)
    })
}

impl Method for Unipelt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        match site.part {
            Part::Attention { .. } | Part::Linear { .. } => true,
            Part::Sublayer { .. } => site.role == Role::Ffn,
            _ => false,
        }
    }

    fn reads_all(&self, _: &Values) -> bool {
        true
    }

    fn reserved(&self, values: &Values) -> Reserved {
        Reserved {
            prefix: to_u32(TOKENS.get(values)),
            ..Reserved::default()
        }
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let (site, rank) = (at.site, RANK.get(at.values));
        let base = at.linear(net, x);
        let bound = 1.0 / (site.input() as f64).sqrt();
        let a = Param::at(site, "lora_A.weight").shape(&[rank, site.input()]);
        let a = net.tensor(a.start(Init::Uniform(bound)));
        let b = net.tensor(Param::at(site, "lora_B.weight").shape(&[site.output(), rank]));
        let dropped = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(dropped, a);
        let added = net.project(z, b);
        let added = bottleneck::gated(net, (site, "lora"), x, added);
        net.add(base, added)
    }

    fn attention(&self, at: &At<'_>, net: &mut Net<'_>, of: Attend) -> Value {
        let (site, count) = (at.site, TOKENS.get(at.values));
        let rows = prefix(at.values, site, net);
        let open = bottleneck::opening(net, (site, "prefix"), of.read);
        let factors = net.factors_of_prefix(open, count);
        let plain = net.behind_prefix(of, count, (rows[0], rows[1]));
        let mut scaled = |x| net.binary(BinaryKind::Mul, Broadcast::Column, x, factors);
        let (keys, values) = (scaled(plain.keys), scaled(plain.values));
        at.attention(
            net,
            Attend {
                keys,
                values,
                ..plain
            },
        )
    }

    fn output(&self, at: &At<'_>, net: &mut Net<'_>, x: Value, h: Value) -> Value {
        let (values, site) = (at.values, at.site);
        let width = site.output();
        let read = match at.norm {
            Some(norm) => {
                let sum = net.add(h, x);
                net.layer_norm(norm.site, sum, norm.eps)
            }
            None => h,
        };
        let own = Bottleneck {
            name: "adapter",
            sizes: (width, bottleneck::size(values, width), width),
            function: ActivationKind::Relu,
            init: (First::Normal(0.02), First::Normal(0.02)),
            bias: true,
        };
        let added = own.apply(net, site, read, 0.0);
        let added = bottleneck::gated(net, (site, own.name), read, added);
        net.add(h, added)
    }

    fn check(&self, values: &Values, site: &Site) -> Option<super::Complaint> {
        site.is_linear()
            .then(|| lora::check_rank(values, &RANK, site))
            .flatten()
    }
}
