//! `peftc fmt`: format recipes in place.

use std::path::PathBuf;

use clap::Args;

use super::options::{Color, error, print};
use super::output;
use super::screen::Screen;
use super::world::RealWorld;
use super::{exit, render};
use crate::base::{Sources, visible};
use crate::files::durable::write_over;
use crate::resolve::text_of;

/// Arguments of `fmt`.
#[derive(Debug, Args)]
pub(super) struct Fmt {
    /// Recipes
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; exit with 1 if a file would change
    #[arg(long)]
    check: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
}

impl Fmt {
    pub(super) fn run(&self) -> i32 {
        let mut code = exit::DONE;
        let world = RealWorld::new(true);
        for path in &self.files {
            let text = match text_of(path, &world) {
                Ok(text) => text,
                Err(why) => {
                    error(&format!("cannot read {}", why.on_the_command_line()));
                    code = code.max(exit::FAILED);
                    continue;
                }
            };
            let mut sources = Sources::default();
            let id = sources.add(path.display().to_string(), text.clone());
            match crate::syntax::format(&text, id) {
                Ok(formatted) if formatted == text => {}
                Ok(_) if self.check => {
                    let name = path.to_string_lossy();
                    print(&format!("{} would change\n", visible::line(&name)));
                    code = code.max(exit::FAILED);
                }
                Ok(formatted) => {
                    if let Err(why) = write_over(path, formatted.as_bytes()) {
                        error(&why.to_string());
                        code = code.max(exit::FAILED);
                    }
                }
                Err(diags) => {
                    let screen = Screen::err(self.color);
                    let diags = diags.into_sorted();
                    output::note(&render::render(&diags, &sources, screen));
                    code = exit::WRONG;
                }
            }
        }
        code
    }
}
