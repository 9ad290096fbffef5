// SPDX-License-Identifier: Apache-2.0
//! Columns as a template sees them: a map that fetches only what is asked for.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Error, ErrorKind};

use crate::{json, marks};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Column {
    kind: u8,
    validity: *const u8,
    offset: i64,
    values: *const u8,
    offsets: *const i32,
}

const KIND_BOOL: u8 = 1;
const KIND_INT64: u8 = 2;
const KIND_UINT64: u8 = 3;
const KIND_DOUBLE: u8 = 4;
const KIND_TEXT: u8 = 5;
const KIND_JSON: u8 = 6;

/// The rows of one Evaluate call. Templates hold it by Arc, but only on the calling thread and during the call.
#[derive(Debug)]
pub struct Rows {
    names: Vec<String>,
    columns: Vec<Column>,
    /// Whether reserved characters are escaped as values are fetched.
    escape: bool,
    row: Cell<i64>,
    last_missing: RefCell<Option<String>>,
    parsed: RefCell<Vec<Option<(i64, Value)>>>, // JSON columns, by column
}

// SAFETY: see `Rows`: no other thread ever sees one.
unsafe impl Send for Rows {}
unsafe impl Sync for Rows {}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column")
    }
}

impl Rows {
    /// # Safety
    /// The columns' buffers must hold every row that `set_row` is given, and outlive the result and its values.
    pub unsafe fn new(names: Vec<String>, columns: Vec<Column>, escape: bool) -> Rows {
        let parsed = RefCell::new(vec![None; columns.len()]);
        Rows { names, columns, escape, row: Cell::new(0), last_missing: RefCell::new(None), parsed }
    }

    pub fn set_row(&self, row: i64) {
        self.row.set(row);
        if self.last_missing.borrow().is_some() {
            self.last_missing.replace(None);
        }
    }

    /// The column whose null, or absence, this row's template met last.
    pub fn last_missing(&self) -> Option<String> {
        self.last_missing.borrow().clone()
    }

    fn text(&self, text: &str) -> Value {
        match self.escape {
            true => Value::from(marks::escape(text).as_ref()),
            false => Value::from(text),
        }
    }

    fn get(&self, at: usize) -> Value {
        let column = &self.columns[at];
        let index = (column.offset + self.row.get()) as usize;
        // SAFETY: `new` says that the buffers hold this row.
        unsafe {
            let bit = |bits: *const u8| *bits.add(index / 8) >> (index % 8) & 1 == 1;
            if column.kind == 0 || (!column.validity.is_null() && !bit(column.validity)) {
                self.last_missing.replace(Some(self.names[at].clone()));
                return Value::UNDEFINED;
            }
            match column.kind {
                KIND_BOOL => Value::from(bit(column.values)),
                KIND_INT64 => Value::from(column.values.cast::<i64>().add(index).read()),
                KIND_UINT64 => Value::from(column.values.cast::<u64>().add(index).read()),
                KIND_DOUBLE => Value::from(column.values.cast::<f64>().add(index).read()),
                _ => {
                    let (start, end) = (*column.offsets.add(index), *column.offsets.add(index + 1));
                    let size = usize::try_from(end - start).unwrap_or(0);
                    let bytes = crate::ffi::slice(column.values.add(start as usize), size);
                    match std::str::from_utf8(bytes) {
                        Ok(text) if column.kind == KIND_TEXT => self.text(text),
                        Ok(text) if column.kind == KIND_JSON => self.json(at, text),
                        _ => Value::from(Error::new(ErrorKind::InvalidOperation, "text is not valid UTF-8")),
                    }
                }
            }
        }
    }

    fn json(&self, at: usize, text: &str) -> Value {
        if let Some((row, value)) = &self.parsed.borrow()[at] {
            if *row == self.row.get() {
                return value.clone();
            }
        }
        let value = json::parse(text, &|text| self.text(&text)).unwrap_or_else(Value::from);
        self.parsed.borrow_mut()[at] = Some((self.row.get(), value.clone()));
        if value.is_none() {
            self.last_missing.replace(Some(self.names[at].clone()));
            return Value::UNDEFINED;
        }
        value
    }

    fn find(&self, name: &str) -> Option<Value> {
        let at = self.names.iter().position(|known| known == name)?;
        Some(self.get(at))
    }
}

/// The root of a template's names: the columns, and `row` for all of them.
#[derive(Debug)]
pub struct Root(pub Arc<Rows>);

#[derive(Debug)]
struct Row(Arc<Rows>);

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "row" => Some(Value::from_object(Row(self.0.clone()))),
            _ => self.0.find(key),
        }
    }
}

impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let found = self.0.find(key);
        if found.is_none() {
            self.0.last_missing.replace(Some(key.to_string()));
        }
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.names.iter().map(|name| Value::from(name.as_str())).collect())
    }
}
