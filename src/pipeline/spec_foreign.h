// SPDX-License-Identifier: Apache-2.0
// Names that people bring along from vLLM, OpenAI, Hugging Face, llama.cpp, Ray Data and Daft, by
// section.

#pragma once

#include "pipeline/spec_keys.h"

namespace millstream {

inline constexpr std::string_view kNoBatching =
    "is not needed: the engine fills its batches by itself, within the model's `memory` and "
    "`threads`";
inline constexpr std::string_view kNoCluster =
    "stands under `resources`, or on the command line: `millstream run --workers N`, `--ray`";
inline constexpr std::string_view kNoBeams =
    "is not supported: there is no beam search, only sampling";
inline constexpr std::string_view kNoGpu = "is not supported: this version computes on the CPU";
inline constexpr std::string_view kNoTools =
    "is not supported: a model answers with text or JSON, without tools";
inline constexpr std::string_view kNoLogprobs = "is not available in this version";
inline constexpr std::string_view kModelsTokenizer =
    "comes with the model; that of a server's model stands under `models`";
inline constexpr std::string_view kNoRemoteCode =
    "is not supported: a model's own code is never run";

// clang-format off
inline constexpr ForeignName kJobForeign[] = {
    {"inputs", "input"}, {"source", "input"}, {"sources", "input"}, {"data", "input"},
    {"dataset", "input"}, {"datasets", "input"}, {"read", "input"}, {"reader", "input"},
    {"input_path", "input"}, {"input_file", "input"}, {"outputs", "output"}, {"sink", "output"},
    {"write", "output"}, {"writer", "output"}, {"destination", "output"},
    {"output_path", "output"}, {"output_file", "output"}, {"output_dir", "output"},
    {"pipeline", "steps"}, {"stages", "steps"}, {"tasks", "steps"}, {"transforms", "steps"},
    {"operators", "steps"}, {"processors", "steps"}, {"variables", "vars"},
    {"parameters", "vars"}, {"params", "vars"}, {"env", "vars"}, {"random_seed", "seed"},
    {"max_failures", "max_errors"}, {"error_limit", "max_errors"},
    {"max_errored_blocks", "max_errors"}, {"on_error", "max_errors"}, {"job_name", "name"},
    {"title", "name"}, {"rows_per_file", "split_rows"}, {"partition_size", "split_rows"},
    {"chunk_size", "split_rows"}, {"min_rows_per_file", "split_rows"}, {"engines", "models"},
    {"model", "", "stands in a `generate` step; `models` gives models names and settings"},
    {"prompt", "", "stands in a `generate` step"}, {"batch_size", "", kNoBatching},
    {"concurrency", "", kNoBatching}, {"num_workers", "", kNoBatching},
    {"workers", "", kNoCluster}, {"num_cpus", "", kNoCluster}, {"num_gpus", "", kNoCluster},
    {"ray", "", kNoCluster},
    {"checkpoint", "", "is not needed: a rerun of the same job continues"},
    {"limit", "", "is given on the command line: `millstream run --limit N`"},
};

inline constexpr ForeignName kResourcesForeign[] = {
    {"num_cpus", "cpus"}, {"cpu", "cpus"}, {"num_gpus", "gpus"}, {"gpu", "gpus"},
    {"mem", "memory"}, {"workers", "max_workers"}, {"num_workers", "max_workers"},
    {"replicas", "max_workers"}, {"concurrency", "max_workers"}, {"node_labels", "labels"},
    {"label_selector", "labels"},
};

inline constexpr ForeignName kModelForeign[] = {
    {"model_path", "path"}, {"model_id", "path"}, {"name", "path"},
    {"repo", "path"}, {"repo_id", "path"}, {"hf_repo", "path"}, {"file", "path"},
    {"gguf", "path"}, {"model_name_or_path", "path"}, {"model_source", "path"},
    {"max_model_len", "context"}, {"n_ctx", "context"}, {"ctx_size", "context"},
    {"context_length", "context"}, {"max_seq_len", "context"},
    {"max_position_embeddings", "context"}, {"n_threads", "threads"}, {"num_threads", "threads"},
    {"n_threads_batch", "threads"}, {"dtype", "compute"}, {"torch_dtype", "compute"},
    {"precision", "compute"}, {"kv_cache_memory_bytes", "memory"},
    {"gpu_memory_utilization", "memory"}, {"swap_space", "memory"},
    {"revision", "", "goes into the path: `path: org/repo@revision`"},
    {"quantization", "", "comes with the model's file"},
    {"trust_remote_code", "", kNoRemoteCode}, {"device", "", kNoGpu}, {"device_map", "", kNoGpu},
    {"n_gpu_layers", "", kNoGpu}, {"tensor_parallel_size", "", kNoGpu},
    {"pipeline_parallel_size", "", kNoGpu}, {"url", "base_url"}, {"api_base", "base_url"},
    {"provider", "engine"}, {"command", "launch"}, {"cmd", "launch"}, {"serve", "launch"},
    {"ca_bundle", "ca_file"}, {"ssl_ca_cert", "ca_file"}, {"verify", "ca_file"}, {"concurrency", "max_in_flight"},
    {"max_concurrency", "max_in_flight"},
    {"rpm", "requests_per_minute"}, {"max_requests_per_minute", "requests_per_minute"},
    {"tpm", "tokens_per_minute"}, {"max_tokens_per_minute", "tokens_per_minute"},
    {"batch_size", "", kNoBatching}, {"max_num_seqs", "", kNoBatching},
    {"max_num_batched_tokens", "", kNoBatching},
    {"enable_prefix_caching", "", "is not needed: prefixes are cached"},
    {"chat_template", "", "stands in the `generate` step"},
    {"temperature", "", "stands in the `generate` step"},
    {"max_tokens", "", "stands in the `generate` step"},
};

inline constexpr ForeignName kInputForeign[] = {
    {"paths", "path"}, {"file", "path"}, {"files", "path"}, {"uri", "path"}, {"url", "path"},
    {"data_files", "path"}, {"type", "format"}, {"file_format", "format"}, {"fields", "columns"},
    {"select", "columns"}, {"dtypes", "schema"}, {"types", "schema"}, {"column_types", "schema"},
    {"compression", "", "is not needed: it follows from the suffix .gz or .zst"},
    {"split", "", "is not needed: `path` names the files"},
    {"limit", "", "is given on the command line: `millstream run --limit N`"},
    {"shuffle", "", "is not supported: rows keep the input's order"},
};

inline constexpr ForeignName kOutputForeign[] = {
    {"file", "path"}, {"dir", "path"}, {"folder", "path"}, {"uri", "path"}, {"type", "format"},
    {"file_format", "format"}, {"keep", "rows"}, {"include", "rows"},
    {"mode", "", "is not needed: a rerun continues, `--restart` moves the old output aside"},
    {"overwrite", "", "is not needed: a rerun continues, `--restart` moves the old output aside"},
    {"compression", "", "is not needed: Parquet is written with zstd"},
    {"state", "", "is not available in this version: the state stands beside the output"},
    {"columns", "", "is done by a `select` step"},
};

inline constexpr ForeignName kStepForeign[] = {
    {"map", "set"}, {"map_batches", "set"}, {"with_column", "set"}, {"with_columns", "set"},
    {"add_column", "set"}, {"transform", "set"}, {"assign", "set"}, {"mutate", "set"},
    {"compute", "set"}, {"where", "filter"}, {"keep_if", "filter"}, {"llm", "generate"},
    {"prompt", "generate"}, {"chat", "generate"}, {"completion", "generate"},
    {"inference", "generate"}, {"infer", "generate"}, {"predict", "generate"},
    {"vllm", "generate"}, {"ai", "generate"}, {"perplexity", "score"},
    {"loglikelihood", "score"}, {"log_likelihood", "score"}, {"logprobs", "score"},
    {"nll", "score"}, {"likelihood", "score"}, {"assert", "check"}, {"validate", "check"},
    {"expect", "check"}, {"select_columns", "select"}, {"columns", "select"},
    {"project", "select"}, {"exclude", "drop"}, {"drop_columns", "drop"}, {"remove", "drop"},
    {"rename_columns", "rename"}, {"name", "id"},
    {"flat_map", "", "is not available in this version"},
    {"explode", "", "is not available in this version"},
    {"embed", "", "is not available in this version"},
    {"join", "", "is not available in this version"},
    {"sort", "", "is not supported: rows keep the input's order"},
    {"shuffle", "", "is not supported: rows keep the input's order"},
    {"group_by", "", "is not supported: every step works on one row"},
    {"limit", "", "is given on the command line: `millstream run --limit N`"},
};

inline constexpr ForeignName kSetValueForeign[] = {
    {"dtype", "type"}, {"expression", "value"}, {"expr", "value"}, {"template", "value"},
};

inline constexpr ForeignName kCheckForeign[] = {
    {"if", "that"}, {"expression", "that"}, {"expr", "that"}, {"condition", "that"},
    {"assert", "that"}, {"where", "that"}, {"error", "code"}, {"name", "code"},
    {"error_message", "message"},
};

inline constexpr ForeignName kMessageForeign[] = {
    {"text", "content"}, {"from", "role"}, {"value", "content"}, {"tool_calls", "", kNoTools},
    {"tool_call_id", "", kNoTools}, {"name", "", "is not supported"},
};

inline constexpr std::string_view kTextPartsOnly =
    "is not served in this version: only parts of type `text` are";
inline constexpr ForeignName kPartForeign[] = {
    {"content", "text"}, {"image_url", "", kTextPartsOnly}, {"image", "", kTextPartsOnly},
    {"input_audio", "", kTextPartsOnly}, {"audio_url", "", kTextPartsOnly},
    {"audio", "", kTextPartsOnly}, {"video_url", "", kTextPartsOnly},
    {"video", "", kTextPartsOnly}, {"file", "", kTextPartsOnly},
};

inline constexpr ForeignName kOverflowForeign[] = {
    {"columns", "truncate"}, {"truncation_side", "side"}, {"direction", "side"},
};

inline constexpr ForeignName kStructuredForeign[] = {
    {"json_schema", "json"}, {"schema", "json"}, {"guided_json", "json"}, {"choices", "choice"},
    {"enum", "choice"}, {"guided_choice", "choice"}, {"pattern", "regex"},
    {"guided_regex", "regex"}, {"ebnf", "grammar"}, {"lark", "grammar"}, {"gbnf", "grammar"},
    {"guided_grammar", "grammar"}, {"json_object", "", "is written `json: {type: object}`"},
    {"structural_tag", "", "is not supported"}, {"backend", "", "is not needed"},
    {"whitespace_pattern", "", "is not supported: JSON comes without free white space"},
    {"disable_any_whitespace", "", "is not needed: JSON comes without free white space"},
    {"disable_fallback", "", "is not needed"},
    {"disable_additional_properties", "", "is not supported"},
};

inline constexpr ForeignName kResponseFormatForeign[] = {
    {"schema", "", "stands within `json_schema`"}, {"name", "", "stands within `json_schema`"},
    {"strict", "", "stands within `json_schema`"},
};

inline constexpr std::string_view kNoAnswer = "is not needed: a score has no answer";
inline constexpr std::string_view kNoChat =
    "is not supported: a text is scored as it stands, without a chat template";
inline constexpr ForeignName kScoreForeign[] = {
    {"prompt", "text"}, {"raw_prompt", "text"}, {"input", "text"}, {"content", "text"},
    {"template", "text"}, {"output_column", "as"}, {"output", "as"}, {"column", "as"},
    {"into", "as"}, {"name", "as"}, {"alias", "as"}, {"model_path", "model"},
    {"model_id", "model"}, {"model_name", "model"}, {"llm", "model"}, {"logprobs", "per_token"},
    {"token_logprobs", "per_token"}, {"prompt_logprobs", "per_token"},
    {"return_tokens", "per_token"}, {"add_bos_token", "add_special_tokens"},
    {"add_bos", "add_special_tokens"}, {"add_start_token", "add_special_tokens"},
    {"truncate_prompt_tokens", "on_overflow"}, {"truncation", "on_overflow"},
    {"truncate", "on_overflow"}, {"messages", "", kNoChat}, {"system", "", kNoChat},
    {"chat_template", "", kNoChat}, {"request", "", kNoChat}, {"max_tokens", "", kNoAnswer},
    {"temperature", "", kNoAnswer}, {"n", "", kNoAnswer}, {"seed", "", kNoAnswer},
    {"stride", "", "is not supported: a text is scored as a whole, within the model's context"},
    {"max_length", "", "is the model's context: `models: {name: {path: ..., context: ...}}`"},
    {"context", "", "stands with the model: `models: {name: {path: ..., context: ...}}`"},
    {"tokenizer", "", kModelsTokenizer}, {"batch_size", "", kNoBatching},
    {"concurrency", "", kNoBatching}, {"device", "", kNoGpu},
};

inline constexpr ForeignName kGenerateForeign[] = {
    {"max_new_tokens", "max_tokens"}, {"max_completion_tokens", "max_tokens"},
    {"max_output_tokens", "max_tokens"}, {"max_gen_len", "max_tokens"},
    {"max_length", "max_tokens"}, {"n_predict", "max_tokens"}, {"num_predict", "max_tokens"},
    {"n_tokens", "max_tokens"}, {"min_new_tokens", "min_tokens"}, {"min_length", "min_tokens"},
    {"do_sample", "temperature", "; `do_sample: false` is `temperature: 0`"},
    {"temp", "temperature"}, {"greedy", "temperature", "; greedy is `temperature: 0`"},
    {"num_return_sequences", "n"}, {"best_of", "n"}, {"num_samples", "n"},
    {"num_completions", "n"}, {"candidate_count", "n"}, {"stop_sequences", "stop"},
    {"stop_strings", "stop"}, {"stop_words", "stop"}, {"stops", "stop"},
    {"eos_token_id", "stop_token_ids"}, {"eos_token_ids", "stop_token_ids"},
    {"stop_ids", "stop_token_ids"}, {"repeat_penalty", "repetition_penalty"},
    {"repetition_penality", "repetition_penalty"}, {"topk", "top_k"}, {"topp", "top_p"},
    {"random_seed", "seed"}, {"repetition_detection", "runaway"},
    {"guided_json", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"guided_choice", "structured_outputs", ": `structured_outputs: {choice: [...]}`"},
    {"guided_regex", "structured_outputs", ": `structured_outputs: {regex: ...}`"},
    {"guided_grammar", "structured_outputs", ": `structured_outputs: {grammar: ...}`"},
    {"guided_decoding", "structured_outputs"}, {"guided_options_request", "structured_outputs"},
    {"grammar", "structured_outputs", ": `structured_outputs: {grammar: ...}`"},
    {"regex", "structured_outputs", ": `structured_outputs: {regex: ...}`"},
    {"choice", "structured_outputs", ": `structured_outputs: {choice: [...]}`"},
    {"choices", "structured_outputs", ": `structured_outputs: {choice: [...]}`"},
    {"json", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"json_schema", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"schema", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"output_schema", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"return_format", "structured_outputs", ": `structured_outputs: {json: ...}`"},
    {"system_prompt", "system"}, {"system_message", "system"}, {"instructions", "system"},
    {"developer", "system"}, {"user", "prompt"}, {"user_prompt", "prompt"},
    {"prompt_template", "prompt"}, {"template", "prompt"}, {"input", "prompt"},
    {"text", "prompt"}, {"content", "prompt"}, {"conversation", "messages"}, {"chat", "messages"},
    {"messages_column", "messages"}, {"suffix", "", "is not supported"}, {"output_column", "as"},
    {"output", "as"}, {"column", "as"}, {"into", "as"}, {"name", "as"}, {"alias", "as"},
    {"model_path", "model"}, {"model_id", "model"}, {"model_name", "model"}, {"llm", "model"},
    {"add_bos_token", "add_special_tokens"}, {"add_bos", "add_special_tokens"},
    {"add_generation_prompt", "continue_final_message"}, {"prefill", "continue_final_message"},
    {"enable_thinking", "chat_template_kwargs", ": `chat_template_kwargs: {enable_thinking: false}`"},
    {"include_reasoning", "reasoning"}, {"reasoning_parser", "reasoning"},
    {"truncate_prompt_tokens", "on_overflow"}, {"truncation", "on_overflow"},
    {"truncate", "on_overflow"}, {"no_repeat_ngram_size", "", "is not supported"},
    {"typical_p", "", "is not supported: use `min_p` or `top_p`"},
    {"tfs_z", "", "is not supported: use `min_p`"},
    {"top_a", "", "is not supported: use `min_p`"},
    {"epsilon_cutoff", "", "is not supported: use `min_p`"}, {"mirostat", "", "is not supported"},
    {"mirostat_tau", "", "is not supported"}, {"dry_multiplier", "", "is not supported"},
    {"logit_bias", "", "is not supported"}, {"logits_processors", "", "is not supported"},
    {"bad_words", "", "is not supported"}, {"allowed_token_ids", "", "is not supported"},
    {"num_beams", "", kNoBeams}, {"use_beam_search", "", kNoBeams},
    {"length_penalty", "", kNoBeams}, {"early_stopping", "", kNoBeams},
    {"num_beam_groups", "", kNoBeams}, {"diversity_penalty", "", kNoBeams},
    {"logprobs", "", kNoLogprobs}, {"top_logprobs", "", kNoLogprobs},
    {"prompt_logprobs", "", "is what a `score` step tells of a text"},
    {"echo", "", "is not supported: `keep_prompt: true` adds the prompt as a column"},
    {"stream", "", "is not supported: a job writes whole answers"}, {"tools", "", kNoTools},
    {"tool_choice", "", kNoTools}, {"functions", "", kNoTools}, {"tokenizer", "", kModelsTokenizer},
    {"batch_size", "", kNoBatching}, {"concurrency", "", kNoBatching},
    {"max_num_seqs", "", kNoBatching}, {"num_workers", "", kNoBatching}, {"num_gpus", "", kNoGpu},
    {"device", "", kNoGpu}, {"max_retries", "", "is not needed: what may go well next time is asked again"},
    {"timeout", "", "is not needed: `max_tokens` bounds an answer"},
    {"skip_special_tokens", "", "is not needed: special tokens are left out of answers"},
    {"context", "", "stands with the model: `models: {name: {path: ..., context: ...}}`"},
    {"max_model_len", "", "stands with the model: `models: {name: {path: ..., context: ...}}`"},
};
// clang-format on

}  // namespace millstream
