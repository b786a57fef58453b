//! Typed construction. Every push infers the result's type, so an ill-typed program cannot be built.

use std::collections::BTreeMap;

use super::graph::{Block, Class, Def, Feed, Node, Phase, Program, Resident, Value, ValueInfo};
use super::op::{Op, Precision};
use super::types::{DType, Sym, TensorType};

/// In what numbers a program computes and keeps what it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of products.
    pub products: Precision,
    /// Of values with a row a token in memory: f32, bf16 or f16. Gradients of such values have bf16's range or
    /// more: beside f16 they are stored in f32.
    pub activations: DType,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            products: Precision::F32,
            activations: DType::F32,
        }
    }
}

/// Builds one [`Program`].
#[derive(Debug)]
pub struct Builder {
    program: Program,
    depends: Vec<bool>,
    residents: BTreeMap<String, Value>,
    feeds: BTreeMap<Feed, Value>,
    label: u32,
    /// The block of the nodes being built, and that of sites still to be named.
    block: Option<Block>,
    entered: Option<Block>,
    phase: Phase,
    numbers: Numbers,
}

impl Builder {
    /// An empty program.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let program = Program {
            name: name.to_owned(),
            labels: vec![String::new()],
            ..Program::default()
        };
        Self {
            program,
            depends: Vec::new(),
            residents: BTreeMap::new(),
            feeds: BTreeMap::new(),
            label: 0,
            block: None,
            entered: None,
            phase: Phase::Forward,
            numbers: Numbers::default(),
        }
    }

    /// The same in other numbers.
    #[must_use]
    pub fn with_numbers(name: &str, numbers: Numbers) -> Self {
        Self {
            numbers,
            ..Self::new(name)
        }
    }

    /// Says in which block the sites are that are named from here on.
    pub const fn enter(&mut self, block: Option<Block>) {
        self.entered = block;
    }

    /// Names the site that the following nodes are built for.
    pub fn label(&mut self, label: &str) {
        self.block = self.entered;
        self.label = match self.program.labels.iter().rposition(|l| l == label) {
            Some(i) => i as u32,
            None => {
                self.program.labels.push(label.to_owned());
                (self.program.labels.len() - 1) as u32
            }
        };
    }

    /// Builds the following nodes for the site and the block of an earlier one.
    pub const fn follow(&mut self, node: &Node) {
        self.label = node.label;
        self.block = node.block;
    }

    /// Sets the part of the step that the following nodes belong to.
    pub const fn phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    fn define(&mut self, ty: TensorType, def: Def, depends: bool) -> Value {
        let value = Value(self.program.values.len() as u32);
        self.program.values.push(ValueInfo { ty, def });
        self.depends.push(depends);
        value
    }

    /// A tensor that lives for the whole stage; the same name gives the same value.
    ///
    /// # Panics
    /// If the name was used with another type (a bug of the caller).
    pub fn resident(&mut self, name: &str, ty: TensorType, class: Class) -> Value {
        if let Some(&value) = self.residents.get(name) {
            assert_eq!(
                self.program.ty(value),
                &ty,
                "`{name}` is declared with two types"
            );
            return value;
        }
        let index = self.program.residents.len() as u32;
        self.program.residents.push(Resident {
            name: name.to_owned(),
            ty: ty.clone(),
            class,
        });
        let value = self.define(ty, Def::Resident(index), class == Class::Trainable);
        self.residents.insert(name.to_owned(), value);
        value
    }

    /// An input of the step.
    pub fn feed(&mut self, feed: Feed) -> Value {
        if let Some(&value) = self.feeds.get(&feed) {
            return value;
        }
        let value = self.define(feed.ty(), Def::Feed(feed), false);
        self.feeds.insert(feed, value);
        value
    }

    /// Appends a node and gives its outputs.
    ///
    /// # Panics
    /// If the op does not take these types: a bug of whoever calls, with the op and the types named.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Vec<Value> {
        let mut op = op.into();
        if let Some(precision) = op.products_mut() {
            *precision = self.numbers.products;
        }
        let types = self.program.computed(inputs);
        let types: Vec<&TensorType> = types.iter().collect();
        let outs = match op.rule().infer(&types) {
            Ok(outs) => outs,
            Err(why) => {
                let types: Vec<String> = types.iter().map(ToString::to_string).collect();
                panic!("{op:?} does not take ({}): {why}", types.join(", "));
            }
        };
        let depends = inputs.iter().any(|v| self.depends[v.index()]);
        let node = self.program.nodes.len() as u32;
        let outputs: Vec<Value> = outs
            .into_iter()
            .enumerate()
            .map(|(i, ty)| {
                let stored = self.stored(&op, i, &ty);
                self.define(
                    ty.stored_as(stored),
                    Def::Node {
                        node,
                        output: i as u32,
                    },
                    depends,
                )
            })
            .collect();
        self.program.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            label: self.label,
            block: self.block,
            phase: self.phase,
        });
        outputs
    }

    /// Lets the node that makes a value be an op that makes more of the same inputs; gives what it makes beyond what it made.
    ///
    /// # Panics
    /// If no node makes the value, or the op does not begin with the node's outputs: a bug of whoever calls.
    pub fn extend(&mut self, value: Value, op: impl Into<Op>) -> Vec<Value> {
        let Def::Node { node: index, .. } = self.program.def(value) else {
            panic!("{value:?} is made by no node");
        };
        let (op, node) = (op.into(), self.program.nodes[index as usize].clone());
        let types = self.program.computed(&node.inputs);
        let outs = op.rule().infer(&types.iter().collect::<Vec<_>>());
        let outs = outs.unwrap_or_else(|why| panic!("{op:?} does not follow {:?}: {why}", node.op));
        let old = node.outputs.len();
        assert!(
            outs.get(..old) == Some(&self.program.computed(&node.outputs)[..]),
            "{op:?} does not begin with what {:?} makes",
            node.op
        );
        let phase = std::mem::replace(&mut self.phase, node.phase);
        let depends = self.depends[value.index()];
        let mut made = Vec::new();
        for (i, ty) in outs.into_iter().enumerate().skip(old) {
            let stored = self.stored(&op, i, &ty);
            let (node, output) = (index, i as u32);
            made.push(self.define(ty.stored_as(stored), Def::Node { node, output }, depends));
        }
        self.phase = phase;
        let node = &mut self.program.nodes[index as usize];
        node.op = op;
        node.outputs.extend(&made);
        made
    }

    /// In what type an output is stored: that of activations, if it is one.
    fn stored(&self, op: &Op, output: usize, ty: &TensorType) -> DType {
        let narrow = self.numbers.activations;
        let ranges = match self.phase {
            Phase::Forward => true,
            Phase::Backward => narrow == DType::BF16,
            Phase::Update => false,
        };
        let rows_of_tokens = ty.matrix().is_some_and(|(rows, columns)| {
            let tokens = [Sym::Tokens, Sym::SourceTokens];
            let of_tokens = tokens.iter().any(|&sym| rows.factors[sym as usize] > 0);
            of_tokens && columns.as_const().is_some()
        });
        if ranges && rows_of_tokens && ty.dtype == DType::F32 && !op.rule().is_exact(output) {
            narrow
        } else {
            ty.dtype
        }
    }

    /// Appends a node with one output.
    ///
    /// # Panics
    /// As [`Self::push`]; also if the op has no output.
    pub fn push1(&mut self, op: impl Into<Op>, inputs: &[Value]) -> Value {
        self.push(op, inputs)[0]
    }

    /// Whether a trainable tensor can change the value.
    #[must_use]
    pub fn depends(&self, value: Value) -> bool {
        self.depends[value.index()]
    }

    /// A value's type.
    #[must_use]
    pub fn ty(&self, value: Value) -> &TensorType {
        self.program.ty(value)
    }

    /// The program so far.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// Hands a value back to the caller of the program under a name.
    pub fn output(&mut self, name: &str, value: Value) {
        self.program.outputs.push((name.to_owned(), value));
    }

    /// Records that `gradient` is the gradient of `resident`.
    pub fn gradient(&mut self, resident: Value, gradient: Value) {
        self.program.gradients.push((resident, gradient));
    }

    /// The finished program.
    #[must_use]
    pub fn finish(self) -> Program {
        self.program
    }
}
