//! BD-LoRA: LoRA one factor of which is block-diagonal, so that shards of a matrix need no exchange for it.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param, Role};
use super::super::peft::{Keys, Misfit, Place, Reading};
use super::super::schema::{Checked, Given, kind};
use super::lora::{self, ALPHA, DROPOUT, MODULES_TO_SAVE, ON, RANK, RS_LORA};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, PeftTogether, Product, Schema, Site,
    Stacking, Value, Values, lora_import,
};
use crate::library::counts::to_u32;
use crate::library::error::BLOCKS_DO_NOT_FIT;
use crate::program::op::{BlockProduct, Blocks};

/// Block-diagonal LoRA.
#[derive(Debug)]
pub struct BdLora;

const BLOCKS: Given<u64> = Given::<u64>::new(
    "blocks",
    kind::int(1, 1 << 16),
    (2, "2"),
    "blocks of the block-diagonal factor: as many as there are shards of a matrix",
);
const FACTOR: Given<str> = Given::<str>::new(
    "factor",
    kind::choice(&["auto", "a", "b"]),
    ("auto", "auto"),
    "which factor is block-diagonal: A or B of all places, or by what each map does: A behind the attention and of the map down, which are \
     cut by rows, B of all others",
);

static SCHEMA: Schema = Schema {
    name: "bdlora",
    summary: "block-diagonal LoRA: one factor of each pair is block-diagonal, so that shards of a model need no exchange for it",
    doc: "y = x W0ᵀ + b + s · (dropout(x) Aᵀ) Bᵀ as LoRA has it, where A [rank, in] or B [out, rank] has `blocks` blocks on its diagonal \
          and zeros elsewhere, which are neither stored nor trained. A starts uniform, in ±√(6·blocks/in) where it is block-diagonal, \
          and B at zero. Merges into plain weights. In peft it is a LoRA with `use_bdlora`, where modules of one name have \
          the same factor block-diagonal.",
    paper: "Hugging Face PEFT, BdLoraConfig",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        lora::RANKS.key(),
        lora::ALPHAS.key(),
        BLOCKS.key(),
        FACTOR.key(),
        DROPOUT.key(),
        RS_LORA.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// Whether A is block-diagonal at a site, and not B.
fn is_a(values: &Values, site: &Site) -> bool {
    match FACTOR.get(values) {
        "a" => true,
        "b" => false,
        _ => matches!(site.role, Role::AttentionOutput | Role::FfnDown),
    }
}

/// Shapes of A and B, of the block-diagonal one with its blocks one below the other.
fn shapes((rank, blocks, of_a): (u64, u64, bool), site: &Site) -> [[u64; 2]; 2] {
    let (input, output) = (site.input(), site.output());
    if of_a {
        [[rank, input / blocks], [output, rank]]
    } else {
        [[rank, input], [output, rank / blocks]]
    }
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, blocks, of_a) = (at.site, BLOCKS.get(at.values), is_a(at.values, at.site));
    let [a, b] = shapes((RANK.get(at.values), blocks, of_a), site);
    let input = site.input() as f64;
    let bound = match of_a {
        true => (6.0 * blocks as f64 / input).sqrt(),
        false => 1.0 / input.sqrt(),
    };
    let a = Param::at(site, A).shape(&a).start(Init::Uniform(bound));
    let b = Param::at(site, B).shape(&b);
    (net.tensor(a), net.tensor(b))
}

