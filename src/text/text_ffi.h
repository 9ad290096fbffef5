// SPDX-License-Identifier: Apache-2.0
// The C interface of the Rust crate in rust/. Only the .cc files of this folder include it.
//
// A call that can fail returns false or null and leaves a message in `error` (or `out`). No panic
// crosses. An MsBytes or MsTokens that a call filled is the caller's, and goes back through
// ms_bytes_free or ms_tokens_free.

#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {

struct MsView {
  const char* data;
  size_t size;
};

struct MsBytes {
  char* data;
  size_t size;
  size_t capacity;
};

struct MsTokens {
  int32_t* data;
  size_t size;
  size_t capacity;
};

void ms_bytes_free(MsBytes bytes);
void ms_tokens_free(MsTokens tokens);

// Tokenizer.

struct MsGguf {
  MsView model;
  MsView pre;
  const MsView* tokens;
  size_t num_tokens;
  const int32_t* token_types;
  size_t num_token_types;
  const float* scores;
  size_t num_scores;
  const MsView* merges;
  size_t num_merges;
  int32_t bos_token;  // -1: none
  int32_t eos_token;
  int32_t unknown_token;
  bool add_bos;
  bool add_eos;
  bool add_space_prefix;
};

void* ms_tokenizer_from_json(MsView json, MsBytes* error);
void* ms_tokenizer_from_gguf(const MsGguf* vocabulary, MsBytes* error);
void ms_tokenizer_free(void* tokenizer);
bool ms_tokenizer_encode(
    const void* tokenizer, MsView marked, bool add_special_tokens, MsTokens* out, MsBytes* error
);
bool ms_tokenizer_decode(
    const void* tokenizer,
    const int32_t* tokens,
    size_t num_tokens,
    bool skip_special_tokens,
    MsBytes* out
);
int32_t ms_tokenizer_vocabulary_size(const void* tokenizer);
int32_t ms_tokenizer_token_id(const void* tokenizer, MsView token);  // -1: none
bool ms_tokenizer_is_special(const void* tokenizer, int32_t token);
MsView ms_tokenizer_token_text(const void* tokenizer, int32_t token);
MsView ms_tokenizer_token_bytes(const void* tokenizer, int32_t token);
MsView ms_tokenizer_special_tokens(const void* tokenizer);  // texts, joined by '\n'

// Marks.

void ms_unmark(MsView marked, MsBytes* out);
void ms_mark_all(MsView text, MsView special_tokens, MsBytes* out);

// Expressions.

struct MsColumn {
  uint8_t kind;
  const uint8_t* validity;
  int64_t offset;
  const void* values;
  const int32_t* offsets;
};

void* ms_expression_compile(MsView source, bool is_prompt, MsView special_tokens, MsBytes* error);
void ms_expression_free(void* expression);
MsView ms_expression_names(const void* expression);        // joined by '\n'
MsView ms_expression_row_columns(const void* expression);  // the same
bool ms_expression_uses_row(const void* expression);
bool ms_expression_is_single(const void* expression);
// `kinds` and `numbers` have room for num_rows entries, `offsets` for one more.
bool ms_expression_evaluate(
    const void* expression,
    const MsView* names,
    const MsColumn* columns,
    size_t num_columns,
    int64_t num_rows,
    uint8_t* kinds,
    uint64_t* numbers,
    uint32_t* offsets,
    MsBytes* text,
    MsBytes* error
);

// Chat templates.

struct MsChatOptions {
  bool add_generation_prompt;
  bool continue_final_message;
  MsView kwargs_json;
  int64_t now_unix_seconds;
};

void* ms_chat_compile(MsView source, MsView bos_token, MsView eos_token, MsBytes* error);
void ms_chat_free(void* chat);
bool ms_chat_uses_now(const void* chat);
bool ms_chat_render(
    const void* chat, MsView messages_json, const MsChatOptions* options, MsBytes* out
);

// Grammars.

void* ms_grammar_compiler_new(
    const void* tokenizer, const int32_t* stop_tokens, size_t num_stop_tokens, MsBytes* error
);
void ms_grammar_compiler_free(void* compiler);
void* ms_grammar_compile(const void* compiler, uint8_t kind, MsView source, MsBytes* error);
void ms_grammar_free(void* grammar);
void* ms_matcher_new(const void* grammar, MsBytes* error);
void ms_matcher_free(void* matcher);
bool ms_matcher_mask(void* matcher, uint32_t* mask, size_t num_words, MsBytes* error);
bool ms_matcher_accept(void* matcher, int32_t token, MsBytes* error);
bool ms_matcher_is_complete(void* matcher);
bool ms_matcher_is_stopped(void* matcher);

// Checks of whole answers. Thread-safe.

void* ms_check_new(uint8_t kind, MsView source, MsBytes* error);
void ms_check_free(void* check);
bool ms_check_answer(const void* check, MsView answer, MsBytes* error);

}  // extern "C"
