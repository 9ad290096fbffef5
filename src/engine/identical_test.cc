// SPDX-License-Identifier: Apache-2.0
#include "engine/identical.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "engine/testing.h"

namespace millstream {
namespace {

Request Greedy() {
  Request request;
  request.id = 1;
  request.name = "0:1 a 0";
  request.prompt_tokens = {5, 6, 7};
  request.generated_tokens = {8};
  request.sampling.temperature = 0;
  request.sampling.stop = {"x"};
  request.random = {1, 2};
  request.grammar_after = "</think>";
  return request;
}

TEST(GreedyKeyTest, IsTheSameWhoeverAsksAndWhateverTheDraws) {
  Request other = Greedy();
  other.id = 2;
  other.name = "0:2 a 0";
  other.random = {3, 4};
  EXPECT_EQ(GreedyKey(other), GreedyKey(Greedy()));
  EXPECT_FALSE(GreedyKey(other).empty());
}

TEST(GreedyKeyTest, IsEmptyIfTheAnswerIsDrawn) {
  Request request = Greedy();
  request.sampling.temperature = 0.1;
  EXPECT_EQ(GreedyKey(request), "");
}

TEST(GreedyKeyTest, DiffersWithAllThatAnAnswerDependsOn) {
  const auto model = OpenTinyLanguageModel({});
  const auto compiler =
      GrammarCompiler::Make(model->tokenizer, model->stop_tokens).MoveValueUnsafe();
  const auto grammar = [&](Grammar::Kind kind, const char* source) {
    return compiler->Compile(kind, source).ValueOrDie();
  };
  const std::vector<std::function<void(Request&)>> changes = {
      [](Request&) {},
      [](Request& r) { r.prompt_tokens.back() = 8; },
      [](Request& r) { r.prompt_tokens = {5, 6, 7, 8}, r.generated_tokens = {}; },
      [](Request& r) { r.prompt_tokens = {5, 6}, r.generated_tokens = {7, 8}; },
      [](Request& r) { r.generated_tokens.push_back(8); },
      [](Request& r) { r.sampling.max_tokens = 7; },
      [](Request& r) { r.sampling.min_tokens = 7; },
      [](Request& r) { r.sampling.repetition_penalty = 1.1; },
      [](Request& r) { r.sampling.presence_penalty = 0.1; },
      [](Request& r) { r.sampling.frequency_penalty = 0.1; },
      [](Request& r) { r.sampling.stop = {"x", "y"}; },
      [](Request& r) { r.sampling.stop = {"xy"}; },
      [](Request& r) { r.sampling.stop_token_ids = {3}; },
      [](Request& r) { r.sampling.include_stop_str_in_output = true; },
      [](Request& r) { r.sampling.ignore_eos = true; },
      [](Request& r) { r.sampling.ignore_runaway = true; },
      [](Request& r) { r.grammar_after = "<think>"; },
      [&](Request& r) { r.grammar = grammar(Grammar::Kind::kRegex, "[ab]"); },
      [&](Request& r) { r.grammar = grammar(Grammar::Kind::kRegex, "[abc]"); },
      [&](Request& r) { r.grammar = grammar(Grammar::Kind::kChoice, "[\"ab\"]"); },
  };
  std::vector<std::string> keys;
  for (const auto& change : changes) {
    Request request = Greedy();
    change(request);
    keys.push_back(GreedyKey(request));
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " and " << j;
  }
}

TEST(GreedyKeyTest, IsTheSameForTwoGrammarsOfOneDefinition) {
  const auto model = OpenTinyLanguageModel({});
  const auto compile = [&] {
    const auto compiler =
        GrammarCompiler::Make(model->tokenizer, model->stop_tokens).MoveValueUnsafe();
    return compiler->Compile(Grammar::Kind::kRegex, "[ab]{2}").ValueOrDie();
  };
  Request one = Greedy(), other = Greedy();
  one.grammar = compile();
  other.grammar = compile();
  EXPECT_NE(one.grammar, other.grammar);
  EXPECT_EQ(GreedyKey(one), GreedyKey(other));
}

}  // namespace
}  // namespace millstream
