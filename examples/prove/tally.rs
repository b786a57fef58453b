//! What the draws gave: errors of the estimates, and whether the targets are met.

/// Largest error of a median, of any stage, and of a process, as shares of the estimate.
const MEDIAN: f64 = 0.005;
const LARGEST: f64 = 0.02;
const PROCESS: f64 = 0.10;
/// On a GPU: largest error of a median, and of all but a twentieth of the stages. None may be above its estimate.
const CARD_MEDIAN: f64 = 0.02;
const CARD_MOST: f64 = 0.05;
/// The driver tells whole MiB.
const CARD_GRAIN: u64 = 1 << 20;
/// Processes below this say more about the binary than about the estimate.
const SMALL_PROCESS: u64 = 64 << 20;
const WORST: usize = 5;

/// What was estimated and measured of one stage.
pub struct Row {
    /// Which draw.
    pub draw: u64,
    /// The stage's kind and methods.
    pub what: String,
    /// Whether it ran on the GPU that was asked for; what is the host's alone does not.
    pub on_card: bool,
    /// Whether `check` and `run` estimated the same.
    pub planned_alike: bool,
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

/// The whole memory of a GPU over a draw, the driver's context included.
pub struct Card {
    /// Which draw.
    pub draw: u64,
    /// Bytes: estimated, measured.
    pub bytes: (u64, u64),
}

impl Card {
    fn short(&self) -> bool {
        self.bytes.1 > self.bytes.0 + CARD_GRAIN
    }
}

/// Sizes of the errors of one kind.
#[derive(Clone, Copy)]
struct Errors {
    median: f64,
    /// All but a twentieth are no larger.
    most: f64,
    largest: f64,
}

/// measured / estimated - 1.
pub fn error((estimated, measured): (u64, u64)) -> f64 {
    measured as f64 / estimated.max(1) as f64 - 1.0
}

/// All stages of all draws.
pub struct Tally {
    /// Whether a GPU was asked for.
    pub for_card: bool,
    /// Whether the draws ran one by one, so that the whole GPU could be watched.
    pub apart: bool,
    /// The GPU's memory over each draw, where it was watched.
    pub cards: Vec<Card>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// The recipe of each draw.
    pub recipes: Vec<(u64, String)>,
    /// Recipes that the compiler refused and that were drawn again.
    pub refused: u64,
    /// Draws that failed otherwise.
    pub failed: u64,
    /// Stages that did not fit into their process line, where they were confined to it.
    pub confined: Option<u64>,
}

impl Tally {
    /// Nothing drawn yet.
    pub fn new(for_card: bool) -> Self {
        Self {
            for_card,
            apart: true,
            cards: Vec::new(),
            rows: Vec::new(),
            recipes: Vec::new(),
            refused: 0,
            failed: 0,
            confined: None,
        }
    }

    /// Prints the summary; whether every target is met.
    pub fn report(&self) -> bool {
        println!(
            "\n{} draws, {} stages; {} recipes refused and drawn again, {} failed",
            self.recipes.len(),
            self.rows.len(),
            self.refused,
            self.failed
        );
        let good = match self.for_card {
            true => self.card_targets(),
            false => self.targets(),
        };
        if let Some(tight) = self.confined {
            println!("stages that did not fit into exactly their process line: {tight}");
        }
        good && self.failed == 0 && self.confined.is_none_or(|tight| tight == 0)
    }

    fn targets(&self) -> bool {
        let tensors = self.tensors("tensor bytes", false);
        let process = self.line("process bytes, 64 MiB and more", |r| {
            r.counts().then(|| error(r.process))
        });
        self.line("process bytes where a decomposition is the peak", |r| {
            r.bound.then(|| error(r.process))
        });
        self.line("process bytes, all", |r| Some(error(r.process)));
        let good = self.exact(tensors) && process.is_none_or(|e| e.largest <= PROCESS);
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
            verdict(good)
        );
        good
    }

    /// Stages on the GPU and the GPU as a whole; what stays on the host is held to the host's targets. Processes hold
    /// CUDA's libraries, whose share is an upper value, and are told only.
    fn card_targets(&self) -> bool {
        let device = self.tensors("device bytes", true);
        let host = self.tensors("tensor bytes of stages on the host", false);
        self.line("process bytes, all", |r| Some(error(r.process)));
        let errors = self.cards.iter().map(|c| error(c.bytes)).collect();
        summary("the whole GPU, context included", errors);
        let short = self.cards.iter().filter(|c| c.short()).count();
        println!("above the estimate: {short} of {} draws", self.cards.len());
        for card in self.cards.iter().filter(|c| c.short()).take(WORST) {
            let (estimated, measured) = card.bytes;
            println!("  draw {}: {measured} of {estimated}", card.draw);
        }
        let other = self.rows.iter().filter(|r| !r.planned_alike).count();
        println!("estimated otherwise by `run` than by `check`: {other} stages");
        let within = |e: Errors| e.median <= CARD_MEDIAN && e.most <= CARD_MOST;
        let good = device.is_some_and(|(e, above)| within(e) && above == 0)
            && (host.is_none() || self.exact(host))
            && short == 0
            && !(self.apart && self.cards.is_empty())
            && other == 0;
        if self.cards.is_empty() {
            println!("the whole GPU was not watched: nothing is known of it");
        }
        self.worst("device bytes", |r| match r.on_card {
            true => error(r.tensors).abs(),
            false => 0.0,
        });
        println!(
            "targets: device bytes median {:.0} %, 95th percentile {:.0} %, none above, nor the whole GPU: {}",
            100.0 * CARD_MEDIAN,
            100.0 * CARD_MOST,
            verdict(good)
        );
        good
    }

    fn exact(&self, tensors: Option<(Errors, usize)>) -> bool {
        tensors.is_some_and(|(e, above)| e.median <= MEDIAN && e.largest <= LARGEST && above == 0)
    }

    /// The errors of tensor bytes on the GPU or the host, and how many stages take more than estimated.
    fn tensors(&self, what: &str, on_card: bool) -> Option<(Errors, usize)> {
        let errors = self.line(what, |r| (r.on_card == on_card).then(|| error(r.tensors)))?;
        let above = |r: &&Row| r.on_card == on_card && r.tensors.1 > r.tensors.0;
        let above = self.rows.iter().filter(above).count();
        println!("above the estimate: {above} stages");
        Some((errors, above))
    }

    fn line(&self, what: &str, of: impl Fn(&Row) -> Option<f64>) -> Option<Errors> {
        summary(what, self.rows.iter().filter_map(of).collect())
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

fn verdict(good: bool) -> &'static str {
    if good { "met" } else { "missed" }
}

/// Prints median, 95th percentile and extremes of errors, and gives their sizes.
fn summary(what: &str, errors: Vec<f64>) -> Option<Errors> {
    let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let sizes = Errors {
        median: *sizes.get(sizes.len() / 2)?,
        most: *sizes.get((sizes.len() * 19).div_ceil(20).saturating_sub(1))?,
        largest: *sizes.last()?,
    };
    let exact = errors.iter().filter(|&&e| e == 0.0).count();
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let most = errors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!(
        "{what}: {}, {exact} exact; error median {:.3} %, 95th percentile {:.2} %, largest {:.2} %, from {:+.2} % to {:+.2} %; \
         largest shortfall {:.3} %",
        errors.len(),
        100.0 * sizes.median,
        100.0 * sizes.most,
        100.0 * sizes.largest,
        100.0 * least,
        100.0 * most,
        100.0 * most.max(0.0)
    );
    Some(sizes)
}
