//! `peftc doctor`: what this machine offers, and what stands in the way.
//!
//! **Invariant:** it looks and never changes anything, loads no driver, and does not fail for what is
//! not there.

mod host;
mod libraries;
mod render;

use std::path::PathBuf;

use clap::Args;

use super::exit;
use super::gpu::{self, Found};
use super::options::{Color, error, print, threads, unknown_device};
use super::screen::Screen;
use super::world::{Hub, RealWorld};
use crate::base::units::Bytes;
use crate::exec::store::Store;
use crate::program::device::{Card, LEAST_CAPABILITY};
use host::{Host, writable};
use libraries::Loader;

/// This machine in words: `AMD EPYC 9B14, 8 threads`; `None` where the system does not name its processor.
pub(super) fn machine(threads: usize) -> Option<String> {
    let s = if threads == 1 { "" } else { "s" };
    Some(format!("{}, {threads} thread{s}", host::processor()?))
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Say whether this device can be used: cpu, cuda, cuda:N; exit 1 if not
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// The store whose disk and rates are shown; `.peftc/store` here if not given. Exit 1 if one that is
    /// given cannot be written
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Threads whose rates are shown; all cores if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Never reach for the network: as `run --offline` would
    #[arg(long)]
    offline: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Something that stands in the way.
#[derive(Debug)]
struct Problem {
    /// What it is about: `cuda`, `store`, `processor`, `hub`.
    about: &'static str,
    /// What is wrong, in half a sentence.
    what: String,
    /// What to do, in the other half.
    remedy: String,
    /// Whether what was asked for does not work.
    asked: bool,
}

/// The libraries that programs on a device need, by their stems; the driver's first.
const LIBRARIES: [(&str, &str); 3] = [
    ("driver", "libcuda.so.1"),
    ("nvrtc", "libnvrtc.so"),
    ("cublas", "libcublas.so"),
];

/// Disk below which a store is worth a word.
const LITTLE: u64 = 2 << 30;

/// All that was looked at.
#[derive(Debug)]
struct Findings {
    host: Host,
    store: PathBuf,
    disk: Option<u64>,
    rates: Vec<(String, f64, f64)>,
    threads: usize,
    hub: Hub,
    found: Found,
    libraries: Vec<(&'static str, &'static str, Option<PathBuf>)>,
}

impl Doctor {
    pub(super) fn run(&self) -> i32 {
        let wanted = match self.device.as_deref().map(Wanted::of) {
            Some(Err(message)) => {
                error(&message);
                return exit::WRONG;
            }
            Some(Ok(wanted)) => wanted,
            None => Wanted::Nothing,
        };
        let machine = self.look();
        let mut problems = Vec::new();
        machine.processor_problems(&mut problems);
        machine.store_problems(self.store.is_some(), &mut problems);
        machine.hub_problems(&mut problems);
        machine.cuda_problems(wanted, &mut problems);
        print(&if self.json {
            format!("{:#}\n", machine.json(&problems))
        } else {
            // Behind the names of lines.
            Screen::out(Color::Auto).fold(&machine.text(&problems), 15)
        });
        if problems.iter().any(|p| p.asked) {
            exit::FAILED
        } else {
            exit::DONE
        }
    }

    fn look(&self) -> Findings {
        let host = Host::here();
        let store = self.store.clone().unwrap_or_else(|| ".peftc/store".into());
        let threads = self.threads.unwrap_or(host.threads).max(1);
        let rates = Store::open(store.clone()).rates(threads);
        let per_second = |x: f64, seconds: f64| x / seconds.max(1e-12) / 1e9;
        let loader = Loader::here();
        Findings {
            disk: crate::files::space::free(&store),
            rates: rates
                .by_op()
                .iter()
                .map(|(op, s)| {
                    let flops = per_second(s.flops, s.seconds);
                    ((*op).to_owned(), flops, per_second(s.bytes, s.seconds))
                })
                .collect(),
            store,
            threads,
            host,
            hub: RealWorld::new(self.offline).reach(),
            found: gpu::find(),
            libraries: LIBRARIES
                .iter()
                .map(|&(what, stem)| (what, stem, loader.find(stem)))
                .collect(),
        }
    }
}

/// The device that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Cuda(usize),
}

impl Wanted {
    fn of(name: &str) -> Result<Self, String> {
        let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
        match (kind, index.parse()) {
            ("cuda", Ok(index)) => Ok(Self::Cuda(index)),
            _ if name == "cpu" => Ok(Self::Nothing),
            _ if Card::named(name).is_some() => Err(format!(
                "`--device {name}` names a card to plan for; here it is `cpu`, `cuda` or `cuda:N`"
            )),
            _ => Err(unknown_device(name)),
        }
    }
}

