//! The columns of data files, as far as they are at hand.

use std::path::{Path, PathBuf};

use crate::base::world::World;
use crate::library::data::split::{SplitSource, find_split};
use crate::library::data::{Input, format_named, format_of};
use crate::library::decl;
use crate::library::schema::Values;

/// The columns of a declared data set: of the first of its files that can be read. Nothing is fetched if the world is
/// offline.
pub(super) fn columns(
    source: &str,
    arg: &str,
    (base, values): (&Path, Option<&Values>),
    world: &dyn World,
) -> Vec<String> {
    let own = |key| {
        values
            .and_then(|v| v.find::<[String]>(key))
            .unwrap_or_default()
    };
    let named: Vec<String> = [decl::TRAIN.name(), decl::DEV.name(), decl::TEST.name()]
        .into_iter()
        .flat_map(|key| own(key).iter().cloned())
        .collect();
    let of = if source == "hub" {
        SplitSource::Hub {
            repo: arg.to_owned(),
            revision: values
                .and_then(|v| decl::REVISION.get(v))
                .map(str::to_owned),
            config: values
                .and_then(|v| decl::DATA_CONFIG.get(v))
                .map(str::to_owned),
        }
    } else {
        SplitSource::Local {
            base: base.to_path_buf(),
            named: vec![arg.to_owned()],
        }
    };
    let folder = base.join(arg);
    let mut files: Vec<PathBuf> = named.iter().map(|name| folder.join(name)).collect();
    for split in ["train", "dev", "test"] {
        files.extend(find_split(&of, split, world).unwrap_or_default());
    }
    let format = values
        .and_then(|v| decl::FORMAT.get(v))
        .and_then(format_named);
    let read = |file: &PathBuf| {
        let format = format.or_else(|| format_of(file))?;
        let input = Input::open(file, world).ok()?;
        (format.columns)(&input).ok()
    };
    files.iter().find_map(read).unwrap_or_default()
}
