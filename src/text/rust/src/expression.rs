// SPDX-License-Identifier: Apache-2.0
//! A job file's expressions and templates, evaluated over rows.

use std::sync::Arc;

use minijinja::machinery::{parse, parse_expr, Span};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};

use crate::env::{self, MAX_OUTPUT_BYTES};
use crate::marks::{self, SpecialTexts};
use crate::names::Usage;
use crate::rows::{Column, Root, Rows};

const NAME: &str = "template";

pub struct Expression {
    single: Option<minijinja::Expression<'static, 'static>>, // borrows env: declared, and so dropped, before it
    env: Box<Environment<'static>>,
    usage: Usage,
    names: String,
    row_columns: String,
    uses_row: bool,
    is_single: bool,
    source: String,
}

/// Where results go: one entry a row, texts one after the other.
pub struct Output<'a> {
    pub kinds: &'a mut [u8],
    pub numbers: &'a mut [u64],
    pub offsets: &'a mut [u32],
    pub text: Vec<u8>,
}

const UNDEFINED: u8 = 0;
const BOOL: u8 = 1;
const INT: u8 = 2;
const UINT: u8 = 3;
const DOUBLE: u8 = 4;
const TEXT: u8 = 5;
const JSON: u8 = 6;
const ERROR: u8 = 7;

// The codes of ERROR entries, in `numbers`.
const UNDEFINED_VALUE: u64 = 0;
const TEMPLATE_ERROR: u64 = 1;
const TEMPLATE_LIMIT: u64 = 2;

/// The expression's text, and where it begins, if `source` is exactly one {{ }}.
fn single(source: &str) -> Option<(&str, usize)> {
    let trimmed = source.trim();
    let inner = trimmed.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    parse_expr(inner).ok()?;
    Some((inner, inner.as_ptr() as usize - source.as_ptr() as usize))
}

impl Expression {
    pub fn compile(source: &str, is_prompt: bool, special_tokens: &str) -> Result<Expression, String> {
        if marks::has_reserved(source) {
            return Err("the template holds a character that is reserved here: U+FDD0 or U+FDD1".into());
        }
        let single = single(source);
        let (usage, offset) = match single {
            Some((inner, offset)) => {
                (Usage::of_expression(&parse_expr(inner).map_err(|e| located(&e, source, 0))?), offset)
            }
            None => {
                let root = parse(source, NAME, SyntaxConfig::default()).map_err(|e| located(&e, source, 0))?;
                (Usage::of_template(&root), 0)
            }
        };
        let mut env = Box::new(env::environment());
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        env.add_filter("default", env::default);
        env.add_filter("d", env::default);
        env.add_filter("_known", env::known);
        env.add_test("none", |value: &Value| value.is_none() || value.is_undefined());
        if is_prompt {
            mark_printed(&mut env, SpecialTexts::parse(special_tokens), &usage);
        } else {
            env.set_formatter(|out, _, value| Ok(write!(out, "{}", printable(value)?).map_err(Error::from)?));
        }
        check_known(&env, &usage, source, offset)?;
        // A name that is never called is a column's: a null one must not fall back on a function.
        let is_called = |name: &String| usage.functions.iter().any(|(function, _)| function == name);
        usage.names.iter().filter(|&name| !is_called(name)).for_each(|name| env.remove_global(name));
        let compiled = match single {
            Some((inner, _)) if !is_prompt => {
                let expression = env
                    .compile_expression_owned(env::guard_operands(inner, &usage.operands))
                    .map_err(|e| located(&e, source, offset))?;
                // SAFETY: the environment is boxed, never changed again, and outlives the expression.
                Some(unsafe {
                    std::mem::transmute::<minijinja::Expression<'_, 'static>, minijinja::Expression<'static, 'static>>(
                        expression,
                    )
                })
            }
            _ => {
                let operands = match single {
                    Some(_) => {
                        usage.operands.iter().map(|range| range.start + offset..range.end + offset).collect()
                    }
                    None => usage.operands.clone(),
                };
                let guarded = env::guard_operands(source, &operands);
                env.add_template_owned(NAME, guarded).map_err(|e| located(&e, source, 0))?;
                None
            }
        };
        Ok(Expression {
            single: compiled,
            names: own_names(&usage).join("\n"),
            row_columns: usage.row_columns.join("\n"),
            uses_row: usage.names.iter().any(|name| name == "row"),
            is_single: single.is_some(),
            source: source.trim().to_string(),
            usage,
            env,
        })
    }

