// SPDX-License-Identifier: Apache-2.0
//! Bounds on what a template that we do not trust can build. Fuel bounds its steps and its texts, but lists that share
//! their items, or nest, grow beyond what can be printed or compared; so whatever makes a container is checked.

use std::collections::BTreeMap;

use minijinja::machinery::{self, parse, CodeGenerator, Instruction, Instructions};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};

const MAX_DEPTH: usize = 150;
const MAX_NODES: u64 = 100_000;
/// A text counts for more than one, since printing a list copies its texts.
const BYTES_PER_NODE: u64 = 64;
const NODES_PER_STEP: u64 = 8;
const CHECK_MADE: &str = "_made";
const CHECK_STORED: &str = "_stored";

pub struct Program {
    instructions: Instructions<'static>, // points into source: declared, and so dropped, before it
    _source: Box<str>,
}

impl Program {
    /// Compiles `source` and registers the checks with `env`, which is the one to run it in.
    pub fn compile(source: &str, syntax: SyntaxConfig, env: &mut Environment<'static>) -> Result<Program, Error> {
        let source: Box<str> = source.into();
        // SAFETY: the text is boxed, never changed, and outlives the instructions.
        let text: &'static str = unsafe { &*std::ptr::from_ref::<str>(&source) };
        let mut generator = CodeGenerator::new("chat template", text);
        generator.compile_stmt(&parse(text, "chat template", syntax)?);
        env.add_filter(CHECK_MADE, made);
        env.add_filter(CHECK_STORED, stored);
        Ok(Program { instructions: with_checks(&generator.finish().0), _source: source })
    }

    pub fn run(&self, env: &Environment<'static>, root: Value) -> Result<String, Error> {
        let (mut text, blocks) = (String::new(), BTreeMap::new());
        let mut output = machinery::make_string_output(&mut text);
        machinery::eval(env, &self.instructions, root, &blocks, &mut output, AutoEscape::None)?;
        Ok(text)
    }
}

fn with_checks<'a>(old: &Instructions<'a>) -> Instructions<'a> {
    let mut new = Instructions::new(old.name(), old.source());
    let mut places = Vec::new(); // where each old instruction is now
    while let Some(instruction) = old.get(places.len() as u32) {
        let at = places.len() as u32;
        let check = |name| Instruction::ApplyFilter(name, Some(1), !0);
        let group = match instruction {
            Instruction::SetAttr(_) => {
                vec![Instruction::Swap, check(CHECK_STORED), Instruction::Swap, instruction.clone()]
            }
            Instruction::Slice
            | Instruction::BuildMap(_)
            | Instruction::BuildList(_)
            | Instruction::BuildTuple(_)
            | Instruction::Add
            | Instruction::Mul
            | Instruction::ApplyFilter(..)
            | Instruction::CallFunction(..)
            | Instruction::CallMethod(..)
            | Instruction::CallObject(_) => vec![instruction.clone(), check(CHECK_MADE)],
            _ => vec![instruction.clone()],
        };
        let mut first = None;
        for instruction in group {
            let place = match (old.get_span(at), old.get_line(at)) {
                (Some(span), _) => new.add_with_span(instruction, span),
                (None, Some(line)) => new.add_with_line(instruction, line as u16),
                (None, None) => new.add(instruction),
            };
            first.get_or_insert(place);
        }
        places.push(first.unwrap_or(0));
    }
    let end = (0..).find(|&at| new.get(at).is_none()).unwrap_or(0);
    for at in 0..end {
        match new.get_mut(at) {
            Some(
                Instruction::Iterate(target)
                | Instruction::Jump(target)
                | Instruction::JumpIfFalse(target)
                | Instruction::JumpIfFalseOrPop(target)
                | Instruction::JumpIfTrueOrPop(target)
                | Instruction::BuildMacro(_, target, _),
            ) => *target = places.get(*target as usize).copied().unwrap_or(end),
            _ => {}
        }
    }
    new
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A lazy sequence becomes a list, since nothing bounds what it holds.
fn made(state: &State, value: &Value) -> Result<Value, Error> {
    let value = match value.kind() {
        ValueKind::Iterable => {
            let limit = MAX_NODES as usize + 1;
            Value::from(value.try_iter()?.checked().take(limit).collect::<Result<Vec<_>, _>>()?)
        }
        _ if is_container(value) => value.clone(),
        _ => return Ok(value.clone()),
    };
    let mut nodes = 0;
    walk(&value, 0, &mut nodes)?;
    state.consume_fuel(nodes / NODES_PER_STEP)?;
    Ok(value)
}

fn stored(state: &State, value: &Value) -> Result<Value, Error> {
    match is_namespace(value) {
        true => Err(Error::new(ErrorKind::InvalidOperation, "a namespace cannot hold a namespace")),
        false => made(state, value),
    }
}

fn walk(value: &Value, depth: usize, nodes: &mut u64) -> Result<(), Error> {
    let failure = |message| Err(Error::new(ErrorKind::InvalidOperation, message));
    *nodes += 1 + value.as_str().map_or(0, |text| text.len() as u64 / BYTES_PER_NODE);
    if *nodes > MAX_NODES || depth > MAX_DEPTH {
        return failure("a list or map is too large, or nested too deeply");
    }
    match value.kind() {
        _ if depth > 0 && is_namespace(value) => failure("a namespace cannot be part of a list or map"),
        ValueKind::Iterable => failure("a list holds a lazy sequence"),
        ValueKind::Seq => value.try_iter()?.checked().try_for_each(|item| walk(&item?, depth + 1, nodes)),
        ValueKind::Map => value.try_iter()?.checked().try_for_each(|key| {
            let key = key?;
            walk(&key, depth + 1, nodes)?;
            walk(&value.get_item(&key)?, depth + 1, nodes)
        }),
        _ => Ok(()),
    }
}
