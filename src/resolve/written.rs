//! Values read again as an artifact keeps them, as text.

use super::scope::Scope;
use super::values;
use crate::base::SourceId;
use crate::library::schema::{Checked, Kind};
use crate::syntax::ast::ValueKind;

/// Methods written as text (as an artifact's description keeps them), checked like a recipe's.
///
/// # Errors
/// The first complaint.
pub fn methods_from_text(list: &[String]) -> Result<crate::library::method::Tuning, String> {
    use crate::library::schema::{Default, Key, Registry};
    let key = Key {
        name: "adapter",
        kind: Kind::Entry(Registry::Method),
        default: Default::Required,
        doc: "",
        fallback: None,
    };
    let mut tuning = crate::library::method::Tuning::default();
    for text in list {
        let mut parsed = crate::syntax::parse_value(text, SourceId::default());
        if let Some(ValueKind::Ctor(ctor)) = parsed.value.as_mut().map(|v| &mut v.value)
            && let Some(method) = crate::library::method::method(&ctor.name.value)
        {
            super::block::without_defaults(method.schema(), ctor);
        }
        let mut diags = parsed.diags;
        let checked = parsed
            .value
            .and_then(|v| values::check(&Scope::default(), &key, &v, &mut diags));
        let found = match checked {
            Some(Checked::Entry(filled)) if !diags.has_errors() => {
                crate::library::method::method(&filled.name).map(|m| (m, *filled))
            }
            _ => None,
        };
        let Some(pair) = found else {
            let why: Vec<&str> = diags.iter().map(|d| d.message.as_str()).collect();
            return Err(format!("`{text}` cannot be read: {}", why.join("; ")));
        };
        tuning.methods.push(pair);
    }
    Ok(tuning)
}
