//! C3A: `y = x (W₀ + ΔW)ᵀ + b` with `ΔW` of circulant blocks.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::ON;
use super::rotation::check_blocks;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::program::op::Arrange;

/// An update of circulant blocks.
#[derive(Debug)]
pub struct C3a;

/// The kernels' name in peft's format.
const KERNEL: &str = "c3a_kernel";

const BLOCK_SIZE: Given<u64> = Given::<u64>::new(
    "block_size",
    kind::int(1, 1 << 16),
    (256, "256"),
    "width of the circulant blocks; it divides the widths of input and output",
);
const START: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["gaussian", "kaiming_uniform", "xavier_uniform", "zeros"]),
    ("xavier_uniform", "xavier_uniform"),
    "what the kernels start at; all but `zeros` change the model",
);

static SCHEMA: Schema = Schema {
    name: "c3a",
    summary: "circular convolution adaptation: an update of circulant blocks, each given by one row",
    doc: "y = x (W0 + ΔW)ᵀ + b with ΔW [out, in] of blocks [b, b] that are circulant, a block being its kernel's shifts over `in`. \
          Trained are the kernels [out / b, in / b, b], of which ΔW is made in each pass: out · in / b numbers of any rank. \
          They start uniform as Xavier's rule says, by peft's default, so the model starts slightly changed; `init = zeros` \
          starts it unchanged. Merges exactly; 16 bytes a trained parameter. In peft it is C3A.",
    paper: "Chen et al. 2025 (arXiv 2407.19342)",
    keys: &[BLOCK_SIZE.key(), START.key(), ON.key()],
};

/// Blocks below one another and beside one another.
fn blocks(values: &Values, site: &Site) -> (u64, u64) {
    let size = BLOCK_SIZE.get(values).max(1);
    (site.output() / size, site.input() / size)
}

fn start(values: &Values, site: &Site) -> Init {
    let (input, output) = (site.input() as f64, site.output() as f64);
    match START.find(values) {
        Some("gaussian") => Init::Normal(1.0),
        Some("kaiming_uniform") => Init::Uniform((1.0 / input).sqrt()),
        Some("zeros") => Init::Constant(0.0),
        _ => Init::Uniform((6.0 / (input + output)).sqrt()),
    }
}

/// `ΔW [out, in]`
fn update(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let (size, site) = (BLOCK_SIZE.get(at.values), at.site);
    let (down, across) = blocks(at.values, site);
    let kernel = Param::at(site, KERNEL).shape(&[down, across, size]);
    let kernel = net.tensor(kernel.start(start(at.values, site)));
    let kernel = net.scaled(kernel, 1.0 / site.input() as f64);
    let kernel = net.reshaped(kernel, down * across, size);
    // Each kernel as its block, row by row.
    let shifts = (0..size * size).map(|i| [((i % size + size - i / size) % size, false)]);
    let all = net.arranged(kernel, Arrange::new(size, shifts));
    let all = net.reshaped(all, down * across * size, size);
    // Rows of blocks that are beside one another, one behind the other.
    let row = |i: u64| {
        let (block, rest) = (i / (across * size), i % (across * size));
        let (row, column) = (rest / across, rest % across);
        to_u32((block * across + column) * size + row)
    };
    let list = (0..down * across * size).map(row).collect();
    let all = net.rows(all, list);
    net.reshaped(all, site.output(), site.input())
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    (
        "block_size",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    (
        "block_size_pattern",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("init_weights", WithoutEffect(BEGAN)),
];

impl Method for C3a {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let widths = [("input", site.input()), ("output", site.output())];
        check_blocks(BLOCK_SIZE.name(), BLOCK_SIZE.get(values), site, &widths)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let update = update(at, net);
        net.project_onto(base, x, update, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let update = update(at, net);
        Some(net.add(weight, update))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let init = match START.find(values) {
            Some("zeros") => json!(true),
            name => json!(name),
        };
        Some(PeftForm {
            kind: "C3A",
            keys: vec![
                ("bias", json!("none")),
                ("block_size", json!(BLOCK_SIZE.get(values))),
                ("block_size_pattern", json!({})),
                ("init_weights", init),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "C3A").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        for place in file.places()? {
            place.only(&[KERNEL])?;
            let name = place.name(KERNEL);
            let &[down, across, size] = file.shape(&name).unwrap_or_default() else {
                return Err(Misfit::damaged(format!("`{name}` holds no kernels")));
            };
            let (input, output) = (place.site.input(), place.site.output());
            let fits = (down.checked_mul(size), across.checked_mul(size));
            if size == 0 || fits != (Some(output), Some(input)) {
                return Err(Misfit::damaged(format!(
                    "the kernels `{name}` are those of no matrix of {output} × {input}"
                )));
            }
            file.take(&name, place.own(KERNEL), &[down, across, size])?;
            file.idle(&name, 0.0);
            let values = vec![(BLOCK_SIZE.name(), Checked::Int(size))];
            file.put(&C3a, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (down, across) = blocks(values, site);
        let shape = [down, across, BLOCK_SIZE.get(values)].map(|n| n as usize);
        Some(vec![(KERNEL.to_owned(), shape.to_vec(), get(KERNEL)?)])
    }
}
