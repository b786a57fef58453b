//! Values at their bounds, all that can be done with a plan before it runs, and files that are only thought of.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use peftc::base::world::{HubFile, HubPath, Keep, Kept, RepoKind, World, WorldError};
use peftc::cli::world::RealWorld;
use peftc::driver::Compiled;
use peftc::library::decl::DECLARATIONS;
use peftc::library::schema::{Bound, Kind};
use peftc::plan::solve;
use peftc::program::op::Machine;
use peftc::program::rates::Rates;

use super::recipe::{Edit, Recipe};

/// For each key that takes a number, the least and the most that its schema allows.
pub fn extremes(recipe: &Recipe) -> Vec<Edit> {
    let mut list = Vec::new();
    for (i, decl) in recipe.decls.iter().enumerate() {
        let declaration = DECLARATIONS.iter().find(|d| d.keyword == decl.keyword);
        let schemas = declaration.expect("known").schemas();
        let schema = schemas.iter().find(|s| s.name == decl.ctor).expect("known");
        for key in schema.keys {
            let values = match key.kind {
                Kind::Int(lo, hi) => vec![lo.to_string(), hi.to_string()],
                Kind::Float(lo, hi) => [lo, hi]
                    .iter()
                    .map(|b| match b {
                        Bound::Incl(x) => x.to_string(),
                        Bound::Excl(x) => format!("{x:e}")
                            .replace("0e0", "1e-300")
                            .replace("1e0", "0.999999999"),
                        Bound::None => "1e300".to_owned(),
                    })
                    .collect(),
                Kind::Size => vec!["0B".to_owned(), "7000TiB".to_owned()],
                Kind::Length => vec![
                    "18446744073709551615 epochs".to_owned(),
                    "18446744073709551615 steps".to_owned(),
                ],
                _ => Vec::new(),
            };
            list.extend(
                values
                    .into_iter()
                    .map(|v| Edit::Set(i, key.name.to_owned(), v)),
            );
        }
        let trains = matches!(decl.ctor.as_str(), "train" | "mezo");
        for adapter in [
            "lora { rank = 16, alpha = 1e300 }",
            "siva { rank = 16 }",
            "siva { rank = 16, decomposition = 1048576 }",
            "side_lora { rank = 16, exact = true }",
            "last_n { n = 3 }",
            "lst { r = 8, temperature = 1e-300, init = fisher { samples = 18446744073709551615 } }",
            "k_lst { k = 5, r = 8, init = magnitude }",
        ] {
            if trains && decl.get("from").is_none() && decl.get("adapter").is_some() {
                list.push(Edit::Set(i, "adapter".to_owned(), adapter.to_owned()));
            }
        }
    }
    list
}

/// Does with a plan what every command may do with it before it runs.
pub fn use_up(compiled: Compiled) {
    let Some(mut plan) = compiled.plan else {
        return;
    };
    let machine = Machine::cpu(2);
    for stage in &plan.stages {
        let _ = stage.seconds(&Rates::default(), &machine);
        let _ = plan.facts(stage, &machine);
    }
    if let Some(stage) = plan.stages.first() {
        for key in ["micro_batch", "rank"] {
            let _ = solve::solve(stage, key, 1 << 20, &machine);
        }
    }
    plan.fit(1 << 20, &machine);
}

/// The world with a few more files, so that a test writes nothing into the folder it reads.
#[derive(Debug)]
pub struct Beside {
    real: RealWorld,
    texts: Mutex<HashMap<PathBuf, String>>,
}

impl Beside {
    pub fn new(real: RealWorld) -> Self {
        Self {
            real,
            texts: Mutex::default(),
        }
    }

    /// Thinks of a file.
    pub fn write(&self, path: &Path, text: &str) {
        let mut texts = self.texts.lock().expect("no thread panicked");
        texts.insert(path.to_path_buf(), text.to_owned());
    }
}

impl World for Beside {
    fn read(&self, path: &Path) -> Result<Vec<u8>, WorldError> {
        let texts = self.texts.lock().expect("no thread panicked");
        match texts.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => self.real.read(path),
        }
    }

    fn open(&self, path: &Path) -> Result<(File, u64), WorldError> {
        self.real.open(path)
    }

    fn kept(&self, name: &str) -> Option<Kept> {
        self.real.kept(name)
    }

    fn keep(&self, name: &str) -> io::Result<Option<Box<dyn Keep>>> {
        self.real.keep(name)
    }

    fn exists(&self, path: &Path) -> bool {
        self.real.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, WorldError> {
        self.real.list(dir)
    }

    fn matching(&self, dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, WorldError> {
        self.real.matching(dir, pattern)
    }

    fn fingerprint(&self, path: &Path) -> Result<String, WorldError> {
        self.real.fingerprint(path)
    }

    fn hub(&self, file: &HubFile) -> Result<HubPath, WorldError> {
        self.real.hub(file)
    }

    fn hub_list(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Result<Vec<String>, WorldError> {
        self.real.hub_list(repo, kind, revision)
    }

    fn offline(&self) -> bool {
        self.real.offline()
    }
}
