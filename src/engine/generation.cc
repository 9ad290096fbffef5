// SPDX-License-Identifier: Apache-2.0
#include "engine/generation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace millstream {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

bool Contains(std::span<const std::int32_t> tokens, std::int32_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

/// Where in `text` the occurrence of `word` begins that is number `count`, from 0.
std::size_t FindNth(std::string_view text, std::string_view word, std::size_t count) {
  std::size_t at = text.find(word);
  for (; count > 0 && at != std::string_view::npos; --count) at = text.find(word, at + 1);
  return at;
}

}  // namespace

StopFinder::StopFinder(std::vector<std::string> stops)
    : stops_([&] {
        std::erase_if(stops, [](const std::string& stop) { return stop.empty(); });
        return std::move(stops);
      }()) {}

std::optional<StopFinder::Match> StopFinder::Find(std::string_view text, std::size_t added) const {
  std::optional<Match> first;
  for (const std::string& stop : stops_) {
    const std::size_t reach = added + stop.size() - 1;
    const std::size_t from = text.size() > reach ? text.size() - reach : 0;
    const std::size_t at = text.find(stop, from);
    if (at == std::string_view::npos) continue;
    if (!first || at < first->begin) first = Match{at, stop.size()};
  }
  return first;
}

Generation::Generation(
    std::shared_ptr<const LanguageModel> model,
    std::int64_t vocabulary,
    std::int64_t context,
    Request request
)
    : model_(std::move(model)),
      vocabulary_(vocabulary),
      context_(context),
      request_(std::move(request)),
      stop_finder_(request_.sampling.stop),
      tokens_(request_.prompt_tokens) {
  if (IsValid()) Start();
}

bool Generation::IsValid() {
  const auto outside = [&](std::int32_t token) { return token < 0 || token >= vocabulary_; };
  const std::int64_t room = request_.score ? 0 : 1;  // for an answer
  if (request_.prompt_tokens.empty() && !request_.score) {
    Fail("invalid_request", "the prompt has no tokens");
  } else if (std::any_of(tokens_.begin(), tokens_.end(), outside) ||
             std::any_of(
                 request_.generated_tokens.begin(), request_.generated_tokens.end(), outside
             )) {
    Fail("invalid_request", "a token of the prompt is not in the model's vocabulary");
  } else if (std::ssize(tokens_) + room > context_) {
    Fail(
        "context_overflow",
        std::string(
            request_.score ? "the text is longer than the context: "
                           : "the prompt leaves no room in the context: "
        ) + std::to_string(tokens_.size()) +
            " tokens, limit " + std::to_string(context_)
    );
  }
  return !ended_;
}

void Generation::Start() {
  if (request_.score) {
    // The first token comes after nothing.
    if (tokens_.size() < 2) return EndScores();
    scores_.resize(tokens_.size() - 1);
    return;
  }
  if (HasPenalties(request_.sampling)) counts_.AddPrompt(tokens_);
  if (request_.grammar_after.empty()) BeginGrammar();
  if (!ended_ && request_.sampling.max_tokens <= 0) ended_ = FinishReason::kLength;
  for (const std::int32_t token : request_.generated_tokens) {
    if (ended_) return;
    Take(token);
  }
}

void Generation::BeginGrammar() {
  if (request_.grammar == nullptr || matcher_ != nullptr) return;
  auto matcher = GrammarMatcher::Make(*request_.grammar);
  if (!matcher.ok()) return Fail("grammar_failed", matcher.status().message());
  matcher_ = std::move(matcher).ValueUnsafe();
}

bool Generation::IsStopToken(std::int32_t token) const {
  if (Contains(request_.sampling.stop_token_ids, token)) return true;
  return !request_.sampling.ignore_eos && Contains(model_->stop_tokens, token);
}

void Generation::Next(
    const kernels::Kernels& kernels, std::span<float> logits, GenerationScratch& scratch
) {
  if (HasPenalties(request_.sampling)) counts_.Penalize(request_.sampling, logits);
  if (!MaskLogits(logits, scratch.mask)) return;
  const double unit = RandomUnit(request_.random, static_cast<std::uint64_t>(num_generated()));
  const std::int32_t token = SampleToken(kernels, logits, request_.sampling, unit, scratch.sampler);
  if (token == kBadLogits) {
    return FailForBadLogits();
  }
  if (token == kNoToken) {
    return Fail("grammar_failed", "no token of the vocabulary fits the constraint");
  }
  Take(token);
}

void Generation::Score(
    const kernels::Kernels& kernels,
    std::int64_t position,
    std::span<const float> logits,
    SamplerScratch& scratch
) {
  const float logit = logits[Size(tokens_[Size(position) + 1])];
  scores_[Size(position)] = static_cast<float>(logit - LogTotal(kernels, logits, scratch));
}

void Generation::EndScores() {
  ended_ = FinishReason::kStop;
  const auto is_bad = [](float score) { return !std::isfinite(score); };
  if (std::any_of(scores_.begin(), scores_.end(), is_bad)) FailForBadLogits();
}

void Generation::FailForBadLogits() {
  Fail("bad_logits", "the model computed a value that is not a number");
}

