//! Methods at a site: the stack of them, and what they make of what the model does there.

use super::super::net::{Attend, Net, Normed, Site};
use super::super::schema::Values;
use super::{Method, keys};
use crate::library::counts::to_u32;
use crate::program::Value;
use crate::program::op::Indices;

/// How what a method makes of a linear map goes together with other methods on the same map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacking {
    /// It stands alone.
    Alone,
    /// It stands in the place of the model's own weight; others may stand on it.
    Base,
    /// It changes the result of the map below it, whatever that is.
    Over,
}

/// Methods at one site, from the model's own map upwards.
pub type Stack<'a> = [(&'static dyn Method, &'a Values)];

/// A site as a method meets it, with what stands below the method there.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The site.
    pub site: &'a Site,
    /// The method's own values.
    pub values: &'a Values,
    pub(super) below: &'a Stack<'a>,
    /// The norm behind the residual that a sub-layer adds to, if one stands there.
    pub norm: Option<Normed<'a>>,
}

impl<'a> At<'a> {
    /// A site as a method meets it that reads nothing of what stands below.
    #[must_use]
    pub const fn alone(site: &'a Site, values: &'a Values) -> Self {
        let below = &[];
        At {
            site,
            values,
            below,
            norm: None,
        }
    }

    /// What the linear map below gives, `[N, in] → [N, out]`.
    pub fn linear(&self, net: &mut Net<'_>, x: Value) -> Value {
        linear(net, self.site, self.below, x)
    }

    /// What the attention below gives, `[T, width]`.
    pub fn attention(&self, net: &mut Net<'_>, of: Attend) -> Value {
        attention(net, self.site, self.below, of)
    }

    /// The linear maps among the model's sites that the method is placed at.
    #[must_use]
    pub fn placed<'n>(&self, net: &'n Net<'_>) -> Vec<&'n Site> {
        let (on, n_layers) = (keys::ON.get(self.values), net.tuning().n_layers);
        let here = |s: &&Site| s.is_linear() && on.is_some_and(|p| p.matches(s, n_layers));
        net.known_sites().iter().filter(here).collect()
    }

    /// The bias `[out]` of the map below, if it has one.
    pub fn bias(&self, net: &mut Net<'_>) -> Option<Value> {
        bias(net, self.site, self.below)
    }

    /// Whether the model's own map stands below, and nothing else.
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.below.is_empty()
    }

    /// The plain weight `[out, in]` of the map below; `None` if there is none that does the same.
    pub fn weight(&self, net: &mut Net<'_>) -> Option<Value> {
        weight(net, self.site, self.below)
    }
}

/// The first `rows` rows of a matrix that may have more.
pub(super) fn first_rows(net: &mut Net<'_>, matrix: Value, (rows, all): (u64, u64)) -> Value {
    if rows == all {
        return matrix;
    }
    let list = (0..to_u32(rows)).collect();
    let rows = net.b.push1(Indices { list }, &[]);
    net.gather(matrix, rows)
}

/// A matrix of so many columns, transposed.
pub(super) fn columns(data: &[f32], width: usize) -> Vec<f32> {
    let column = |i| data.iter().skip(i).step_by(width.max(1)).copied();
    (0..width).flat_map(column).collect()
}
/// The linear map at a site under its methods, `[N, in] → [N, out]`.
pub fn linear(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, x: Value) -> Value {
    match stack.split_last() {
        None => net.plain_linear(site, x),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.linear(&at, net, x)
        }
    }
}

/// The plain weight `[out, in]` that does the same as the linear map under its methods; `None` if there is none.
pub fn weight(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>) -> Option<Value> {
    match stack.split_last() {
        None => Some(net.weight(site)),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.merged(&at, net)
        }
    }
}

/// The bias `[out]` of the same linear map, if it has one.
pub fn bias(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>) -> Option<Value> {
    match stack.split_last() {
        None => net.bias(site),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.merged_bias(&at, net)
        }
    }
}

/// What the attention at a site gives under its methods, `[T, width]`.
pub fn attention(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, of: Attend) -> Value {
    match stack.split_last() {
        None => net.plain_attention(of),
        Some((&(method, values), below)) => {
            let at = At {
                site,
                values,
                below,
                norm: None,
            };
            method.attention(&at, net, of)
        }
    }
}

/// What enters a block under the methods there.
pub fn entered(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, x: Value) -> Value {
    stack.iter().fold(x, |x, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm: None,
        };
        method.entered(&at, net, x)
    })
}

/// The rows of a table of embeddings under its methods.
pub fn embedded(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, rows: Value) -> Value {
    stack.iter().fold(rows, |rows, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm: None,
        };
        method.embedded(&at, net, rows)
    })
}

/// A table of embeddings as the decoder that is tied to it reads it under the table's methods.
pub fn tabled(net: &mut Net<'_>, site: &Site, stack: &Stack<'_>, table: Value) -> Value {
    stack.iter().fold(table, |table, &(method, values)| {
        method.tabled(&At::alone(site, values), net, table)
    })
}

/// What a sub-layer adds to the residual under its methods: `x [N, width]` is what it read, `y [N, width]` what it gave.
/// `norm` stands behind the residual.
pub fn output(
    net: &mut Net<'_>,
    (site, norm): (&Site, Option<Normed<'_>>),
    stack: &Stack<'_>,
    (x, y): (Value, Value),
) -> Value {
    stack.iter().fold(y, |y, &(method, values)| {
        let at = At {
            site,
            values,
            below: &[],
            norm,
        };
        method.output(&at, net, x, y)
    })
}
