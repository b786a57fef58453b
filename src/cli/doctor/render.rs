//! What `doctor` found, for people and programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Findings, Problem};
use crate::base::units::Bytes;
use crate::base::visible;
use crate::cli::gpu::Gpu;

impl Findings {
    pub(super) fn json(&self, problems: &[Problem]) -> Json {
        let h = &self.host;
        let gpu = |(i, g): (usize, &Gpu)| {
            json!({
                "index": i, "product": g.product, "memory_bytes": g.memory_mib.map(|n| n << 20),
                "free_bytes": g.free_mib.map(|n| n << 20), "driver": g.driver, "profile": g.card().map(|c| c.name),
            })
        };
        let libraries: serde_json::Map<String, Json> = self
            .libraries
            .iter()
            .map(|(what, _, path)| {
                (
                    (*what).to_owned(),
                    json!(path.as_deref().map(Path::display).map(|p| p.to_string())),
                )
            })
            .collect();
        json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "built": { "features": FEATURES, "arch": std::env::consts::ARCH, "os": std::env::consts::OS },
            "processor": { "model": h.processor, "vector_extensions": h.vectors, "threads": h.threads },
            "memory": { "total_bytes": h.memory, "available_bytes": h.available, "cgroup_limit_bytes": h.limit },
            "store": {
                "path": self.store.display().to_string(), "exists": self.store.is_dir(), "free_bytes": self.disk,
                "rates": {
                    "threads": self.threads,
                    "ops": self.rates.iter().map(|(op, flops, bytes)| json!({ "op": op, "gflop_per_s": flops, "gb_per_s": bytes })).collect::<Vec<_>>(),
                },
            },
            "hub": {
                "cache": self.hub.cache.as_ref().map(|p| p.display().to_string()),
                "cached": self.hub.cached, "endpoint": self.hub.endpoint, "offline": self.hub.offline, "token": self.hub.token,
            },
            "cuda": {
                "built": true, "driver_version": self.found.driver, "visible_devices": std::env::var("CUDA_VISIBLE_DEVICES").ok(),
                "nvidia_smi": self.found.smi.as_ref().map(|p| p.display().to_string()),
                "libraries": libraries, "gpus": self.found.gpus.iter().enumerate().map(gpu).collect::<Vec<_>>(),
            },
            "problems": problems.iter().map(|p| json!({ "about": p.about, "what": p.what, "remedy": p.remedy, "asked": p.asked })).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self, problems: &[Problem]) -> String {
        let mut text = format!("peftc {}\n\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<12} {}", visible::line(&value));
        };
        self.host_lines(&mut line);
        self.store_lines(&mut line);
        self.hub_lines(&mut line);
        self.cuda_lines(&mut line);
        text.push('\n');
        if problems.is_empty() {
            text.push_str("  Nothing stands in the way.\n");
        }
        for problem in problems {
            let _ = writeln!(
                text,
                "  {}: {}; {}",
                problem.about,
                visible::line(&problem.what),
                visible::line(&problem.remedy)
            );
        }
        text
    }

    /// The build, the processor and its memory.
    fn host_lines(&self, line: Line<'_>) {
        let h = &self.host;
        let with = FEATURES.join(", ");
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        line("built", format!("for {os} {arch}, with {with}"));
        line(
            "processor",
            format!(
                "{}, {} thread{}",
                h.processor.as_deref().unwrap_or("unknown"),
                h.threads,
                if h.threads == 1 { "" } else { "s" }
            ),
        );
        if !h.vectors.is_empty() {
            line("", h.vectors.join(" "));
        }
        let limit = h
            .limit
            .map(|n| format!(", of which this process may use {}", Bytes(n)));
        line(
            "memory",
            format!(
                "{}, {} available{}",
                size(h.memory),
                size(h.available),
                limit.unwrap_or_default()
            ),
        );
    }

    /// The store, and the rates that runs of it measured.
    fn store_lines(&self, line: Line<'_>) {
        line(
            "store",
            format!(
                "{}{}, {} free on the disk",
                self.store.display(),
                if self.store.is_dir() {
                    ""
                } else {
                    " (not there yet)"
                },
                size(self.disk)
            ),
        );
        for (op, flops, bytes) in self.rates.iter().take(4) {
            line(
                "",
                format!("measured {op}: {flops:.1} GFLOP/s, {bytes:.1} GB/s"),
            );
        }
        if self.rates.is_empty() {
            line(
                "",
                format!("no rates of runs with {} threads yet", self.threads),
            );
        }
    }

    /// The hub: its endpoint, its cache, and what may be asked of it.
    fn hub_lines(&self, line: Line<'_>) {
        let cache = match &self.hub.cache {
            Some(path) => format!("{}, {} repositories", path.display(), self.hub.cached),
            None => "no cache".to_owned(),
        };
        line("hub", format!("{}, cache {cache}", self.hub.endpoint));
        let network = match self.hub.offline {
            true => "offline",
            false => "network allowed",
        };
        let token = match self.hub.token {
            true => "with a token",
            false => "without a token",
        };
        line("", format!("{network}, {token}"));
    }

    /// The driver, the GPUs and the libraries of CUDA.
    fn cuda_lines(&self, line: Line<'_>) {
        line(
            "driver",
            match (&self.found.driver, &self.found.smi) {
                (Some(version), _) => format!("NVIDIA {version}"),
                (None, Some(smi)) => format!("unknown; {} is there", smi.display()),
                (None, None) => "no NVIDIA driver".to_owned(),
            },
        );
        for (i, gpu) in self.found.gpus.iter().enumerate() {
            let memory = gpu.memory_mib.map_or_else(String::new, |all| {
                let free = gpu
                    .free_mib
                    .map_or_else(String::new, |n| format!(", {} free", Bytes(n << 20)));
                format!(", {}{free}", Bytes(all << 20))
            });
            let card = match gpu.card() {
                Some(card) => format!("planned for as {}", card.name),
                None => "no row in the table of cards".to_owned(),
            };
            line(
                &format!("GPU {i}"),
                format!("{}{memory}; {card}", gpu.product),
            );
        }
        for (_, stem, path) in &self.libraries {
            if let Some(path) = path {
                line("library", path.display().to_string());
            } else if !self.found.gpus.is_empty() {
                line("library", format!("{stem}: not found"));
            }
        }
    }
}

/// Writes a line: what it is about, and what is found.
type Line<'a> = &'a mut dyn FnMut(&str, String);

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), |n| Bytes(n).to_string())
}

/// What runs programs beside the processor: in every build.
const FEATURES: [&str; 1] = ["cuda"];
