//! stub
use clap::Args;
/// Arguments of `predict`.
#[derive(Debug, Args)]
pub(super) struct Predict {}
impl Predict {
    pub(super) fn run(&self) -> i32 {
        2
    }
}
