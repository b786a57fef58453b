//! `peftc replay`: rebuild a zeroth-order training's weights from its log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::exit;
use super::options::{Common, Intent, Within, error, print, ranks, store_of};
use crate::exec::ranks::Ranks;
use crate::exec::run::Options;
use crate::exec::run::replay::replay;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The recipe
    file: PathBuf,
    /// The `mezo` stage
    #[arg(long, value_name = "NAME")]
    stage: String,
    /// Its log; the one in the store if not given
    #[arg(long, value_name = "FILE")]
    trajectory: Option<PathBuf>,
    /// Write the rebuilt model or adapter there
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Where finished stages are kept; `.peftc/store` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Processes that the recipe's trainings were shared among
    #[arg(long, value_name = "N", default_value = "1", value_parser = ranks)]
    ranks: u64,
    #[command(flatten)]
    common: Common,
}

impl Replay {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Run) else {
            return exit::WRONG;
        };
        let (world, machine) = (self.common.world(), asked.machine);
        let store = store_of(&self.file, self.store.as_deref());
        let compiled = self.common.compiled(
            &self.file,
            &asked,
            &world,
            Within {
                ranks: self.ranks,
                ..Within::alone(Some(&store), None)
            },
        );
        let Some(plan) = &compiled.plan else {
            error(&format!(
                "{} is rejected: nothing was replayed",
                self.file.display()
            ));
            return exit::WRONG;
        };
        let options = Options {
            recipe: self.file.clone(),
            store,
            out: PathBuf::new(),
            only: None,
            fresh: false,
            resume: true,
            adopts: false,
            checkpoint_every: Duration::MAX,
            machine,
            device: Arc::new(self.common.exec_device()),
            ranks: Ranks::default(),
            machine_name: None,
            command: String::new(),
            sources: Vec::new(),
        };
        let what = (
            self.stage.as_str(),
            self.trajectory.as_deref(),
            self.to.as_deref(),
        );
        match self.common.in_pool(|| replay(plan, &options, what, &world)) {
            Ok(done) => {
                if self.common.json {
                    let (equal, compared) =
                        done.equal.map_or((None, None), |(e, n)| (Some(e), Some(n)));
                    print(&format!(
                        "{:#}\n",
                        json!({ "schema": 1, "steps": done.steps, "equal_tensors": equal, "compared_tensors": compared })
                    ));
                } else {
                    let compared = match done.equal {
                        Some((same, all)) => {
                            format!("{same} of {all} tensors equal the stored ones bit for bit")
                        }
                        None => "there was no whole stored result to compare with".to_owned(),
                    };
                    print(&format!("{} steps replayed; {compared}\n", done.steps));
                }
                if done.equal.is_none_or(|(same, all)| same == all) {
                    exit::DONE
                } else {
                    exit::FAILED
                }
            }
            Err(why) => {
                error(&why.to_string());
                why.exit_code()
            }
        }
    }
}
