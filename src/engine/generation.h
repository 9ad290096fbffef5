// SPDX-License-Identifier: Apache-2.0
// One request on its way to a completion: its tokens and text so far, what may come next and when
// it ends. Knows neither batch nor cache.
//
// Owned by one thread at a time.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/language_model.h"
#include "engine/runaway.h"
#include "engine/sampler.h"
#include "text/grammar.h"

namespace millstream {

/// Finds stop strings in text that arrives in pieces.
class StopFinder {
 public:
  explicit StopFinder(std::vector<std::string> stops);

  struct Match {
    std::size_t begin;  // in the whole text
    std::size_t length;
  };
  /// The first stop string that the last `added` bytes of `text` complete.
  std::optional<Match> Find(std::string_view text, std::size_t added) const;

 private:
  const std::vector<std::string> stops_;  // none empty
};

/// Buffers for one Generation::Next() at a time.
struct GenerationScratch {
  SamplerScratch sampler;
  std::vector<std::uint32_t> mask;
};

class Generation {
 public:
  /// Takes the request up where its generated tokens leave it: that may be its end.
  Generation(
      std::shared_ptr<const LanguageModel> model,
      std::int64_t vocabulary,
      std::int64_t context,
      Request request
  );

  /// How it ended, or nothing yet.
  const std::optional<FinishReason>& ended() const { return ended_; }
  /// Prompt and generated tokens: what the model must have computed before Next(). Of a text to
  /// score all but the last, which nothing comes after. REQUIRES: not ended.
  std::span<const std::int32_t> tokens() const {
    return std::span(tokens_).first(tokens_.size() - (request_.score ? 1 : 0));
  }
  const Request& request() const { return request_; }

  /// Chooses the next token by its logits, which it changes, and takes it.
  void Next(const kernels::Kernels& kernels, std::span<float> logits, GenerationScratch& scratch);

  /// Scores the token after the one at `position`, by the logits of that one. Each position once or
  /// more often, and of several at a time from several threads.
  void Score(
      const kernels::Kernels& kernels,
      std::int64_t position,
      std::span<const float> logits,
      SamplerScratch& scratch
  );
  /// Ends it. REQUIRES: all positions of tokens() are scored.
  void EndScores();

  void Cancel() { ended_ = FinishReason::kCancelled; }
  void Fail(std::string code, std::string message);
  /// Before its end: what it has so far, as cancelled.
  Completion Complete() const;

 private:
  std::int64_t num_generated() const {
    return static_cast<std::int64_t>(tokens_.size() - request_.prompt_tokens.size());
  }
  bool IsValid();
  void FailForBadLogits();
  void Start();
  void Take(std::int32_t token);
  bool IsStopToken(std::int32_t token) const;
  void AppendText(std::int32_t token);
  bool HasRunAway(std::int32_t token);
  void BeginGrammar();
  bool AdvanceGrammar(std::int32_t token);
  bool MaskLogits(std::span<float> logits, std::vector<std::uint32_t>& mask);
  Result<std::string> Text(std::span<const std::int32_t> answer) const;

  const std::shared_ptr<const LanguageModel> model_;
  const std::int64_t vocabulary_;
  const std::int64_t context_;
  const Request request_;
  const StopFinder stop_finder_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> scores_;  // NaN: cannot be told
  TokenCounts counts_;         // kept only where there are penalties
  std::string text_;           // bytes of the generated tokens, without special ones
  std::optional<StopFinder::Match> stop_;
  RunawayGuard guard_;
  bool ended_by_token_ = false;  // the last token is no part of the answer
  std::unique_ptr<GrammarMatcher> matcher_;
  std::string
      before_grammar_;  // the generated text, special tokens included, until the grammar begins
  std::optional<FinishReason> ended_;
  std::string error_code_;
  std::string error_message_;
};

}  // namespace millstream
