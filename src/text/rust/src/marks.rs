// SPDX-License-Identifier: Apache-2.0
//! Marks keep row text from becoming a special token. A mark stands before each place in a printed value where a
//! special token could begin, and before the value's first visible character, so that none can go on into it.
//! The encoder takes no special token that begins at a mark or holds one. Noncharacters, since text that is meant
//! for exchange has none; where a row has one all the same, it is escaped.

use std::borrow::Cow;
use std::collections::HashMap;

pub const MARK: char = '\u{FDD0}';
const ESCAPE: char = '\u{FDD1}';
const ESCAPED_MARK: char = '\u{FDD2}';

fn is_reserved(c: char) -> bool {
    c == MARK || c == ESCAPE
}

/// Whether the text holds a mark or an escape; all of them begin with these two bytes.
pub fn has_reserved(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), b"\xEF\xB7").is_some() && text.contains(is_reserved)
}

pub fn escape(text: &str) -> Cow<'_, str> {
    if !has_reserved(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            MARK => out.extend([ESCAPE, ESCAPED_MARK]),
            ESCAPE => out.extend([ESCAPE, ESCAPE]),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

pub fn unmark(text: &str) -> Cow<'_, str> {
    if !has_reserved(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            (MARK, _) => {}
            (ESCAPE, Some(&ESCAPED_MARK)) => {
                chars.next();
                out.push(MARK);
            }
            (ESCAPE, Some(&ESCAPE)) => {
                chars.next();
                out.push(ESCAPE);
            }
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The special tokens' texts, for marking and for finding.
#[derive(Default)]
pub struct SpecialTexts {
    ids: HashMap<Vec<u8>, u32>,
    lengths: Vec<usize>, // distinct, longest first
    by_first: HashMap<u8, Vec<Vec<u8>>>,
    first: Vec<bool>, // by byte
    has_space: bool,
}

impl SpecialTexts {
    pub fn new(texts: impl IntoIterator<Item = (String, u32)>) -> SpecialTexts {
        let mut result = SpecialTexts { first: vec![false; 256], ..Default::default() };
        for (text, id) in texts.into_iter().filter(|(text, _)| !text.is_empty()) {
            result.has_space |= text.contains(char::is_whitespace);
            let bytes = text.into_bytes();
            result.lengths.push(bytes.len());
            result.first[usize::from(bytes[0])] = true;
            result.by_first.entry(bytes[0]).or_default().push(bytes.clone());
            result.ids.insert(bytes, id);
        }
        result.lengths.sort_unstable_by(|a, b| b.cmp(a));
        result.lengths.dedup();
        result
    }

    /// Takes the texts joined by line feeds.
    pub fn parse(joined: &str) -> SpecialTexts {
        SpecialTexts::new(joined.split('\n').map(|text| (text.to_string(), 0)))
    }

    /// Whether a special token may begin with this byte.
    pub fn may_begin(&self, byte: u8) -> bool {
        self.first[usize::from(byte)]
    }

    /// The longest special token at the start of `text`: its id and length.
    pub fn longest_at(&self, text: &[u8]) -> Option<(u32, usize)> {
        let lengths = self.lengths.iter().filter(|&&length| length <= text.len());
        lengths.filter_map(|&length| Some((*self.ids.get(&text[..length])?, length))).next()
    }

    /// Where, from `from` on, a special token could begin or begins to.
    fn next_start(&self, text: &[u8], from: usize) -> Option<usize> {
        (from..text.len()).find(|&at| {
            let rest = &text[at..];
            self.may_begin(rest[0])
                && self.by_first[&rest[0]].iter().any(|t| rest.starts_with(t) || t.starts_with(rest))
        })
    }

    /// Appends row text with its marks.
    pub fn mark(&self, text: &str, out: &mut String) {
        let text = escape(text);
        let lead = if self.has_space { 0 } else { text.len() - text.trim_start().len() };
        if lead == text.len() {
            return out.push_str(&text);
        }
        out.push_str(&text[..lead]);
        out.push(MARK);
        let mut done = lead;
        let mut from = lead + 1;
        while let Some(at) = self.next_start(text.as_bytes(), from) {
            out.push_str(&text[done..at]);
            out.push(MARK);
            done = at;
            from = at + 1;
        }
        out.push_str(&text[done..]);
    }
}
