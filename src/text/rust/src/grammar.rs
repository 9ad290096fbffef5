// SPDX-License-Identifier: Apache-2.0
//! Constraints for one vocabulary, and where an answer stands in one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};

use crate::tokenizer::Tokenizer;

const MAX_CACHED: usize = 256;
const MAX_SOURCE_BYTES: usize = 4 << 20;
const MAX_CHOICES: usize = 10_000;
const MAX_DEPTH: usize = 128;

// Kinds of constraints, as ../grammar.h numbers them.
pub const JSON: u8 = 0;
const REGEX: u8 = 1;
const LARK: u8 = 2;
pub const CHOICE: u8 = 3;

pub struct Compiler {
    factory: ParserFactory,
    stop_tokens: Vec<u32>,
    cache: Mutex<Cache>,
}

type Compiled = Arc<Mutex<Matcher>>; // never advanced: each answer's matcher is a clone

#[derive(Default)]
struct Cache {
    entries: HashMap<(u8, String), (u64, Compiled)>,
    clock: u64,
}

pub struct Grammar {
    fresh: Compiled,
    stop_tokens: Vec<u32>,
}

pub struct Answer {
    matcher: Matcher,
    stop_tokens: Vec<u32>,
    is_stopped: bool,
}

impl Compiler {
    pub fn new(tokenizer: &Tokenizer, stop_tokens: &[i32]) -> Result<Compiler, String> {
        let size = tokenizer.vocabulary_size();
        let mut stops = Vec::new();
        for &token in stop_tokens {
            match u32::try_from(token) {
                Ok(id) if (id as usize) < size => stops.push(id),
                _ => return Err(format!("a stop token is not in the vocabulary: {token}")),
            }
        }
        let Some(&first) = stops.first() else {
            return Err("a constraint needs a token that ends the answer".into());
        };
        // Special tokens have no text that an answer could be made of; the trie marks them with 0xFF.
        let words: Vec<Vec<u8>> = (0..size as i32)
            .map(|id| match tokenizer.is_special(id) {
                true => [b"\xFF", tokenizer.token_text(id).as_bytes()].concat(),
                false => tokenizer.token_bytes(id).to_vec(),
            })
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(size as u32, first), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&stops)));
        Ok(Compiler { factory: factory(&env)?, stop_tokens: stops, cache: Mutex::new(Cache::default()) })
    }

    pub fn compile(&self, kind: u8, source: &str) -> Result<Grammar, String> {
        let key = (kind, source.to_string());
        if let Some(fresh) = self.lock().get(&key) {
            return Ok(Grammar { fresh, stop_tokens: self.stop_tokens.clone() });
        }
        check_size(source)?;
        let grammar = match kind {
            JSON => TopLevelGrammar::from_json_schema(compact(schema(source)?)?),
            CHOICE => TopLevelGrammar::from_lark(alternatives(&choices(source)?)),
            _ => of_text(kind, source)?,
        };
        let fresh = Arc::new(Mutex::new(start(&self.factory, grammar)?));
        self.lock().put(key, fresh.clone());
        Ok(Grammar { fresh, stop_tokens: self.stop_tokens.clone() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn get(&mut self, key: &(u8, String)) -> Option<Compiled> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.0 = self.clock;
        Some(entry.1.clone())
    }

    fn put(&mut self, key: (u8, String), fresh: Compiled) {
        if self.entries.len() >= MAX_CACHED {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.0).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.entries.remove(&key));
        }
        self.entries.insert(key, (self.clock, fresh));
    }
}

impl Grammar {
    pub fn answer(&self) -> Answer {
        let matcher = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Answer { matcher, stop_tokens: self.stop_tokens.clone(), is_stopped: false }
    }
}

impl Answer {
    pub fn mask(&mut self, words: &mut [u32]) -> Result<(), String> {
        words.fill(0);
        let allowed =
            if self.must_stop() { None } else { Some(self.matcher.compute_mask_or_eos().map_err(short)?) };
        if let Some(allowed) = &allowed {
            let source = allowed.as_slice();
            if source.len() < words.len() {
                return Err("the mask has more words than the vocabulary".into());
            }
            words.copy_from_slice(&source[..words.len()]);
        }
        // Only where the answer may end do all the stop tokens come, and nowhere does a lone one.
        let may_end = allowed.is_none() || self.is_complete();
        for &token in &self.stop_tokens {
            let (word, bit) = (token as usize / 32, 1 << (token % 32));
            let Some(word) = words.get_mut(word) else { return Err("the mask is too short".into()) };
            *word = if may_end { *word | bit } else { *word & !bit };
        }
        Ok(())
    }

