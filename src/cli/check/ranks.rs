//! `check --ranks N`: what trainings shared among processes take, and where more of them stop paying.

use serde_json::{Value as Json, json};

use crate::base::units::Bytes;
use crate::cli::screen::{Screen, wrap};
use crate::cli::table::{Side, Table};
use crate::plan::ranks::{Shared, Wire, pays_up_to};
use crate::plan::{Plan, Stage};
use crate::program::op::Machine;
use crate::program::rates::Rates;

/// Bytes a second between two machines, where nothing else is said: 10 Gbit/s.
pub(super) const BANDWIDTH: u64 = 1_250_000_000;

/// Seconds of a message beside its bytes: what MPI takes over TCP in a network of machines.
const LATENCY: f64 = 20e-6;

/// What lies between ranks, by the bytes a second.
pub(super) fn wire(bandwidth: u64) -> Wire {
    Wire {
        bandwidth: bandwidth.max(1) as f64,
        latency: LATENCY,
    }
}

/// What tells times.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) wire: Wire,
    pub(super) rates: &'a Rates,
    pub(super) machine: &'a Machine,
}

impl By<'_> {
    fn steps(&self, stage: &Stage) -> Vec<Shared> {
        stage.scaling(self.wire, self.rates, self.machine)
    }
}

/// Puts what a shared training takes into its JSON.
pub(super) fn put(json: &mut Json, stage: &Stage, by: By<'_>) {
    let (Some(map), 2..) = (json.as_object_mut(), stage.ranks) else {
        return;
    };
    let steps = by.steps(stage);
    let (own, traffic) = (of(&steps, stage.ranks), stage.traffic());
    let each = |step: &Shared| json!({ "ranks": step.ranks, "step_s": step.seconds(), "exchange_s": step.exchanges });
    let said = json!({
        "count": stage.ranks, "needs_bytes": stage.estimate.needs(), "sent_bytes_per_step": traffic.bytes,
        "messages_per_step": traffic.messages, "bandwidth_bytes_per_s": by.wire.bandwidth, "latency_s": by.wire.latency,
        "step_s": own.map(|step| step.seconds()), "exchange_s": own.map(|step| step.exchanges), "pays_up_to": pays_up_to(&steps),
        "steps": steps.iter().map(each).collect::<Vec<_>>(),
    });
    map.insert("ranks".to_owned(), said);
}

/// The step of so many ranks.
fn of(steps: &[Shared], ranks: u64) -> Option<&Shared> {
    steps.iter().find(|step| step.ranks == ranks)
}

/// The same for people.
pub(super) fn block(plan: &Plan, ranks: u64, by: By<'_>, screen: Screen) -> String {
    let shared: Vec<&Stage> = plan.stages.iter().filter(|s| s.ranks > 1).collect();
    if shared.is_empty() {
        return format!("\n  nothing here is shared among {ranks} ranks: no stage trains\n");
    }
    let title = format!("{ranks} ranks");
    let mut table = Table::new([
        (title.as_str(), Side::Left),
        ("memory", Side::Right),
        ("sent", Side::Right),
        ("step", Side::Right),
        ("sending", Side::Right),
        ("1 rank", Side::Right),
        ("pays up to", Side::Right),
    ]);
    let time = |seconds: Option<f64>| seconds.map_or("–".to_owned(), short);
    for stage in shared {
        let steps = by.steps(stage);
        let own = of(&steps, stage.ranks);
        let most = pays_up_to(&steps).map_or("–".to_owned(), |n| match n {
            1 => "1 rank".to_owned(),
            n => format!("{n} ranks"),
        });
        table.row(vec![
            stage.name.value.as_str().into(),
            Bytes(stage.estimate.needs()).to_string().into(),
            Bytes(stage.traffic().bytes).to_string().into(),
            time(own.map(Shared::seconds)).into(),
            time(own.map(|step| step.exchanges)).into(),
            time(of(&steps, 1).map(Shared::seconds)).into(),
            most.into(),
        ]);
    }
    let legend = format!(
        "memory: of each rank. sent: bytes that a rank sends in a step. step: the time of a mean one; sending: what of it that takes, with {:.1} \
         Gbit/s (`--bandwidth`) and {:.0} µs a message. 1 rank: the time with one process. pays up to: with more ranks a step takes no less time.",
        by.wire.bandwidth * 8e-9,
        by.wire.latency * 1e6
    );
    format!(
        "\n{}\n{}",
        table.render(screen),
        wrap(&legend, screen.prose(), "  ")
    )
}

/// A time of a step.
fn short(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}
