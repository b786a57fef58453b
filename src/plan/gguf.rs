//! Models in GGUF files: opened once, each for all that is read of it.

use std::sync::Arc;

use super::bind::Binder;
use super::error::BAD_MODEL;
use crate::base::Diag;
use crate::base::Diags;
use crate::base::world::{HubFile, Location, RepoKind};
use crate::files::gguf::{Gguf, is_gguf};
use crate::library::decl;
use crate::resolve::Declared;

impl Binder<'_> {
    /// The GGUF file that a model is in, if it is one; `None` after a diagnostic.
    #[expect(
        clippy::option_option,
        reason = "whether there is one, and whether that can be said"
    )]
    pub(super) fn gguf(
        &mut self,
        declared: &Declared,
        place: &Location,
        diags: &mut Diags,
    ) -> Option<Option<Arc<Gguf>>> {
        let Location::Local(path) = place else {
            return Some(None);
        };
        let at = declared.arg.as_ref().map(|a| a.span).unwrap_or_default();
        let wrong = |message: String| Diag::error(&BAD_MODEL, at, message).label("this model");
        let of_hub = decl::FILE.is_written(&declared.filled.values);
        if declared.filled.name != "gguf" && !of_hub {
            // A folder that holds nothing but such files, or one of them.
            let own = if is_gguf(path) {
                Some(path.clone())
            } else {
                let list = self.world.list(path).unwrap_or_default();
                let plain = list.iter().any(|name| name == "config.json");
                let mut paths = list.iter().map(|name| path.join(name));
                paths.find(|file| is_gguf(file) && !plain)
            };
            let Some(own) = own else {
                return Some(None);
            };
            let shown = own
                .strip_prefix(&declared.base)
                .unwrap_or(&own)
                .display()
                .to_string();
            let message = format!("the model in `{}` is a GGUF file", path.display());
            diags.push(wrong(message).help(format!("write `gguf \"{shown}\"`")));
            return None;
        }
        if !is_gguf(path) {
            let message = format!(
                "`{}` is no GGUF file: its name does not end in `.gguf`",
                path.display()
            );
            diags.push(wrong(message).help("a folder with safetensors is read by `local \"…\"`"));
            return None;
        }
        let world = self.world;
        let open = || {
            let (file, size) = world.open(path).map_err(|e| e.to_string())?;
            let read = Gguf::open(&file, size);
            read.map(Arc::new)
                .map_err(|why| format!("`{}` cannot be read: {why}", path.display()))
        };
        match self.ggufs.entry(path.clone()).or_insert_with(open) {
            Ok(gguf) => Some(Some(gguf.clone())),
            Err(why) => {
                diags.push(wrong(why.clone()));
                None
            }
        }
    }

    /// A GGUF file of a repository of the hub, from the cache or downloaded into it; `None` after a diagnostic.
    pub(super) fn hub_file(&self, declared: &Declared, diags: &mut Diags) -> Option<Location> {
        let values = &declared.filled.values;
        let file = HubFile {
            repo: declared.arg.as_ref()?.value.clone(),
            kind: RepoKind::Model,
            revision: decl::REVISION.get(values).map(str::to_owned),
            file: decl::FILE.get(values)?.to_owned(),
        };
        match self.world.hub(&file) {
            Ok(found) => Some(Location::Local(found.path)),
            Err(why) => {
                let at = decl::FILE.span(values);
                let message = format!("`{}` cannot be had: {why}", file.file);
                diags.push(Diag::error(&BAD_MODEL, at, message).label("this file"));
                None
            }
        }
    }

    /// The GGUF file at a place that was opened before.
    pub(super) fn own_gguf(&self, place: &Location) -> Option<Arc<Gguf>> {
        match place {
            Location::Local(path) => self.ggufs.get(path)?.as_ref().ok().cloned(),
            Location::Hub { .. } => None,
        }
    }
}
