// SPDX-License-Identifier: Apache-2.0
#include "engine/wire.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "engine/testing.h"

namespace millstream {
namespace {

Completion SomeCompletion() {
  Completion completion;
  completion.id = -3;
  completion.reason = FinishReason::kError;
  completion.tokens = {0, -1, 2147483647};
  completion.text = std::string("na\0\xc3\xafve", 7);
  completion.prompt_tokens = 1LL << 40;
  completion.completion_tokens = 3;
  completion.error_code = "crash";
  completion.error_message = "why";
  return completion;
}

Completion SomeScores() {
  Completion completion = SomeCompletion();
  completion.scores = {-0.5F, -3.25F};
  return completion;
}

Request SomeRequest() {
  Request request;
  request.id = 77;
  request.name = "0:17 answer 1";
  request.prompt_tokens = {1, 2, 3};
  request.generated_tokens = {4};
  request.sampling = {
      .max_tokens = 9,
      .min_tokens = 1,
      .temperature = 0.1,
      .top_k = 4,
      .top_p = 0.9,
      .min_p = 0.01,
      .repetition_penalty = 1.5,
      .presence_penalty = -0.5,
      .frequency_penalty = std::numeric_limits<double>::infinity(),
      .stop = {"a", "", "\n\n"},
      .stop_token_ids = {5, 6},
      .include_stop_str_in_output = true,
      .ignore_eos = true
  };
  request.random = {~0ULL, 5};
  request.grammar_after = "</think>";
  return request;
}

Request SomeTextToScore() {
  Request request = SomeRequest();
  request.score = true;
  return request;
}

TEST(WireTest, ACompletionComesBackAsItWas) {
  const Completion expected = SomeCompletion();
  const std::string bytes = EncodeCompletion(expected);
  EXPECT_EQ(bytes.front(), 1);
  const Completion completion = DecodeCompletion(bytes).ValueOrDie();
  EXPECT_EQ(completion.id, expected.id);
  EXPECT_EQ(completion.reason, expected.reason);
  EXPECT_EQ(completion.tokens, expected.tokens);
  EXPECT_EQ(completion.text, expected.text);
  EXPECT_EQ(completion.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(completion.completion_tokens, expected.completion_tokens);
  EXPECT_EQ(completion.error_code, expected.error_code);
  EXPECT_EQ(completion.error_message, expected.error_message);
  EXPECT_EQ(EncodeCompletion(completion), bytes);
}

TEST(WireTest, ARequestComesBackAsItWas) {
  const Request expected = SomeRequest();
  const std::string bytes = EncodeRequest(expected);
  const Request request = DecodeRequest(bytes, nullptr).ValueOrDie();
  EXPECT_EQ(request.name, expected.name);
  EXPECT_EQ(request.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(request.generated_tokens, expected.generated_tokens);
  EXPECT_EQ(request.sampling.temperature, 0.1);
  EXPECT_EQ(request.sampling.stop, expected.sampling.stop);
  EXPECT_EQ(request.random.high, expected.random.high);
  EXPECT_EQ(request.grammar, nullptr);
  EXPECT_EQ(EncodeRequest(request), bytes);  // all the others too
}

// The last byte of the settings; a hash of it is kept with each answer of an unfinished job.
TEST(WireTest, WhatIsIgnoredIsOneByteAsItWasBeforeRunaways) {
  Request request = SomeRequest();
  const std::string before = EncodeRequest(request);
  request.sampling.ignore_runaway = true;
  std::string with = EncodeRequest(request);
  ASSERT_EQ(with.size(), before.size());
  const auto at = static_cast<std::size_t>(
      std::mismatch(with.begin(), with.end(), before.begin()).first - with.begin()
  );
  EXPECT_EQ(before[at], 1);
  EXPECT_EQ(with[at], 3);
  EXPECT_TRUE(DecodeRequest(with, nullptr)->sampling.ignore_runaway);
  EXPECT_FALSE(DecodeRequest(before, nullptr)->sampling.ignore_runaway);
  with[at] = 4;
  EXPECT_FALSE(DecodeRequest(with, nullptr).ok());
}

// What older versions wrote can be read, and is what they would write.
TEST(WireTest, OnlyScoresMakeTheSecondVersion) {
  const std::string completion = EncodeCompletion(SomeScores());
  EXPECT_EQ(completion.front(), 2);
  EXPECT_EQ(DecodeCompletion(completion).ValueOrDie().scores, SomeScores().scores);
  EXPECT_EQ(EncodeCompletion(DecodeCompletion(completion).ValueOrDie()), completion);
  EXPECT_EQ(EncodeRequest(SomeRequest()).front(), 1);
  const std::string request = EncodeRequest(SomeTextToScore());
  EXPECT_EQ(request.front(), 2);
  EXPECT_TRUE(DecodeRequest(request, nullptr).ValueOrDie().score);
  EXPECT_EQ(EncodeRequest(DecodeRequest(request, nullptr).ValueOrDie()), request);
}

TEST(WireTest, AGrammarIsCompiledAgain) {
  const auto model = OpenTinyLanguageModel({});
  const auto compiler =
      GrammarCompiler::Make(model->tokenizer, model->stop_tokens).MoveValueUnsafe();
  Request request = SomeRequest();
  request.grammar = compiler->Compile(Grammar::Kind::kRegex, "[ab]{2}").ValueOrDie();
  const std::string bytes = EncodeRequest(request);
  EXPECT_FALSE(DecodeRequest(bytes, nullptr).ok());
  const auto make = [&](Grammar::Kind kind, std::string_view source) {
    return compiler->Compile(kind, source);
  };
  const Request again = DecodeRequest(bytes, make).ValueOrDie();
  ASSERT_NE(again.grammar, nullptr);
  EXPECT_EQ(again.grammar->kind(), Grammar::Kind::kRegex);
  EXPECT_EQ(again.grammar->source(), "[ab]{2}");
  EXPECT_EQ(EncodeRequest(again), bytes);
}

TEST(WireTest, StatsAndRoomComeBack) {
  WireWriter out;
  WriteRoom({3, 4}, out);
  WriteStats(
      {.prompt_tokens = 1,
       .completion_tokens = 2,
       .steps = 3,
       .requests_finished = 4,
       .preemptions = 5,
       .runaways = 7,
       .shared_requests = 6},
      out
  );
  const std::string bytes = out.Take();
  WireReader in(bytes);
  const Room room = ReadRoom(in);
  const EngineStats stats = ReadStats(in);
  EXPECT_TRUE(in.Finish().ok());
  EXPECT_EQ(room.tokens, 4);
  EXPECT_EQ(stats.preemptions, 5);
  EXPECT_EQ(stats.shared_requests, 6);
  EXPECT_EQ(stats.runaways, 7);
}

TEST(WireTest, OtherVersionsAreRefusedByName) {
  std::string bytes = EncodeCompletion(SomeCompletion());
  bytes[0] = 9;
  EXPECT_EQ(DecodeCompletion(bytes).status().message(), "a completion of version 9, not 1 or 2");
}

// Whatever comes in, a decoder answers; sanitizers watch.
TEST(WireTest, NoBytesAreTooHostile) {
  std::mt19937_64 random(5);
  const std::string all[] = {
      EncodeCompletion(SomeCompletion()),
      EncodeCompletion(SomeScores()),
      EncodeRequest(SomeRequest()),
      EncodeRequest(SomeTextToScore())
  };
  for (const std::string& good : all) {
    const bool is_request = &good - all >= 2;
    const auto decodes = [&](const std::string& bytes) {
      return is_request ? DecodeRequest(bytes, nullptr).ok() : DecodeCompletion(bytes).ok();
    };
    EXPECT_TRUE(decodes(good));
    EXPECT_FALSE(decodes(good + "x"));
    for (std::size_t size = 0; size < good.size(); ++size) {
      EXPECT_FALSE(decodes(good.substr(0, size))) << size;
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string bytes = good;
        bytes[at] = static_cast<char>(byte);
        decodes(bytes);
      }
    }
    for (int round = 0; round < 20000; ++round) {
      std::string bytes(random() % 200, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      if (!bytes.empty()) bytes[0] = good[0];
      decodes(bytes);
    }
  }
}

// A size that the bytes do not have allocates nothing.
TEST(WireTest, SizesAreCheckedBeforeAllocation) {
  WireWriter out;
  out.U32(0xFFFFFFFF);
  const std::string bytes = out.Take();
  WireReader text(bytes), tokens(bytes), texts(bytes), floats(bytes);
  EXPECT_EQ(text.Text().capacity(), std::string().capacity());
  EXPECT_EQ(tokens.Tokens().capacity(), 0U);
  EXPECT_LE(texts.Texts().capacity(), 1U);
  EXPECT_EQ(floats.Floats().capacity(), 0U);
  EXPECT_FALSE(text.Finish().ok());
  EXPECT_FALSE(tokens.Finish().ok());
  EXPECT_FALSE(texts.Finish().ok());
  EXPECT_FALSE(floats.Finish().ok());
}

}  // namespace
}  // namespace millstream
