//! `peftc store`: what a store holds, what may go, whether its bytes are those that were written.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Color, error, print, size};
use super::screen::Screen;
use super::table::{Side, Table};
use super::world::kept_files;
use crate::base::units::Bytes;
use crate::base::visible;
use crate::exec::store::Store;
use crate::exec::store::care::{Item, Removed};
use crate::files::RunError;

/// Arguments of `store`.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the entries, those used longest ago first
    Ls(StoreAt),
    /// Remove what is of no use, and with --keep what was used longest ago
    Gc {
        /// Remove entries and kept features, those used longest ago first, until the others take no more: 5GiB,
        /// 800MB; without it, only what is of no use goes
        #[arg(long, value_name = "SIZE")]
        keep: Option<String>,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: StoreAt,
    },
    /// Compare all bytes with what was written; exit with 1 if some are damaged
    Verify(StoreAt),
}

#[derive(Debug, Args)]
struct StoreAt {
    /// A recipe, or the directory it lies in; the working directory if not given
    recipe: Option<PathBuf>,
    /// The store; `.peftc/store` beside the recipe if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long)]
    json: bool,
}

impl StoreAt {
    fn store(&self) -> Store {
        let beside = || {
            let given = self.recipe.clone().unwrap_or_else(|| PathBuf::from("."));
            let dir = if given.is_dir() {
                given
            } else {
                given.parent().map(Path::to_path_buf).unwrap_or_default()
            };
            dir.join(".peftc").join("store")
        };
        Store::open(self.store.clone().unwrap_or_else(beside))
    }
}

impl StoreArgs {
    pub(super) fn run(&self) -> i32 {
        let done = match &self.action {
            Action::Ls(place) => list(place),
            Action::Gc {
                keep,
                dry_run,
                place,
            } => {
                let keep = match keep.as_deref().map(size) {
                    Some(None) => return exit::WRONG,
                    Some(keep) => keep,
                    None => None,
                };
                collect(place, keep, *dry_run)
            }
            Action::Verify(place) => verify(place),
        };
        done.unwrap_or_else(|why| {
            error(&why.to_string());
            why.exit_code()
        })
    }
}

fn list(place: &StoreAt) -> Result<i32, RunError> {
    let store = place.store();
    let items = store.items()?;
    if place.json {
        let all: Vec<Json> = items.iter().map(json_of).collect();
        print(&format!("{:#}\n", Json::Array(all)));
        return Ok(exit::DONE);
    }
    let screen = Screen::out(Color::Auto);
    let mut table = Table::new([
        ("stage", Side::Left),
        ("kind", Side::Left),
        ("size", Side::Right),
        ("last used", Side::Left),
        ("entry", Side::Left),
        ("", Side::Left),
        ("recipe", Side::Left),
    ]);
    for item in &items {
        let state = if item.finished { "" } else { "unfinished" };
        let name = |text: Option<&str>| text.unwrap_or("?").to_owned().into();
        let recipe = item.recipe.as_ref().map(|r| r.display().to_string());
        let entry = item.fingerprint.get(..12).unwrap_or(&item.fingerprint);
        table.row(vec![
            name(item.stage.as_deref()),
            name(item.kind.as_deref()),
            Bytes(item.bytes).to_string().into(),
            date(item.used).into(),
            entry.into(),
            state.into(),
            name(recipe.as_deref()),
        ]);
    }
    let mut text = if items.is_empty() {
        String::new()
    } else {
        table.without_empty().render(screen)
    };
    let beside = store.beside();
    let entries: u64 = items.iter().map(|i| i.bytes).sum();
    let ((sets, features), (aside, damaged)) = (beside.features, beside.damaged);
    let sum = format!(
        "\n  {} entries {}, kept features {} in {sets} sets, damaged and set aside {} in {aside}: {} in {}\n",
        items.len(),
        Bytes(entries),
        Bytes(features),
        Bytes(damaged),
        Bytes(entries + features + damaged),
        visible::line(&store.dir().to_string_lossy())
    );
    text.push_str(&screen.fold(&sum, 4));
    print(&text);
    Ok(exit::DONE)
}

fn json_of(item: &Item) -> Json {
    json!({
        "fingerprint": item.fingerprint, "recipe": item.recipe.as_ref().map(|r| r.display().to_string()),
        "stage": item.stage, "kind": item.kind, "bytes": item.bytes, "finished": item.finished,
        "used": date(item.used),
    })
}

fn collect(place: &StoreAt, keep: Option<u64>, dry: bool) -> Result<i32, RunError> {
    let gone = place.store().collect(keep, !dry)?;
    let bytes: u64 = gone.iter().map(|g| g.bytes).sum();
    if place.json {
        let each = |g: &Removed| json!({ "path": g.path.display().to_string(), "bytes": g.bytes, "why": g.why });
        let all: Vec<Json> = gone.iter().map(each).collect();
        print(&format!(
            "{:#}\n",
            json!({ "schema": 1, "dry_run": dry, "bytes": bytes, "removed": all })
        ));
        return Ok(exit::DONE);
    }
    let mut text = String::new();
    for g in &gone {
        let size = Bytes(g.bytes).to_string();
        text.push_str(&format!(
            "  {size:>10}  {}  ({})\n",
            visible::line(&g.path.to_string_lossy()),
            g.why
        ));
    }
    let mut text = Screen::out(Color::Auto).fold(&text, 14);
    let verb = if dry { "would be removed" } else { "removed" };
    text.push_str(&format!("  {} {verb}\n", Bytes(bytes)));
    print(&text);
    Ok(exit::DONE)
}

fn verify(place: &StoreAt) -> Result<i32, RunError> {
    let mut verdict = place.store().verify()?;
    for found in kept_files() {
        verdict.add(found.into_iter().collect());
    }
    if place.json {
        let each = verdict.damaged.iter();
        let all: Vec<Json> = each
            .map(|d| json!({ "path": d.path.display().to_string(), "what": d.what }))
            .collect();
        print(&format!(
            "{:#}\n",
            json!({ "schema": 1, "compared": verdict.compared, "damaged": all })
        ));
    } else {
        let mut text = String::new();
        for damage in &verdict.damaged {
            text.push_str(&format!("  {}\n", visible::line(&damage.to_string())));
        }
        text.push_str(&format!(
            "  {} entries and caches compared, {} damaged\n",
            verdict.compared,
            verdict.damaged.len()
        ));
        if !verdict.damaged.is_empty() {
            text.push_str(
                "  The next `peftc run` sets what is damaged aside and makes it again.\n",
            );
        }
        print(&Screen::out(Color::Auto).fold(&text, 4));
    }
    Ok(if verdict.damaged.is_empty() {
        exit::DONE
    } else {
        exit::FAILED
    })
}

/// A time as RFC 3339 has it, in UTC.
fn date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is their last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        year + era * 400 + carry,
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
