//! Lookup of schemas by registry.

use crate::library::schema::{Registry, Schema};
use crate::library::{decl, method, metric, model, objective, optimizer, schedule, stage, start};

/// Every schema of a registry.
#[must_use]
pub fn schemas(registry: Registry) -> Vec<&'static Schema> {
    match registry {
        Registry::Method => method::METHODS.iter().map(|m| m.schema()).collect(),
        Registry::Schedule => schedule::SCHEDULES.iter().map(|s| s.schema()).collect(),
        Registry::Optimizer => optimizer::OPTIMIZERS.iter().map(|o| o.schema()).collect(),
        Registry::Metric => metric::METRICS.iter().map(|m| m.schema()).collect(),
        Registry::Objective => objective::OBJECTIVES.to_vec(),
        Registry::Stage => stage::STAGES.iter().map(|s| s.schema()).collect(),
        Registry::Model => model::ARCHITECTURES.iter().map(|a| a.schema).collect(),
        Registry::Source => decl::DECLARATIONS
            .iter()
            .flat_map(|d| d.sources.iter().copied())
            .collect(),
        Registry::Start => start::STARTS.iter().map(|s| s.schema).collect(),
    }
}

/// A schema by name.
#[must_use]
pub fn schema(registry: Registry, name: &str) -> Option<&'static Schema> {
    schemas(registry).into_iter().find(|s| s.name == name)
}

/// Every name of a registry.
pub fn names(registry: Registry) -> impl Iterator<Item = &'static str> + Clone {
    schemas(registry)
        .into_iter()
        .map(|s| s.name)
        .collect::<Vec<_>>()
        .into_iter()
}