bool Generation::MaskLogits(std::span<float> logits, std::vector<std::uint32_t>& mask) {
  if (matcher_ == nullptr) {
    if (num_generated() >= request_.sampling.min_tokens) return true;
    for (const std::int32_t token : request_.sampling.stop_token_ids) {
      if (token >= 0 && token < vocabulary_) logits[Size(token)] = kForbidden;
    }
    if (request_.sampling.ignore_eos) return true;
    for (const std::int32_t token : model_->stop_tokens) logits[Size(token)] = kForbidden;
    return true;
  }
  // The tokenizer may know fewer tokens than the model has logits, or more.
  const auto most = std::max<std::int64_t>(vocabulary_, model_->tokenizer->vocabulary_size());
  mask.assign(Size((most + 31) / 32), 0);
  if (const Status status = matcher_->Mask(mask); !status.ok()) {
    Fail("grammar_failed", status.message());
    return false;
  }
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if ((mask[i / 32] >> (i % 32) & 1U) == 0) logits[i] = kForbidden;
  }
  return true;
}

void Generation::Take(std::int32_t token) {
  const bool may_stop = matcher_ != nullptr || num_generated() >= request_.sampling.min_tokens;
  tokens_.push_back(token);
  if (HasPenalties(request_.sampling)) counts_.AddOutput(token);
  const bool grammar_ended = AdvanceGrammar(token);
  if (ended_) return;
  // Where a grammar lets an end-of-text token through, that is the answer's end.
  const bool is_stop =
      IsStopToken(token) || (grammar_ended && Contains(model_->stop_tokens, token));
  if (may_stop && is_stop) {
    ended_by_token_ = true;
    ended_ = FinishReason::kStop;
    return;
  }
  AppendText(token);
  if (stop_ || grammar_ended) {
    ended_ = FinishReason::kStop;
  } else if (HasRunAway(token)) {
    ended_ = FinishReason::kRunaway;
  } else if (num_generated() >= request_.sampling.max_tokens ||
             static_cast<std::int64_t>(tokens_.size()) >= context_) {
    ended_ = FinishReason::kLength;
  }
}

bool Generation::AdvanceGrammar(std::int32_t token) {
  if (matcher_ != nullptr) {
    if (const Status status = matcher_->Accept(token); !status.ok()) {
      Fail("grammar_failed", status.message());
      return false;
    }
    return matcher_->IsStopped();
  }
  if (request_.grammar == nullptr) return false;
  const bool special = model_->tokenizer->IsSpecial(token);
  before_grammar_ += special ? model_->tokenizer->TokenText(token)
                             : std::string(model_->tokenizer->TokenBytes(token));
  if (before_grammar_.find(request_.grammar_after) != std::string::npos) BeginGrammar();
  return false;
}

void Generation::AppendText(std::int32_t token) {
  const std::string_view bytes = model_->tokenizer->TokenBytes(token);
  text_ += bytes;
  if (num_generated() <= request_.sampling.min_tokens) return;
  stop_ = stop_finder_.Find(text_, bytes.size());
}

bool Generation::HasRunAway(std::int32_t token) {
  const SamplingParams& sampling = request_.sampling;
  if (sampling.ignore_eos || sampling.ignore_runaway) return false;
  const auto answer = tokens().subspan(request_.prompt_tokens.size());
  guard_.Take(answer, model_->tokenizer->TokenBytes(token));
  // A grammar may ask for any number of repeats.
  if (matcher_ != nullptr) return guard_.is_white_space();
  if (num_generated() < sampling.min_tokens) return false;
  return guard_.is_white_space() || guard_.is_repetition();
}

void Generation::Fail(std::string code, std::string message) {
  ended_ = FinishReason::kError;
  error_code_ = std::move(code);
  error_message_ = std::move(message);
}

/// The tokenizer's own text, which may differ from the tokens' bytes at its start; so the stop
/// string is found by counting how often it stands in the text.
Result<std::string> Generation::Text(std::span<const std::int32_t> answer) const {
  MS_ASSIGN_OR_RETURN(std::string text, model_->tokenizer->Decode(answer, true));
  if (!stop_) return text;
  const std::string_view stop = std::string_view(text_).substr(stop_->begin, stop_->length);
  std::size_t earlier = 0;
  for (std::size_t at = text_.find(stop); at < stop_->begin; at = text_.find(stop, at + 1)) {
    ++earlier;
  }
  const std::size_t begin = FindNth(text, stop, earlier);
  if (begin == std::string::npos) return text;
  text.resize(begin + (request_.sampling.include_stop_str_in_output ? stop.size() : 0));
  return text;
}

Completion Generation::Complete() const {
  std::span<const std::int32_t> generated =
      std::span(tokens_).subspan(request_.prompt_tokens.size());
  const auto num_tokens = static_cast<std::int64_t>(generated.size());
  std::span<const std::int32_t> shown = generated;
  if (ended_by_token_) {
    generated = generated.first(generated.size() - 1);
    if (!request_.sampling.include_stop_str_in_output) shown = generated;
  }
  Result<std::string> text = Text(shown);
  Completion completion;
  completion.id = request_.id;
  completion.reason = ended_.value_or(FinishReason::kCancelled);
  completion.tokens.assign(generated.begin(), generated.end());
  completion.prompt_tokens = static_cast<std::int64_t>(request_.prompt_tokens.size());
  if (ended_ == FinishReason::kStop) completion.scores = std::move(scores_);
  completion.completion_tokens = num_tokens;
  completion.error_code = error_code_;
  completion.error_message = error_message_;
  if (text.ok()) {
    completion.text = std::move(text).ValueUnsafe();
  } else {
    completion.reason = FinishReason::kError;
    completion.error_code = "engine_failed";
    completion.error_message = text.status().message();
  }
  return completion;
}

}  // namespace millstream
