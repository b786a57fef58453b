//! What stands below a run's lines on a terminal: the stage that runs, its losses, and the stages that wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use unicode_width::UnicodeWidthChar as _;

use super::options::Color;
use super::screen::Screen;
use crate::base::units::{About, Count};
use crate::base::visible;

/// Steps that a shown loss is the mean of: one batch's says little.
const SMOOTHED: usize = 50;
/// Losses of a curve.
const POINTS: usize = 32;

/// A stage of a run.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    /// Its name.
    pub(super) name: String,
    /// How long it takes by the plan; `None` where that is not known.
    pub(super) seconds: Option<f64>,
}

/// The stages that a run has before it.
#[derive(Debug)]
pub(super) struct Stages {
    all: usize,
    /// What has neither begun nor been found.
    waiting: Vec<Ahead>,
    /// Seconds of the stage that runs by the plan.
    now: Option<f64>,
}

impl Stages {
    pub(super) fn new(waiting: Vec<Ahead>) -> Self {
        Self {
            all: waiting.len(),
            waiting,
            now: None,
        }
    }

    /// A stage begins, or is found in the store.
    pub(super) fn begin(&mut self, name: &str) {
        let place = self.waiting.iter().position(|s| s.name == name);
        self.now = place.and_then(|place| self.waiting.remove(place).seconds);
    }

    /// Which stage of how many it is, what comes next, and the time that is left for all if this stage takes so long and has
    /// so much left of it, in seconds; empty where nothing waits.
    fn line(&self, left: Option<(f64, f64)>) -> String {
        let Some(next) = self.waiting.first() else {
            return String::new();
        };
        let now = self.all - self.waiting.len();
        let (now, all) = (Count(now as u64), Count(self.all as u64));
        let time = left.and_then(|(takes, left)| {
            // A stage that takes twice what the plan says lets expect the same of the others.
            let factor = self
                .now
                .filter(|&own| own > 0.0)
                .map_or(1.0, |own| takes / own);
            let others: Option<f64> = self.waiting.iter().map(|s| s.seconds).sum();
            Some(left + factor * others?)
        });
        let time = time.map_or_else(String::new, |s| format!("{} left in all, ", About(s)));
        format!("stage {now} of {all}, {time}then {}", next.name)
    }
}

/// The losses of a stage: the mean of the last ones, and all of them in a few points.
#[derive(Debug, Default)]
pub(super) struct Losses {
    last: VecDeque<f64>,
    /// Means of as many neighbouring losses as `of` says; the last one of fewer.
    points: Vec<(f64, u32)>,
    of: u32,
}

impl Losses {
    pub(super) fn push(&mut self, loss: f64) {
        if self.last.len() == SMOOTHED {
            self.last.pop_front();
        }
        self.last.push_back(loss);
        self.of = self.of.max(1);
        match self.points.last_mut().filter(|(_, n)| *n < self.of) {
            Some((mean, n)) => {
                *n += 1;
                *mean += (loss - *mean) / f64::from(*n);
            }
            None => self.points.push((loss, 1)),
        }
        if self.points.len() > POINTS {
            let pairs = self.points.chunks(2);
            self.points = pairs.map(together).collect();
            self.of *= 2;
        }
    }

    /// The mean of the last losses, and of how many.
    pub(super) fn mean(&self) -> (f64, usize) {
        let n = self.last.len();
        (self.last.iter().sum::<f64>() / n.max(1) as f64, n)
    }

    /// The mean of the last losses in words.
    pub(super) fn said(&self) -> String {
        match self.mean() {
            (mean, n) if n > 1 => format!("loss {mean:.4} (mean of {n} steps)"),
            (mean, _) => format!("loss {mean:.4}"),
        }
    }

    /// The course of the loss in blocks, the lowest of which is the least loss.
    fn curve(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let losses = self.points.iter().map(|(loss, _)| *loss);
        let finite = || losses.clone().filter(|x| x.is_finite());
        let (low, high) = (
            finite().fold(f64::MAX, f64::min),
            finite().fold(f64::MIN, f64::max),
        );
        let block = |loss: f64| {
            let height = (loss - low) / (high - low) * 7.0;
            // No number is the tallest; with one height alone there is nothing to tell.
            let height = if height.is_nan() && loss.is_finite() {
                0.0
            } else {
                height
            };
            BLOCKS[if height.is_nan() {
                7
            } else {
                (height.round() as usize).min(7)
            }]
        };
        losses.clone().map(block).collect()
    }
}

/// A point of two.
fn together(pair: &[(f64, u32)]) -> (f64, u32) {
    let n: u32 = pair.iter().map(|(_, n)| n).sum();
    let sum: f64 = pair.iter().map(|(mean, n)| mean * f64::from(*n)).sum();
    (sum / f64::from(n.max(1)), n)
}

/// The lines below the bar.
#[derive(Debug, Default)]
struct Below {
    losses: String,
    stages: String,
}

/// The live region.
#[derive(Debug)]
pub(super) struct Live {
    bar: ProgressBar,
    below: Arc<Mutex<Below>>,
    /// Whether it has a line of losses.
    steps: bool,
}

