//! How GGUF numbers the ways in which tensors are stored.

use crate::files::weights::Kind;
use crate::program::{DType, Format};

/// Ways that are read, by number in files.
const READ: &[(u32, &str)] = &[
    (0, "f32"),
    (1, "f16"),
    (2, "q4_0"),
    (3, "q4_1"),
    (6, "q5_0"),
    (7, "q5_1"),
    (8, "q8_0"),
    (10, "q2_k"),
    (11, "q3_k"),
    (12, "q4_k"),
    (13, "q5_k"),
    (14, "q6_k"),
    (30, "bf16"),
];

/// Others, which have names.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// What a number stands for.
pub(super) fn kind(number: u32) -> Kind {
    if number == 28 {
        return Kind::Stored(DType::F64.into());
    }
    let of = |list: &[(u32, &'static str)]| {
        let found = list.iter().find(|(n, _)| *n == number);
        found.map(|(_, name)| *name)
    };
    match of(READ).and_then(Format::named) {
        Some(format) => Kind::Stored(format),
        None => Kind::Other(of(OTHERS).map_or_else(|| format!("type {number}"), str::to_owned)),
    }
}

/// The number of a format; `None` where GGUF has no such way.
pub(super) fn number(format: Format) -> Option<u32> {
    let name = format.name();
    READ.iter()
        .find(|(_, n)| *n == name)
        .map(|(number, _)| *number)
}

/// What `general.file_type` is of a model whose matrices are mostly stored so.
pub(super) fn file_type(format: Format) -> Option<u32> {
    const TYPES: &[(&str, u32)] = &[
        ("f32", 0),
        ("f16", 1),
        ("q4_0", 2),
        ("q8_0", 7),
        ("q4_k", 15),
        ("bf16", 32),
    ];
    let name = format.name();
    TYPES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::format::FORMATS;

    #[test]
    fn every_format_but_nf4_has_a_number() {
        let known = |name: &str| READ.iter().any(|(_, n)| *n == name);
        for format in FORMATS {
            assert_eq!(known(format.name()), format.name() != "nf4");
        }
        for (number, name) in READ {
            assert_eq!(kind(*number).name(), *name);
        }
        assert_eq!(kind(16).name(), "IQ2_XXS");
        assert_eq!(kind(999).name(), "type 999");
    }
}
