//! Where the loader finds a shared library, without loading it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cli::gpu::{output, program};
use crate::exec::backend::{library_folders, library_in};

/// What is known of where libraries are.
#[derive(Debug)]
pub(super) struct Loader {
    /// Folders the environment names: searched first.
    named: Vec<PathBuf>,
    /// The loader's own table.
    table: String,
}

impl Loader {
    /// The loader of this machine.
    pub(super) fn here() -> Self {
        let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let named = std::env::split_paths(&named)
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        let ldconfig = program("ldconfig").or_else(|| {
            let own = PathBuf::from("/sbin/ldconfig");
            own.is_file().then_some(own)
        });
        let table = ldconfig
            .and_then(|p| output(Command::new(p).arg("-p"), Duration::from_secs(2)).ok())
            .unwrap_or_default();
        Self { named, table }
    }

    /// The first library whose file name is `stem` or begins with `stem` and a dot: `libnvrtc.so`.
    pub(super) fn find(&self, stem: &str) -> Option<PathBuf> {
        let in_named = self.named.iter().find_map(|dir| library_in(dir, stem));
        let in_table = || {
            // `	libcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1`
            let mut lines = self
                .table
                .lines()
                .filter_map(|l| l.trim().split_once(" => "));
            let (_, path) = lines.find(|(name, path)| {
                let name = name.split(' ').next().unwrap_or_default();
                let rest = name.strip_prefix(stem);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    && Path::new(path).exists()
            })?;
            Some(PathBuf::from(path))
        };
        let elsewhere = || {
            library_folders()
                .iter()
                .find_map(|dir| library_in(dir, stem))
        };
        in_named.or_else(in_table).or_else(elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_stem() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        for name in ["libnvrtc.so.13", "libnvrtc-builtins.so.13", "libcuda.so.1"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let loader = Loader {
            named: vec![dir.path().to_path_buf()],
            table: String::new(),
        };
        let find = |stem| loader.find(stem);
        assert_eq!(find("libnvrtc.so"), Some(dir.path().join("libnvrtc.so.13")));
        assert_eq!(find("libcuda.so.1"), Some(dir.path().join("libcuda.so.1")));
        assert_eq!(find("libno-such-thing.so"), None);
    }
}