impl Method for BdLora {
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
        if let Some(complaint) = lora::check_rank(values, &RANK, site) {
            return Some(complaint);
        }
        let (rank, blocks) = (RANK.get(values), BLOCKS.get(values));
        let (side, what) = match is_a(values, site) {
            true => (site.input(), "columns"),
            false => (site.output(), "rows"),
        };
        let message = if rank % blocks != 0 {
            format!("`rank` is {rank}, which {blocks} blocks do not share evenly")
        } else if side % blocks != 0 {
            let path = &site.path;
            format!("`{path}` has {side} {what}, which {blocks} blocks do not share evenly")
        } else {
            return None;
        };
        Some(Complaint {
            key: BLOCKS.name(),
            code: &BLOCKS_DO_NOT_FIT,
            message,
            help: Some("write a number of `blocks` that divides both".to_owned()),
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (a, b) = factors(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let by_blocks =
            BlockProduct::of_rows(to_u32(BLOCKS.get(at.values)), Blocks::STACKED.transposed());
        let scale = lora::scale(at.values);
        if is_a(at.values, at.site) {
            let z = net.b.push1(by_blocks, &[x, a]);
            return net.project_onto(base, z, b, scale);
        }
        let z = net.project(x, a);
        let y = net.b.push1(by_blocks, &[z, b]);
        let y = net.scaled(y, scale);
        net.add(base, y)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b) = factors(at, net);
        let blocks = to_u32(BLOCKS.get(at.values));
        let op = match is_a(at.values, at.site) {
            true => BlockProduct::of_rows(blocks, Blocks::STACKED),
            false => BlockProduct::new(blocks, Blocks::STACKED, Blocks::STACKED),
        };
        let product = net.b.push1(op, &[b, a]);
        let product = net.scaled(product, lora::scale(at.values));
        Some(net.add(weight, product))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let product = Product {
            rank: RANK.get(values),
            scale: lora::scale(values),
            dropout: DROPOUT.get(values),
            rs_lora: RS_LORA.get(values),
        };
        let mut form = PeftForm::lora(product, false);
        // That it is one; `peft_together` says where.
        form.keys.push((lora_import::BLOCK_DIAGONAL, true.into()));
        Some(form)
    }

    /// peft tells the factor by a module's own name.
    fn peft_together(&self, values: &Values, sites: &[&Site], _: &Lookup<'_>) -> PeftTogether {
        let names = |of_a: bool| -> Vec<&str> {
            let own = sites.iter().filter(|s| is_a(values, s) == of_a);
            let own = own.map(|s| s.path.rsplit('.').next().unwrap_or(&s.path));
            let mut own: Vec<&str> = own.collect();
            own.sort_unstable();
            own.dedup();
            own
        };
        let (a, b) = (names(true), names(false));
        let both = |x: &&str| b.iter().any(|y| y.contains(*x) || x.contains(y));
        if a.iter().any(both) {
            return None;
        }
        let map = json!({
            "match_strict": true,
            "nblocks": BLOCKS.get(values),
            "target_modules_bd_a": a,
            "target_modules_bd_b": b,
        });
        Some((vec![(lora_import::BLOCK_DIAGONAL, map)], Vec::new()))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let of = (RANK.get(values), BLOCKS.get(values), is_a(values, site));
        let [a, b] = shapes(of, site).map(|shape| shape.map(|n| n as usize).to_vec());
        Some(vec![(A.to_owned(), a, get(A)?), (B.to_owned(), b, get(B)?)])
    }

    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        (kind == "LORA" && lora_import::is_block_diagonal(config)).then_some(lora_import::KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let map = file.config().get(lora_import::BLOCK_DIAGONAL).cloned();
        let wrong =
            || Misfit::of_config("`use_bdlora` must map its keys to names of modules and a number");
        let map = map.as_ref().and_then(Json::as_object).ok_or_else(wrong)?;
        let list = |key: &str| -> Result<Vec<String>, Misfit> {
            match map.get(key) {
                None | Some(Json::Null) => Ok(Vec::new()),
                Some(list) => {
                    let names = list.as_array().ok_or_else(wrong)?.iter();
                    let names = names.map(|n| n.as_str().map(str::to_owned));
                    names.collect::<Option<_>>().ok_or_else(wrong)
                }
            }
        };
        let (of_a, of_b) = (list("target_modules_bd_a")?, list("target_modules_bd_b")?);
        let blocks = match map.get("nblocks") {
            None => 1,
            Some(n) => n.as_u64().filter(|&n| n > 0).ok_or_else(wrong)?,
        };
        let which = |place: &Place<'_>| {
            let name = place.module.rsplit('.').next().unwrap_or_default();
            let is = |list: &[String]| list.iter().any(|own| name.contains(own.as_str()));
            match (is(&of_a), is(&of_b)) {
                (true, false) => Ok(Some(true)),
                (false, true) => Ok(Some(false)),
                (false, false) => Ok(None),
                (true, true) => Err(Misfit::of_config(format!(
                    "`use_bdlora` names `{}` for both factors",
                    place.module
                ))),
            }
        };
        lora_import::read_block_diagonal(file, &|file, place, (rank, mut values)| {
            let Some(of_a) = which(place)? else {
                return Ok(false);
            };
            let even = |n: u64| n.is_multiple_of(blocks);
            let side = if of_a {
                place.site.input()
            } else {
                place.site.output()
            };
            if !even(rank) || !even(side) {
                let what = format!("{blocks} blocks do not share `{}` evenly", place.module);
                return Err(Misfit::of_config(what));
            }
            let [a, b] = shapes((rank, blocks, of_a), place.site);
            file.take(&place.name(A), place.own(A), &a)?;
            file.take(&place.name(B), place.own(B), &b)?;
            file.idle(&place.name(B), 0.0);
            values.push((BLOCKS.name(), Checked::Int(blocks)));
            let factor = if of_a { "a" } else { "b" };
            values.push((FACTOR.name(), Checked::Str(factor.to_owned())));
            file.put(&Self, place.site, values);
            Ok(true)
        })
    }
}
