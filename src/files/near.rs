//! The path that was probably meant where one is not there.

use std::path::{Path, PathBuf};

/// Entries of a folder that are looked at.
const MOST: usize = 10_000;

/// The path that differs from one that is not there by a slip of the keyboard or by the ending alone.
#[must_use]
pub fn near(path: &Path) -> Option<PathBuf> {
    let missing = path
        .ancestors()
        .take_while(|p| !p.as_os_str().is_empty() && !p.exists())
        .last()?;
    let wrong = missing.file_name()?.to_str()?;
    let folder = missing.parent().unwrap_or(Path::new(""));
    let listed = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let rest = path.strip_prefix(missing).ok()?;
    let names = std::fs::read_dir(listed).ok()?.flatten().take(MOST);
    let mut found: Vec<(usize, String)> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((distance(wrong, &name)?, name)))
        .collect();
    found.sort();
    let whole = |name: &String| {
        let near = folder.join(name);
        if rest.as_os_str().is_empty() {
            near
        } else {
            near.join(rest)
        }
    };
    found
        .iter()
        .map(|(_, name)| whole(name))
        .find(|near| near.exists())
}

/// How far two names are apart, if one may be meant by the other.
fn distance(wrong: &str, name: &str) -> Option<usize> {
    let (wrong, name) = (wrong.to_lowercase(), name.to_lowercase());
    let apart = strsim::osa_distance(&wrong, &name);
    if apart <= (wrong.chars().count() / 4).max(1) {
        return Some(apart);
    }
    // What stands before the first dot, if that is all the difference: `train` and `train.csv.gz`.
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    (!stem(&wrong).is_empty() && stem(&wrong) == stem(&name)).then_some(usize::MAX)
}

/// The same as a remedy.
#[must_use]
pub fn did_you_mean(path: &Path) -> Option<String> {
    near(path).map(|near| format!("did you mean `{}`?", near.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_endings_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let at = dir.path();
        std::fs::create_dir_all(at.join("reviews")).expect("made");
        for name in ["reviews/train.csv", "reviews/adapter_config.json", "a.peft"] {
            std::fs::write(at.join(name), "x").expect("written");
        }
        let of = |name: &str| {
            near(&at.join(name)).and_then(|p| Some(p.strip_prefix(at).ok()?.to_owned()))
        };
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(of("reveiws"), path("reviews"));
        assert_eq!(of("reveiws/train.csv"), path("reviews/train.csv"));
        assert_eq!(of("reviews/train.cvs"), path("reviews/train.csv"));
        assert_eq!(of("reviews/train.jsonl"), path("reviews/train.csv"));
        assert_eq!(of("reviews/train"), path("reviews/train.csv"));
        assert_eq!(of("reviews/config.json"), None);
        assert_eq!(of("reveiws/config.json"), None);
        assert_eq!(of("elsewhere"), None);
        assert_eq!(of("A.peft"), path("a.peft"));
    }
}
