// SPDX-License-Identifier: Apache-2.0
//! A model's chat template, as transformers runs it.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::bounded::Program;
use crate::env::{self, MAX_OUTPUT_BYTES};
use crate::marks::{self, MARK};
use crate::{calendar, json};

const MAX_SOURCE_BYTES: usize = 128 << 10;
/// Stands behind the text of the message to continue while the template runs. The space shows whether it trims.
const END_OF_ANSWER: &str = "\u{FDD4} ";

pub struct Chat {
    program: Program,
    env: Environment<'static>,
    bos_token: String,
    eos_token: String,
    uses_now: bool,
}

pub struct Options<'a> {
    pub add_generation_prompt: bool,
    pub continue_final_message: bool,
    pub kwargs_json: &'a str,
    pub now_unix_seconds: i64,
}

impl Chat {
    pub fn compile(source: &str, bos_token: &str, eos_token: &str) -> Result<Chat, String> {
        let mut env = env::environment();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|e| env::describe(&e))?;
        env.set_formatter(|out, _, value| match value.kind() {
            ValueKind::Undefined => Ok(()),
            ValueKind::None => out.write_str("None").map_err(Error::from),
            ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
            _ => write!(out, "{value}").map_err(Error::from),
        });
        env.set_unknown_method_callback(method);
        env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("the template refuses these messages: {message}")))
        });
        env.add_function("strftime_now", |state: &State, format: &str| -> Result<String, Error> {
            let now = state.lookup("__now").and_then(|now| i64::try_from(now).ok()).unwrap_or(0);
            calendar::format(now, format).map_err(|e| Error::new(ErrorKind::InvalidOperation, e))
        });
        if source.len() > MAX_SOURCE_BYTES || marks::has_reserved(source) {
            return Err("the chat template is too long, or holds a reserved character (U+FDD0 or U+FDD1)".into());
        }
        let program = Program::compile(&without_generation(source), syntax, &mut env).map_err(|e| {
            let line = e.line().map_or(String::new(), |line| format!("line {line}: "));
            format!("the chat template cannot be used: {line}{}", env::describe(&e))
        })?;
        let uses_now = source.contains("strftime_now");
        Ok(Chat { program, env, bos_token: bos_token.into(), eos_token: eos_token.into(), uses_now })
    }

    pub fn uses_now(&self) -> bool {
        self.uses_now
    }

    pub fn render(&self, messages_json: &str, options: &Options) -> Result<String, String> {
        let read = |text: &str| json::parse(text, &|text| Value::from(text)).map_err(|e| env::describe(&e));
        let mut messages = read(messages_json)?;
        if options.continue_final_message {
            messages = open_ended(&messages)?;
        }
        let mut context = vec![
            (Value::from("bos_token"), Value::from(self.bos_token.as_str())),
            (Value::from("eos_token"), Value::from(self.eos_token.as_str())),
            (Value::from("add_generation_prompt"), Value::from(options.add_generation_prompt)),
            (Value::from("messages"), messages),
        ];
        // As in transformers, which passes no tools as None.
        for name in ["tools", "documents"] {
            context.push((Value::from(name), Value::from(())));
        }
        let kwargs = read(options.kwargs_json)?;
        if kwargs.kind() != ValueKind::Map {
            return Err("chat_template_kwargs is not a map".into());
        }
        for key in kwargs.try_iter().map_err(|e| env::describe(&e))? {
            let value = kwargs.get_item(&key).map_err(|e| env::describe(&e))?;
            context.push((key, value));
        }
        context.push((Value::from("__now"), Value::from(options.now_unix_seconds)));
        if options.continue_final_message {
            context.push((Value::from("add_generation_prompt"), Value::from(false)));
        }
        let rendered = self.program.run(&self.env, Value::from_pairs(context)).map_err(|e| {
            let line = e.line().map_or(String::new(), |line| format!(" at line {line}"));
            format!("the chat template failed{line}: {}", env::describe(&e))
        })?;
        if rendered.len() > MAX_OUTPUT_BYTES {
            return Err("the chat template's text is too long".into());
        }
        match options.continue_final_message {
            true => cut_at_answer(rendered),
            false => Ok(rendered),
        }
    }
}

/// The messages with the sign at the end of the last one's text.
fn open_ended(messages: &Value) -> Result<Value, String> {
    let missing = || "the final message has no text to continue".to_string();
    let with = |map: &Value, key: &str, value: Value| -> Result<Value, String> {
        let mut pairs = Vec::new();
        for name in map.try_iter().map_err(|e| env::describe(&e))? {
            let old = map.get_item(&name).map_err(|e| env::describe(&e))?;
            let is_key = name.as_str() == Some(key);
            pairs.push((name, if is_key { value.clone() } else { old }));
        }
        Ok(Value::from_pairs(pairs))
    };
    let open = |text: &Value| text.as_str().map(|text| Value::from(format!("{text}{END_OF_ANSWER}")));
    let mut list: Vec<Value> = messages.try_iter().map_err(|_| missing())?.collect();
    let last = list.pop().filter(|last| last.kind() == ValueKind::Map).ok_or_else(missing)?;
    let content = last.get_attr("content").map_err(|_| missing())?;
    let content = if content.kind() == ValueKind::Seq {
        let mut parts: Vec<Value> = content.try_iter().map_err(|_| missing())?.collect();
        let text_of = |part: &Value| part.get_attr("text").ok().filter(|text| text.as_str().is_some());
        let at = parts.iter().rposition(|part| text_of(part).is_some()).ok_or_else(missing)?;
        let text = text_of(&parts[at]).and_then(|text| open(&text)).ok_or_else(missing)?;
        parts[at] = with(&parts[at], "text", text)?;
        Value::from(parts)
    } else {
        open(&content).ok_or_else(missing)?
    };
    list.push(with(&last, "content", content)?);
    Ok(Value::from(list))
}

fn cut_at_answer(mut rendered: String) -> Result<String, String> {
    let sign = END_OF_ANSWER.trim_end();
    let at = rendered
        .rfind(sign)
        .ok_or("the chat template does not print the final message, which is to be continued")?;
    let trims = !rendered[at..].starts_with(END_OF_ANSWER);
    rendered.truncate(at);
    if trims {
        rendered.truncate(rendered.trim_end().len());
    }
    Ok(rendered)
}

/// `{% generation %}` marks what to train on; here it is a block that always runs.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, after) = rest[start..].split_at(length + 2);
        out.push_str(&rest[..start]);
        let word = tag[2..length].trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Python's methods; a mark at a content's start does not hide what it begins with.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match value.as_str().and_then(|text| text.trim_start().strip_prefix(MARK)) {
        Some(text) if name == "startswith" && value.as_str().is_some_and(|t| t.starts_with(MARK)) => {
            minijinja_contrib::pycompat::unknown_method_callback(state, &Value::from(text), name, arguments)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}
