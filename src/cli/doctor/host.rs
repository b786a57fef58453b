//! The processor, the memory and the disk, as the system tells of them; what it does not tell is left out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cli::gpu::{output, program};

/// The processor and its memory.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The processor's model.
    pub processor: Option<String>,
    /// The vector extensions that kernels are chosen by.
    pub vectors: Vec<&'static str>,
    /// Hardware threads that this process may use.
    pub threads: usize,
    /// Bytes of memory: all, those free or easily freed, and what a control group allows.
    pub memory: Option<u64>,
    pub available: Option<u64>,
    pub limit: Option<u64>,
}

impl Host {
    /// What this machine says.
    pub(super) fn here() -> Self {
        let memory = read("/proc/meminfo");
        let size = |key: &str| kibibytes(&memory, key);
        Self {
            processor: processor(),
            vectors: vectors(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: size("MemTotal")
                .or_else(|| command("sysctl", &["-n", "hw.memsize"])?.parse().ok()),
            available: size("MemAvailable"),
            limit: limit(),
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What a program of the system prints on one line.
fn command(name: &str, args: &[&str]) -> Option<String> {
    let text = output(
        Command::new(program(name)?).args(args),
        Duration::from_secs(2),
    )
    .ok()?;
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

pub(super) fn processor() -> Option<String> {
    let text = read("/proc/cpuinfo");
    let value = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        let value = line.split_once(':')?.1.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    value("model name")
        .or_else(|| value("Model"))
        .or_else(|| command("sysctl", &["-n", "machdep.cpu.brand_string"]))
}

/// `MemTotal:       24571040 kB` → bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// The least limit of the control groups this process is in; `None` without one.
fn limit() -> Option<u64> {
    let groups = read("/proc/self/cgroup");
    let mut files: Vec<PathBuf> = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match kinds {
            "" => ("/sys/fs/cgroup", "memory.max"),
            kinds if kinds.split(',').any(|k| k == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path is one of the host's: then the root is the group's own.
        let own = Path::new(root).join(path.trim_start_matches('/'));
        files.extend(
            own.ancestors()
                .take_while(|p| p.starts_with(root))
                .map(|p| p.join(file)),
        );
    }
    let limits = files
        .iter()
        .filter_map(|f| read(f).trim().parse::<u64>().ok());
    // Version 1 writes a number near 2^63 where there is no limit.
    limits.filter(|&n| n < 1 << 60).min()
}

fn vectors() -> Vec<&'static str> {
    let mut list = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detected {
            ($($name:tt)+) => { $(if std::arch::is_x86_feature_detected!($name) { list.push($name); })+ };
        }
        detected!("sse4.2" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vnni" "avx512bf16");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detected {
            ($($name:tt)+) => { $(if std::arch::is_aarch64_feature_detected!($name) { list.push($name); })+ };
        }
        detected!("neon" "fp16" "bf16" "sve");
    }
    list
}

/// Whether a folder can be written; without `test` to ask, its permissions are taken at their word.
pub(super) fn writable(dir: &Path) -> bool {
    match program("test") {
        Some(test) => {
            let mut command = Command::new(test);
            output(command.arg("-w").arg(dir), Duration::from_secs(2)).is_ok()
        }
        None => std::fs::metadata(dir).is_ok_and(|m| !m.permissions().readonly()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_tells_something_of_itself() {
        let host = Host::here();
        assert!(host.threads >= 1);
        if cfg!(target_os = "linux") {
            assert!(host.memory > Some(1 << 28));
            assert!(crate::files::space::free(Path::new("/no/such/folder")).is_some());
            assert!(writable(&std::env::temp_dir()) && !writable(Path::new("/no/such/folder")));
        }
        assert_eq!(
            kibibytes("MemTotal:  12 kB\nMemFree: 3 kB", "MemFree"),
            Some(3072)
        );
        assert_eq!(kibibytes("", "MemFree"), None);
    }
}
