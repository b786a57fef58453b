//! LoRA where its map is a table: on embeddings, and on the head of a language model, which is read as a plain matrix.

use super::super::net::{Init, Param, Part, Role};
use super::super::schema::{Bound, Given, kind};
use super::lora::{self, DROPOUT, LORA_BIAS, RANK};
use super::{At, Complaint, Lookup, Net, PeftTensor, Site, Value, Values, columns, pair};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul};

/// LoRA+ has a rate of its own for pairs on embeddings.
pub(super) const RATE: Given<f64> = Given::<f64>::tacit(
    "rate_embeddings",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "factor of the learning rate for pairs on tables of embeddings, of which LoRA+ learns both at one rate",
);

/// Whether a decoder reads the pair on its table.
pub(super) const TIED: Given<bool> = Given::<bool>::tacit(
    "tied",
    kind::BOOL,
    (false, "false"),
    "whether a head that is the table of embeddings reads the pair on the table, too; in peft `ensure_weight_tying`",
);

/// The factors' names in peft's format.
pub(super) const A: &str = "lora_embedding_A";
pub(super) const B: &str = "lora_embedding_B";

/// Whether a table of embeddings stands there.
pub(super) const fn is_table(site: &Site) -> bool {
    matches!(site.part, Part::Table { .. })
}

/// `Aᵀ [rows, r]`, a row for each of the table's, and `B [width, r]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank, rate) = (at.site, RANK.get(at.values), RATE.get(at.values));
    let a = Param::at(site, A).shape(&[site.input(), rank]).rate(rate);
    let b = Param::at(site, B).shape(&[site.output(), rank]).rate(rate);
    (net.tensor(a), net.tensor(b.start(Init::Normal(1.0))))
}

/// `rows + s · A[:, ids]ᵀ Bᵀ`, times what the model multiplies rows of the table by.
pub(super) fn embedded(at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
    let Some(ids) = net.table_ids() else {
        return rows;
    };
    let (a, b) = factors(at, net);
    let z = net.gather(a, ids);
    let scale = lora::scale(at.values) * net.table_scale();
    net.project_onto(rows, z, b, scale)
}

/// `E + s · (B A)ᵀ`
pub(super) fn added(at: &At<'_>, net: &mut Net<'_>, table: Value) -> Value {
    let (a, b) = factors(at, net);
    let op = MatMul {
        epilogue: Epilogue::Accumulate,
        ..MatMul::plain(false, true, Real::new(lora::scale(at.values)))
    };
    net.b.push1(op, &[a, b, table])
}

/// The pair as peft has it, A with a column for each row of the table.
pub(super) fn peft_tensors(
    values: &Values,
    site: &Site,
    get: &Lookup<'_>,
) -> Option<Vec<PeftTensor>> {
    let (rank, rows, width) = (
        RANK.get(values) as usize,
        site.input() as usize,
        site.output() as usize,
    );
    let a = columns(&get(A)?, rank);
    Some(vec![
        (A.to_owned(), vec![rank, rows], a),
        (B.to_owned(), vec![width, rank], get(B)?),
    ])
}

/// Whether peft ties a decoder to the pair on a table of this name: it knows no other.
pub(super) fn peft_ties(path: &str) -> bool {
    crate::library::net::ends_with(path, "embed_tokens")
}

/// What is wrong with a pair that a decoder is to read, if there is none on a table.
pub(super) fn check_sites(values: &Values, sites: &[&Site]) -> Option<Complaint> {
    let on_table = sites.iter().any(|site| is_table(site));
    (TIED.get(values) && !on_table && !sites.is_empty()).then(|| Complaint {
        key: TIED.name(),
        code: &BAD_METHOD_VALUES,
        message: "`tied` is for a pair on a table of embeddings, and there is none".to_owned(),
        help: Some("place the method on `embeddings.word`, too, or remove the key".to_owned()),
    })
}

/// What of a LoRA's values there is not on tables and heads, if it is written.
pub(super) fn check(values: &Values, site: &Site) -> Option<Complaint> {
    let head = site.role == Role::LmDecoder;
    if !head && !is_table(site) {
        return None;
    }
    let init = pair::INIT.get(values);
    let path = &site.path;
    let (key, message) = if !matches!(init, "kaiming" | "gaussian") {
        let what =
            format!("`init = {init}` takes a linear map of the blocks apart, and `{path}` is none");
        (pair::INIT.name(), what)
    } else if pair::FROZEN_A.get(values) {
        let what = format!("`lora_fa` is for linear maps of the blocks, and `{path}` is none");
        (pair::FROZEN_A.name(), what)
    } else if LORA_BIAS.get(values) {
        let what = format!("`lora_bias` is for linear maps of the blocks, and `{path}` is none");
        (LORA_BIAS.name(), what)
    } else if head && DROPOUT.get(values) > 0.0 {
        let what = format!(
            "`dropout` acts on what a map reads, and the product on `{path}` is added to its matrix"
        );
        (DROPOUT.name(), what)
    } else {
        return None;
    };
    Some(Complaint {
        key,
        code: &BAD_METHOD_VALUES,
        message,
        help: Some(format!(
            "write two entries, `adapters = [lora {{ … }}, lora {{ on = {} }}]`, and `{key}` in the first alone",
            site.role.path()
        )),
    })
}
