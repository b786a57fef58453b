//! What may stand at a place.

use std::ops::Range;

use super::analysis::declared_by;
use super::columns::columns;
use super::cursor::{Cursor, Spot};
use super::{Analysis, docs};
use crate::base::world::World;
use crate::library::decl::DECLARATIONS;
use crate::library::net::ROLES;
use crate::library::schema::{Default, Key, Kind, RefKind, Registry, Schema};
use crate::library::stage::keys::METRICS;
use crate::library::words;
use crate::resolve::registry;

/// What is offered.
#[derive(Clone, Debug)]
pub struct Item {
    /// What is shown, and filtered by.
    pub label: String,
    /// What is written in place of `replaces`.
    pub insert: String,
    /// The bytes that it replaces.
    pub replaces: Range<usize>,
    /// One line about it.
    pub detail: String,
    /// More about it, in Markdown.
    pub docs: String,
    /// What it is.
    pub kind: ItemKind,
}

/// What an offered word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A word of the language.
    Keyword,
    /// A key of a block.
    Key,
    /// An entry of a registry: a method, a metric, a kind of stages.
    Entry,
    /// A value.
    Value,
    /// Something that the recipe declares.
    Name,
    /// A column of a data file.
    Column,
    /// A role of a placement.
    Role,
}

/// All that may stand at a byte of the recipe's own text, the likeliest first.
#[must_use]
pub fn complete(analysis: &Analysis, text: &str, offset: usize, world: &dyn World) -> Vec<Item> {
    let cursor = Cursor::at(text, offset);
    let mut offer = Offer {
        analysis,
        world,
        list: Vec::new(),
        replaces: cursor.word.start..offset.max(cursor.word.start),
        cursor: &cursor,
    };
    offer.all(text);
    offer.list
}

struct Offer<'a> {
    analysis: &'a Analysis,
    world: &'a dyn World,
    list: Vec<Item>,
    replaces: Range<usize>,
    cursor: &'a Cursor,
}

