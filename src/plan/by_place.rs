//! Ranks and scales by place: one entry of a recipe becomes as many as it has values, each on its own places.

use indexmap::IndexMap;

use super::error::EMPTY_PLACEMENT;
use crate::base::{Diag, Diags};
use crate::library::method::{Method, keys};
use crate::library::model::Model;
use crate::library::net::Site;
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{ByPlace, Checked, Filled, Maybe, Values};
use crate::library::stage::network::anatomy;

/// The values of one map at sites, and which of its rows decide something.
struct Map<'a> {
    key: &'static Maybe<ByPlace>,
    rows: &'a [(Pattern, Checked)],
    used: Vec<bool>,
}

impl<'a> Map<'a> {
    fn new(key: &'static Maybe<ByPlace>, values: &'a Values) -> Self {
        let rows = key.get(values).unwrap_or_default();
        let used = vec![false; rows.len()];
        Self { key, rows, used }
    }

    /// The value at a site: that of the first row that matches.
    fn at(&mut self, site: &Site, n_layers: u64) -> Option<&'a Checked> {
        let mut rows = self.rows.iter().zip(&mut self.used);
        let ((_, value), used) = rows.find(|((place, _), _)| place.matches(site, n_layers))?;
        *used = true;
        Some(value)
    }

    /// What is wrong with a row that decides nothing.
    fn idle(&self, values: &Values, sites: &[&Site], n_layers: u64) -> Option<Diag> {
        let mut rows = self.rows.iter().zip(&self.used);
        let ((place, _), _) = rows.find(|(_, used)| !**used)?;
        let (name, matches) = (self.key.name(), |s: &&Site| place.matches(s, n_layers));
        let (message, help) = if sites.iter().any(matches) {
            (
                format!(
                    "rows before {} in `{name}` match all its places",
                    place.key()
                ),
                "the first row that matches a place counts: write the narrower ones first",
            )
        } else {
            (
                format!(
                    "{} in `{name}` matches no place that the method is on",
                    place.key()
                ),
                "write a placement such as \"layers[0..2].attention.query\", or a module's whole path, in which `*` is any \
                 run of characters: \"*.q_proj\"",
            )
        };
        let diag = Diag::error(&EMPTY_PLACEMENT, self.key.span(values), message);
        Some(diag.help(help))
    }
}

/// A method with ranks or scales by place as methods with one each.
pub(super) fn spread(
    filled: Filled,
    method: &dyn Method,
    model: &dyn Model,
    diags: &mut Diags,
) -> Option<Vec<Filled>> {
    let values = &filled.values;
    let (mut ranks, mut alphas) = (
        Map::new(&keys::RANKS, values),
        Map::new(&keys::ALPHAS, values),
    );
    if ranks.rows.is_empty() && alphas.rows.is_empty() {
        return Some(vec![filled]);
    }
    let (parts, n_layers) = (anatomy(model), model.facts().blocks);
    let on = keys::ON.get(values).cloned().unwrap_or_default();
    let here = |s: &&Site| method.fits(s) && on.matches(s, n_layers);
    let sites: Vec<&Site> = parts
        .sites
        .iter()
        .chain(&parts.others)
        .filter(here)
        .collect();
    let mut groups: IndexMap<String, (Vec<Pattern>, [Option<&Checked>; 2])> = IndexMap::new();
    for site in &sites {
        let own = [ranks.at(site, n_layers), alphas.at(site, n_layers)];
        let raw = Pattern {
            layers: None,
            path: site.path.clone(),
            raw: true,
        };
        let group = groups.entry(format!("{own:?}"));
        group.or_insert_with(|| (Vec::new(), own)).0.push(raw);
    }
    let plain = |mut filled: Filled| {
        filled.values.remove(keys::RANKS.name());
        filled.values.remove(keys::ALPHAS.name());
        filled
    };
    // A placement that matches nothing is complained about where placements are.
    if sites.is_empty() {
        return Some(vec![plain(filled)]);
    }
    let idle = [&ranks, &alphas].map(|map| map.idle(values, &sites, n_layers));
    let wrong: Vec<Diag> = idle.into_iter().flatten().collect();
    if !wrong.is_empty() {
        wrong.into_iter().for_each(|diag| diags.push(diag));
        return None;
    }
    let made = groups.into_values().map(|(any, [rank, alpha])| {
        let mut own = plain(filled.clone());
        let given = [
            (keys::RANK.name(), rank, keys::RANKS.span(values)),
            (keys::ALPHA.name(), alpha, keys::ALPHAS.span(values)),
        ];
        for (key, value, at) in given {
            if let Some(value) = value {
                own.values.insert(key, value.clone(), at, true);
            }
        }
        let at = keys::ON.span(values);
        let written = keys::ON.is_written(values);
        own.values.insert(
            keys::ON.name(),
            Checked::Placement(Placement { any }),
            at,
            written,
        );
        own
    });
    Some(made.collect())
}
