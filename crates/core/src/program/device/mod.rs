//! The device a program is planned for: what it takes beside tensors, and how fast it is by its data
//! sheet.
//!
//! **Invariant:** nothing here asks a driver: a plan for a card is the same on every machine.

mod cards;

use std::collections::BTreeSet;

use super::graph::Program;
use super::memory::sized;
use super::op::launch::Launch;
use super::op::{Cost, HeadLoss, HeadLossGrad, MatMul, Op, Precision};
use super::stored::launches;
use super::types::{Bindings, DType};

pub use cards::CARDS;

const MIB: u64 = 1 << 20;

/// Where the arithmetic is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The host's processor.
    #[default]
    Cpu,
    /// A GPU through CUDA; the card, where it is known.
    Cuda(Option<&'static Card>),
}

/// A card by its data sheet: dense rates, boost clock, products of half-width numbers summed in f32.
#[derive(Debug, PartialEq, Eq)]
pub struct Card {
    /// The name `--device` takes: `rtx3070-8gb`.
    pub name: &'static str,
    /// The product as the driver names it, without the maker.
    pub product: &'static str,
    /// Memory as the driver lists it, MiB: what error correction takes is gone.
    pub memory_mib: u64,
    /// Bytes a second to and from that memory, GB/s.
    pub bandwidth: u64,
    /// f32 arithmetic, GFLOP/s.
    pub f32: u64,
    /// Matrix products in TF32, GFLOP/s; 0 where there is none.
    pub tf32: u64,
    /// Matrix products of f16 numbers (bf16 too from capability 8.0 on), GFLOP/s.
    pub half: u64,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u64,
}

/// What the device takes beside tensors and the scratch of kernels, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// What the pool holds above the tensors: each block is rounded up, and so is the whole.
    pub pool_granularity: u64,
    /// The scratch cuBLAS is given once.
    pub cublas_workspace: u64,
    /// The context: stacks of all threads the card can hold, queues, tables of the driver.
    pub context: u64,
    /// Kernels in machine code, ours and those of cuBLAS that are loaded.
    pub modules: u64,
}

impl Overhead {
    /// The sum.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.pool_granularity + self.cublas_workspace + self.context + self.modules
    }
}

/// Blocks of the pool begin at multiples of this.
const BLOCK: u64 = 512;
/// The stream-ordered pool grows by at least this.
const POOL_STEP: u64 = 32 * MIB;
/// The stack a thread has unless a kernel asks for more; reserved for all threads that can be resident.
const STACK: u64 = 1 << 10;
/// What a context takes beside stacks: measured on an H100 with driver 580, where it was 282 to 284 MiB in 12 of 14 programs.
const CONTEXT_BASE: u64 = 288 * MIB;
/// A context where no card is known: that of a large one.
const CONTEXT_UNKNOWN: u64 = 576 * MIB;
/// Kernels of cuBLAS that lazy loading (the default from CUDA 12.2 on) brings in. Not measured by us.
const CUBLAS_CODE: u64 = 48 * MIB;
/// Machine code of one of our modules, rounded up by the loader. Not measured by us.
const MODULE_CODE: u64 = 128 << 10;
/// What a driver keeps of a card's memory for itself: a share and a constant, no less than what CUDA 12
/// drivers are seen to keep on cards of 6 to 180 GiB.
const DRIVER_SHARE: (u64, u64) = (15, 1000);
const DRIVER_BASE: u64 = 128 * MIB;

/// The share of a data sheet's arithmetic that products are taken to reach.
pub const ARITHMETIC_EFFICIENCY: f64 = 0.6;
/// The share of a data sheet's bandwidth that kernels are taken to reach.
pub const BANDWIDTH_EFFICIENCY: f64 = 0.75;
/// Seconds of starting a kernel.
pub const LAUNCH_SECONDS: f64 = 4e-6;
/// The first capability that CUDA 13's compilers know.
pub const LEAST_CAPABILITY: (u32, u32) = (7, 5);

impl Device {
    /// Bytes of memory a block takes.
    #[must_use]
    pub const fn block(self, bytes: u64) -> u64 {
        match self {
            Self::Cpu => bytes,
            Self::Cuda(_) => bytes.next_multiple_of(BLOCK),
        }
    }

    /// The card, if one is known.
    #[must_use]
    pub const fn card(self) -> Option<&'static Card> {
        match self {
            Self::Cpu => None,
            Self::Cuda(card) => card,
        }
    }
}

