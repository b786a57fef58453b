//! An adapter's file while a method reads it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Edit, Edited, Fitted, Group, HeadUpdate, Make, Misfit, Stored, Taken};
use crate::library::method::Method;
use crate::library::model::Model;
use crate::library::net::{Param, Part, Role, Site, ends_with};
use crate::library::schema::Checked;
use crate::library::stage::network::Anatomy;

/// A file of peft's against a model. A method takes its tensors, says which parameters they are values of, and puts itself
/// at sites; what nobody takes is refused in the end.
pub struct Reading<'a> {
    config: &'a Config,
    stored: &'a dyn Stored,
    model: &'a dyn Model,
    parts: &'a Anatomy,
    /// What the model's paths begin with and the adapter's do not: `bert.` where it was made without a head.
    outer: &'a str,
    unread: BTreeSet<String>,
    pub(super) fitted: Fitted,
}

/// A linear map of the model that the file has tensors for.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The site.
    pub site: &'a Site,
    /// Its path in the file.
    pub module: String,
    /// What follows the path in the names of its tensors: `lora_A.weight`.
    pub tensors: Vec<String>,
}

impl Place<'_> {
    /// The name in the file of one of its tensors.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.module)
    }

    /// Its tensors are among these, by what follows the module's path.
    ///
    /// # Errors
    /// The first that is none of them.
    pub fn only(&self, known: &[&str]) -> Result<(), Misfit> {
        let other = self.tensors.iter().find(|t| !known.contains(&t.as_str()));
        match other {
            None => Ok(()),
            Some(other) => Err(Misfit::not_built(format!(
                "nothing reads `{}`: this form of adapter",
                self.name(other)
            ))),
        }
    }

    /// The name of a parameter that a method has at the site ([`Param::at`]).
    #[must_use]
    pub fn own(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.site.path)
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        (config, stored): (&'a Config, &'a dyn Stored),
        (model, parts): (&'a dyn Model, &'a Anatomy),
    ) -> Self {
        let unread = stored.names().into_iter().map(str::to_owned).collect();
        Self {
            config,
            stored,
            model,
            parts,
            outer: "",
            unread,
            fitted: Fitted::default(),
        }
    }

    /// What the config says.
    #[must_use]
    pub const fn config(&self) -> &'a Config {
        self.config
    }

    /// The model.
    #[must_use]
    pub const fn model(&self) -> &'a dyn Model {
        self.model
    }

    /// The parts of the model.
    #[must_use]
    pub const fn parts(&self) -> &'a Anatomy {
        self.parts
    }

    /// The parameters that have values of the file so far.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        self.fitted.tensors.iter().map(|t| t.own.clone()).collect()
    }

    /// Names of the tensors that nobody has taken, sorted.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        self.unread.iter().cloned().collect()
    }

    /// A tensor's shape in the file; `None` if there is none of that name.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&'a [u64]> {
        self.stored.shape(name)
    }

    /// A tensor's numbers, where what they are decides on the method's values or shapes.
    ///
    /// # Errors
    /// There is none of that name, or it holds no numbers.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>, Misfit> {
        let found = self.stored.numbers(name);
        let (_, numbers) = found.map_err(|why| Misfit::damaged(format!("`{name}` {why}")))?;
        Ok(numbers)
    }

    /// The linear maps of the model that untaken tensors belong to, in the order of the model. A map that the config
    /// targets has tensors, and one that has tensors is a target. Tensors that belong to no module are taken before.
    ///
    /// # Errors
    /// One of the two is not so, or there is no map; tensors are on the head.
    pub fn places(&mut self) -> Result<Vec<Place<'a>>, Misfit> {
        let (places, head) = self.all_places()?;
        if let Some(place) = head.first() {
            return Err(Misfit::not_built(format!(
                "nothing reads the tensors of `{}`: a {} on the task's head",
                place.module, self.config.kind
            )));
        }
        Ok(places)
    }

    /// The same, and the maps of the task's head, which are trained as a whole here.
    ///
    /// # Errors
    /// A target has no tensors, what has tensors is no target, or there is no map.
    pub fn all_places(&mut self) -> Result<(Vec<Place<'a>>, Vec<Place<'a>>), Misfit> {
        self.check_known()?;
        let mut found: BTreeMap<usize, Place<'a>> = BTreeMap::new();
        let parts = self.parts;
        for name in &self.unread {
            let Some((number, module)) = site_of(&parts.sites, name) else {
                continue;
            };
            let Some(site) = parts.sites.get(number) else {
                continue;
            };
            let suffix = name.get(module.len() + 1..).unwrap_or_default().to_owned();
            let place = found.entry(number).or_insert_with(|| Place {
                site,
                module: module.to_owned(),
                tensors: Vec::new(),
            });
            if place.module != module {
                return Err(Misfit::damaged(format!(
                    "`{name}` and the tensors of `{}` are on one module of this model",
                    place.module
                )));
            }
            place.tensors.push(suffix);
        }
        for place in found.values() {
            if !place.site.role.is_head() {
                self.note_outer(&place.site.path, &place.module);
            }
            if self.config.places(&place.module) == Some(false) {
                let first = place.tensors.first().map_or("", String::as_str);
                return Err(Misfit::new(
                    format!(
                        "nothing reads `{}`: the config puts no adapter on `{}`",
                        place.name(first),
                        place.module
                    ),
                    "add the module to `target_modules` in adapter_config.json, if it was trained; or remove the tensor",
                ));
            }
        }
        // Which head the adapter's model had, its tensors say.
        let backbone = |s: &&Site| !s.role.is_head() && !s.role.is_lm();
        for site in parts.sites.iter().filter(backbone) {
            let module = self.theirs(&site.path);
            let known = found.values().any(|p| p.site.path == site.path);
            if !known && self.config.places(module) == Some(true) {
                return Err(Misfit::damaged(format!(
                    "the adapter has no tensors for `{module}`, which its `target_modules` name"
                )));
            }
        }
        let (head, body): (Vec<_>, Vec<_>) =
            found.into_values().partition(|p| p.site.role.is_head());
        if head.is_empty() && body.is_empty() {
            return Err(Misfit::damaged(format!(
                "the adapter has no tensors of a {}",
                self.config.kind
            )));
        }
        Ok((body, head))
    }

    /// Says that the file's tensor is the value of a parameter of this shape.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub fn take(&mut self, name: &str, own: String, shape: &[u64]) -> Result<(), Misfit> {
        self.check_shape(name, shape)?;
        let taken = Taken {
            own,
            shape: shape.to_vec(),
            from: vec![name.to_owned()],
            make: Make::Same,
        };
        self.make(taken)
    }

    /// The same of a matrix that the file holds transposed; `shape` is the parameter's.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub fn take_turned(&mut self, name: &str, own: String, shape: [u64; 2]) -> Result<(), Misfit> {
        let [rows, width] = shape;
        self.check_shape(name, &[width, rows])?;
        let taken = Taken {
            own,
            shape: shape.to_vec(),
            from: vec![name.to_owned()],
            make: Make::Transposed,
        };
        self.make(taken)
    }

    /// Says how the value of a parameter is made; the tensors that it is made of are taken.
    ///
    /// # Errors
    /// One of the tensors is not there.
    pub fn make(&mut self, taken: Taken) -> Result<(), Misfit> {
        for name in &taken.from {
            self.read(name)?;
        }
        self.fitted.tensors.push(taken);
        Ok(())
    }

    /// Says that a tensor is read, by the method itself ([`Self::numbers`]).
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn read(&mut self, name: &str) -> Result<(), Misfit> {
        if self.stored.shape(name).is_none() {
            return Err(Misfit::damaged(format!("the adapter has no `{name}`")));
        }
        self.unread.remove(name);
        Ok(())
    }

    /// A tensor has this shape.
    ///
    /// # Errors
    /// It is not there, or has another.
    pub fn check_shape(&self, name: &str, wanted: &[u64]) -> Result<(), Misfit> {
        let Some(own) = self.stored.shape(name) else {
            return Err(Misfit::damaged(format!("the adapter has no `{name}`")));
        };
        if own == wanted {
            return Ok(());
        }
        Err(other_shape(name, own, wanted))
    }

    /// Says that the tensor adds nothing where all its numbers are `value`.
    pub fn idle(&mut self, name: &str, value: f32) {
        self.fitted.idle.push((name.to_owned(), value));
    }

    /// Puts a method with these values at a site, beside others with the same values.
    pub fn put(
        &mut self,
        method: &'static dyn Method,
        site: &Site,
        values: Vec<(&'static str, Checked)>,
    ) {
        let name = method.schema().name;
        let mut groups = self.fitted.groups.iter_mut();
        let same = |g: &&mut Group| g.method.schema().name == name && g.values == values;
        match groups.find(same) {
            Some(group) => group.modules.push(site.path.clone()),
            None => self.fitted.groups.push(Group {
                method,
                values,
                modules: vec![site.path.clone()],
            }),
        }
    }

    /// Says that the file has the whole value of one of the model's own parameters, which is not trained.
    ///
    /// # Errors
    /// It has another shape.
    pub fn replace(&mut self, name: &str, param: &'a Param) -> Result<(), Misfit> {
        let plain = name.replace(".base_layer.", ".");
        self.note_outer(&param.name, &plain);
        let own = param.name.clone();
        match (self.model.transposed(&own), param.shape.as_slice()) {
            (true, &[rows, width]) => self.take_turned(name, own, [rows, width])?,
            _ => self.take(name, own, &param.shape)?,
        }
        self.edit(param, Edit::Replaced);
        Ok(())
    }

    /// Changes one of the model's own parameters; such an adapter is applied, and not trained on.
    pub fn edit(&mut self, param: &Param, edit: Edit) {
        let own = param.name.clone();
        self.fitted.edits.push(Edited { own, edit });
    }

    /// Says that the adapter does something, whatever numbers are in its other tensors.
    pub const fn acts(&mut self) {
        self.fitted.acts = true;
    }

    /// The table of embeddings that a path in the file is that of, or the head of a language model.
    #[must_use]
    pub fn table(&self, module: &str) -> Option<&'a Site> {
        let others = self.parts.others.iter();
        let mut tables = others
            .filter(|s| matches!(s.part, Part::Table { .. }) || s.role == Role::LmDecoder)
            .filter(|s| ends_with(&s.path, module));
        // Several may end alike, as those of positions do in some models.
        let first = tables.next()?;
        match tables.next() {
            None => Some(first),
            Some(_) => self.parts.others.iter().find(|s| s.path == module),
        }
    }

    /// Adds a product to a matrix of the task's head.
    pub(in crate::library) fn put_in_head(&mut self, update: HeadUpdate) {
        self.fitted.head.push(update);
    }

    /// The parameter of the model that a tensor is called after.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a Param> {
        called(&self.parts.params, name, |p| &p.name)
    }

    pub(super) fn note_outer(&mut self, own: &'a str, theirs: &str) {
        if let Some(outer) = own.strip_suffix(theirs).filter(|o| !o.is_empty()) {
            self.outer = outer;
        }
    }

    /// The adapter's path of a module of the model.
    #[must_use]
    pub fn theirs<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.outer).unwrap_or(path)
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// The tensors that nobody took.
    pub(super) fn finish(&self) -> Result<(), Misfit> {
        let Some(first) = self.unread.first() else {
            return Ok(());
        };
        let more = match self.unread.len() - 1 {
            0 => String::new(),
            more => {
                let others = self.unread.iter().skip(1).take(7);
                let list: Vec<String> = others.map(|n| format!("`{n}`")).collect();
                let dots = if more > 7 { ", …" } else { "" };
                format!(" (nor {more} more: {}{dots})", list.join(", "))
            }
        };
        let module = first.rsplit_once('.').map_or("", |(module, _)| module);
        Err(if self.param(first).is_some() {
            Misfit::new(
                format!(
                    "nothing reads `{first}`{more}: `modules_to_save` does not name `{module}`"
                ),
                "add it there, in adapter_config.json, if it was trained; or remove the tensor",
            )
        } else {
            let inside = self.module_of(first).unwrap_or_default();
            Misfit::not_built(format!(
                "nothing reads `{first}`{more}: this form of {} on `{inside}`",
                self.config.kind
            ))
        })
    }

    /// Every untaken tensor is in a module of the model.
    fn check_known(&self) -> Result<(), Misfit> {
        let Some(name) = self.unread.iter().find(|n| self.module_of(n).is_none()) else {
            return Ok(());
        };
        let base = match self.config.base.as_str() {
            "" => "another model".to_owned(),
            base => format!("`{base}`"),
        };
        Err(Misfit::new(
            format!(
                "`{name}` is no tensor of this model, which is a `{}`",
                self.model.family()
            ),
            format!("the adapter was made for {base}: name that model, or an adapter of this one"),
        ))
    }

    /// The innermost module of the model that a tensor of the file is in, by its path there.
    fn module_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        let known = |module: &str| {
            let params = self.parts.params.iter();
            let inside = |p: &Param| {
                let own = p.module();
                let ends = own.match_indices('.').map(|(at, _)| at);
                let mut paths = ends.chain([own.len()]).filter_map(|end| own.get(..end));
                paths.any(|path| ends_with(path, module))
            };
            params.clone().any(inside) || self.site(module).is_some()
        };
        let modules = name.match_indices('.').filter_map(|(at, _)| name.get(..at));
        let found: Vec<&str> = modules.filter(|m| known(m)).collect();
        found.last().copied()
    }

    fn site(&self, module: &str) -> Option<&'a Site> {
        called(&self.parts.sites, module, |s| &s.path)
    }
}

/// The site whose path a tensor's name begins with, the longest one, and that path in the file.
fn site_of<'n>(sites: &[Site], name: &'n str) -> Option<(usize, &'n str)> {
    let modules = name.match_indices('.').filter_map(|(at, _)| name.get(..at));
    let all: Vec<&str> = modules.collect();
    all.into_iter().rev().find_map(|module| {
        let site = called(sites, module, |s| &s.path)?;
        let number = sites.iter().position(|s| s.path == site.path)?;
        Some((number, module))
    })
}

pub(super) fn other_shape(name: &str, own: &[u64], wanted: &[u64]) -> Misfit {
    Misfit::new(
        format!("`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}"),
        "the adapter was made for another model, or its config says another rank",
    )
}

/// The one that is called `name`, or the only one whose path ends with it.
pub(super) fn called<'p, T>(
    list: &'p [T],
    name: &str,
    path: impl Fn(&T) -> &String,
) -> Option<&'p T> {
    if let Some(exact) = list.iter().find(|t| path(t) == name) {
        return Some(exact);
    }
    let mut ends = list.iter().filter(|t| ends_with(path(t), name));
    ends.next().filter(|_| ends.next().is_none())
}
