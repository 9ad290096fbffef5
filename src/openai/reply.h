// SPDX-License-Identifier: Apache-2.0
// What a server's answer to one request means: for its row, for the server, for the job.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "http/http.h"
#include "openai/rate_limit.h"

namespace millstream {

struct Verdict {
  enum class Kind {
    kAnswer,       // `completion` is the row's
    kFailed,       // `completion` says why the row fails, now and whenever it is asked again
    kAgain,        // nothing is known: ask again
    kLost,         // the same: the connection broke, perhaps as the server died
    kBusy,         // the server is there, and asks for fewer requests or for time
    kUnavailable,  // it says that it cannot serve now
    kTimeout,      // it took longer than a request may
    kGone,         // there is no connection to the server
    kRefused,      // kStop if the server answers nothing else, kFailed if it does
    kStop          // no row will fare better: `message` says what to do
  };
  Kind kind = Kind::kAgain;
  Completion completion;
  std::string message;                                   // unless kAnswer: what happened, in words
  std::optional<std::chrono::milliseconds> retry_after;  // how long the server wants to be left
  bool is_refused = false;                               // kGone: nobody listens at its port
  RateHeaders rates;                                     // how much more it takes
};

/// Judges a reply to a chat or text completion. `now_unix_seconds` is for a Retry-After that is a
/// date. `whole` is Request::http_whole: an answer is then the body as it came, refusals and calls
/// of tools too, and a 403, 404 or 405 may be this request's own: what it asks is not ours. Trusts
/// nothing in the reply; no message holds a header of the request.
Verdict JudgeReply(const HttpReply& reply, std::int64_t now_unix_seconds, bool whole = false);

}  // namespace millstream
