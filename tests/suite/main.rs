//! The one test binary beside the unit tests.

mod cases;
mod choose;
mod classes;
mod cli;
mod data;
mod data_report;
mod demonstrations;
mod device;
mod doctor;
mod features;
mod fit;
mod golden;
mod hostile;
mod masked;
mod oracle;
mod parity;
mod precision;
mod pruned;
mod recipes;
mod report;
mod run;
mod sweep;
mod syntax_fuzz;
mod tidy;
mod tokens;
