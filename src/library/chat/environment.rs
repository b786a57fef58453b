//! Jinja as transformers sets it up, and bounds for what a template may do.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter};

use super::{Date, TemplateError, marks, methods, tojson};

/// The name under which an environment has its template.
const NAME: &str = "chat";

/// Work that a rendering may do: instructions, and a share of every byte.
const FUEL: u64 = 4_000_000;

/// Calls within calls. A thread's stack has room for far more.
const DEPTH: usize = 120;

/// What a template raised by itself.
#[derive(Debug)]
struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

/// An environment that has the template.
pub(super) fn of(
    source: &str,
    today: Option<Date>,
    marked: bool,
) -> Result<Environment<'static>, TemplateError> {
    let mut all = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    all.set_syntax(syntax.map_err(|e| described(&e))?);
    all.set_auto_escape_callback(|_| AutoEscape::None);
    all.set_fuel(Some(FUEL));
    all.set_recursion_limit(DEPTH);
    all.set_debug(true);
    all.set_unknown_method_callback(methods::call);
    all.set_formatter(|out, state, value| match float(value) {
        Some(text) => Ok(out.write_str(&text)?),
        None => escape_formatter(out, state, value),
    });
    all.add_filter("string", |value: &Value| {
        float(value).unwrap_or_else(|| value.to_string())
    });
    all.add_filter("tojson", tojson::filter);
    all.add_filter("trim", methods::trim);
    all.add_test("sequence", |value: &Value| {
        // Whatever has a length and places: so it is in Python.
        let kind = value.kind();
        matches!(
            kind,
            ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined
        )
    });
    all.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::None => false,
        ValueKind::String => true,
        _ => value.try_iter().is_ok(),
    });
    all.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, message.to_owned());
        Err(error.with_source(Raised))
    });
    all.add_function("strftime_now", move |form: &str| now(today, form));
    if marked {
        all.add_function(marks::FUNCTION, marks::marked);
    } else {
        all.add_function(marks::FUNCTION, marks::plain);
    }
    let added = all.add_template_owned(NAME, source.to_owned());
    added.map_err(|e| described(&e))?;
    Ok(all)
}

/// A number that is not whole, as Python writes it.
fn float(value: &Value) -> Option<String> {
    let number = value.kind() == ValueKind::Number && !value.is_integer();
    let number = f64::try_from(value.clone()).ok().filter(|_| number)?;
    number.is_finite().then(|| tojson::float(number))
}

/// Today, where a day is given: a text must not depend on the day on which it is read.
fn now(today: Option<Date>, form: &str) -> Result<String, Error> {
    let refuse = |message: String| Error::new(ErrorKind::InvalidOperation, message);
    let day = today.ok_or_else(|| {
        refuse(
            "it writes today's date, which would make other tokens each day: give the date in the model, `today = \"2026-01-31\"`"
                .to_owned(),
        )
    })?;
    let wrong = |code: String| {
        refuse(format!(
            "`strftime_now` is asked for `{code}`: only codes of days are known, %Y %y %m %d %e %j %B %b %A %a %F"
        ))
    };
    day.format(form).map_err(wrong)
}

/// The text that the template makes of these variables.
pub(super) fn render(all: &Environment<'_>, context: Value) -> Result<String, TemplateError> {
    let template = all.get_template(NAME).map_err(|e| described(&e))?;
    template.render(context).map_err(|e| described(&e))
}

/// An error with its cause.
fn described(error: &Error) -> TemplateError {
    let mut raised = false;
    let mut innermost = error;
    let mut cause = std::error::Error::source(error);
    while let Some(own) = cause {
        raised |= own.is::<Raised>();
        if let Some(inner) = own.downcast_ref::<Error>() {
            innermost = inner;
        }
        cause = own.source();
    }
    let what = match (innermost.kind(), innermost.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does more work than a chat template may".to_owned(),
        (_, Some(detail)) if raised => format!("the template refuses the conversation: {detail}"),
        (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    TemplateError {
        line: innermost.line().or_else(|| error.line()),
        message: what,
        raised,
    }
}

/// Charges for bytes that a filter or a method is about to make.
pub(super) fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 16)
}
