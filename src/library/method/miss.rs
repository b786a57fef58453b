//! MiSS: `ΔW` is one trained block, repeated along the input.

use serde_json::{Map, Value as Json, json};

use super::super::net::Param;
use super::super::peft::Fate::{Only, Used};
use super::super::peft::{Keys, Make, Misfit, Reading, Taken};
use super::super::schema::{Checked, Given, kind};
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{Arrange, BlockProduct, Blocks, Epilogue, Identity, MatMul};
use crate::program::{DType, Real};

/// A block that all parts of the input share.
#[derive(Debug)]
pub struct Miss;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (64, "64"),
    "rows r of the block: the input is cut into parts of so many columns",
);
const VARIANT: Given<str> = Given::<str>::new(
    "variant",
    kind::choice(&["miss", "bat", "mini"]),
    ("miss", "miss"),
    "`miss` adds the block to each part of the weight; `bat` adds W · block + block, with a block for each `rank` outputs; `mini` repeats a narrower block along the output too",
);
const MINI_RANK: Given<u64> = Given::<u64>::new(
    "mini_rank",
    kind::WIDTH,
    (1, "1"),
    "columns of the block of `mini`",
);

static SCHEMA: Schema = Schema {
    name: "miss",
    summary: "matrix shard sharing: one trained block added to every part of a weight",
    doc: "y = x W0ᵀ + b + (Σ_i dropout(x)_i) D, where x_i are the parts of `rank` columns of the input and D [rank, out] is \
          trained. It is zero at first, so the model starts unchanged. `variant = bat` adds W_ij D_j + D_j to each block of \
          `rank` by `rank` of the weight, with a D_j for each `rank` outputs, and `variant = mini` has D [rank, mini_rank]. \
          Merges exactly into plain weights and is written in peft's format.",
    paper: "Kang and Yin 2024 (arXiv 2409.15371)",
    keys: &[
        RANK.key(),
        VARIANT.key(),
        MINI_RANK.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const BLOCK: &str = "miss_block";

/// What `values` make of a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Miss,
    Bat,
    Mini,
}

impl Variant {
    fn of(values: &Values) -> Self {
        match VARIANT.get(values) {
            "bat" => Self::Bat,
            "mini" => Self::Mini,
            _ => Self::Miss,
        }
    }
}

/// Sums of the parts of each row: `[N, in] → [N, rank]`. The last part may be shorter.
fn sums(site: &Site, values: &Values) -> Arrange {
    let (rank, input) = (RANK.get(values), site.input());
    let parts = |k| (k..input).step_by(rank as usize).map(|from| (from, false));
    Arrange::new(input, (0..rank).map(parts))
}

/// The block as it is multiplied, `[rank, out]`; the blocks of `bat` one below the other, `[out, rank]`.
fn block(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let (site, rank) = (at.site, RANK.get(at.values));
    let output = site.output();
    let block = |shape: &[u64]| Param::at(site, BLOCK).shape(shape);
    match Variant::of(at.values) {
        Variant::Miss => net.tensor(block(&[rank, output])),
        Variant::Bat => net.tensor(block(&[output, rank])),
        Variant::Mini => {
            let narrow = MINI_RANK.get(at.values);
            let block = net.tensor(block(&[rank, narrow]));
            let again = (0..output).map(|i| [(i % narrow, false)]);
            net.b.push1(Arrange::new(narrow, again), &[block])
        }
    }
}

/// Columns `[out, rank]` as often as the input has parts of them: `[out, in]`.
fn repeated(at: &At<'_>, net: &mut Net<'_>, columns: Value) -> Value {
    let rank = RANK.get(at.values);
    let all = (0..at.site.input()).map(|i| [(i % rank, false)]);
    net.b.push1(Arrange::new(rank, all), &[columns])
}

/// What `bat` makes of a weight: `W + W D + D`, block by block.
fn bat(at: &At<'_>, net: &mut Net<'_>, weight: Value) -> Value {
    let (site, rank) = (at.site, RANK.get(at.values));
    let (input, output) = (site.input(), site.output());
    let blocks = block(at, net);
    // The parts of a row one below the other: those of `rank` rows are multiplied by one block.
    let parts = net.reshaped(weight, output * input / rank, rank);
    let op = BlockProduct::new(to_u32(output / rank), Blocks::STACKED, Blocks::STACKED);
    let product = net.b.push1(op, &[parts, blocks]);
    let product = net.reshaped(product, output, input);
    let added = repeated(at, net, blocks);
    let delta = net.add(product, added);
    net.add(weight, delta)
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_weights", Used),
    ("mini_r", Used),
    ("miss_dropout", Used),
    ("r", Used),
];

impl Method for Miss {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, narrow) = (RANK.get(values), MINI_RANK.get(values));
        let (input, output, path) = (site.input(), site.output(), &site.path);
        let wrong = |key, message, help: &str| {
            Some(Complaint {
                key,
                code: &BAD_METHOD_VALUES,
                message,
                help: Some(help.to_owned()),
            })
        };
        let variant = Variant::of(values);
        if rank > input {
            let message = format!("`rank` is {rank}, and `{path}` has {input} inputs");
            return wrong("rank", message, &format!("write at most `rank = {input}`"));
        }
        if variant == Variant::Bat && (input % rank != 0 || output % rank != 0) {
            let message = format!(
                "`rank` is {rank}, and `{path}` of {output} × {input} is not made of whole blocks of that size"
            );
            return wrong("rank", message, "write a rank that divides both sides");
        }
        if variant == Variant::Bat && DROPOUT.get(values) > 0.0 {
            let message = "`variant = bat` changes the weight itself, where no dropout acts";
            let help = "remove `dropout`, or write another variant";
            return wrong("dropout", message.to_owned(), help);
        }
        if variant == Variant::Mini && output % narrow != 0 {
            let message = format!(
                "`mini_rank` is {narrow}, and `{path}` has {output} outputs, which it does not divide"
            );
            return wrong(
                "mini_rank",
                message,
                "write a number that divides the outputs",
            );
        }
        if variant != Variant::Mini && narrow != 1 {
            let message = "`mini_rank` has no effect without `variant = mini`";
            return wrong(
                "mini_rank",
                message.to_owned(),
                "write `variant = mini`, or remove it",
            );
        }
        None
    }

    fn stacking_with(&self, values: &Values) -> Stacking {
        match Variant::of(values) {
            Variant::Bat => Stacking::Alone,
            Variant::Miss | Variant::Mini => Stacking::Over,
        }
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        if Variant::of(at.values) == Variant::Bat {
            let weight = net.weight(at.site);
            let weight = bat(at, net, weight);
            return net.affine(at.site, x, weight);
        }
        let base = at.linear(net, x);
        let block = block(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), block);
        let sums = net.b.push1(sums(at.site, at.values), &[x]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        net.b.push1(op, &[sums, block, base])
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        if Variant::of(at.values) == Variant::Bat {
            return Some(bat(at, net, weight));
        }
        let block = block(at, net);
        let (n, dtype) = (to_u32(RANK.get(at.values)), DType::F32);
        let one = net.b.push1(Identity { n, dtype }, &[]);
        let turned = MatMul::plain(true, false, Real::new(1.0));
        let turned = net.b.push1(turned, &[block, one]);
        let delta = repeated(at, net, turned);
        Some(net.add(weight, delta))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let variant = match Variant::of(values) {
            Variant::Miss => json!(true),
            Variant::Bat => json!("bat"),
            Variant::Mini => json!("mini"),
        };
        let keys = vec![
            ("bias", json!("none")),
            ("init_weights", variant),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("mini_r", json!(MINI_RANK.get(values))),
            ("miss_dropout", json!(DROPOUT.get(values))),
            ("r", json!(RANK.get(values))),
        ];
        Some(PeftForm {
            kind: "MISS",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "MISS").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, narrow) = (config.positive("r", 64)?, config.positive("mini_r", 1)?);
        let dropout = config.rate("miss_dropout")?;
        let variant = match config.get("init_weights").and_then(Json::as_str) {
            None => "miss",
            Some(name @ ("bat" | "mini")) => name,
            Some(other) => {
                let what =
                    format!("`init_weights` is `{other}`, which says no variant that is known");
                return Err(Misfit::of_config(what));
            }
        };
        for place in file.places()? {
            place.only(&[BLOCK])?;
            let (name, output) = (place.name(BLOCK), place.site.output());
            let (theirs, own) = match variant {
                "bat" => (vec![output / rank, rank, rank], vec![output, rank]),
                "mini" => (vec![rank, narrow], vec![rank, narrow]),
                _ => (vec![rank, output], vec![rank, output]),
            };
            file.check_shape(&name, &theirs)?;
            file.idle(&name, 0.0);
            file.make(Taken {
                own: place.own(BLOCK),
                shape: own,
                from: vec![name],
                make: Make::Same,
            })?;
            let mut values = vec![
                (RANK.name(), Checked::Int(rank)),
                (VARIANT.name(), Checked::Str(variant.to_owned())),
                // `bat` has no dropout in peft either.
                (
                    DROPOUT.name(),
                    Checked::Float(if variant == "bat" { 0.0 } else { dropout }),
                ),
            ];
            if variant == "mini" {
                values.push((MINI_RANK.name(), Checked::Int(narrow)));
            }
            file.put(&Miss, place.site, values);
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
        let shape = match Variant::of(values) {
            Variant::Miss => vec![rank, output],
            Variant::Bat => vec![output / rank, rank, rank],
            Variant::Mini => vec![rank, MINI_RANK.get(values) as usize],
        };
        Some(vec![(BLOCK.to_owned(), shape, get(BLOCK)?)])
    }
}