    pub fn names(&self) -> &str {
        &self.names
    }

    pub fn row_columns(&self) -> &str {
        &self.row_columns
    }

    pub fn uses_row(&self) -> bool {
        self.uses_row
    }

    pub fn is_single(&self) -> bool {
        self.is_single
    }

    /// # Safety
    /// The columns must hold as many rows as `out` has entries.
    pub unsafe fn evaluate(
        &self,
        names: Vec<String>,
        columns: Vec<Column>,
        out: &mut Output,
    ) -> Result<(), String> {
        let rows = Arc::new(Rows::new(names, columns, self.usage.captures));
        let root = Value::from_object(Root(rows.clone()));
        let mut buffer = Vec::new();
        for row in 0..out.kinds.len() {
            rows.set_row(row as i64);
            let result = match &self.single {
                Some(expression) => expression.eval(root.clone()).and_then(|value| put(&value, row, out)),
                None => self.render(&root, &mut buffer).map(|()| {
                    out.kinds[row] = TEXT;
                    out.text.extend_from_slice(&buffer);
                }),
            };
            if let Err(error) = result {
                self.put_error(&error, &rows, row, out);
            }
            out.offsets[row + 1] =
                u32::try_from(out.text.len()).map_err(|_| "a batch's expression results exceed 4 GiB")?;
        }
        Ok(())
    }

    fn render(&self, root: &Value, buffer: &mut Vec<u8>) -> Result<(), Error> {
        buffer.clear();
        let template = self.env.get_template(NAME)?;
        template.render_captured_to(root.clone(), Bounded(buffer)).map(|_| ())
    }

    /// A null in a single expression makes it null; anything else that fails is an error of the row.
    fn put_error(&self, error: &Error, rows: &Rows, row: usize, out: &mut Output) {
        let missing = rows.last_missing();
        let calls_null = error.kind() == ErrorKind::UnknownMethod
            && error.detail().is_some_and(|detail| detail.starts_with("undefined has"));
        let undefined = error.kind() == ErrorKind::UndefinedError || calls_null;
        let of_null = undefined || (error.kind() == ErrorKind::InvalidOperation && missing.is_some());
        if self.single.is_some() && of_null {
            out.kinds[row] = UNDEFINED;
            return;
        }
        let expression: String = self.source.chars().take(80).collect();
        let (code, what) = match (error.kind(), missing) {
            (ErrorKind::OutOfFuel, _) => (TEMPLATE_LIMIT, env::describe(error)),
            (ErrorKind::WriteFailure, _) => (TEMPLATE_LIMIT, "the text is too long".into()),
            (_, Some(name)) if undefined => (UNDEFINED_VALUE, format!("{name:?} is null or undefined")),
            (_, None) if undefined => (UNDEFINED_VALUE, "a value is null or undefined".into()),
            _ => (TEMPLATE_ERROR, env::describe(error)),
        };
        out.kinds[row] = ERROR;
        out.numbers[row] = code;
        out.text.extend_from_slice(format!("{what}, in {expression}").as_bytes());
    }
}

