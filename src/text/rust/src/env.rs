// SPDX-License-Identifier: Apache-2.0
//! What every template of ours may use, and how far it may go.

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::json;

/// One step is an instruction, or 64 bytes of text made or read.
pub const MAX_STEPS: u64 = 1_000_000;
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;
const MAX_RECURSION: usize = 64;

pub fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(MAX_STEPS));
    env.set_recursion_limit(MAX_RECURSION);
    env.set_debug(true); // errors then say where
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_filter("tojson", to_json);
    env.add_filter("string", |value: &Value| value.to_string());
    env.remove_global("debug");
    env
}

/// As Python's json.dumps, which is what chat templates are written against: nothing is escaped for HTML.
fn to_json(value: &Value, indent: Option<usize>, kwargs: Kwargs) -> Result<Value, Error> {
    let mut style = json::PYTHON;
    style.ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    style.sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    style.indent = indent.or(kwargs.get::<Option<usize>>("indent")?);
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
    if let Some([comma, colon]) = separators.as_deref() {
        style.comma = comma;
        style.colon = colon;
    }
    let mut out = String::new();
    json::write(value, json::Style { indent: style.indent.map(|i| i.min(16)), ..style }, &mut out)?;
    Ok(Value::from(out))
}

/// `default` that takes a null for an undefined value.
pub fn default(state: &State, value: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    let value = if value.is_none() { Value::UNDEFINED } else { value.clone() };
    minijinja::filters::default(state, &value, arguments)
}

/// Filters in a template's text what `operands` say: see `Usage::operands`.
pub fn guard_operands(source: &str, operands: &[std::ops::Range<usize>]) -> String {
    let mut inserts: Vec<(usize, bool)> = Vec::new(); // at, and whether it opens
    for range in operands {
        inserts.extend([(range.start, true), (range.end, false)]);
    }
    inserts.sort_unstable(); // at one place what closes comes first
    let mut out = String::with_capacity(source.len() + inserts.len() * 12);
    let mut done = 0;
    for (at, opens) in inserts {
        out.push_str(&source[done..at]);
        out.push_str(if opens { "((" } else { ")|_known)" });
        done = at;
    }
    out.push_str(&source[done..]);
    out
}

pub fn known(value: &Value) -> Result<Value, Error> {
    match value.is_undefined() || value.is_none() {
        true => Err(ErrorKind::UndefinedError.into()),
        false => Ok(value.clone()),
    }
}

/// What failed, in one line without names of ours.
pub fn describe(error: &Error) -> String {
    let mut text = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => return "the template takes too many steps".into(),
        (kind @ (ErrorKind::InvalidOperation | ErrorKind::SyntaxError), None) => kind.to_string(),
        (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, Some(detail)) => detail.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    if let Some(source) = std::error::Error::source(error).and_then(|s| s.downcast_ref::<Error>()) {
        text = format!("{text}: {}", describe(source));
    }
    text
}
