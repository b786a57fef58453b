//! What the draws gave: errors of the estimates, and whether the targets are met.

/// Largest error of a median, of any stage, and of a process, as shares of the estimate.
const MEDIAN: f64 = 0.005;
const LARGEST: f64 = 0.02;
const PROCESS: f64 = 0.10;
/// Processes below this say more about the binary than about the estimate.
const SMALL_PROCESS: u64 = 100 << 20;
const WORST: usize = 5;

/// What was estimated and measured of one stage.
pub struct Row {
    /// Which draw.
    pub draw: u64,
    /// The stage's kind and methods.
    pub what: String,
    /// Tensor bytes: estimated, measured.
    pub tensors: (u64, u64),
    /// Bytes of the process: estimated, measured.
    pub process: (u64, u64),
    /// Whether the peak is a decomposition, whose work space is a bound: most of it is not touched where
    /// the shorter of its two ways leads to the end.
    pub bound: bool,
}

impl Row {
    /// Whether the process is held to its estimate.
    fn counts(&self) -> bool {
        self.process.1 >= SMALL_PROCESS && !self.bound
    }
}

/// measured / estimated - 1.
pub fn error((estimated, measured): (u64, u64)) -> f64 {
    measured as f64 / estimated.max(1) as f64 - 1.0
}

/// All stages of all draws.
#[derive(Default)]
pub struct Tally {
    /// What was measured.
    pub rows: Vec<Row>,
    /// The recipe of each draw.
    pub recipes: Vec<(u64, String)>,
    /// Recipes that the compiler refused and that were drawn again.
    pub refused: u64,
    /// Draws that failed otherwise.
    pub failed: u64,
}

impl Tally {
    /// Prints the summary; whether every target is met.
    pub fn report(&self) -> bool {
        let above = self.rows.iter().filter(|r| r.tensors.1 > r.tensors.0);
        let above = above.count();
        println!(
            "\n{} draws, {} stages; {} recipes refused and drawn again, {} failed",
            self.recipes.len(),
            self.rows.len(),
            self.refused,
            self.failed
        );
        let tensors = self.line("tensor bytes", |r| Some(error(r.tensors)));
        println!("above the estimate: {above} stages");
        let process = self.line("process bytes, 100 MiB and more", |r| {
            r.counts().then(|| error(r.process))
        });
        self.line("process bytes where a decomposition is the peak", |r| {
            r.bound.then(|| error(r.process))
        });
        self.line("process bytes, all", |r| Some(error(r.process)));
        let good = self.failed == 0
            && above == 0
            && tensors.is_some_and(|(median, largest)| median <= MEDIAN && largest <= LARGEST)
            && process.is_none_or(|(_, largest)| largest <= PROCESS);
        self.worst("tensor bytes", |r| error(r.tensors).abs());
        self.worst("process bytes", |r| match r.counts() {
            true => error(r.process).abs(),
            false => 0.0,
        });
        println!(
            "targets: tensors median {:.1} %, largest {:.0} %, none above; process {:.0} %: {}",
            100.0 * MEDIAN,
            100.0 * LARGEST,
            100.0 * PROCESS,
            if good { "met" } else { "missed" }
        );
        good
    }

    /// Prints median and extremes; gives the median and the largest of the errors' sizes.
    fn line(&self, what: &str, of: impl Fn(&Row) -> Option<f64>) -> Option<(f64, f64)> {
        let errors: Vec<f64> = self.rows.iter().filter_map(of).collect();
        let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let (&median, &largest) = (sizes.get(sizes.len() / 2)?, sizes.last()?);
        let exact = errors.iter().filter(|&&e| e == 0.0).count();
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        let most = errors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "{what}: {} stages, {exact} exact; error median {:.3} %, largest {:.2} %, from {:+.2} % to {:+.2} %",
            errors.len(),
            100.0 * median,
            100.0 * largest,
            100.0 * least,
            100.0 * most
        );
        Some((median, largest))
    }

    fn worst(&self, what: &str, of: impl Fn(&Row) -> f64) {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|r| of(r) > 0.0).collect();
        rows.sort_by(|a, b| of(b).total_cmp(&of(a)));
        for row in rows.into_iter().take(WORST) {
            let recipe = self.recipes.iter().find(|(d, _)| *d == row.draw);
            println!(
                "\nworst {what}: draw {}, {}: tensors {} of {} ({:+.3} %), process {} of {} ({:+.2} %)\n{}",
                row.draw,
                row.what,
                row.tensors.1,
                row.tensors.0,
                100.0 * error(row.tensors),
                row.process.1,
                row.process.0,
                100.0 * error(row.process),
                recipe.map_or("", |(_, r)| r.as_str())
            );
        }
    }
}
