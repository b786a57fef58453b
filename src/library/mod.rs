//! All named things: models, methods, data sources, metrics, optimizers, schedules, stage kinds,
//! each with its schema beside its code.

pub mod error;
pub mod method;
pub mod model;
pub mod net;
pub mod optimizer;
pub mod params;
pub mod placement;
pub mod schedule;
pub mod schema;
