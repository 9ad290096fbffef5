// SPDX-License-Identifier: Apache-2.0
//! The types that cross into C++, and the guard that keeps panics on this side.

use std::panic::{catch_unwind, AssertUnwindSafe};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    pub data: *const u8,
    pub size: usize,
}

impl View {
    pub fn of(bytes: &[u8]) -> View {
        View { data: bytes.as_ptr(), size: bytes.len() }
    }

    /// # Safety
    /// The memory must outlive the returned slice.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        slice(self.data, self.size)
    }

    /// # Safety
    /// As `bytes`.
    pub unsafe fn text<'a>(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()).map_err(|_| "not valid UTF-8".to_string())
    }
}

/// # Safety
/// `data` must point to `size` items, or `size` be 0.
pub unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// A Vec whose ownership crosses: the other side gives it back to be freed.
#[repr(C)]
pub struct Owned<T> {
    data: *mut T,
    size: usize,
    capacity: usize,
}

pub type Bytes = Owned<u8>;

impl<T> Owned<T> {
    pub fn new(items: Vec<T>) -> Owned<T> {
        let mut items = std::mem::ManuallyDrop::new(items);
        Owned { data: items.as_mut_ptr(), size: items.len(), capacity: items.capacity() }
    }

    /// # Safety
    /// `self` must come from `new`, once.
    pub unsafe fn free(self) {
        if !self.data.is_null() {
            drop(Vec::from_raw_parts(self.data, self.size, self.capacity));
        }
    }
}

/// Runs `body`; its failure, or its panic, is written to `error`.
///
/// # Safety
/// `error` must be writable.
pub unsafe fn guard<T>(error: *mut Bytes, body: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(message)) => message,
        Err(_) => "internal failure in the text library".to_string(),
    };
    error.write(Bytes::new(message.into_bytes()));
    None
}

pub fn boxed<T>(value: Option<T>) -> *mut T {
    value.map_or(std::ptr::null_mut(), |v| Box::into_raw(Box::new(v)))
}

/// # Safety
/// `pointer` must be null or come from `boxed`, once.
pub unsafe fn unbox<T>(pointer: *mut T) {
    if !pointer.is_null() {
        let owned = Box::from_raw(pointer);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
    }
}
