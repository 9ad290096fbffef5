// SPDX-License-Identifier: Apache-2.0
//! JSON text to template values and back. Integers keep every digit; nesting is bounded.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

const MAX_DEPTH: usize = 128;

fn error(message: &'static str) -> Error {
    Error::new(ErrorKind::BadSerialization, message)
}

/// Parses one JSON value; `text_of` makes each string's value.
pub fn parse(text: &str, text_of: &dyn Fn(String) -> Value) -> Result<Value, Error> {
    let mut parser = Parser { text, at: 0, text_of };
    let value = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(error("malformed JSON"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    text_of: &'a dyn Fn(String) -> Value,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(token.as_bytes());
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(error("JSON is nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'"') => Ok((self.text_of)(self.string()?)),
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("true") => Ok(Value::from(true)),
            _ if self.take("false") => Ok(Value::from(false)),
            _ if self.take("null") => Ok(Value::from(())),
            _ => Err(error("malformed JSON")),
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let found = memchr::memchr2(b'"', b'\\', rest).ok_or_else(|| error("malformed JSON"))?;
            self.at += found + 1;
            if rest[found] == b'"' {
                break;
            }
            self.at += 1; // what the backslash escapes
            if self.at > self.text.len() {
                return Err(error("malformed JSON"));
            }
        }
        let quoted = &self.text.as_bytes()[start..self.at];
        serde_json::from_slice(quoted).map_err(|_| error("malformed JSON"))
    }

    fn number(&mut self) -> Result<Value, Error> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let token = &rest[..end];
        self.at += end;
        let double: f64 = serde_json::from_str(token).map_err(|_| error("malformed JSON"))?;
        if token.contains(['.', 'e', 'E']) {
            return Ok(Value::from(double));
        }
        let small = token.parse::<i64>().map(Value::from);
        let value = small.or_else(|_| token.parse::<u64>().map(Value::from));
        Ok(value.or_else(|_| token.parse::<i128>().map(Value::from)).unwrap_or_else(|_| Value::from(token)))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items: Vec<Value> = Vec::new();
        self.at += 1;
        self.space();
        if self.take("]") {
            return Ok(Value::from(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Value::from(items));
            }
            if !self.take(",") {
                return Err(error("malformed JSON"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Error> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        self.at += 1;
        self.space();
        while !self.take("}") {
            if !pairs.is_empty() {
                if !self.take(",") {
                    return Err(error("malformed JSON"));
                }
                self.space();
            }
            if self.peek() != Some(b'"') {
                return Err(error("malformed JSON"));
            }
            let key = (self.text_of)(self.string()?);
            self.space();
            if !self.take(":") {
                return Err(error("malformed JSON"));
            }
            pairs.push((key, self.value(depth + 1)?));
            self.space();
        }
        Ok(Value::from_pairs(pairs))
    }
}

/// How JSON is written: between items, after keys, and the white space of one level if each has its own line.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    pub comma: &'a str,
    pub colon: &'a str,
    pub indent: Option<usize>,
    pub sort_keys: bool,
    pub ascii: bool,
}

pub const COMPACT: Style = Style { comma: ",", colon: ":", indent: None, sort_keys: false, ascii: false };
/// Python's json.dumps without arguments, but for letters beyond ASCII.
pub const PYTHON: Style = Style { comma: ", ", colon: ": ", indent: None, sort_keys: false, ascii: false };

pub fn write(value: &Value, style: Style, out: &mut String) -> Result<(), Error> {
    write_value(value, style, 0, out)
}

fn write_value(value: &Value, style: Style, depth: usize, out: &mut String) -> Result<(), Error> {
    // A list or an object of this depth would have a level more than readers take.
    if depth >= MAX_DEPTH && matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        return Err(error("value is nested too deeply"));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => out.push_str(&serde_json::json!(number).to_string()),
            _ => out.push_str("null"),
        },
        ValueKind::String => write_string(value.as_str().unwrap_or_default(), style, out),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            write_items(b"{}", keys.len(), style, depth, out, |at, out| {
                write_string(&keys[at].to_string(), style, out);
                out.push_str(style.colon);
                write_value(&value.get_item(&keys[at])?, style, depth + 1, out)
            })?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked().collect::<Result<Vec<Value>, _>>()?;
            write_items(b"[]", items.len(), style, depth, out, |at, out| {
                write_value(&items[at], style, depth + 1, out)
            })?;
        }
        _ => return Err(error("value has no JSON form")),
    }
    Ok(())
}

fn write_items(
    brackets: &[u8; 2],
    count: usize,
    style: Style,
    depth: usize,
    out: &mut String,
    mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |level: usize, out: &mut String| {
        if let Some(indent) = style.indent.filter(|_| count > 0) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    };
    out.push(brackets[0].into());
    for at in 0..count {
        if at > 0 {
            out.push_str(if style.indent.is_some() { style.comma.trim_end() } else { style.comma });
        }
        line(depth + 1, out);
        item(at, out)?;
    }
    line(depth, out);
    out.push(brackets[1].into());
    Ok(())
}

fn write_string(text: &str, style: Style, out: &mut String) {
    let quoted = serde_json::Value::from(text).to_string();
    if !style.ascii {
        return out.push_str(&quoted);
    }
    for c in quoted.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
}