/// What a device takes beside the tensors of some programs of one stage: `tensors` bytes at the peak, of
/// which each block wastes its share of `rounding`.
#[must_use]
pub fn overhead<'a>(
    card: Option<&Card>,
    (tensors, rounding): (u64, u64),
    programs: impl IntoIterator<Item = &'a Program>,
) -> Overhead {
    let modules: BTreeSet<(&str, DType)> = programs.into_iter().flat_map(modules).collect();
    Overhead {
        pool_granularity: (tensors + rounding).next_multiple_of(POOL_STEP) - tensors,
        cublas_workspace: card.map_or(32 * MIB, |card| cublas_workspace(card.capability.0)),
        context: card.map_or(CONTEXT_UNKNOWN, Card::context),
        modules: CUBLAS_CODE + MODULE_CODE * modules.len() as u64,
    }
}

/// The kernel sources a program uses, each with what activations are stored in: a module each.
fn modules(program: &Program) -> Vec<(&'static str, DType)> {
    let sizes = Bindings::of_lengths([1]).reading(1);
    let all = program.nodes.iter();
    let all = all.filter_map(|node| launches(&node.op, &sized(program, node, &sizes)));
    let calls = all.flat_map(|list| list.list);
    calls
        .filter_map(|launch| match launch {
            Launch::Call(call) => Some((call.source, call.stored_in)),
            _ => None,
        })
        .collect()
}

/// Bytes cuBLAS is given as scratch on a card of this major capability: what its manual recommends.
#[must_use]
pub const fn cublas_workspace(major: u32) -> u64 {
    match major {
        9..=11 => 32 * MIB,
        12.. => 12 * MIB,
        _ => 4 * MIB,
    }
}

