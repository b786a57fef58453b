//! All named things: models, methods, data sources, metrics, optimizers, schedules, stage kinds,
//! each with its schema beside its code.

pub mod data;
pub mod error;
pub mod params;
pub mod placement;
pub mod schema;
