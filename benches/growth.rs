//! How cost grows: speed and memory of training along batch, length and layers, each with the others
//! fixed, as tables, a plot, and an exit code that tells whether anything grew faster than its
//! arithmetic. Models have the shape of a small RoBERTa and random weights; every text has exactly as
//! many tokens as its point says; each point is a process of its own.
//!
//! `cargo bench --profile dev --bench growth -- [--method M,…] [--axis A,…] [--hidden N] [--steps N] [--csv FILE] [--svg FILE]`

#[path = "growth/plot.rs"]
mod plot;
#[path = "growth/point.rs"]
mod point;
mod points;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use peftc::base::units::Bytes;
use point::{Bench, METHODS, Point, Size};
use points::{io, one, or_all, some_of};

/// How many times as fast as the arithmetic (or the tokens) time (or memory) may grow: the largest ratio
/// of logarithms between neighbours.
const ALLOWED: f64 = 1.25;
/// Seconds; what a step that is shorter takes is mostly what does not grow, and noise.
const SHORT: f64 = 0.02;

/// An axis: its values, and where the others stand.
#[derive(Clone, Copy)]
struct Sweep {
    name: &'static str,
    values: &'static [u64],
    at: Size,
}

/// The axes. What stands at an axis' own place in `at` is not used.
const SWEEPS: [Sweep; 3] = [
    Sweep {
        name: "batch",
        values: &[1, 2, 4, 8, 16, 32, 64, 128],
        at: Size {
            batch: 0,
            length: 32,
            layers: 6,
        },
    },
    Sweep {
        name: "length",
        values: &[16, 32, 64, 128, 256, 512],
        at: Size {
            batch: 8,
            length: 0,
            layers: 6,
        },
    },
    Sweep {
        name: "layers",
        values: &[3, 6, 12, 24, 48],
        at: Size {
            batch: 16,
            length: 32,
            layers: 0,
        },
    },
];

impl Sweep {
    fn size(&self, value: u64) -> Size {
        let mut size = self.at;
        match self.name {
            "batch" => size.batch = value,
            "length" => size.length = value,
            _ => size.layers = value,
        }
        size
    }

    /// Where a size stands on the axis.
    fn along(&self, size: &Size) -> u64 {
        match self.name {
            "batch" => size.batch,
            "length" => size.length,
            _ => size.layers,
        }
    }

    /// Where the others stand, in words.
    fn fixed(&self) -> String {
        let Size {
            batch,
            length,
            layers,
        } = self.at;
        match self.name {
            "batch" => format!("length {length}, {layers} layers"),
            "length" => format!("batch {batch}, {layers} layers"),
            _ => format!("batch {batch}, length {length}"),
        }
    }
}

/// The points of one method along one axis.
struct Curve {
    sweep: Sweep,
    method: String,
    points: Vec<Point>,
}

/// How much faster than what it is for a cost grew between neighbours: 1 is in proportion.
struct Growth {
    time: f64,
    memory: f64,
    /// Whether the steps are long enough for their time to count.
    timed: bool,
}

impl Growth {
    /// Time against arithmetic; memory against the axis, which is what tokens are in proportion to.
    fn of(sweep: &Sweep, before: &Point, point: &Point) -> Self {
        let exponent = |cost: f64, by: f64| cost.ln() / by.ln();
        let along = sweep.along(&point.size) as f64 / sweep.along(&before.size) as f64;
        Self {
            time: exponent(point.step_s / before.step_s, point.flops / before.flops),
            memory: exponent(point.measured / before.measured, along),
            timed: before.step_s >= SHORT,
        }
    }

    fn slow(&self) -> bool {
        self.timed && self.time > ALLOWED
    }

    fn large(&self) -> bool {
        self.memory > ALLOWED
    }
}

/// What was asked for; an empty list is everything.
struct Asked {
    methods: Vec<String>,
    axes: Vec<String>,
    hidden: u64,
    steps: u64,
    csv: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Asked {
    fn from_args() -> Result<Self, String> {
        let mut asked = Self {
            methods: Vec::new(),
            axes: Vec::new(),
            hidden: 384,
            steps: 3,
            csv: None,
            svg: None,
        };
        let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(format!("`{arg}` lacks a value"))?;
            match arg.as_str() {
                "--method" => asked.methods = some_of(&value, &METHODS.map(|m| m.0))?,
                "--axis" => asked.axes = some_of(&value, &SWEEPS.map(|s| s.name))?,
                "--hidden" => asked.hidden = one(&value)?,
                "--steps" => asked.steps = one(&value)?,
                "--csv" => asked.csv = Some(value.into()),
                "--svg" => asked.svg = Some(value.into()),
                _ => return Err(format!("there is no argument `{arg}`")),
            }
        }
        if asked.hidden == 0 || !asked.hidden.is_multiple_of(64) || asked.steps == 0 {
            return Err("a width is a multiple of 64; at least one step is timed".to_owned());
        }
        Ok(asked)
    }
}