impl Findings {
    fn processor_problems(&self, problems: &mut Vec<Problem>) {
        if cfg!(target_arch = "x86_64") && !self.host.vectors.contains(&"avx2") {
            problems.push(Problem {
                about: "processor",
                what: "the processor has no AVX2, so that kernels run at a fraction of their speed"
                    .to_owned(),
                remedy:
                    "use another machine, or let the virtual machine pass the host's processor on"
                        .to_owned(),
                asked: false,
            });
        }
    }

    fn store_problems(&self, asked: bool, problems: &mut Vec<Problem>) {
        let dir = self.store.display();
        let mut add = |what: String, remedy: &str, asked: bool| {
            problems.push(Problem {
                about: "store",
                what,
                remedy: remedy.to_owned(),
                asked,
            });
        };
        let there = std::path::absolute(&self.store).ok();
        let there = there
            .iter()
            .flat_map(|p| p.ancestors())
            .find(|p| p.exists());
        if let Some(place) = there {
            if !place.is_dir() {
                let what = format!(
                    "`{dir}` cannot be a store: {} is no folder",
                    place.display()
                );
                add(what, "give another with `--store DIR`", asked);
            } else if !writable(place) {
                let what = format!("`{dir}` cannot be written");
                add(
                    what,
                    "change its permissions, or give another with `--store DIR`",
                    asked,
                );
            }
        }
        if let Some(free) = self.disk.filter(|&free| free < LITTLE) {
            let what = format!("only {} are free at `{dir}`", Bytes(free));
            add(
                what,
                "make room, or give a store on another disk with `--store DIR`",
                false,
            );
        }
    }

    fn hub_problems(&self, problems: &mut Vec<Problem>) {
        if self.hub.cache.is_none() {
            problems.push(Problem {
                about: "hub",
                what: "there is no home directory for the hub's cache".to_owned(),
                remedy: "set HF_HOME".to_owned(),
                asked: false,
            });
        }
        if let Some(why) = &self.hub.refused {
            problems.push(Problem {
                about: "hub",
                what: why.clone(),
                remedy: "nothing is downloaded until then; what is cached is used".to_owned(),
                asked: false,
            });
        }
    }

    /// What keeps programs from a GPU. Without a GPU or a question there is nothing to say.
    fn cuda_problems(&self, wanted: Wanted, problems: &mut Vec<Problem>) {
        let gpus = &self.found.gpus;
        let asked = wanted != Wanted::Nothing;
        if !asked && gpus.is_empty() && self.found.failed.is_none() {
            return;
        }
        let mut add = |what: String, remedy: &str| {
            problems.push(Problem {
                about: "cuda",
                what,
                remedy: remedy.to_owned(),
                asked,
            });
        };
        if let Some(why) = &self.found.failed {
            let remedy = "where driver and kernel module are of different versions, restart the machine; else install the driver anew";
            add(format!("`nvidia-smi` fails: {why}"), remedy);
        }
        match wanted {
            _ if gpus.is_empty() && self.found.driver.is_none() => add(
                "no NVIDIA driver is loaded".to_owned(),
                "install one (580 or newer for CUDA 13); in a container, start it with the GPU handed in (`--gpus all`)",
            ),
            _ if gpus.is_empty() => add(
                "a driver is loaded, but it names no GPU".to_owned(),
                "hand a GPU to this machine or container",
            ),
            Wanted::Cuda(index) if index >= gpus.len() => add(
                format!("there is no GPU {index}; there are {}", gpus.len()),
                "GPUs are counted from 0",
            ),
            _ => {}
        }
        for (what, stem, path) in &self.libraries {
            // Without a driver its library is not missing for itself.
            let consequence = *what == "driver" && gpus.is_empty();
            if path.is_none() && !consequence {
                let remedy = match *what {
                    "driver" => {
                        "install the driver's libraries; in a container, start it with the GPU handed in (`--gpus all`)"
                    }
                    _ => {
                        "install it with CUDA 13, or with `pip install nvidia-cuda-nvrtc nvidia-cublas`, and add its folder to LD_LIBRARY_PATH"
                    }
                };
                add(format!("`{stem}` is not found"), remedy);
            }
        }
        for gpu in gpus {
            let old = |card: &&Card| card.capability < LEAST_CAPABILITY;
            if let Some(card) = gpu.card().filter(old) {
                let (major, minor) = card.capability;
                let what = format!("the {} has capability {major}.{minor}", gpu.product);
                add(
                    what,
                    "8.0 or newer is needed: use `--device cpu`, or another GPU",
                );
            }
        }
    }
}
