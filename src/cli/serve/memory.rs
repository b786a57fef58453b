//! What `serve --check` says: the memory of each model, and of the weights that they share.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::models::Named;
use crate::base::units::Bytes;
use crate::cli::predict::Refusal;
use crate::cli::screen::Screen;
use crate::cli::table::{Side, Table};
use crate::exec::predict::{Footing, Needs, Shares, shared_run};
use crate::program::op::Machine;

/// What is reported.
pub(super) struct Footprints {
    models: Vec<(String, usize, Needs)>,
    backbones: Vec<Backbone>,
}

/// Weights that models share.
struct Backbone {
    /// Bytes of those that are in memory once.
    bytes: u64,
    /// What a pass takes that several models share; 0 where none do.
    run: u64,
}

/// Works out what models take: so many texts at once, of so many tokens where they are gone on with.
///
/// # Errors
/// Files that cannot be read.
pub(super) fn tell(
    named: &[Named],
    how: (u64, u64),
    machine: &Machine,
) -> Result<Footprints, Refusal> {
    let mut known: Vec<Footing> = Vec::new();
    let mut models = Vec::with_capacity(named.len());
    for Named { name, predictor } in named {
        let footing = predictor.footing()?;
        let found = known.iter_mut().position(|own| own.join(&footing));
        let number = found.unwrap_or(known.len());
        if found.is_none() {
            known.push(footing);
        }
        models.push((name.clone(), number, predictor.needs(how, machine)?));
    }
    let backbone = |number: usize| {
        let on_it = models.iter().filter(|(_, own, _)| *own == number);
        let needs: Vec<&Needs> = on_it.map(|(_, _, needs)| needs).collect();
        let shared: BTreeMap<&str, u64> = needs
            .iter()
            .flat_map(|needs| needs.shared.iter().map(|(name, n)| (name.as_str(), *n)))
            .collect();
        Ok(Backbone {
            bytes: shared.values().sum(),
            run: shared_run(&needs, how.0, machine)?,
        })
    };
    let backbones: Result<Vec<Backbone>, Refusal> = (0..known.len()).map(backbone).collect();
    Ok(Footprints {
        backbones: backbones?,
        models,
    })
}

impl Footprints {
    /// Bytes of all tensors: one model, or one pass of several, computes at a time.
    fn total(&self) -> u64 {
        let own: u64 = self.models.iter().map(|(_, _, n)| n.own + n.cache).sum();
        let runs = self.models.iter().map(|(_, _, n)| n.run);
        let run = runs.chain(self.backbones.iter().map(|own| own.run)).max();
        let shared: u64 = self.backbones.iter().map(|own| own.bytes).sum();
        shared + own + run.unwrap_or(0)
    }

    pub(super) fn json(&self) -> Json {
        let model = |(name, backbone, needs): &(String, usize, Needs)| {
            json!({
                "name": name, "backbone": backbone, "own_bytes": needs.own, "cache_bytes": needs.cache,
                "run_bytes": needs.run, "shares_passes": needs.shares().is_some(), "shared": needs.shares().name(),
            })
        };
        let backbone = |own: &Backbone| json!({ "bytes": own.bytes, "shared_run_bytes": own.run });
        json!({
            "schema": 1, "models": self.models.iter().map(model).collect::<Vec<_>>(),
            "backbones": self.backbones.iter().map(backbone).collect::<Vec<_>>(), "total_bytes": self.total(),
        })
    }

    pub(super) fn text(&self, screen: Screen) -> String {
        let mut table = Table::new([
            ("model", Side::Left),
            ("weights", Side::Left),
            ("its own", Side::Right),
            ("cache", Side::Right),
            ("a run", Side::Right),
            ("its pass", Side::Left),
        ]);
        let size = |bytes: u64| Bytes(bytes).to_string();
        for (name, backbone, needs) in &self.models {
            table.row(vec![
                name.as_str().into(),
                format!("{}", backbone + 1).into(),
                size(needs.own).into(),
                size(needs.cache).into(),
                size(needs.run).into(),
                match needs.shares() {
                    Shares::Nothing => "its own",
                    Shares::Products => "shared in its products",
                    Shares::Prefix => "shared",
                }
                .into(),
            ]);
        }
        let mut text = table.render(screen);
        for (number, own) in self.backbones.iter().enumerate() {
            text.push_str(&format!(
                "\n  weights {}: {}, once for all models that stand on them",
                number + 1,
                size(own.bytes)
            ));
            if own.run > 0 {
                text.push_str(&format!("; a pass that they share takes {}", size(own.run)));
            }
        }
        text.push_str(&format!("\n  tensors at most: {}\n", size(self.total())));
        text
    }
}
