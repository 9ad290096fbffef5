// SPDX-License-Identifier: Apache-2.0
#include "engine/generation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/testing.h"

namespace millstream {
namespace {

TEST(StopFinderTest, FindsTheFirstStopThatTheNewTextCompletes) {
  const StopFinder finder({"", "END", "\n\n", "ND"});
  EXPECT_FALSE(finder.Find("some text E", 1).has_value());
  const auto end = finder.Find("some text END and", 7);
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->begin, 10U);
  EXPECT_EQ(end->length, 3U);
  // Earlier ones are not looked at again.
  EXPECT_FALSE(finder.Find("END and more", 2).has_value());
  EXPECT_FALSE(finder.Find("", 0).has_value());
}

class GenerationTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { tiny = OpenTinyLanguageModel({}); }
  static void TearDownTestSuite() { tiny.reset(); }

  std::int64_t vocabulary() const { return tiny->checkpoint->config().vocabulary; }

  std::vector<std::int32_t> Encode(const std::string& text) const {
    return tiny->tokenizer->Encode(text, false).ValueOrDie();
  }

  Request Ask(SamplingParams sampling) const {
    Request request;
    request.id = 3;
    request.prompt_tokens = Encode("say it");
    request.sampling = std::move(sampling);
    request.sampling.temperature = 0;
    return request;
  }

  Generation Start(Request request, std::int64_t context = 64) const {
    return {tiny, vocabulary(), context, std::move(request)};
  }

  /// Answers as `tokens` say, as long as the generation goes on.
  Completion Play(
      Request request, const std::vector<std::int32_t>& tokens, std::int64_t context = 64
  ) const {
    Generation generation = Start(std::move(request), context);
    for (const std::int32_t token : tokens) {
      if (generation.ended()) break;
      Offer(generation, {token});
    }
    if (!generation.ended()) generation.Cancel();
    return generation.Complete();
  }

  /// Logits that want the tokens in this order, and like all others less.
  void Offer(Generation& generation, const std::vector<std::int32_t>& wanted) const {
    std::vector<float> logits(static_cast<std::size_t>(vocabulary()), 0.0F);
    float logit = 100;
    for (const std::int32_t token : wanted) logits[static_cast<std::size_t>(token)] = logit--;
    GenerationScratch scratch;
    generation.Next(
        kernels::GetKernels(kernels::Isa::kReference, kernels::Precision::kF32), logits, scratch
    );
  }

  std::vector<std::int32_t> AnswerThenEnd(const std::string& text) const {
    auto tokens = Encode(text);
    tokens.push_back(2);
    return tokens;
  }

  static inline std::shared_ptr<const LanguageModel> tiny;
};

TEST_F(GenerationTest, EndsAtAStopTokenWhichIsNoPartOfTheAnswer) {
  const Completion completion = Play(Ask({}), AnswerThenEnd("héllo"));
  EXPECT_EQ(completion.id, 3);
  EXPECT_EQ(completion.reason, FinishReason::kStop);
  EXPECT_EQ(completion.text, "héllo");
  EXPECT_EQ(completion.tokens, Encode("héllo"));
  EXPECT_EQ(completion.completion_tokens, std::ssize(completion.tokens) + 1);
  EXPECT_EQ(completion.prompt_tokens, std::ssize(Encode("say it")));
}

TEST_F(GenerationTest, EndsWithLengthAtMaxTokensOrTheContext) {
  const Completion completion = Play(Ask({.max_tokens = 2}), Encode("xyz"));
  EXPECT_EQ(completion.reason, FinishReason::kLength);
  EXPECT_EQ(completion.text, "xy");
  const Completion full = Play(Ask({}), std::vector<std::int32_t>(100, Encode("x")[0]));
  EXPECT_EQ(full.reason, FinishReason::kLength);
  EXPECT_EQ(full.prompt_tokens + full.completion_tokens, 64);
}

