// SPDX-License-Identifier: Apache-2.0
// Requests to completions: the interface that every engine stands behind.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "text/grammar.h"

namespace millstream {

using RequestId = std::int64_t;
using Deadline = std::chrono::steady_clock::time_point;

/// vLLM's names and meanings.
struct SamplingParams {
  std::int64_t max_tokens = 512;
  std::int64_t min_tokens = 0;
  double temperature = 1;
  std::int64_t top_k = 0;  // 0: all
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::string> stop = {};
  std::vector<std::int32_t> stop_token_ids = {};
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  // Ours: an answer that runs away (runaway.h) goes on, as it does with ignore_eos.
  bool ignore_runaway = false;
};

/// One sequence to complete. `n` samples are n requests.
struct Request {
  RequestId id = 0;
  /// Whose request it is, for messages and the flight recorder: "1:17 answer 0".
  std::string name;
  std::vector<std::int32_t> prompt_tokens;
  std::vector<std::int32_t> generated_tokens;  // a resumed prefix of the answer
  SamplingParams sampling;
  RandomKey random;                        // names the sample's stream of draws
  std::shared_ptr<const Grammar> grammar;  // may be null
  /// The grammar begins after this text has been generated ("</think>"); empty: at once.
  std::string grammar_after;
  /// Asks for no answer, but for the scores of the prompt's tokens.
  bool score = false;
  /// For an engine that asks servers, in place of tokens, sampling and grammar: where below the
  /// base URL, and the JSON body, as the server's dialect has it.
  std::string http_path, http_body;
  /// The completion's text is to be the answer's whole body, be it what it may; of an answer that
  /// fails the row its status code, a space, and its error object as JSON.
  bool http_whole = false;
};

/// In the order of their numbers in row logs.
enum class FinishReason { kStop, kLength, kCancelled, kError, kRunaway };
/// "stop", "length", "cancelled", "error", "runaway".
std::string_view FinishReasonName(FinishReason reason);

struct Completion {
  RequestId id = 0;
  FinishReason reason = FinishReason::kStop;
  std::vector<std::int32_t> tokens;  // without the stop token
  std::string text;                  // special tokens left out, cut at the stop string
  /// Of a request to score: the natural logarithm of the probability of each token of the prompt
  /// but the first, after those before it.
  std::vector<float> scores;
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;  // as generated, the stop token included
  std::string error_code;              // kError: a code of docs/errors.md
  std::string error_message;
  bool killed_engine = false;  // kError: found by bisection; not sent over the wire
};

/// How much more is worth submitting now.
struct Room {
  std::int64_t requests = 0;
  std::int64_t tokens = 0;
};

/// Counters since the engine was made.
struct EngineStats {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t steps = 0;
  std::int64_t requests_finished = 0;
  std::int64_t preemptions = 0;
  // Of the native engine:
  std::int64_t runaways = 0;         // requests that ended as such
  std::int64_t shared_requests = 0;  // answered by the computation of an identical one
  std::int64_t cached_tokens = 0;    // of the prompts', computed for other requests already
  std::int64_t computed_tokens = 0;  // of all steps
  // Where its time went, in nanoseconds.
  std::int64_t products_time = 0;  // of the layers' matrices
  std::int64_t attention_time = 0;
  std::int64_t head_time = 0;      // products of the output head
  std::int64_t sampling_time = 0;  // from logits to tokens and texts
  std::int64_t rest_time = 0;      // of steps
  std::int64_t idle_time = 0;      // with no request, between the first and the last
  // Of an engine in a child process (hosted_engine.h):
  std::int64_t restarts = 0;
  std::int64_t workers_lost = 0;  // restarts that no request is to blame for: killed from outside
  std::int64_t requests_crashed = 0;  // completed with the codes crash, hang, oom
  std::int64_t requests_hung = 0;
  std::int64_t requests_out_of_memory = 0;
  double cost = 0;  // of these tokens, where they have a price

  EngineStats& operator+=(const EngineStats& other);
};

/// All of EngineStats that is a count.
inline constexpr std::int64_t EngineStats::* kEngineCounts[] = {
    &EngineStats::prompt_tokens,   &EngineStats::completion_tokens,
    &EngineStats::steps,           &EngineStats::requests_finished,
    &EngineStats::preemptions,     &EngineStats::runaways,
    &EngineStats::shared_requests, &EngineStats::cached_tokens,
    &EngineStats::computed_tokens, &EngineStats::products_time,
    &EngineStats::attention_time,  &EngineStats::head_time,
    &EngineStats::sampling_time,   &EngineStats::rest_time,
    &EngineStats::idle_time,       &EngineStats::restarts,
    &EngineStats::workers_lost,    &EngineStats::requests_crashed,
    &EngineStats::requests_hung,   &EngineStats::requests_out_of_memory
};

/// Turns requests into completions, as many at a time as it can. Owns its compute threads.
/// Submit, Cancel, Poll, room and stats may each be called from a different thread.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual Room room() const = 0;
  /// Takes ownership of the request. A request that cannot be served completes with an error.
  virtual void Submit(Request request) = 0;
  /// Asks for an early end: the request completes as cancelled, with the tokens it has.
  virtual void Cancel(RequestId id) = 0;
  /// Blocks until something finished, the deadline passed or `stop` is requested. An error means
  /// that the engine is gone, and every request not yet completed with it.
  virtual Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) = 0;
  virtual EngineStats stats() const = 0;
};

/// What Poll returns if the engine fails whatever the request: no other row will fare better.
Status EngineBroken(std::string message);
bool IsEngineBroken(const Status& status);

}  // namespace millstream