fn put(value: &Value, row: usize, out: &mut Output) -> Result<(), Error> {
    let mut number = |kind, number| {
        out.kinds[row] = kind;
        out.numbers[row] = number;
    };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => number(UNDEFINED, 0),
        ValueKind::Bool => number(BOOL, value.is_true().into()),
        ValueKind::Number if value.is_integer() => {
            if let Ok(integer) = i64::try_from(value.clone()) {
                number(INT, integer as u64);
            } else if let Ok(integer) = u64::try_from(value.clone()) {
                number(UINT, integer);
            } else {
                number(TEXT, 0);
                out.text.extend_from_slice(value.to_string().as_bytes());
            }
        }
        ValueKind::Number => number(DOUBLE, f64::try_from(value.clone())?.to_bits()),
        ValueKind::String | ValueKind::Bytes => {
            number(TEXT, 0);
            match value.as_str() {
                Some(text) => out.text.extend_from_slice(text.as_bytes()),
                None => out.text.extend_from_slice(value.to_string().as_bytes()),
            }
        }
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            number(JSON, 0);
            let mut text = String::new();
            crate::json::write(value, crate::json::COMPACT, &mut text)?;
            out.text.extend_from_slice(text.as_bytes());
        }
        ValueKind::Invalid => {
            return Err(value.clone().try_iter().err().unwrap_or_else(|| ErrorKind::InvalidOperation.into()))
        }
        _ => return Err(Error::new(ErrorKind::InvalidOperation, "the expression's value is not data")),
    }
    Ok(())
}

/// A printed null is as bad as an undefined value; an `if` without `else` prints nothing.
fn printable(value: &Value) -> Result<&Value, Error> {
    match value.kind() {
        ValueKind::None => Err(ErrorKind::UndefinedError.into()),
        _ => Ok(value),
    }
}

/// Makes the environment mark what it prints. Captured output is marked already and counts as safe, unless the
/// template may change it: then its marks are taken out and all of it is marked.
fn mark_printed(env: &mut Environment<'static>, specials: SpecialTexts, usage: &Usage) {
    let captures = usage.captures;
    let trusts_captured = captures && !usage.reshapes;
    env.set_auto_escape_callback(move |_| match trusts_captured {
        true => AutoEscape::Custom("marks".into()),
        false => AutoEscape::None,
    });
    env.add_filter("safe", |value: &Value| value.clone());
    for name in ["escape", "e"] {
        env.add_filter(name, |text: &str| minijinja::HtmlEscape(text).to_string());
    }
    env.set_formatter(move |out, _: &mut State, value| {
        if trusts_captured && value.is_safe() {
            return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
        }
        let value = printable(value)?;
        let mut marked = String::new();
        let owned = if value.as_str().is_none() { value.to_string() } else { String::new() };
        let text = value.as_str().unwrap_or(&owned);
        if captures {
            specials.mark(&marks::unmark(text), &mut marked);
        } else {
            specials.mark(text, &mut marked);
        }
        out.write_str(&marked).map_err(Error::from)
    });
}

/// A writer that ends at the output's bound.
struct Bounded<'a>(&'a mut Vec<u8>);

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(std::io::Error::other("the text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The columns that it reads: no globals, no `row`.
fn own_names(usage: &Usage) -> Vec<&str> {
    usage.names.iter().map(String::as_str).filter(|&name| name != "row").collect()
}

fn check_known(env: &Environment, usage: &Usage, source: &str, offset: usize) -> Result<(), String> {
    let mut state = env.empty_state();
    let unknown = |what: &str, name: &str, span: &Span| {
        let at = position(source, span.start_offset as usize + offset);
        format!("{at}: there is no {what} {name:?}")
    };
    for (name, span) in &usage.filters {
        if matches!(state.apply_filter(name, &[]), Err(e) if e.kind() == ErrorKind::UnknownFilter) {
            return Err(unknown("filter", name, span));
        }
    }
    for (name, span) in &usage.tests {
        if matches!(state.perform_test(name, &[]), Err(e) if e.kind() == ErrorKind::UnknownTest) {
            return Err(unknown("test", name, span));
        }
    }
    for (name, span) in &usage.functions {
        if !env.globals().any(|(global, _)| global == name) {
            return Err(unknown("function", name, span));
        }
    }
    Ok(())
}

fn position(source: &str, at: usize) -> String {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
    format!("line {line}, column {column}")
}

fn located(error: &Error, source: &str, offset: usize) -> String {
    match error.range() {
        Some(range) => format!("{}: {}", position(source, range.start + offset), env::describe(error)),
        None => env::describe(error),
    }
}
