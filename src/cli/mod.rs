//! The command line: arguments, dispatch, exit codes. One file a command.

mod chat;
mod check;
mod completions;
mod data;
mod diff;
mod doctor;
pub mod embed;
mod explain;
mod fmt;
mod generation;
mod gpu;
mod init;
mod list;
mod live;
mod logs;
mod lsp;
mod options;
mod output;
mod plan;
mod predict;
mod progress;
mod queue;
mod render;
mod replay;
mod report;
mod run;
mod runs;
mod scores;
mod screen;
mod serve;
mod show;
mod signals;
mod status;
mod store;
mod table;
mod templating;
mod trace;
pub mod world;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::base::visible;
use crate::library::data::parquet::is_decoding;
use options::Color;
use screen::Screen;

/// A compiler for parameter-efficient fine-tuning.
#[derive(Debug, Parser)]
#[command(name = "peftc", version, long_version = env!("PEFTC_VERSION"), about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Say on standard error what is read, made and taken from the store; -vv also how long it took
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with recipes and how much memory they take; executes nothing
    Check(check::Check),
    /// Print the compiled plan
    Plan(plan::PlanArgs),
    /// Print a row of a stage's data as the model will read it, with what is learned of it
    Show(show::Show),
    /// Execute a recipe; finished stages are taken from the store
    Run(run::Run),
    /// Say how the jobs of `run --on slurm` are: states, progress, errors
    Status(status::Status),
    /// Write a recipe that runs, from a file of data and a model
    Init(init::Init),
    /// Say what a file of data is: columns, classes, lengths, doubtful rows
    Data(data::Data),
    /// Compare two plans: what changed, what runs again, memory and time
    Diff(diff::Diff),
    /// List the finished runs, the newest first
    Runs(runs::Runs),
    /// Say what a store holds, make room in it, or compare its bytes with what was written
    Store(store::StoreArgs),
    /// Rebuild the weights of a `mezo` stage from its log, and compare them with the stored ones
    Replay(replay::Replay),
    /// Compare finished runs: a table, or a page with charts
    Report(report::Report),
    /// Format recipes in place
    Fmt(fmt::Fmt),
    /// Label new text with a finished stage's model, or go on with it
    Predict(predict::Predict),
    /// Talk with a finished stage's language model
    Chat(chat::Chat),
    /// Answer requests over HTTP with finished stages' models
    Serve(serve::Serve),
    /// Answer an editor while a recipe is written (a language server, over standard input and output)
    Lsp(lsp::Lsp),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::Completions),
    /// Write man pages, one a command
    Man(completions::Man),
    /// Say what this machine offers, and what stands in the way
    Doctor(doctor::Doctor),
    /// Explain a method, model, metric, stage kind, key or diagnostic code
    Explain(explain::Explain),
    /// List what the registries hold
    List(list::List),
}

/// Exit codes of the contract.
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const WRONG: i32 = 2;
    pub(crate) const TOO_LARGE: i32 = 3;
}

/// Parses the command line and carries it out; gives the exit code.
#[must_use]
pub fn main() -> i32 {
    signals::outlive_file_limits();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A damaged file is an error with its name, which is said elsewhere.
        if !is_decoding() {
            usual(info);
        }
    }));
    let code = carry_out();
    // Results that nobody got are no success, whichever command they are of.
    if let Some(why) = output::unprinted() {
        output::error(&format!(
            "standard output cannot be written: {why}; what was printed is not whole"
        ));
        // What was wrong before stays the reason.
        return if code == exit::DONE {
            exit::FAILED
        } else {
            code
        };
    }
    code
}

/// Prints what is wrong with the command line, or the help that was asked for; gives the exit code.
fn show(error: clap::Error) -> i32 {
    // What was written there must not act either, nor begin a line: it is said of the words as they are shown.
    let shown = std::env::args_os().map(|a| visible::line(&a.to_string_lossy()).into_owned());
    let error = Args::try_parse_from(shown).err().unwrap_or(error);
    let text = error.render();
    if error.use_stderr() {
        let screen = Screen::err(Color::Auto);
        output::note(&if screen.colour() {
            text.ansi().to_string()
        } else {
            text.to_string()
        });
        exit::WRONG
    } else {
        // Help and the version are results like others.
        output::print(&text.to_string());
        exit::DONE
    }
}

fn carry_out() -> i32 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            return show(error);
        }
    };
    let lines = matches!(&args.command, Command::Run(run) if run.writes_lines());
    if let Err(why) = trace::begin(args.verbose, lines) {
        output::error(&why);
        return exit::WRONG;
    }
    match args.command {
        Command::Check(c) => c.run(),
        Command::Plan(c) => c.run(),
        Command::Show(c) => c.run(),
        Command::Run(c) => c.run(),
        Command::Status(c) => c.run(),
        Command::Init(c) => c.run(),
        Command::Data(c) => c.run(),
        Command::Diff(c) => c.run(),
        Command::Runs(c) => c.run(),
        Command::Store(c) => c.run(),
        Command::Replay(c) => c.run(),
        Command::Report(c) => c.run(),
        Command::Fmt(c) => c.run(),
        Command::Predict(c) => c.run(),
        Command::Chat(c) => c.run(),
        Command::Serve(c) => c.run(),
        Command::Lsp(c) => c.run(),
        Command::Completions(c) => c.run(Args::command()),
        Command::Man(c) => c.run(Args::command()),
        Command::Doctor(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::List(c) => c.run(),
    }
}
