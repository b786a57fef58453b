//! What happens inside, for who asks: `-v`, `-vv` and `RUST_LOG`. Lines go to standard error alone.
//!
//! **Invariant:** nothing of it is a result, and nothing depends on whether it is written.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value as Json, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::output;
use crate::base::date::utc;

/// What says which events are written, where `-v` does not.
const VARIABLE: &str = "RUST_LOG";

/// Whether anything is written.
static ON: AtomicBool = AtomicBool::new(false);

/// Begins to write what is asked for: events from `-v` on, spans with their times from `-vv` on.
///
/// # Errors
/// `RUST_LOG` says something that is no filter.
pub(super) fn begin(verbose: u8, json: bool) -> Result<(), String> {
    let own = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = match (verbose, own) {
        (0, None) => return Ok(()),
        (0, Some(text)) => text,
        (1, _) => "peftc=info,peftc_core=info".to_owned(),
        (2, _) => "peftc=debug,peftc_core=debug".to_owned(),
        _ => "peftc=trace,peftc_core=trace".to_owned(),
    };
    let filter = EnvFilter::builder()
        .parse(&filter)
        .map_err(|why| format!("{VARIABLE} is `{filter}`: {why}; write such as `peftc=debug`"))?;
    let began = Instant::now();
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(Notes)
        .event_format(Lines { json, began });
    ON.store(true, Ordering::Relaxed);
    layer.try_init().map_err(|why| format!("{VARIABLE}: {why}"))
}

/// Standard error, a line at a time.
struct Notes;

/// A line on its way.
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Notes {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        output::note(&String::from_utf8_lossy(&self.0));
    }
}

/// How events are written: for people, or as an object of JSON a line, like those of `--log-format json`.
struct Lines {
    json: bool,
    began: Instant,
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Map<String, Json>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.0.insert(field.name().to_owned(), Json::String(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
}

/// Whether anything is written.
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

const fn level(of: Level) -> &'static str {
    match of {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut fields = fields.0;
        let message = fields.shift_remove("message");
        let message = message.as_ref().and_then(Json::as_str).unwrap_or_default();
        let of = level(*event.metadata().level());
        let mut spans = Vec::new();
        for span in cx
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            let mut name = span.name().to_owned();
            if let Some(own) = span.extensions().get::<FormattedFields<N>>()
                && !own.fields.is_empty()
            {
                write!(name, " {}", own.fields)?;
            }
            spans.push(name);
        }
        if self.json {
            let mut line = json!({
                "event": "trace", "time": utc(SystemTime::now()), "level": of,
                "within": spans, "message": message,
            });
            if let Some(map) = line.as_object_mut() {
                fields.retain(|name, _| !map.contains_key(name));
                map.extend(fields);
            }
            return writeln!(to, "{line}");
        }
        let seconds = self.began.elapsed().as_secs_f64();
        write!(to, "{of} {seconds:.3}s ")?;
        for span in spans {
            write!(to, "{span}: ")?;
        }
        write!(to, "{message}")?;
        for (name, value) in fields {
            match value {
                Json::String(text) => write!(to, "; {} {text}", name.replace('_', " "))?,
                other => write!(to, "; {} {other}", name.replace('_', " "))?,
            }
        }
        writeln!(to)
    }
}
