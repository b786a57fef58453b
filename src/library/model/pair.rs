//! What families of encoders with a decoder have in common.

use super::super::net::{Net, Role};
use crate::program::Value;

/// The maps and the norm of an attention, by their roles.
pub(super) struct Roles {
    pub query: Role,
    pub key: Role,
    pub value: Role,
    pub output: Role,
    pub norm: Role,
    pub sublayer: Role,
}

/// Those of a stack's attention to itself.
pub(super) const OWN: Roles = Roles {
    query: Role::Query,
    key: Role::Key,
    value: Role::Value,
    output: Role::AttentionOutput,
    norm: Role::AttentionNorm,
    sublayer: Role::Attention,
};

/// Those of a decoder's attention to what its encoder gave.
pub(super) const CROSS: Roles = Roles {
    query: Role::CrossQuery,
    key: Role::CrossKey,
    value: Role::CrossValue,
    output: Role::CrossOutput,
    norm: Role::CrossNorm,
    sublayer: Role::Cross,
};

/// What an attention of a block reads beside the block's rows.
#[derive(Clone, Copy)]
pub(super) enum Reads {
    /// The rows themselves, with what is added by distance.
    Itself(Option<Value>),
    /// What the encoder gave.
    Encoded(Value),
    /// What is kept of that.
    Kept,
}

impl Reads {
    /// What a decoder reads of its sources: what is kept of them, if something is, and else what the encoder gives.
    pub(super) fn sources(net: &mut Net<'_>, encoded: impl FnOnce(&mut Net<'_>) -> Value) -> Self {
        match net.has_kept_sources() {
            true => Self::Kept,
            false => Self::Encoded(encoded(net)),
        }
    }
}
