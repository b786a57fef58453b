//! A recipe as a list of declarations, each entry on a line of its own.

use std::ops::Range;

/// A declaration.
#[derive(Clone, Debug)]
pub struct Decl {
    pub keyword: String,
    pub name: String,
    pub ctor: String,
    pub arg: Option<String>,
    /// Keys and values; a key that is empty stands for a line as it is.
    pub entries: Vec<(String, String)>,
}

impl Decl {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.entries.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str())
    }
}

/// A recipe.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Lines before all declarations: `let`s, sweeps.
    pub top: Vec<String>,
    pub decls: Vec<Decl>,
    /// Lines behind them.
    pub bottom: Vec<String>,
    /// `--set NAME=VALUE`.
    pub sets: Vec<(String, String)>,
}

/// A change of a recipe.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A key's value, written whether it was or not.
    Set(usize, String, String),
    /// A key that is no longer written.
    Remove(usize, String),
    /// A line of a block as it is.
    Line(usize, String),
    /// The string behind the constructor.
    Arg(usize, Option<String>),
    Keyword(usize, String),
    Ctor(usize, String),
    Top(String),
    Bottom(String),
    Override(String, String),
}

impl Recipe {
    pub fn place(&self, name: &str) -> Option<usize> {
        self.decls.iter().position(|d| d.name == name)
    }

    /// The text, and the lines of each declaration.
    pub fn print(&self) -> (String, Vec<Range<usize>>) {
        let mut text = String::new();
        let mut lines = Vec::new();
        for line in &self.top {
            text.push_str(line);
            text.push('\n');
        }
        for decl in &self.decls {
            let first = text.matches('\n').count() + 1;
            text.push_str(&format!("{} {} ", decl.keyword, decl.name));
            if decl.keyword != decl.ctor {
                text.push_str(&format!("= {} ", decl.ctor));
            }
            if let Some(arg) = &decl.arg {
                text.push_str(&format!("\"{arg}\" "));
            }
            text.push_str("{\n");
            for (key, value) in &decl.entries {
                let line = match key.is_empty() {
                    true => format!("  {value}\n"),
                    false => format!("  {key} = {value}\n"),
                };
                text.push_str(&line);
            }
            text.push_str("}\n");
            lines.push(first..text.matches('\n').count() + 1);
        }
        for line in &self.bottom {
            text.push_str(line);
            text.push('\n');
        }
        (text, lines)
    }

    pub fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Set(decl, key, value) => {
                let entries = &mut self.decls[*decl].entries;
                match entries.iter_mut().find(|(k, _)| k == key) {
                    Some(slot) => slot.1.clone_from(value),
                    None => entries.push((key.clone(), value.clone())),
                }
            }
            Edit::Remove(decl, key) => self.decls[*decl].entries.retain(|(k, _)| k != key),
            Edit::Line(decl, line) => {
                let entries = &mut self.decls[*decl].entries;
                entries.push((String::new(), line.clone()));
            }
            Edit::Arg(decl, arg) => self.decls[*decl].arg.clone_from(arg),
            Edit::Keyword(decl, word) => self.decls[*decl].keyword.clone_from(word),
            Edit::Ctor(decl, word) => self.decls[*decl].ctor.clone_from(word),
            Edit::Top(line) => self.top.insert(0, line.clone()),
            Edit::Bottom(line) => self.bottom.push(line.clone()),
            Edit::Override(name, value) => self.sets.push((name.clone(), value.clone())),
        }
    }
}
