//! The GPUs of this machine, as its driver's own tools tell of them: nothing is linked, nothing is asked
//! of a driver in this process.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::device::Card;

/// A GPU that was found.
#[derive(Debug, Default)]
pub(super) struct Gpu {
    /// Its product's name.
    pub product: String,
    /// Its memory, and what of it is free, in MiB; unknown without `nvidia-smi`.
    pub memory_mib: Option<u64>,
    pub free_mib: Option<u64>,
    /// The version of its driver.
    pub driver: Option<String>,
}

impl Gpu {
    /// The row of the table of cards that fits it.
    pub(super) fn card(&self) -> Option<&'static Card> {
        Card::found(&self.product, self.memory_mib?)
    }
}

/// What the search for GPUs came to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The GPUs, in the driver's order.
    pub gpus: Vec<Gpu>,
    /// The version of the kernel's driver, if one is loaded.
    pub driver: Option<String>,
    /// Where `nvidia-smi` is.
    pub smi: Option<PathBuf>,
    /// What `nvidia-smi` said where it failed.
    pub failed: Option<String>,
}

/// `nvidia-smi` hangs where a driver is broken: it is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Looks for GPUs: by `nvidia-smi`, else by what the kernel's driver lists.
pub(super) fn find() -> Found {
    let mut found = Found {
        driver: kernel_driver(),
        smi: program("nvidia-smi"),
        ..Found::default()
    };
    if let Some(smi) = &found.smi {
        let query = [
            "--query-gpu=name,memory.total,memory.free,driver_version",
            "--format=csv,noheader,nounits",
        ];
        match output(Command::new(smi).args(query), PATIENCE) {
            Ok(text) => found.gpus = text.lines().filter_map(line).collect(),
            Err(why) => found.failed = Some(why),
        }
    }
    if found.gpus.is_empty() {
        found.gpus = listed_by_kernel(Path::new("/proc/driver/nvidia/gpus"));
    }
    if found.driver.is_none() {
        found.driver = found.gpus.iter().find_map(|g| g.driver.clone());
    }
    found
}

/// A line of `nvidia-smi`: `NVIDIA L4, 23034, 22500, 580.65.06`.
fn line(text: &str) -> Option<Gpu> {
    // A product's name has no comma; what is unknown is `[N/A]`.
    let mut parts = text.split(',').map(str::trim);
    let product = parts.next().filter(|p| !p.is_empty())?.to_owned();
    let mut number = || parts.next().and_then(|n| n.parse().ok());
    Some(Gpu {
        product,
        memory_mib: number(),
        free_mib: number(),
        driver: parts.next().map(str::to_owned),
    })
}

/// The GPUs that the kernel's driver lists; it does not tell their memory.
fn listed_by_kernel(dir: &Path) -> Vec<Gpu> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("information"))
        .collect();
    paths.sort();
    let model = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("Model:"))?;
        Some(Gpu {
            product: line.trim().to_owned(),
            ..Gpu::default()
        })
    };
    paths.iter().filter_map(model).collect()
}

/// The version in `NVRM version: NVIDIA UNIX … Kernel Module  580.65.06  …`.
fn kernel_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_version = |word: &&str| {
        let mut parts = word.split('.');
        parts.clone().count() >= 2
            && parts.all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    };
    let words = text.lines().next()?.split_whitespace();
    words.filter(is_version).map(str::to_owned).next()
}

/// A program in the search path, or where drivers put theirs.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/lib/wsl/lib", "/opt/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}

/// What a command prints; why not, if it fails or takes too long.
pub(super) fn output(command: &mut Command, patience: Duration) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let Some(mut pipe) = child.stdout.take() else {
        return Err("no output".to_owned());
    };
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(None) => {
                // A process the driver holds does not even end when killed: it is left behind.
                let _ = child.kill();
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
            Err(e) => return Err(e.to_string()),
        }
    };
    let bytes = match reader.join() {
        Ok(Ok(bytes)) => bytes,
        _ => return Err("its output could not be read".to_owned()),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.success() {
        return Ok(text);
    }
    let said = text.lines().find(|l| !l.trim().is_empty());
    Err(said.map_or_else(|| status.to_string(), |l| l.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nvidia_smi_are_read() {
        let gpu = line("NVIDIA GeForce RTX 3070, 8192, 7410, 580.65.06").expect("a GPU");
        assert_eq!(gpu.card().map(|c| c.name), Some("rtx3070-8gb"));
        assert_eq!(gpu.free_mib, Some(7410));
        assert_eq!(gpu.driver.as_deref(), Some("580.65.06"));
        let gpu = line("NVIDIA GB10, [N/A], [N/A], 580.65.06").expect("a GPU");
        assert_eq!((gpu.memory_mib, gpu.card()), (None, None));
        assert!(line("").is_none());
    }

    #[test]
    fn a_command_that_hangs_is_not_waited_for() {
        let begun = Instant::now();
        let said = output(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(said.is_err() && begun.elapsed() < Duration::from_secs(20));
        assert_eq!(
            output(Command::new("echo").arg("yes"), PATIENCE).as_deref(),
            Ok("yes\n")
        );
    }
}
