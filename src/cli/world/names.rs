//! Names of repositories, revisions and files, which become paths and addresses.

use std::path::{Component, Path};

use crate::base::world::WorldError;

/// Whether a relative path stays below where it is joined.
pub(super) fn plain(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Names go into paths and addresses: none may lead out of the cache.
pub(super) fn check(
    repo: &str,
    revision: Option<&str>,
    file: Option<&str>,
) -> Result<(), WorldError> {
    if !plain(repo) || repo.matches('/').count() > 1 {
        return Err(WorldError::new(
            format!("hub:{repo}"),
            "not the name of a repository",
            "write it as `organisation/name`",
        ));
    }
    for (what, value) in [("revision", revision), ("file", file)] {
        if let Some(value) = value
            && !plain(value)
        {
            return Err(WorldError::new(
                format!("hub:{repo}"),
                format!("`{value}` is no {what} of a repository"),
                "write it as on the hub's page",
            ));
        }
    }
    Ok(())
}

/// Whether a revision is a commit, and not a branch or a tag.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An address as it may be shown.
pub(super) fn without_password(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(end);
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}{path}")
        }
        None => address.to_owned(),
    }
}
