// SPDX-License-Identifier: Apache-2.0
// For tests: what those of engines and of dispatches have in common.

#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "engine/engine.h"
#include "openai/reply.h"

namespace millstream {

inline Verdict Of(Verdict::Kind kind) {
  Verdict verdict;
  verdict.kind = kind;
  verdict.message = "as scripted";
  return verdict;
}

inline Request Asking(RequestId id, std::string body) {
  Request request;
  request.id = id;
  request.http_path = "/chat/completions";
  request.http_body = std::move(body);
  return request;
}

inline Deadline Never() {
  return std::chrono::steady_clock::now() + std::chrono::hours(1);
}

/// Completions until there are `count`, by id.
inline std::map<RequestId, Completion> Await(Engine& engine, std::size_t count) {
  std::map<RequestId, Completion> all;
  while (all.size() < count) {
    auto some = engine.Poll(Never(), {});
    if (!some.ok()) {
      ADD_FAILURE() << some.status();
      break;
    }
    for (Completion& completion : *some) {
      EXPECT_TRUE(all.emplace(completion.id, completion).second) << "twice: " << completion.id;
    }
  }
  return all;
}

}  // namespace millstream
