//! The methods of a stage.

use super::super::data::tokens::Marking;
use super::super::model::Reserved;
use super::super::net::{Owner, Param, Site};
use super::super::schema::{Filled, Values};
use super::{Method, Stacking, keys};

/// The methods of a stage with their values: what is trained and what wraps each site.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Methods in the order of the recipe. Empty: nothing but the head is trainable.
    pub methods: Vec<(&'static dyn Method, Filled)>,
    /// Blocks of the model.
    pub n_layers: u64,
    /// Nothing is trainable: evaluation, prediction, merging.
    pub frozen: bool,
}

impl Tuning {
    /// No method at all on a model of so many blocks, nothing of which is trained.
    #[must_use]
    pub const fn bare(n_layers: u64) -> Self {
        Self {
            methods: Vec::new(),
            n_layers,
            frozen: true,
        }
    }

    /// Whether any method adds tensors of its own, so that the stage leaves an adapter.
    #[must_use]
    pub fn exports_adapter(&self) -> bool {
        self.methods.iter().any(|(m, _)| m.adapts() || m.ladders())
    }

    /// What methods put into texts, or mark in them.
    #[must_use]
    pub fn marking(&self) -> Marking {
        let each = self.methods.iter().map(|(m, f)| m.marking(&f.values));
        each.fold(Marking::default(), |all, own| Marking {
            virtual_tokens: all.virtual_tokens + own.virtual_tokens,
            behind_first: all.behind_first || own.behind_first,
            specials: all.specials || own.specials,
        })
    }

    /// The method whose tasks examples name, and how many there are; the fewest of several.
    #[must_use]
    pub fn tasks_of_examples(&self) -> Option<(&'static str, u64)> {
        let each = self.methods.iter().filter_map(|(m, f)| {
            let tasks = m.tasks_of_examples(&f.values)?;
            Some((m.schema().name, tasks))
        });
        each.min_by_key(|(_, tasks)| *tasks)
    }

    /// The positions that methods take from texts.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        let each = self.methods.iter().map(|(m, f)| m.reserved(&f.values));
        each.fold(Reserved::default(), |all, own| Reserved {
            prefix: all.prefix + own.prefix,
            shifts: all.shifts || own.shifts,
            within: all.within + own.within,
        })
    }

    /// What methods put into prompts behind which text is generated: there the keys of a prefix are those of tokens.
    #[must_use]
    pub fn prompt_marking(&self) -> Marking {
        let own = self.marking();
        Marking {
            virtual_tokens: own.virtual_tokens + self.reserved().prefix,
            ..own
        }
    }

    /// Whether a parameter is trained.
    #[must_use]
    pub fn trains(&self, param: &Param) -> bool {
        !self.frozen && self.has_trained(param)
    }

    /// Whether a parameter is trained, or was by these methods where nothing is trained any more.
    #[must_use]
    pub fn has_trained(&self, param: &Param) -> bool {
        match param.owner {
            Owner::Head => true,
            Owner::Adapter => param.trains,
            Owner::Base if param.is_buffer() => false,
            Owner::Base => self.methods.iter().any(|(m, f)| {
                m.trains(&f.values, param, self.n_layers)
                    || m.whole_modules(&f.values)
                        .iter()
                        .any(|module| param.is_in(module))
            }),
        }
    }

    /// The methods at a site, from the model's own map upwards: in the order of the recipe, but for one that stands in
    /// the place of the model's weight.
    #[must_use]
    pub fn stack(&self, site: &Site) -> Vec<(&'static dyn Method, &Values)> {
        let here = self.methods.iter().filter(|(m, f)| {
            let placement = keys::ON.get(&f.values);
            m.adapts() && m.fits(site) && placement.is_some_and(|p| p.matches(site, self.n_layers))
        });
        let mut stack: Vec<_> = here.map(|(m, f)| (*m, &f.values)).collect();
        // Virtual tokens are rows of no table.
        stack.sort_by_key(|(m, v)| {
            let above = m.marking(v).virtual_tokens > 0;
            (m.stacking_with(v) != Stacking::Base, above)
        });
        stack
    }

    /// The methods that have something to do with the whole of a step, each with its values and its sites among these.
    pub fn stepping<'s>(
        &'s self,
        sites: &'s [Site],
    ) -> impl Iterator<Item = (&'static dyn Method, &'s Values, Vec<&'s Site>)> {
        let own = self.methods.iter().filter(|(m, f)| m.steps(&f.values));
        own.map(|(method, filled)| {
            let here = |s: &&Site| {
                let mut stack = self.stack(s).into_iter();
                stack.any(|(_, values)| std::ptr::eq(values, &raw const filled.values))
            };
            let sites = sites.iter().filter(here).collect();
            (*method, &filled.values, sites)
        })
    }

    /// Factor of the learning rate of a parameter, as far as methods decide about it.
    #[must_use]
    pub fn rate(&self, param: &Param) -> f64 {
        let each = self.methods.iter().map(|(m, f)| {
            let joins = m.joins(&f.values, param, (self.n_layers, 1));
            m.rate(&f.values, param) * joins.map_or(1.0, |(_, rate)| rate)
        });
        each.product()
    }

    /// The step before which a parameter begins to be trained, in a training with so many steps an epoch.
    #[must_use]
    pub fn begins(&self, param: &Param, epoch: u64) -> u64 {
        let trained = self.methods.iter().filter(|(m, f)| {
            m.trains(&f.values, param, self.n_layers)
                || m.whole_modules(&f.values)
                    .iter()
                    .any(|module| param.is_in(module))
        });
        let each = trained.map(|(m, f)| {
            let joins = m.joins(&f.values, param, (self.n_layers, epoch));
            joins.map_or(0, |(step, _)| step)
        });
        each.min().unwrap_or(0)
    }

    /// The same methods once they have begun: what they started from no longer matters.
    #[must_use]
    pub fn begun(&self) -> Self {
        let mut begun = self.clone();
        for (_, filled) in &mut begun.methods {
            filled.values.remove(keys::START.name());
        }
        begun
    }

    /// The same methods with nothing trained.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self {
            frozen: true,
            ..self.clone()
        }
    }
}
