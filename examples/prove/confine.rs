//! A stage in a control group that has exactly the memory of its process line: what does not fit is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A memory limit for a process and its children.
pub struct Cage {
    folder: PathBuf,
}

/// Where a group is made, and the file that holds its limit.
struct Kind {
    parent: PathBuf,
    limit: &'static str,
}

/// Where this process may make groups: version 2, or the memory controller of version 1.
fn kinds() -> Vec<Kind> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = |of: &dyn Fn(&str) -> bool| {
        let line = own.lines().find(|l| l.split(':').nth(1).is_some_and(of))?;
        Some(
            line.splitn(3, ':')
                .nth(2)?
                .trim_start_matches('/')
                .to_owned(),
        )
    };
    let mut list = Vec::new();
    if let Some(own) = path(&str::is_empty) {
        list.push(Kind {
            parent: Path::new("/sys/fs/cgroup").join(own),
            limit: "memory.max",
        });
    }
    if let Some(own) = path(&|names| names.split(',').any(|n| n == "memory")) {
        list.push(Kind {
            parent: Path::new("/sys/fs/cgroup/memory").join(own),
            limit: "memory.limit_in_bytes",
        });
    }
    list
}

impl Cage {
    /// A group with so many bytes; says why there can be none.
    pub fn new(bytes: u64) -> Result<Self, String> {
        let mut why = "this system has no control groups".to_owned();
        for kind in kinds() {
            let folder = kind
                .parent
                .join(format!("peftc-prove-{}", std::process::id()));
            let limit = folder.join(kind.limit);
            let made = fs::create_dir_all(&folder).and_then(|()| match limit.exists() {
                true => fs::write(&limit, bytes.to_string()),
                false => Err(std::io::Error::other("memory is not controlled there")),
            });
            match made {
                Ok(()) => {
                    // Where there is swap, it is no memory.
                    let _ = fs::write(folder.join("memory.swap.max"), "0");
                    return Ok(Self { folder });
                }
                Err(e) => {
                    why = format!("{}: {e}", folder.display());
                    let _ = fs::remove_dir(&folder);
                }
            }
        }
        Err(why)
    }

    /// The same command inside of the group.
    pub fn around(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside
            .args(["-c", "echo $$ > \"$0\" && exec timeout 120 \"$@\""])
            .arg(self.folder.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