TEST_F(GenerationTest, CutsAtAStopString) {
  const auto tokens = AnswerThenEnd("one. two. three");
  const Completion cut = Play(Ask({.stop = {". t", "never"}}), tokens);
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  EXPECT_EQ(cut.text, "one");
  const Completion kept = Play(Ask({.stop = {". t"}, .include_stop_str_in_output = true}), tokens);
  EXPECT_EQ(kept.text, "one. t");
  // Not before min_tokens: the second one counts.
  const Completion later = Play(Ask({.min_tokens = 6, .stop = {". t"}}), tokens);
  EXPECT_EQ(later.text, "one. two");
  const Completion word = Play(Ask({.stop = {"é"}}), AnswerThenEnd("caféé"));
  EXPECT_EQ(word.text, "caf");
}

TEST_F(GenerationTest, StopTokensFollowTheParameters) {
  const std::int32_t x = Encode("x")[0];
  const Completion own = Play(Ask({.stop_token_ids = {x}}), AnswerThenEnd("abxyz"));
  EXPECT_EQ(own.text, "ab");
  EXPECT_EQ(own.completion_tokens, std::ssize(Encode("abx")));
  const Completion ignored = Play(Ask({.max_tokens = 3, .ignore_eos = true}), {x, 2, x});
  EXPECT_EQ(ignored.reason, FinishReason::kLength);
  EXPECT_EQ(ignored.text, "xx");
  EXPECT_EQ(ignored.tokens, (std::vector<std::int32_t>{x, 2, x}));
}

TEST_F(GenerationTest, MinTokensForbidsStopTokens) {
  Generation generation = Start(Ask({.min_tokens = 2, .stop_token_ids = {50}}));
  Offer(generation, {2, 50, 0, 60});
  Offer(generation, {50, 2, 61});
  EXPECT_FALSE(generation.ended().has_value());
  Offer(generation, {50, 2, 61});
  ASSERT_EQ(generation.ended(), FinishReason::kStop);
  EXPECT_EQ(generation.Complete().tokens, (std::vector<std::int32_t>{60, 61}));
}

TEST_F(GenerationTest, TakesUpAResumedPrefix) {
  Request request = Ask({.max_tokens = 5, .stop = {"cd"}});
  request.generated_tokens = Encode("abc");
  Generation generation = Start(request);
  ASSERT_FALSE(generation.ended().has_value());
  Offer(generation, Encode("d"));
  EXPECT_EQ(generation.Complete().text, "ab");
  request.sampling.max_tokens = 3;
  EXPECT_EQ(Start(request).ended(), FinishReason::kLength);
  request.generated_tokens = {50, 2};
  EXPECT_EQ(Start(request).ended(), FinishReason::kStop);
}

TEST_F(GenerationTest, EndsAnAnswerThatRunsAway) {
  const std::vector<std::int32_t> exes(500, Encode("x")[0]), lines(500, Encode("\n")[0]);
  const auto play = [&](SamplingParams sampling, const std::vector<std::int32_t>& tokens) {
    return Play(Ask(std::move(sampling)), tokens, 1000);
  };
  const Completion repeated = play({}, exes);
  EXPECT_EQ(repeated.reason, FinishReason::kRunaway);
  EXPECT_EQ(repeated.text, std::string(256, 'x'));
  EXPECT_EQ(repeated.completion_tokens, 256);
  const Completion white = play({}, lines);
  EXPECT_EQ(white.reason, FinishReason::kRunaway);
  EXPECT_EQ(white.text, std::string(64, '\n'));
  for (const SamplingParams& sampling :
       {SamplingParams{.max_tokens = 400, .ignore_eos = true},
        SamplingParams{.max_tokens = 400, .ignore_runaway = true}}) {
    EXPECT_EQ(play(sampling, exes).reason, FinishReason::kLength);
    EXPECT_EQ(play(sampling, lines).completion_tokens, 400);
  }
  EXPECT_EQ(play({.min_tokens = 300}, exes).completion_tokens, 300);
  EXPECT_EQ(play({.min_tokens = 300}, lines).reason, FinishReason::kRunaway);
}

