//! Counts in 32 bits, in which programs and files of tokens have rows, tokens, classes, heads and places.

/// A count as a `u32`.
///
/// What a recipe, a config or a data file gives is bounded where it is read, so this cuts nothing. Beyond the bounds a
/// count is `u32::MAX`, which no list has: it is refused or found too large, and never a small number.
#[must_use]
pub fn to_u32(count: impl TryInto<u32>) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}