    pub fn accept(&mut self, token: i32) -> Result<(), String> {
        let refused = || "the constraint does not allow this token".to_string();
        let id = u32::try_from(token).map_err(|_| refused())?;
        if self.stop_tokens.contains(&id) {
            if !self.is_complete() {
                return Err(refused());
            }
            self.is_stopped = true;
            return Ok(());
        }
        if self.must_stop() {
            return Err(refused());
        }
        match self.matcher.try_consume_tokens(&[id]) {
            Ok(1) => Ok(()),
            Ok(_) => Err(refused()),
            Err(error) => Err(short(error)),
        }
    }

    pub fn is_complete(&mut self) -> bool {
        self.must_stop() || self.matcher.is_accepting().unwrap_or(false)
    }

    pub fn must_stop(&self) -> bool {
        self.is_stopped || (self.matcher.is_stopped() && !self.matcher.is_error())
    }
}

pub fn factory(env: &TokEnv) -> Result<ParserFactory, String> {
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(env, InferenceCapabilities::default(), &slices).map_err(short)?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    factory.limits_mut().precompute_large_lexemes = false;
    Ok(factory)
}

/// A matcher at the beginning of an answer. What cannot give a first token in bounded time is refused.
pub fn start(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<Matcher, String> {
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    if let Some(error) = matcher.get_error() {
        return Err(short(error));
    }
    matcher.compute_mask().map_err(short)?;
    Ok(matcher)
}

/// A regular expression or a Lark grammar.
pub fn of_text(kind: u8, source: &str) -> Result<TopLevelGrammar, String> {
    match kind {
        REGEX => Ok(TopLevelGrammar::from_regex(source)),
        LARK if source.trim().is_empty() => Err("the grammar is empty".into()),
        LARK => Ok(TopLevelGrammar::from_lark(source.to_string())),
        _ => Err("there is no such kind of constraint".into()),
    }
}

pub fn check_size(source: &str) -> Result<(), String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err("the constraint is too long".into());
    }
    Ok(())
}

/// The first line of what the crate says, and the reason of a regular expression's; the rest is about its insides.
pub fn short(error: impl ToString) -> String {
    let text = error.to_string();
    let mut short = text.lines().next().unwrap_or_default().to_string();
    if let Some(reason) = text.lines().find_map(|line| line.trim().strip_prefix("error: ")) {
        short = format!("{short} {reason}");
    }
    short.chars().take(300).collect()
}

/// A schema that asks for nothing from elsewhere.
pub fn schema(source: &str) -> Result<Value, String> {
    let schema: Value = serde_json::from_str(source).map_err(|e| format!("the schema is not JSON: {e}"))?;
    check_schema(&schema, 0)?;
    Ok(schema)
}

/// A schema as the crate takes it, of compact JSON.
fn compact(mut schema: Value) -> Result<Value, String> {
    let options = json!({"whitespace_flexible": false, "item_separator": ",", "key_separator": ":"});
    match &mut schema {
        Value::Object(map) => drop(map.insert("x-guidance".into(), options)),
        Value::Bool(true) => schema = json!({"x-guidance": options}),
        _ => return Err("the schema is not an object".into()),
    }
    Ok(schema)
}

fn check_schema(schema: &Value, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("the schema is nested too deeply".into());
    }
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                if !target.starts_with('#') {
                    return Err(format!("the schema refers to another document, which is not read: {target:?}"));
                }
            }
            map.values().try_for_each(|value| check_schema(value, depth + 1))
        }
        Value::Array(items) => items.iter().try_for_each(|value| check_schema(value, depth + 1)),
        _ => Ok(()),
    }
}

pub fn choices(source: &str) -> Result<Vec<String>, String> {
    let choices: Vec<String> =
        serde_json::from_str(source).map_err(|_| "a choice is a list of strings".to_string())?;
    if choices.is_empty() || choices.len() > MAX_CHOICES {
        return Err(format!("a choice has 1 to {MAX_CHOICES} strings"));
    }
    if choices.iter().any(String::is_empty) {
        return Err("a choice cannot be an empty string".into());
    }
    Ok(choices)
}

/// Strings as alternatives of literals.
fn alternatives(choices: &[String]) -> String {
    let literals: Vec<String> = choices.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    format!("start: {}", literals.join(" | "))
}