TEST_F(GenerationTest, ARunawayEndsWhereItWouldHaveIfItIsResumed) {
  const std::int32_t x = Encode("x")[0];
  for (const std::size_t resumed : {1U, 100U, 255U, 256U, 300U}) {
    Request request = Ask({});
    request.generated_tokens.assign(resumed, x);
    const Completion completion = Play(request, std::vector<std::int32_t>(500, x), 1000);
    EXPECT_EQ(completion.reason, FinishReason::kRunaway);
    EXPECT_EQ(completion.completion_tokens, 256);
  }
}

TEST_F(GenerationTest, BadRequestsFailByThemselves) {
  const auto code = [&](Request request) {
    return Start(std::move(request)).Complete().error_code;
  };
  Request request = Ask({});
  request.prompt_tokens = {};
  EXPECT_EQ(code(request), "invalid_request");
  request.prompt_tokens = {-1};
  EXPECT_EQ(code(request), "invalid_request");
  request.prompt_tokens = {static_cast<std::int32_t>(vocabulary())};
  EXPECT_EQ(code(request), "invalid_request");
  request.prompt_tokens.assign(64, 50);
  EXPECT_EQ(code(request), "context_overflow");
  Generation generation = Start(Ask({}));
  std::vector<float> logits(
      static_cast<std::size_t>(vocabulary()), std::numeric_limits<float>::quiet_NaN()
  );
  GenerationScratch scratch;
  generation.Next(
      kernels::GetKernels(kernels::Isa::kReference, kernels::Precision::kF32), logits, scratch
  );
  EXPECT_EQ(generation.Complete().error_code, "bad_logits");
}

TEST_F(GenerationTest, ScoresEachTokenOfATextButTheFirst) {
  Request request = Ask({});
  request.score = true;
  request.prompt_tokens = {7, 2, 7, 9};
  const auto score = [&](Generation& generation, std::int64_t position, float of_nine) {
    std::vector<float> logits(static_cast<std::size_t>(vocabulary()), 0.0F);
    logits[9] = of_nine;
    GenerationScratch scratch;
    generation.Score(
        kernels::GetKernels(kernels::Isa::kReference, kernels::Precision::kF32),
        position,
        logits,
        scratch.sampler
    );
  };
  Generation generation = Start(request);
  EXPECT_EQ(generation.tokens().size(), 3U);
  for (const std::int64_t position : {2, 0, 1, 0}) score(generation, position, 5);
  EXPECT_FALSE(generation.ended().has_value());
  generation.EndScores();
  const Completion completion = generation.Complete();
  EXPECT_EQ(completion.reason, FinishReason::kStop);
  EXPECT_EQ(completion.prompt_tokens, 4);
  EXPECT_EQ(completion.completion_tokens, 0);
  ASSERT_EQ(completion.scores.size(), 3U);
  const double total = static_cast<double>(vocabulary() - 1) + std::exp(5.0);
  EXPECT_NEAR(completion.scores[0], -std::log(total), 1e-5);
  EXPECT_NEAR(completion.scores[1], -std::log(total), 1e-5);
  EXPECT_NEAR(completion.scores[2], 5 - std::log(total), 1e-5);

  Generation bad = Start(request);
  for (const std::int64_t position : {0, 1, 2}) score(bad, position, position == 1 ? NAN : 0);
  bad.EndScores();
  const Completion failed = bad.Complete();
  EXPECT_EQ(failed.error_code, "bad_logits");
  EXPECT_TRUE(failed.scores.empty());
}

