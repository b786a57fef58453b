//! Files of recipes read, with their imports.

use std::path::{Component, Path, PathBuf};

use super::error::{BAD_IMPORT, UNREADABLE_RECIPE};
use crate::base::units::Bytes;
use crate::base::world::{World, WorldError};
use crate::base::{Diag, Diags, SourceId, Sources, Span};
use crate::syntax::ast::{File, Item};

/// A parsed file with its place on disk.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Without `.` and `..`, so that two ways to one file are one file.
    path: PathBuf,
    pub(super) file: File,
    pub(super) base: PathBuf,
    pub(super) source: SourceId,
}

/// The pieces of text that cannot be read, in order.
pub(super) struct Unreadable(Vec<Span>);

impl Unreadable {
    pub(super) fn of(diags: &Diags) -> Self {
        let mut list: Vec<Span> = diags.iter().filter_map(|d| d.span).collect();
        list.sort_unstable_by_key(|s| (s.source, s.start, s.end));
        Self(list)
    }

    /// Whether one of them lies within a place.
    pub(super) fn within(&self, place: Span) -> bool {
        let first = self
            .0
            .partition_point(|s| (s.source, s.start) < (place.source, place.start));
        let behind = self.0.get(first..).unwrap_or_default().iter();
        let mut near = behind.take_while(|s| s.source == place.source && s.start <= place.end);
        near.any(|s| s.end <= place.end)
    }
}

/// Most files that import each other in a row.
const MOST_IMPORTS: usize = 64;

/// Reads a file and all that it imports, each once, those that are imported first.
pub(super) fn load(
    path: &Path,
    sources: &mut Sources,
    world: &dyn World,
    diags: &mut Diags,
) -> Vec<Loaded> {
    let mut loading = Loading {
        stack: Vec::new(),
        files: Vec::new(),
        sources,
        world,
        diags,
    };
    loading.file(path, None);
    loading.files
}

/// Files on their way in.
struct Loading<'a> {
    /// The file that is read, after those that import it.
    stack: Vec<PathBuf>,
    /// Those that are read.
    files: Vec<Loaded>,
    sources: &'a mut Sources,
    world: &'a dyn World,
    diags: &'a mut Diags,
}

impl Loading<'_> {
    /// Reads a file, which an import elsewhere may name.
    fn file(&mut self, path: &Path, from: Option<Span>) {
        let identity = plain(path);
        if self.stack.contains(&identity) {
            let at = from.unwrap_or_default();
            self.diags.push(
                Diag::error(
                    &BAD_IMPORT,
                    at,
                    format!("`{}` imports itself", path.display()),
                )
                .label("closes the circle")
                .help("remove this import: what the file declares is there already"),
            );
            return;
        }
        if self.stack.len() >= MOST_IMPORTS {
            let message = format!("files import each other {MOST_IMPORTS} deep");
            self.diags.push(
                Diag::error(&BAD_IMPORT, from.unwrap_or_default(), message)
                    .label("one too many")
                    .help("import these files from the recipe itself"),
            );
            return;
        }
        let text = match text_of(path, self.world) {
            Ok(text) => text,
            Err(why) => {
                let (code, why) = match from {
                    Some(_) => (&BAD_IMPORT, why),
                    None => (&UNREADABLE_RECIPE, why.on_the_command_line()),
                };
                let message = format!("cannot read `{}`: {}", path.display(), why.cause);
                let mut diag = Diag::error(code, from.unwrap_or_default(), message);
                diag.span = from;
                diag.help = Some(why.remedy);
                self.diags.push(diag);
                return;
            }
        };
        let id: SourceId = self.sources.add(path.display().to_string(), text.clone());
        let parsed = crate::syntax::parse(&text, id);
        self.diags.extend(parsed.diags);
        let Some(file) = parsed.value else { return };
        let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        self.stack.push(identity.clone());
        for item in &file.items {
            if let Item::Import(import) = item {
                let target = base.join(&import.path.value);
                if !self.files.iter().any(|f| f.path == plain(&target)) {
                    self.file(&target, Some(import.path.span));
                }
            }
        }
        self.stack.pop();
        self.files.push(Loaded {
            path: identity,
            file,
            base,
            source: id,
        });
    }
}

/// Most bytes of a recipe; the largest that are shipped have 3 KiB.
const MOST_BYTES: usize = 4 << 20;

/// A recipe's text.
///
/// # Errors
/// It cannot be read, or it is none.
pub fn text_of(path: &Path, world: &dyn World) -> Result<String, WorldError> {
    let bytes = world.read(path)?;
    let wrong = |cause: String, remedy: &str| WorldError::new(path.display(), cause, remedy);
    if bytes.len() > MOST_BYTES {
        return Err(wrong(
            format!(
                "it has {}, and a recipe has at most {}",
                Bytes(bytes.len() as u64),
                Bytes(MOST_BYTES as u64)
            ),
            "is it a recipe? name the `.peft` file",
        ));
    }
    String::from_utf8(bytes).map_err(|_| {
        wrong(
            "it is not UTF-8 text".to_owned(),
            "name a recipe (`.peft`), saved as UTF-8",
        )
    })
}

/// A path without `.` and, where a directory stands before it, `..`.
fn plain(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}
