// SPDX-License-Identifier: Apache-2.0
//! Whether a whole answer satisfies its constraint, for engines that are not known to enforce it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use jsonschema::Validator;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::Matcher;
use serde_json::Value;

use crate::grammar;

pub enum Check {
    Schema(Box<Validator>),
    Text(Box<Mutex<Matcher>>), // never advanced: each answer's is a clone
    Choice(HashSet<String>),
}

impl Check {
    pub fn new(kind: u8, source: &str) -> Result<Check, String> {
        grammar::check_size(source)?;
        match kind {
            grammar::JSON => {
                let schema = grammar::schema(source)?;
                let validator = jsonschema::options().should_validate_formats(true).build(&schema);
                Ok(Check::Schema(Box::new(validator.map_err(|e| format!("the schema is wrong: {e}"))?)))
            }
            grammar::CHOICE => Ok(Check::Choice(grammar::choices(source)?.into_iter().collect())),
            _ => {
                let factory = grammar::factory(&ApproximateTokEnv::single_byte_env())?;
                let fresh = grammar::start(&factory, grammar::of_text(kind, source)?)?;
                Ok(Check::Text(Box::new(Mutex::new(fresh))))
            }
        }
    }

    /// Says where the answer leaves its constraint.
    pub fn check(&self, answer: &str) -> Result<(), String> {
        match self {
            Check::Schema(validator) => {
                let value: Value = serde_json::from_str(answer).map_err(|e| format!("it is not JSON: {e}"))?;
                validator.validate(&value).map_err(|error| {
                    let at = error.instance_path.to_string();
                    let what: String = error.to_string().chars().take(300).collect();
                    if at.is_empty() {
                        what
                    } else {
                        format!("at {at}: {what}")
                    }
                })
            }
            Check::Choice(choices) if choices.contains(answer) => Ok(()),
            Check::Choice(_) => Err("it is none of the choices".into()),
            Check::Text(fresh) => {
                let mut matcher = fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
                let bytes: Vec<u32> = answer.bytes().map(u32::from).collect(); // the tokens are the bytes
                let taken = matcher.try_consume_tokens(&bytes).map_err(grammar::short)?;
                if taken < bytes.len() {
                    return Err(format!("it leaves the constraint at byte {taken}"));
                }
                match matcher.is_accepting().map_err(grammar::short)? {
                    true => Ok(()),
                    false => Err("it ends before the constraint does".into()),
                }
            }
        }
    }
}