TEST_F(GenerationTest, ATextOfLessThanTwoTokensHasNoScoreAndOneMayFillTheContext) {
  Request request = Ask({});
  request.score = true;
  for (const std::size_t count : {0U, 1U}) {
    request.prompt_tokens.assign(count, 50);
    Generation generation = Start(request);
    EXPECT_EQ(generation.ended(), FinishReason::kStop);
    EXPECT_TRUE(generation.Complete().scores.empty());
  }
  request.prompt_tokens.assign(64, 50);
  EXPECT_FALSE(Start(request).ended().has_value());
  request.prompt_tokens.assign(65, 50);
  EXPECT_EQ(Start(request).Complete().error_code, "context_overflow");
}

class GrammarGenerationTest : public GenerationTest {
 protected:
  std::shared_ptr<const Grammar> Choice(const std::string& choices) {
    return Compile(Grammar::Kind::kChoice, choices);
  }
  std::shared_ptr<const Grammar> Compile(Grammar::Kind kind, const std::string& source) {
    compiler_ = GrammarCompiler::Make(tiny->tokenizer, tiny->stop_tokens).ValueOrDie();
    return compiler_->Compile(kind, source).ValueOrDie();
  }

  std::unique_ptr<GrammarCompiler> compiler_;
};

TEST_F(GrammarGenerationTest, AllowsWhatTheGrammarDoesAndEndsWithIt) {
  Request request = Ask({.min_tokens = 30});
  request.grammar = Choice(R"(["yes", "no"])");
  Generation generation = Start(request);
  const std::int32_t n = Encode("n")[0], o = Encode("o")[0];
  Offer(generation, {2, 50, n});
  while (!generation.ended()) Offer(generation, {n, o, 2});
  const Completion completion = generation.Complete();
  EXPECT_EQ(completion.reason, FinishReason::kStop);
  EXPECT_EQ(completion.text, "no");
}

TEST_F(GrammarGenerationTest, RunsOutOfTokensWithLength) {
  Request request = Ask({.max_tokens = 1});
  request.grammar = Choice(R"(["xyz"])");
  Generation generation = Start(request);
  Offer(generation, Encode("x"));
  EXPECT_EQ(generation.Complete().reason, FinishReason::kLength);
}

TEST_F(GrammarGenerationTest, RunsAwayInWhiteSpaceAloneOnceItHasBegun) {
  const std::int32_t x = Encode("x")[0], line = Encode("\n")[0];
  const std::vector<std::int32_t> exes(500, x), lines(500, line);
  Request request = Ask({.max_tokens = 400});
  request.grammar = Compile(Grammar::Kind::kRegex, "[x\n]+y");
  const Completion repeated = Play(request, exes, 1000);
  EXPECT_EQ(repeated.reason, FinishReason::kLength);
  EXPECT_EQ(repeated.completion_tokens, 400);
  const Completion white = Play(request, lines, 1000);
  EXPECT_EQ(white.reason, FinishReason::kRunaway);
  EXPECT_EQ(white.completion_tokens, 64);
  request.grammar_after = "z";
  EXPECT_EQ(Play(request, exes, 1000).reason, FinishReason::kRunaway);
}

TEST_F(GrammarGenerationTest, FailsOnAResumedAnswerThatTheGrammarDoesNotAllow) {
  Request request = Ask({});
  request.grammar = Choice(R"(["yes"])");
  request.generated_tokens = Encode("no");
  EXPECT_EQ(Start(request).Complete().error_code, "grammar_failed");
}

TEST_F(GrammarGenerationTest, BeginsAfterItsText) {
  Request request = Ask({});
  request.grammar = Choice(R"(["yes"])");
  request.grammar_after = "b<|im_start|>";
  Generation generation = Start(request);
  for (const std::int32_t token : {Encode("a")[0], 1, Encode("b")[0], 1}) {
    Offer(generation, {token});
  }
  while (!generation.ended()) {
    Offer(generation, {2, Encode("q")[0], Encode("y")[0], Encode("e")[0], Encode("s")[0]});
  }
  EXPECT_EQ(generation.Complete().text, "abyes");
}

}  // namespace
}  // namespace millstream
