//! What an entry says about itself, and whether its bytes are what it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{ABOUT, MANIFEST, SCHEMA, VERIFIED};
use crate::files::RunError;
use crate::files::durable;
use crate::files::sealed::{self, Found};
use crate::files::sums::{self, Damage, Stamp, Sum};

/// What a finished entry says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout: 2.
    pub schema: u32,
    /// The stage's fingerprint; also the directory's name.
    pub fingerprint: String,
    /// The stage's name in the recipe that made it.
    pub name: String,
    /// The stage's kind.
    pub kind: String,
    /// The recipe that made it.
    pub recipe: PathBuf,
    /// Fingerprints of the entries whose files it needs.
    pub needs: Vec<String>,
    /// What went into the fingerprint: name and value of each part.
    pub parts: IndexMap<String, String>,
    /// What the stage reported.
    pub result: serde_json::Value,
    /// Version of the compiler that made it.
    pub peftc: String,
    /// The CPU it was made on: numbers differ in their last bits elsewhere.
    pub cpu: String,
    /// Every file of the artifact.
    pub files: IndexMap<String, Sum>,
}

/// What an entry is of, known before it is finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The recipe that began it.
    pub recipe: PathBuf,
    /// The stage's name.
    pub name: String,
    /// The stage's kind.
    pub kind: String,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is none.
    Nothing,
    /// It was begun.
    Unfinished,
    /// It is finished and whole.
    Finished(Box<Manifest>),
    /// It was finished, but a file is not what it was.
    Damaged(Damage),
}

/// The stamps that files had when they were compared with their sums.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) manifest: Option<Stamp>,
    pub(super) files: BTreeMap<String, Stamp>,
}

impl Manifest {
    /// A manifest of this version, made on `cpu`.
    pub fn new(
        fingerprint: impl Into<String>,
        name: impl Into<String>,
        kind: impl Into<String>,
        cpu: impl Into<String>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            fingerprint: fingerprint.into(),
            name: name.into(),
            kind: kind.into(),
            recipe: PathBuf::new(),
            needs: Vec::new(),
            parts: IndexMap::new(),
            result: serde_json::Value::Null,
            peftc: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: cpu.into(),
            files: IndexMap::new(),
        }
    }
}

/// Compares the files of an artifact's folder with the manifest that lies in it or above, in the store or where
/// a run has put the artifact. A folder that was taken away from its manifest has nobody to vouch for it.
///
/// # Errors
/// Something is damaged.
pub fn vouch(folder: &Path) -> Result<(), RunError> {
    let damaged = |damage: Damage| {
        let again = "run the recipe again: what is damaged is set aside and made anew";
        RunError::file(damage.path, format!("damaged: {}; {again}", damage.what))
    };
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    for dir in folder.ancestors().take(2) {
        let path = dir.join(MANIFEST);
        let mut manifest: Manifest = match sealed::read(&path) {
            Found::Nothing if dir.join(ABOUT).exists() => {
                return Err(RunError::file(
                    dir,
                    "this stage is not finished, or its manifest is gone; run the recipe again",
                ));
            }
            Found::Nothing => continue,
            Found::Damaged(what) => return Err(damaged(Damage { path, what })),
            Found::Whole(manifest) => manifest,
        };
        let own = Stamp::of(&path).ok();
        let known = known(dir, own.as_ref());
        manifest
            .files
            .retain(|name, _| dir.join(name).starts_with(&folder));
        let files = sums::verify(dir, &manifest.files, &known).map_err(damaged)?;
        if files
            .iter()
            .any(|(name, stamp)| known.get(name) != Some(stamp))
        {
            let mut all = known;
            all.extend(files);
            let _ = remember(dir, own, all);
        }
        return Ok(());
    }
    Ok(())
}

/// The stamps that are remembered of files, if the manifest is still the same.
pub(super) fn known(dir: &Path, manifest: Option<&Stamp>) -> BTreeMap<String, Stamp> {
    let text = fs::read(dir.join(VERIFIED)).ok();
    let known = text.and_then(|text| serde_json::from_slice::<Verified>(&text).ok());
    let known = known.filter(|k| k.manifest.is_some() && k.manifest.as_ref() == manifest);
    known.unwrap_or_default().files
}

pub(super) fn remember(
    dir: &Path,
    manifest: Option<Stamp>,
    files: BTreeMap<String, Stamp>,
) -> Result<(), RunError> {
    let verified = Verified { manifest, files };
    let text = serde_json::to_vec(&verified).map_err(|e| RunError::bug(e.to_string()))?;
    durable::write_bytes(&dir.join(VERIFIED), &text)
}