/// Measures a method along an axis; a point that seems to take too long gets a second chance, since
/// what disturbs a measurement only ever makes it longer.
fn curve(bench: &Bench, sweep: Sweep, method: &str) -> Result<Curve, String> {
    let mut points: Vec<Point> = Vec::new();
    for &value in sweep.values {
        let mut point = bench.measure(method, sweep.size(value))?;
        let slow = |p: &Point| {
            let before = points.last();
            before.is_some_and(|before| Growth::of(&sweep, before, p).slow())
        };
        if slow(&point) {
            let again = bench.measure(method, point.size)?;
            if again.step_s < point.step_s {
                point = again;
            }
        }
        print!("{}", line(&sweep, method, points.last(), &point));
        std::io::stdout().flush().map_err(io)?;
        points.push(point);
    }
    Ok(Curve {
        sweep,
        method: method.to_owned(),
        points,
    })
}

/// A point's line of its table; what grows too fast is bold.
fn line(sweep: &Sweep, method: &str, before: Option<&Point>, p: &Point) -> String {
    let mark = |x: f64, too_fast: bool| match too_fast {
        true => format!("**{x:.2}**"),
        false => format!("{x:.2}"),
    };
    let (time, memory) = match before.map(|before| Growth::of(sweep, before, p)) {
        Some(g) => {
            let time = mark(g.time, g.slow());
            let time = if g.timed { time } else { format!("({time})") };
            (time, mark(g.memory, g.large()))
        }
        None => ("–".to_owned(), "–".to_owned()),
    };
    format!(
        "| {method} | {} | {:.1} | {:.1} | {:.0} | {:.2} | {:.1} | {} | {} | {} | {time} | {memory} |\n",
        sweep.along(&p.size),
        1e3 * p.step_s,
        p.samples_per_s(),
        p.size.tokens() as f64 / p.step_s,
        p.flops / 1e9,
        p.flops / p.step_s / 1e9,
        Bytes(p.estimated as u64),
        Bytes(p.measured as u64),
        Bytes(p.process as u64),
    )
}

/// Every point with plain numbers, for other programs.
fn csv(curves: &[Curve]) -> String {
    let mut out = String::from(
        "axis,method,batch,length,layers,step_s,flops_per_step,estimated_peak_bytes,measured_peak_bytes,measured_process_bytes\n",
    );
    for curve in curves {
        for p in &curve.points {
            let Size {
                batch,
                length,
                layers,
            } = p.size;
            let _ = writeln!(
                out,
                "{},{},{batch},{length},{layers},{},{},{},{},{}",
                curve.sweep.name,
                curve.method,
                p.step_s,
                p.flops,
                p.estimated,
                p.measured,
                p.process
            );
        }
    }
    out
}

/// Measures and prints all that was asked for; how many points grew too fast.
fn run(asked: &Asked) -> Result<usize, String> {
    let root = tempfile::tempdir().map_err(io)?;
    let bench = Bench::new(root.path(), asked.hidden, asked.steps)?;
    let axes = or_all(&asked.axes, SWEEPS.map(|s| s.name.to_owned()));
    let methods = or_all(&asked.methods, METHODS.map(|m| m.0.to_owned()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let about = format!(
        "RoBERTa-like encoders of width {}, random weights, f32; {threads} threads; median of {} steps or more",
        asked.hidden, asked.steps
    );
    println!("{about}.");
    let mut curves = Vec::new();
    for sweep in SWEEPS.iter().filter(|s| axes.iter().any(|a| a == s.name)) {
        println!("\n## Along {}: {}\n", sweep.name, sweep.fixed());
        println!(
            "| method | {} | step, ms | samples/s | tokens/s | GFLOP a step | GFLOP/s | tensors, estimated | measured | process | time by arithmetic | memory by {} |",
            sweep.name,
            if sweep.name == "layers" {
                "layers"
            } else {
                "tokens"
            }
        );
        println!("| --- |{}", " ---: |".repeat(11));
        for method in &methods {
            curves.push(curve(&bench, *sweep, method)?);
        }
    }
    if let Some(file) = &asked.csv {
        std::fs::write(file, csv(&curves)).map_err(io)?;
    }
    if let Some(file) = &asked.svg {
        let names: Vec<&str> = methods.iter().map(String::as_str).collect();
        std::fs::write(file, plot::svg(&curves, &names, &about)).map_err(io)?;
    }
    let too_fast = |c: &Curve| {
        let pairs = c.points.windows(2);
        let growths = pairs.map(|p| Growth::of(&c.sweep, &p[0], &p[1]));
        growths.filter(|g| g.slow() || g.large()).count()
    };
    Ok(curves.iter().map(too_fast).sum())
}

fn main() -> ExitCode {
    let asked = match Asked::from_args() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match run(&asked) {
        Ok(0) => {
            println!("\nNothing grew faster than its arithmetic.");
            ExitCode::SUCCESS
        }
        Ok(n) => {
            println!("\n{n} points grew faster than their arithmetic; they are bold.");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
