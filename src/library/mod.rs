//! All named things: models, methods, data sources, metrics, optimizers, schedules, stage kinds,
//! each with its schema beside its code.

pub mod candidates;
pub mod chat;
pub mod collection;
pub mod combine;
pub mod counts;
pub mod data;
pub mod decl;
pub mod demonstrations;
pub mod derive;
pub mod error;
pub mod export;
pub mod generate;
pub mod method;
pub mod metric;
pub mod model;
pub mod net;
pub mod numpy;
pub mod optimizer;
pub mod peft;
pub mod placement;
pub mod prompt;
pub mod rows;
pub mod schedule;
pub mod schema;
pub mod stage;
pub mod start;
pub mod task;
pub mod tokenizer;
pub mod torch;
pub mod words;