impl Offer<'_> {
    fn add(
        &mut self,
        kind: ItemKind,
        label: &str,
        insert: String,
        (detail, docs): (String, String),
    ) {
        if self.list.iter().any(|item| item.label == label) {
            return;
        }
        self.list.push(Item {
            label: label.to_owned(),
            insert,
            replaces: self.replaces.clone(),
            detail,
            docs,
            kind,
        });
    }

    fn word(&mut self, kind: ItemKind, label: &str, detail: &str) {
        self.add(
            kind,
            label,
            label.to_owned(),
            (detail.to_owned(), String::new()),
        );
    }

    fn all(&mut self, text: &str) {
        if self.cursor.quoted {
            return self.quoted(text);
        }
        match self.cursor.spot.clone() {
            Spot::Keyword => self.keywords(),
            Spot::Source(keyword) => self.sources(&keyword),
            Spot::Let => {
                self.names(None);
                for schema in registry::all() {
                    self.entry(schema, false);
                }
            }
            Spot::Key(schema) => self.keys(schema, text),
            Spot::Value(schema, name, kind) => {
                self.value(kind);
                if name == METRICS.name() {
                    self.value(Kind::Entries(Registry::Metric));
                }
                let default = schema.key(&name).map(|k| k.default);
                if let Some(Default::Text(text) | Default::Tacit(text)) = default
                    && self.cursor.path.is_empty()
                {
                    self.word(ItemKind::Value, text, "the default");
                }
                if let Some(sample) = words::sample_of(&name)
                    && let Some((_, value)) = sample.split_once(" = ")
                    && self.cursor.path.is_empty()
                {
                    self.word(ItemKind::Value, value, "a usual value");
                }
            }
            Spot::Axis => {
                for binding in self.analysis.lets() {
                    let value = self.analysis.at(binding.value.span);
                    let insert = format!("{} = [{value}, ]", binding.name.value);
                    self.add(
                        ItemKind::Name,
                        &binding.name.value,
                        insert,
                        (format!("let, {value}"), String::new()),
                    );
                }
            }
            Spot::AxisValue => {
                for schema in registry::all() {
                    self.entry(schema, false);
                }
            }
            Spot::Name | Spot::Argument | Spot::Nothing => {}
        }
    }

    fn keywords(&mut self) {
        for declaration in &DECLARATIONS {
            let of: Vec<&str> = declaration.schemas().iter().map(|s| s.name).collect();
            let usual = match declaration.keyword {
                "model" => "model NAME = local \"DIR\"",
                "data" => "data NAME = local \"DIR\" { text = , label =  }",
                "prompt" => "prompt NAME { template = \"\" }",
                _ => "stage NAME = train { }",
            };
            let docs = format!("`{usual}`\n\nMade by: {}\n", of.join(", "));
            self.add(
                ItemKind::Keyword,
                declaration.keyword,
                format!("{} ", declaration.keyword),
                (format!("declares: {}", declaration.what), docs),
            );
        }
        for (word, detail) in [
            ("let", "a value with a name"),
            ("sweep", "the recipe at several values of its `let`s"),
            ("import", "what another recipe declares"),
        ] {
            self.add(
                ItemKind::Keyword,
                word,
                format!("{word} "),
                (detail.to_owned(), String::new()),
            );
        }
    }

    fn sources(&mut self, keyword: &str) {
        if keyword == "sweep" {
            self.word(
                ItemKind::Entry,
                "grid",
                "every combination of the values of its axes",
            );
            self.word(
                ItemKind::Entry,
                "zip",
                "the first values of all axes, then the second ones",
            );
            return;
        }
        let Some(declaration) = declared_by(keyword) else {
            return;
        };
        for schema in declaration.schemas() {
            let insert = match declaration.arg {
                Some(_) => format!("{} \"\"", schema.name),
                None => format!("{} {{ }}", schema.name),
            };
            self.add(
                ItemKind::Entry,
                schema.name,
                insert,
                (schema.summary.to_owned(), docs::entry(schema)),
            );
        }
    }

    fn keys(&mut self, schema: &'static Schema, text: &str) {
        let written = self
            .cursor
            .frames
            .last()
            .map(|f| f.keys.clone())
            .unwrap_or_default();
        // Of keys that stand behind the cursor only the parsed tree knows; a key written twice is reported anyway.
        let behind = text.get(self.replaces.end..).unwrap_or_default();
        let assigned = behind.trim_start_matches([' ', '\t']).starts_with('=');
        let left = schema
            .keys
            .iter()
            .filter(|k| !written.iter().any(|w| w == k.name));
        let (wanted, other): (Vec<&Key>, Vec<&Key>) =
            left.partition(|k| matches!(k.default, Default::Required));
        for key in wanted.into_iter().chain(other) {
            let insert = match key.kind {
                _ if assigned => key.name.to_owned(),
                Kind::Block(_) => format!("{} = {{ }}", key.name),
                _ => format!("{} = ", key.name),
            };
            self.add(
                ItemKind::Key,
                key.name,
                insert,
                (docs::takes(key), docs::key(schema, key)),
            );
        }
    }

    fn value(&mut self, kind: Kind) {
        let plain = self.cursor.path.is_empty();
        match kind {
            Kind::Bool if plain => {
                ["true", "false"]
                    .iter()
                    .for_each(|w| self.word(ItemKind::Value, w, ""));
            }
            Kind::Choice(names) if plain => {
                names.iter().for_each(|w| self.word(ItemKind::Value, w, ""));
            }
            Kind::Ref(of) => self.references(of),
            Kind::Placement => self.roles(),
            Kind::Entry(of) | Kind::Entries(of) if plain => {
                let list = registry::schemas(of);
                list.into_iter()
                    .for_each(|s| self.entry(s, of == Registry::Objective));
            }
            Kind::Columns | Kind::Column => self.columns(),
            Kind::ClassWeights if plain => {
                self.word(
                    ItemKind::Value,
                    "balanced",
                    "each class as much as its rows are few",
                );
            }
            Kind::Length if plain => {
                ["epochs", "steps"]
                    .iter()
                    .for_each(|w| self.word(ItemKind::Value, w, "a unit"));
            }
            Kind::Size if plain => {
                ["MiB", "GiB"]
                    .iter()
                    .for_each(|w| self.word(ItemKind::Value, w, "a unit"));
            }
            Kind::Batch(..) if plain => self.word(ItemKind::Value, "tokens", "a unit"),
            _ => {}
        }
        if plain {
            for binding in self.analysis.lets() {
                let detail = format!("let, {}", self.analysis.at(binding.value.span));
                self.word(ItemKind::Name, &binding.name.value, &detail);
            }
        }
    }

    /// What the recipe declares with a keyword, or all of it.
    fn names(&mut self, keyword: Option<&str>) {
        let analysis = self.analysis;
        let own = self.cursor.item.words.get(1);
        for decl in analysis.declarations() {
            let word = decl.keyword.value.as_str();
            if keyword.is_none_or(|k| k == word) && own != Some(&decl.name.value) {
                let detail = format!("{word}, {}", decl.body.name.value);
                self.word(ItemKind::Name, &decl.name.value, &detail);
            }
        }
    }

    fn references(&mut self, of: RefKind) {
        let path = self.cursor.path.clone();
        match of {
            RefKind::Model if path.is_empty() => self.names(Some("model")),
            RefKind::Prompt if path.is_empty() => self.names(Some("prompt")),
            RefKind::Stage if path.is_empty() => self.names(Some("stage")),
            RefKind::Split if path.is_empty() => {
                let analysis = self.analysis;
                let sets = analysis
                    .declarations()
                    .filter(|d| d.keyword.value == "data");
                for set in sets {
                    for split in ["train", "dev", "test"] {
                        let label = format!("{}.{split}", set.name.value);
                        self.word(ItemKind::Name, &label, "a split");
                    }
                }
            }
            RefKind::Split => {
                for split in ["train", "dev", "test", "validation"] {
                    self.word(ItemKind::Name, split, "a split");
                }
            }
            _ => {}
        }
    }

    /// The roles of a placement, or what goes on with the path before the cursor.
    fn roles(&mut self) {
        let path = self.cursor.path.clone();
        // Of layers before it only the point is left.
        let before = path.trim_start_matches('.');
        for (_, role) in ROLES {
            if let Some(rest) = role.strip_prefix(before).filter(|r| !r.is_empty()) {
                self.word(ItemKind::Role, rest, role);
            }
        }
        self.word(ItemKind::Role, "*", "any one part");
        if before.is_empty() {
            self.word(ItemKind::Role, "layers[0..]", "only some blocks, from 0");
        }
    }

    fn entry(&mut self, schema: &'static Schema, bare: bool) {
        let required = schema
            .keys
            .iter()
            .any(|k| matches!(k.default, Default::Required));
        let insert = match words::sample_entry(schema.name) {
            _ if bare && !required => schema.name.to_owned(),
            Some(sample) if required => sample.to_owned(),
            _ if required => format!("{} {{ }}", schema.name),
            _ => schema.name.to_owned(),
        };
        self.add(
            ItemKind::Entry,
            schema.name,
            insert,
            (schema.summary.to_owned(), docs::entry(schema)),
        );
    }

    /// The columns of the data set that the cursor is in.
    fn columns(&mut self) {
        let item = &self.cursor.item;
        let (source, arg) = (item.ctor.clone(), item.arg.clone().unwrap_or_default());
        let name = item.words.get(1).cloned().unwrap_or_default();
        for column in self.columns_of(&name, &source, &arg) {
            let insert = match super::is_name(&column) || self.cursor.quoted {
                true => column.clone(),
                false => crate::syntax::quote(&column),
            };
            self.add(
                ItemKind::Column,
                &column,
                insert,
                ("a column".to_owned(), String::new()),
            );
        }
    }

    fn columns_of(&self, name: &str, source: &str, arg: &str) -> Vec<String> {
        let base = self.analysis.path.parent().unwrap_or_else(|| "".as_ref());
        let checked = self.analysis.checked(name);
        let values = checked.map(|d| &d.filled.values);
        let base = checked.map_or(base, |d| d.base.as_path());
        columns(source, arg, (base, values), self.world)
    }

    /// Inside of a string: columns of a template or of a key that takes columns, values of a choice.
    fn quoted(&mut self, text: &str) {
        let Spot::Value(_, name, kind) = self.cursor.spot.clone() else {
            return;
        };
        let start = self.cursor.word.start + 1;
        let before = text.get(start..self.replaces.end).unwrap_or_default();
        if matches!(kind, Kind::Columns | Kind::Column) {
            self.replaces.start = start.min(self.replaces.end);
            return self.columns();
        }
        let Some(open) = before.rfind('{').filter(|_| name.contains("template")) else {
            return;
        };
        if before.get(open..).is_some_and(|rest| rest.contains('}')) {
            return;
        }
        self.replaces.start = start + open + 1;
        let mut found: Vec<String> = Vec::new();
        for decl in self
            .analysis
            .declarations()
            .filter(|d| d.keyword.value == "data")
        {
            let arg = decl.body.arg.as_ref().map_or("", |a| a.value.as_str());
            found.extend(self.columns_of(&decl.name.value, &decl.body.name.value, arg));
        }
        for column in found.iter().map(String::as_str).chain(["mask"]) {
            self.word(ItemKind::Column, column, "");
        }
    }
}
