// SPDX-License-Identifier: Apache-2.0
//! The C interface that ../text_ffi.h declares: conversions and nothing else.

#![allow(clippy::missing_safety_doc)] // text_ffi.h says it

mod bounded;
mod calendar;
mod chat;
mod check;
mod env;
mod expression;
mod ffi;
mod gguf;
mod grammar;
mod json;
mod marks;
mod names;
mod rows;
mod tokenizer;

use chat::Chat;
use check::Check;
use expression::{Expression, Output};
use ffi::{boxed, guard, slice, unbox, Bytes, Owned, View};
use grammar::{Answer, Compiler, Grammar};
use rows::Column;
use tokenizer::Tokenizer;

type Tokens = Owned<i32>;

/// Writes the result, or the message of its failure, to `out`.
unsafe fn put(out: *mut Bytes, body: impl FnOnce() -> Result<String, String>) -> bool {
    guard(out, body).map(|text| out.write(Bytes::new(text.into_bytes()))).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn ms_bytes_free(bytes: Bytes) {
    bytes.free();
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokens_free(tokens: Tokens) {
    tokens.free();
}

#[repr(C)]
pub struct GgufView {
    model: View,
    pre: View,
    tokens: *const View,
    num_tokens: usize,
    token_types: *const i32,
    num_token_types: usize,
    scores: *const f32,
    num_scores: usize,
    merges: *const View,
    num_merges: usize,
    bos_token: i32,
    eos_token: i32,
    unknown_token: i32,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_from_json(json: View, error: *mut Bytes) -> *mut Tokenizer {
    boxed(guard(error, || Tokenizer::from_json(json.text()?)))
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_from_gguf(vocabulary: *const GgufView, error: *mut Bytes) -> *mut Tokenizer {
    let view = &*vocabulary;
    boxed(guard(error, || {
        let texts =
            |views, size| slice::<View>(views, size).iter().map(|v| v.text()).collect::<Result<Vec<_>, _>>();
        let gguf = gguf::Gguf {
            model: view.model.text()?,
            pre: view.pre.text()?,
            tokens: texts(view.tokens, view.num_tokens).map_err(|e| format!("a token of the vocabulary is {e}"))?,
            token_types: slice(view.token_types, view.num_token_types),
            scores: slice(view.scores, view.num_scores),
            merges: texts(view.merges, view.num_merges).map_err(|e| format!("a merge of the vocabulary is {e}"))?,
            bos_token: view.bos_token,
            eos_token: view.eos_token,
            unknown_token: view.unknown_token,
            add_bos: view.add_bos,
            add_eos: view.add_eos,
            add_space_prefix: view.add_space_prefix,
        };
        gguf.build()
    }))
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_free(tokenizer: *mut Tokenizer) {
    unbox(tokenizer);
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_encode(
    tokenizer: *const Tokenizer,
    marked: View,
    add_special_tokens: bool,
    out: *mut Tokens,
    error: *mut Bytes,
) -> bool {
    let encoded = guard(error, || (*tokenizer).encode(marked.text()?, add_special_tokens));
    encoded.map(|ids| out.write(Tokens::new(ids.into_iter().map(|id| id as i32).collect()))).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_decode(
    tokenizer: *const Tokenizer,
    tokens: *const i32,
    num_tokens: usize,
    skip_special_tokens: bool,
    out: *mut Bytes,
) -> bool {
    put(out, || (*tokenizer).decode(slice(tokens, num_tokens), skip_special_tokens))
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_vocabulary_size(tokenizer: *const Tokenizer) -> i32 {
    (*tokenizer).vocabulary_size() as i32
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_token_id(tokenizer: *const Tokenizer, token: View) -> i32 {
    let id = token.text().ok().and_then(|text| (*tokenizer).token_id(text));
    id.map_or(-1, |id| id as i32)
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_is_special(tokenizer: *const Tokenizer, token: i32) -> bool {
    (*tokenizer).is_special(token)
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_token_text(tokenizer: *const Tokenizer, token: i32) -> View {
    View::of((*tokenizer).token_text(token).as_bytes())
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_token_bytes(tokenizer: *const Tokenizer, token: i32) -> View {
    View::of((*tokenizer).token_bytes(token))
}

#[no_mangle]
pub unsafe extern "C" fn ms_tokenizer_special_tokens(tokenizer: *const Tokenizer) -> View {
    View::of((*tokenizer).special_tokens().as_bytes())
}

#[no_mangle]
pub unsafe extern "C" fn ms_unmark(marked: View, out: *mut Bytes) {
    out.write(Bytes::new(marks::unmark(&String::from_utf8_lossy(marked.bytes())).into_owned().into_bytes()));
}

#[no_mangle]
pub unsafe extern "C" fn ms_mark_all(text: View, special_tokens: View, out: *mut Bytes) {
    let mut marked = String::new();
    let specials = marks::SpecialTexts::parse(&String::from_utf8_lossy(special_tokens.bytes()));
    specials.mark(&String::from_utf8_lossy(text.bytes()), &mut marked);
    out.write(Bytes::new(marked.into_bytes()));
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_compile(
    source: View,
    is_prompt: bool,
    special_tokens: View,
    error: *mut Bytes,
) -> *mut Expression {
    boxed(guard(error, || Expression::compile(source.text()?, is_prompt, special_tokens.text()?)))
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_free(expression: *mut Expression) {
    unbox(expression);
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_names(expression: *const Expression) -> View {
    View::of((*expression).names().as_bytes())
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_row_columns(expression: *const Expression) -> View {
    View::of((*expression).row_columns().as_bytes())
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_uses_row(expression: *const Expression) -> bool {
    (*expression).uses_row()
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_is_single(expression: *const Expression) -> bool {
    (*expression).is_single()
}

#[no_mangle]
pub unsafe extern "C" fn ms_expression_evaluate(
    expression: *const Expression,
    names: *const View,
    columns: *const Column,
    num_columns: usize,
    num_rows: i64,
    kinds: *mut u8,
    numbers: *mut u64,
    offsets: *mut u32,
    text: *mut Bytes,
    error: *mut Bytes,
) -> bool {
    let evaluated = guard(error, || {
        let rows = usize::try_from(num_rows).map_err(|_| "the number of rows is negative")?;
        let names = slice(names, num_columns).iter().map(|name| name.text().map(str::to_string));
        let mut out = Output {
            kinds: std::slice::from_raw_parts_mut(kinds, rows),
            numbers: std::slice::from_raw_parts_mut(numbers, rows),
            offsets: std::slice::from_raw_parts_mut(offsets, rows + 1),
            text: Vec::new(),
        };
        let columns = slice(columns, num_columns).to_vec();
        (*expression).evaluate(names.collect::<Result<_, _>>()?, columns, &mut out)?;
        Ok(out.text)
    });
    evaluated.map(|bytes| text.write(Bytes::new(bytes))).is_some()
}

#[repr(C)]
pub struct ChatOptions {
    add_generation_prompt: bool,
    continue_final_message: bool,
    kwargs_json: View,
    now_unix_seconds: i64,
}

#[no_mangle]
pub unsafe extern "C" fn ms_chat_compile(
    source: View,
    bos_token: View,
    eos_token: View,
    error: *mut Bytes,
) -> *mut Chat {
    boxed(guard(error, || Chat::compile(source.text()?, bos_token.text()?, eos_token.text()?)))
}

#[no_mangle]
pub unsafe extern "C" fn ms_chat_free(chat: *mut Chat) {
    unbox(chat);
}

#[no_mangle]
pub unsafe extern "C" fn ms_chat_uses_now(chat: *const Chat) -> bool {
    (*chat).uses_now()
}

#[no_mangle]
pub unsafe extern "C" fn ms_chat_render(
    chat: *const Chat,
    messages_json: View,
    options: *const ChatOptions,
    out: *mut Bytes,
) -> bool {
    put(out, || {
        let options = chat::Options {
            add_generation_prompt: (*options).add_generation_prompt,
            continue_final_message: (*options).continue_final_message,
            kwargs_json: (*options).kwargs_json.text()?,
            now_unix_seconds: (*options).now_unix_seconds,
        };
        (*chat).render(messages_json.text()?, &options)
    })
}

#[no_mangle]
pub unsafe extern "C" fn ms_grammar_compiler_new(
    tokenizer: *const Tokenizer,
    stop_tokens: *const i32,
    num_stop_tokens: usize,
    error: *mut Bytes,
) -> *mut Compiler {
    boxed(guard(error, || Compiler::new(&*tokenizer, slice(stop_tokens, num_stop_tokens))))
}

#[no_mangle]
pub unsafe extern "C" fn ms_grammar_compiler_free(compiler: *mut Compiler) {
    unbox(compiler);
}

#[no_mangle]
pub unsafe extern "C" fn ms_grammar_compile(
    compiler: *const Compiler,
    kind: u8,
    source: View,
    error: *mut Bytes,
) -> *mut Grammar {
    boxed(guard(error, || (*compiler).compile(kind, source.text()?)))
}

#[no_mangle]
pub unsafe extern "C" fn ms_grammar_free(grammar: *mut Grammar) {
    unbox(grammar);
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_new(grammar: *const Grammar, error: *mut Bytes) -> *mut Answer {
    boxed(guard(error, || Ok((*grammar).answer())))
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_free(matcher: *mut Answer) {
    unbox(matcher);
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_mask(
    matcher: *mut Answer,
    mask: *mut u32,
    num_words: usize,
    error: *mut Bytes,
) -> bool {
    guard(error, || (*matcher).mask(std::slice::from_raw_parts_mut(mask, num_words))).is_some()
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_accept(matcher: *mut Answer, token: i32, error: *mut Bytes) -> bool {
    guard(error, || (*matcher).accept(token)).is_some()
}

unsafe fn ask(matcher: *mut Answer, question: impl FnOnce(&mut Answer) -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| question(&mut *matcher))).unwrap_or(false)
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_is_complete(matcher: *mut Answer) -> bool {
    ask(matcher, Answer::is_complete)
}

#[no_mangle]
pub unsafe extern "C" fn ms_matcher_is_stopped(matcher: *mut Answer) -> bool {
    ask(matcher, |answer| answer.must_stop())
}

#[no_mangle]
pub unsafe extern "C" fn ms_check_new(kind: u8, source: View, error: *mut Bytes) -> *mut Check {
    boxed(guard(error, || Check::new(kind, source.text()?)))
}

#[no_mangle]
pub unsafe extern "C" fn ms_check_free(check: *mut Check) {
    unbox(check);
}

#[no_mangle]
pub unsafe extern "C" fn ms_check_answer(check: *const Check, answer: View, error: *mut Bytes) -> bool {
    guard(error, || (*check).check(answer.text()?)).is_some()
}