impl Card {
    /// A card by name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        CARDS.iter().find(|c| c.name == name)
    }

    /// The card that a driver describes by its product's name and memory; `None` where no row fits.
    #[must_use]
    pub fn found(product: &str, memory_mib: u64) -> Option<&'static Self> {
        let short = |text: &str| {
            let text = text.trim();
            let text = text.strip_prefix("NVIDIA ").unwrap_or(text);
            text.strip_prefix("Tesla ").unwrap_or(text).to_lowercase()
        };
        let wanted = short(product);
        // Server products carry form and size behind their names; `RTX 3070 Ti` is no `RTX 3070`.
        let fits = |card: &&Self| {
            let own = card.product.to_lowercase();
            let rest = wanted.strip_prefix(own.as_str());
            let exact = own.contains("tx ");
            rest.is_some_and(|rest| {
                let apart = !exact && !rest.starts_with(|c: char| c.is_alphanumeric());
                rest.is_empty() || apart && !rest.contains("mig")
            })
        };
        let off = |card: &Self| card.memory_mib.abs_diff(memory_mib);
        CARDS
            .iter()
            .filter(fits)
            .filter(|card| off(card) * 10 <= card.memory_mib)
            .min_by_key(|card| (std::cmp::Reverse(card.product.len()), off(card)))
    }

    /// Bytes of memory.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory_mib * MIB
    }

    /// Bytes that a driver leaves to programs, their contexts included; a screen takes of them.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.memory() - self.memory() / DRIVER_SHARE.1 * DRIVER_SHARE.0 - DRIVER_BASE
    }

    /// Threads a multiprocessor holds.
    const fn threads(&self) -> u64 {
        match self.capability {
            (7, 5) => 1024,
            (8, 6 | 9) | (12, _) => 1536,
            _ => 2048,
        }
    }

    /// Bytes of a context.
    const fn context(&self) -> u64 {
        CONTEXT_BASE + self.multiprocessors * self.threads() * STACK
    }

    /// GFLOP/s of an op: products have units of their own for TF32 and bf16, from Ampere on.
    const fn rate(&self, op: &Op) -> u64 {
        match op {
            Op::MatMul(MatMul { precision, .. })
            | Op::HeadLoss(HeadLoss { precision, .. })
            | Op::HeadLossGrad(HeadLossGrad {
                of: HeadLoss { precision, .. },
                ..
            }) if self.tf32 > 0 => match precision {
                Precision::F32 => self.f32,
                Precision::Tf32 => self.tf32,
                Precision::Bf16 => self.half,
            },
            _ => self.f32,
        }
    }

    /// Seconds of one op: its arithmetic at so many GFLOP/s or its traffic, whichever takes longer, and its start.
    #[must_use]
    pub fn seconds(&self, rate: u64, cost: Cost) -> f64 {
        let arithmetic = cost.flops as f64 / (rate as f64 * 1e9 * ARITHMETIC_EFFICIENCY);
        let traffic = cost.bytes as f64 / (self.bandwidth as f64 * 1e9 * BANDWIDTH_EFFICIENCY);
        LAUNCH_SECONDS + arithmetic.max(traffic)
    }

    /// Seconds of one run of a program.
    #[must_use]
    pub fn time(&self, program: &Program, sizes: &Bindings) -> f64 {
        let nodes = program.nodes.iter();
        let seconds = nodes.map(|node| {
            self.seconds(
                self.rate(&node.op),
                node.op.rule().cost(&sized(program, node, sizes)),
            )
        });
        seconds.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Real;
    use super::*;

    #[test]
    fn rows_are_sound() {
        assert!(CARDS.len() > 60);
        for (i, card) in CARDS.iter().enumerate() {
            let name = card.name;
            assert!(CARDS.iter().skip(i + 1).all(|c| c.name != name), "{name}");
            let gb: u64 = name
                .rsplit_once('-')
                .and_then(|(_, size)| size.strip_suffix("gb")?.parse().ok())
                .unwrap_or_else(|| panic!("{name} does not end in its memory"));
            // Error correction takes a sixteenth; makers round.
            let nominal = (card.memory_mib as f64) / (gb as f64 * 1024.0);
            assert!((0.93..=1.02).contains(&nominal), "{name}: {nominal}");
            assert!(
                card.half >= card.tf32 && (card.tf32 == 0 || card.tf32 >= card.f32 * 9 / 10),
                "{name}"
            );
            assert!(card.half >= card.f32, "{name}");
            // What a multiprocessor does in a second at a clock that exists.
            let lanes = match card.capability {
                (7, _) | (8, 0) => 64.0,
                _ => 128.0,
            };
            let ghz = card.f32 as f64 / (2.0 * lanes * card.multiprocessors as f64);
            assert!((1.0..=2.8).contains(&ghz), "{name}: {ghz} GHz");
            let intensity = card.f32 as f64 / card.bandwidth as f64;
            assert!((8.0..=110.0).contains(&intensity), "{name}: {intensity}");
            assert!(card.available() > card.memory() * 9 / 10, "{name}");
            assert_eq!(Card::named(name), Some(card));
            assert_eq!(
                Card::found(&format!("NVIDIA {}", card.product), card.memory_mib)
                    .map(|c| (c.product, c.memory_mib)),
                Some((card.product, card.memory_mib)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_driver_names_a_card() {
        let found = |product, mib| Card::found(product, mib).map(|c| c.name);
        assert_eq!(found("NVIDIA GeForce RTX 3070", 8192), Some("rtx3070-8gb"));
        assert_eq!(
            found("NVIDIA GeForce RTX 3070 Ti", 8192),
            Some("rtx3070ti-8gb")
        );
        assert_eq!(found("Tesla T4", 15360), Some("t4-16gb"));
        assert_eq!(found("NVIDIA A100-SXM4-80GB", 81920), Some("a100-80gb"));
        assert_eq!(found("NVIDIA A100-PCIE-40GB", 40960), Some("a100-40gb"));
        assert_eq!(found("NVIDIA H100 80GB HBM3", 81559), Some("h100-80gb"));
        assert_eq!(found("NVIDIA H100 PCIe", 81559), Some("h100pcie-80gb"));
        assert_eq!(found("NVIDIA H200", 143_771), Some("h200-141gb"));
        assert_eq!(found("NVIDIA L40S", 46068), Some("l40s-48gb"));
        assert_eq!(
            found("NVIDIA GeForce RTX 4060 Ti", 16380),
            Some("rtx4060ti-16gb")
        );
        // A slice of a card is none.
        assert_eq!(found("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40192), None);
        assert_eq!(found("Quadro K620", 2048), None);
    }

    #[test]
    fn the_device_rounds_and_the_processor_does_not() {
        assert_eq!(Device::Cpu.block(1001), 1001);
        assert_eq!(Device::Cuda(None).block(1001), 1024);
        assert_eq!(Device::Cuda(None).block(0), 0);
        let none: [&Program; 0] = [];
        let card = Card::named("rtx3070-8gb").expect("a row");
        let own = overhead(Some(card), (100 * MIB + 1000, 24), none);
        assert_eq!(own.pool_granularity, 28 * MIB - 1000);
        assert_eq!(own.cublas_workspace, 4 * MIB);
        assert_eq!(own.context, 288 * MIB + 46 * 1536 * 1024);
        let cost = Cost {
            flops: 20_310_000_000_000,
            bytes: 1,
        };
        assert!((card.seconds(card.f32, cost) - 1.0 / 0.6).abs() < 1e-3);
        let cost = Cost {
            flops: 1,
            bytes: 448_000_000_000,
        };
        assert!((card.seconds(card.f32, cost) - 1.0 / 0.75).abs() < 1e-3);
        let rates = |name: &str| {
            let card = Card::named(name).expect("a row");
            [Precision::F32, Precision::Tf32, Precision::Bf16].map(|precision| {
                let plain = MatMul::plain(false, false, Real::new(1.0));
                card.rate(&MatMul { precision, ..plain }.into())
            })
        };
        assert_eq!(rates("a100-80gb"), [19_490, 156_000, 312_000]);
        assert_eq!(rates("t4-16gb"), [8141; 3]);
    }
}