impl Live {
    /// A stage of so many steps or examples begins.
    pub(super) fn new(total: u64, stages: &Stages) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let own = Self {
            bar,
            below: Arc::default(),
            steps: false,
        };
        own.tell(stages, None);
        own.style();
        own
    }

    fn style(&self) {
        let mut template = "  {bar:20} {pos}/{len}  {wide_msg}".to_owned();
        if self.steps {
            template.push_str("\n  {losses}");
        }
        if !self.below().stages.is_empty() {
            template.push_str("\n  {stages}");
        }
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let key = |of: fn(&Below) -> &str| {
                let below = self.below.clone();
                move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let below = below.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = out.write_str(of(&below));
                }
            };
            let style = style.with_key("losses", key(|below| &below.losses));
            self.bar
                .set_style(style.with_key("stages", key(|below| &below.stages)));
        }
    }

    fn below(&self) -> std::sync::MutexGuard<'_, Below> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, stages: &Stages, left: Option<(f64, f64)>) {
        self.below().stages = cut(&stages.line(left));
    }

    /// So many steps are done.
    pub(super) fn step(&mut self, step: u64, text: String, losses: &Losses) {
        let (curve, said) = (losses.curve(), losses.said());
        self.below().losses = cut(&format!("{curve}  {said}"));
        if !self.steps {
            self.steps = true;
            self.style();
        }
        self.bar.set_position(step);
        let beside = format!(
            "  {}{step}/{}  ",
            " ".repeat(21),
            self.bar.length().unwrap_or(step)
        );
        self.bar
            .set_message(shortened(&text, columns_for(beside.len())));
    }

    /// How long the stage takes, and what of that is left, in seconds.
    pub(super) fn time(&self, stages: &Stages, times: (f64, f64)) {
        self.tell(stages, Some(times));
    }

    /// What the bar says beside the number of steps.
    pub(super) fn say(&self, text: String) {
        self.bar.set_message(text);
    }

    /// So much is done, if it is more than before and no more than there is.
    pub(super) fn reach(&self, done: u64) {
        let all = self.bar.length().unwrap_or(done);
        if self.bar.position() < done && done <= all {
            self.bar.set_position(done);
        }
    }

    /// A line above.
    pub(super) fn line(&self, text: &str) {
        self.bar.println(visible::lines(text));
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line of the region in the terminal's width.
fn cut(line: &str) -> String {
    let line = visible::line(line);
    shortened(&line, columns_for(2))
}

/// Columns of the terminal beside so many.
fn columns_for(taken: usize) -> usize {
    let width = Screen::err(Color::Auto).width.unwrap_or(80);
    width.saturating_sub(taken + 1)
}

fn shortened(line: &str, width: usize) -> String {
    let columns = |c: char| c.width().unwrap_or(0);
    if line.chars().map(columns).sum::<usize>() <= width {
        return line.to_owned();
    }
    let mut taken = 1;
    let short = line.chars().take_while(|&c| {
        taken += columns(c);
        taken <= width
    });
    short.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_course_of_all_losses_in_a_few_points() {
        let mut losses = Losses::default();
        assert_eq!(losses.curve(), "");
        losses.push(1.0);
        assert_eq!(
            (losses.curve().as_str(), losses.said().as_str()),
            ("▁", "loss 1.0000")
        );
        for step in 1..1000 {
            losses.push(1.0 - f64::from(step) / 1000.0);
        }
        let curve: Vec<char> = losses.curve().chars().collect();
        assert!((16..=POINTS).contains(&curve.len()), "{curve:?}");
        assert_eq!((curve.first(), curve.last()), (Some(&'█'), Some(&'▁')));
        assert!(curve.windows(2).all(|pair| pair[0] >= pair[1]), "{curve:?}");
        let all: u32 = losses.points.iter().map(|(_, n)| n).sum();
        assert_eq!(all, 1000);
        assert_eq!(losses.said(), "loss 0.0255 (mean of 50 steps)");
    }

    #[test]
    fn a_loss_that_is_no_number_is_the_tallest() {
        let mut losses = Losses::default();
        for loss in [0.5, f64::NAN, 1.0, f64::INFINITY] {
            losses.push(loss);
        }
        assert_eq!(losses.curve(), "▁███");
    }

    #[test]
    fn the_time_for_all_is_measured_by_the_stage_that_runs() {
        let stage = |name: &str, seconds| Ahead {
            name: name.to_owned(),
            seconds,
        };
        let plan = || {
            vec![
                stage("a", Some(10.0)),
                stage("b", Some(20.0)),
                stage("c", Some(30.0)),
            ]
        };
        let mut stages = Stages::new(plan());
        stages.begin("a");
        assert_eq!(stages.line(None), "stage 1 of 3, then b");
        // `a` takes twice what the plan says.
        assert_eq!(
            stages.line(Some((20.0, 5.0))),
            format!("stage 1 of 3, {} left in all, then b", About(105.0))
        );
        stages.begin("b");
        stages.begin("c");
        assert_eq!(stages.line(Some((20.0, 5.0))), "");
        let mut unknown = Stages::new(vec![stage("a", Some(1.0)), stage("b", None)]);
        unknown.begin("a");
        assert_eq!(unknown.line(Some((1.0, 1.0))), "stage 1 of 2, then b");
    }

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(shortened("stage 1 of 3", 12), "stage 1 of 3");
        assert_eq!(shortened("stage 1 of 3", 8), "stage 1…");
        assert_eq!(shortened("漢字漢字", 5), "漢字…");
    }
}
