//! `peftc completions SHELL` and `peftc man DIR`: what shells and readers of man pages take, made of the command line
//! itself.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit;
use super::options::{error, print};
use crate::files::durable::write_over;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell to print a script for
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, mut command: Command) -> i32 {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "peftc", &mut script);
        print(&String::from_utf8_lossy(&script));
        exit::DONE
    }
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory that the pages go to, such as ~/.local/share/man/man1
    dir: PathBuf,
}

impl Man {
    pub(super) fn run(&self, command: Command) -> i32 {
        let done = std::fs::create_dir_all(&self.dir)
            .map_err(|why| format!("cannot make {}: {why}", self.dir.display()))
            .and_then(|()| self.pages(command.disable_help_subcommand(true)));
        match done {
            Ok(count) => {
                print(&format!("{count} pages in {}\n", self.dir.display()));
                exit::DONE
            }
            Err(why) => {
                error(&why);
                exit::FAILED
            }
        }
    }

    /// Writes a page for each command: `peftc-check.1`.
    fn pages(&self, mut command: Command) -> Result<usize, String> {
        command.build();
        let mut todo = vec![command];
        let mut count = 0;
        while let Some(command) = todo.pop() {
            todo.extend(
                command
                    .get_subcommands()
                    .filter(|c| !c.is_hide_set())
                    .cloned(),
            );
            let name = command.get_display_name().unwrap_or("peftc").to_owned();
            let path = self.dir.join(format!("{name}.1"));
            let mut page = Vec::new();
            let made = clap_mangen::Man::new(command).render(&mut page);
            made.map_err(|why| why.to_string())?;
            write_over(&path, &page).map_err(|why| why.to_string())?;
            count += 1;
        }
        Ok(count)
    }
}
