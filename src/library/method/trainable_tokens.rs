//! Trainable tokens: some rows of a table of embeddings are trained, and nothing else of it.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Param, Part, Role};
use super::super::peft::{Keys, Misfit, Reading};
use super::super::schema::{Given, Maybe, kind};
use super::prompt_tuning::rows_of;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, rows_import, table,
};
use crate::library::error::BAD_TOKENS;
use crate::library::placement::Placement;

/// Trained rows of a table.
#[derive(Debug)]
pub struct TrainableTokens;

pub(crate) const TOKENS: Maybe<[String]> = Maybe::new(
    "tokens",
    kind::TEXTS,
    "the tokens as texts, each of which the tokenizer has as one token: `[\"<s>\", \" Paris\"]`",
);
pub(crate) const TOKEN_IDS: Maybe<[String]> = Maybe::new(
    "token_ids",
    kind::NUMBERS,
    "the tokens by their numbers in the vocabulary",
);
const TIED: Given<bool> = Given::<bool>::tacit(
    "tied",
    kind::BOOL,
    (true, "true"),
    "whether a head that is the table of embeddings reads the trained rows, too, as in peft",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "embeddings.word",
    "the table of embeddings",
);

static SCHEMA: Schema = Schema {
    name: "trainable_tokens",
    summary: "trainable tokens: the embeddings of some tokens, trained",
    doc: "The rows of the table of embeddings that belong to `tokens` or `token_ids` start as they are and are trained; other rows \
          stay. It trains so many rows of hidden numbers, and the head. A head of a language model that is the table reads \
          the trained rows, too. Backward goes through the whole model; 16 bytes a trained number. Merges into the table. In peft it \
          is TRAINABLE_TOKENS; beside LoRA, or where a head is trained too, a LoRA with `trainable_token_indices`.",
    paper: "Hugging Face PEFT, TrainableTokensConfig; PaSTA, Yang et al. 2023 (arXiv 2210.04382), trains what is added to such rows",
    keys: &[TOKENS.key(), TOKEN_IDS.key(), TIED.key(), ON.key()],
};

/// The trained rows' name in peft's format.
pub(super) const DELTA: &str = "trainable_tokens_delta";

/// The numbers of the rows.
fn list(values: &Values) -> Vec<u32> {
    let ids = TOKEN_IDS.get(values).unwrap_or_default().iter();
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// Rows of a table, or of the matrix of a head, and their width.
const fn sizes(site: &Site) -> (u64, u64) {
    match site.part {
        Part::Table { .. } => (site.input(), site.output()),
        _ => (site.output(), site.input()),
    }
}

/// The trained rows `[n, width]`.
fn rows(at: &At<'_>, net: &mut Net<'_>) -> (Value, Vec<u32>) {
    let (site, list) = (at.site, list(at.values));
    let (_, width) = sizes(site);
    let rows = Param::at(site, DELTA).shape(&[list.len() as u64, width]);
    let source = match site.role {
        Role::LmDecoder => net.decoder(site),
        _ => site.clone(),
    };
    let start = rows_of(&source, list.clone(), 1.0);
    (net.tensor(rows.start(start)), list)
}

impl Method for TrainableTokens {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn fits(&self, site: &Site) -> bool {
        table::is_table(site) || site.role == Role::LmDecoder
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn tokens<'a>(&self, values: &'a Values) -> Option<&'a [String]> {
        TOKENS.get(values)
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let ids = TOKEN_IDS.get(values).unwrap_or_default();
        let twice = |(i, id): &(usize, &String)| ids.iter().take(*i).any(|other| other == *id);
        let (entries, _) = sizes(site);
        let outside = |id: &&String| id.parse::<u64>().is_ok_and(|id| id >= entries);
        let message = if ids.is_empty() {
            "no token is named".to_owned()
        } else if let Some(id) = ids.iter().find(outside) {
            format!("`{}` has {entries} rows, and none is {id}", site.path)
        } else if let Some((_, id)) = ids.iter().enumerate().find(twice) {
            format!("the token {id} is named twice")
        } else {
            return None;
        };
        let key = if TOKENS.is_written(values) {
            TOKENS.name()
        } else {
            TOKEN_IDS.name()
        };
        Some(Complaint {
            key,
            code: &BAD_TOKENS,
            message,
            help: Some("write tokens of the tokenizer's vocabulary, each once".to_owned()),
        })
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let Some(ids) = net.table_ids() else {
            return x;
        };
        let (rows, list) = rows(at, net);
        let rows = net.scaled(rows, net.table_scale());
        net.replaced_by_id(x, rows, (ids, &list))
    }

    fn tabled(&self, at: &At<'_>, net: &mut Net<'_>, table: Value) -> Value {
        if !TIED.get(at.values) {
            return table;
        }
        let (rows, list) = rows(at, net);
        net.with_rows(table, rows, &list)
    }

    fn ties(&self, values: &Values) -> bool {
        TIED.get(values)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let table = at.weight(net)?;
        let (rows, list) = rows(at, net);
        Some(net.with_rows(table, rows, &list))
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == rows_import::KIND).then_some(rows_import::KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        rows_import::read(file)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let ids = list(values);
        TIED.get(values).then(|| PeftForm {
            kind: rows_import::KIND,
            keys: vec![
                ("init_weights", json!(true)),
                (rows_import::IDS, json!(ids)),
            ],
            product: None,
        })
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let dims = vec![list(values).len(), sizes(site).1 as usize];
        Some(vec![(DELTA.to_owned(), dims, get(DELTA)?)])
    }
}
