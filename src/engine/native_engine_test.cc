// SPDX-License-Identifier: Apache-2.0
#include "engine/native_engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "base/torture.h"
#include "engine/testing.h"
#include "kernels/kernels.h"
#include "model/llama.h"
#include "model/locate.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Tokens = std::vector<std::int32_t>;
using Answers = std::map<RequestId, Completion>;

std::uint64_t TinyPageBytes(const LanguageModel& model, Compute compute = Compute::kF32) {
  const auto precision =
      compute == Compute::kF32 ? kernels::Precision::kF32 : kernels::Precision::kBf16;
  const auto& table = kernels::GetKernels(kernels::FastestIsa(), precision);
  return static_cast<std::uint64_t>(KvCache::PageBytes(model.checkpoint->config(), table));
}

/// Waits for `count` completions.
Answers Collect(Engine& engine, std::size_t count) {
  Answers answers;
  while (answers.size() < count) {
    auto completions = engine.Poll(Deadline::max(), {});
    if (!completions.ok()) {
      ADD_FAILURE() << completions.status();
      return answers;
    }
    for (Completion& completion : *completions) {
      const RequestId id = completion.id;
      EXPECT_TRUE(answers.emplace(id, std::move(completion)).second) << "twice: " << id;
    }
  }
  return answers;
}

Answers Answer(Engine& engine, const std::vector<Request>& requests) {
  for (const Request& request : requests) engine.Submit(request);
  return Collect(engine, requests.size());
}

class NativeEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    tiny = OpenTinyLanguageModel(
        {.hidden = 48, .feed_forward = 64, .heads = 6, .kv_heads = 2, .context = 256}
    );
  }
  static void TearDownTestSuite() { tiny.reset(); }

  static NativeEngineOptions Options() {
    NativeEngineOptions options;
    options.compute = Compute::kF32;
    options.threads = 2;
    options.memory_bytes = 64 * TinyPageBytes(*tiny);
    return options;
  }
  static std::unique_ptr<Engine> Make(const NativeEngineOptions& options) {
    return MakeNativeEngine(tiny, options).ValueOrDie();
  }

  /// Requests of many lengths and kinds of sampling. Some begin alike.
  static std::vector<Request> Mixed(std::size_t count) {
    std::mt19937 random(7);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    std::vector<Request> requests;
    for (std::size_t i = 0; i < count; ++i) {
      Request request;
      request.id = static_cast<RequestId>(i);
      if (i % 5 < 2) {
        // Within a block of attention, and beyond it.
        for (int t = 0; t < 20 + 120 * pick(0, 1); ++t) request.prompt_tokens.push_back(3 + t);
      }
      for (int n = pick(1, 60); n > 0; --n) request.prompt_tokens.push_back(pick(3, 258));
      request.sampling.max_tokens = pick(1, 50);
      request.sampling.temperature = i % 3 == 0 ? 0 : 1;
      request.sampling.top_k = i % 3 == 1 ? 30 : 0;
      request.sampling.repetition_penalty = i % 4 == 0 ? 1.2 : 1;
      request.random = {11, i};
      request.score = i % 7 == 6;
      requests.push_back(std::move(request));
    }
    return requests;
  }

  static inline std::shared_ptr<const LanguageModel> tiny;
};

void ExpectEqual(const Answers& answers, const Answers& expected) {
  ASSERT_EQ(answers.size(), expected.size());
  for (const auto& [id, completion] : expected) {
    EXPECT_EQ(answers.at(id).tokens, completion.tokens) << "request " << id;
    EXPECT_EQ(answers.at(id).reason, completion.reason) << "request " << id;
    EXPECT_EQ(answers.at(id).text, completion.text) << "request " << id;
    EXPECT_EQ(answers.at(id).scores, completion.scores) << "request " << id;
  }
}

TEST_F(NativeEngineTest, AnswersDependOnNeitherBatchNorChunksNorPreemptionNorThreads) {
  const std::vector<Request> requests = Mixed(40);
  for (const Compute compute : {Compute::kF32, Compute::kBF16, Compute::kInt8}) {
    Answers expected;
    NativeEngineOptions options = Options();
    options.compute = compute;
    options.threads = 1;
    const auto alone = Make(options);
    for (const Request& request : requests) expected.merge(Answer(*alone, {request}));
    struct Variant {
      int threads;
      std::int64_t step_tokens, max_sequences;
      std::uint64_t pages;
    };
    for (const Variant& variant :
         {Variant{1, 256, 256, 1000},
          Variant{2, 7, 3, 1000},
          Variant{3, 64, 256, 30},
          Variant{2, 64, 256, 20}}) {
      options.threads = variant.threads;
      options.step_tokens = variant.step_tokens;
      options.max_sequences = variant.max_sequences;
      options.memory_bytes = variant.pages * TinyPageBytes(*tiny, compute);
      const auto engine = Make(options);
      ExpectEqual(Answer(*engine, requests), expected);
      if (variant.pages <= 30) {
        EXPECT_GT(engine->stats().preemptions, 0);
      }
      EXPECT_EQ(engine->stats().requests_finished, std::ssize(requests));
    }
  }
}

/// The tiny model with a token whose embedding is no number.
std::shared_ptr<const LanguageModel> WithBadToken(const TinyModel& model, std::int64_t token) {
  std::string file = TinyGguf(model).Build().first;
  const auto good = OpenTinyLanguageModel(model);
  const TensorView& embeddings = *good->checkpoint->Find("token_embd.weight");
  const std::size_t bytes = static_cast<std::size_t>(model.hidden) * sizeof(float);
  const auto* row =
      reinterpret_cast<const char*>(embeddings.data) + static_cast<std::size_t>(token) * bytes;
  const std::vector<float> bad(static_cast<std::size_t>(model.hidden), std::nanf(""));
  const std::size_t place = file.find(std::string(row, bytes));
  file.replace(place, bytes, reinterpret_cast<const char*>(bad.data()), bytes);
  const auto path = std::filesystem::temp_directory_path() /
                    ("millstream-bad-token-" + std::to_string(getpid()) + ".gguf");
  EXPECT_TRUE(WriteFile(path.string(), file).ok());
  auto opened = OpenLanguageModel(path.string(), "").ValueOrDie();
  std::filesystem::remove(path);
  return opened;
}

TEST_F(NativeEngineTest, ARowThatMakesNoNumbersSpoilsNoneThatBeginsAsItDoes) {
  const auto model = WithBadToken(
      {.hidden = 48, .feed_forward = 64, .heads = 6, .kv_heads = 2, .tied_embeddings = false}, 9
  );
  Request good, bad;
  bad.id = 1;
  for (std::int32_t t = 0; t < 48; ++t) good.prompt_tokens.push_back(20 + t);
  bad.prompt_tokens = good.prompt_tokens;
  bad.prompt_tokens[32] = 9;
  good.sampling.temperature = bad.sampling.temperature = 0;
  good.sampling.max_tokens = bad.sampling.max_tokens = 8;
  good.sampling.ignore_eos = bad.sampling.ignore_eos = true;
  for (const Compute compute : {Compute::kF32, Compute::kBF16, Compute::kInt8}) {
    NativeEngineOptions options = Options();
    options.compute = compute;
    const Answers alone = Answer(*MakeNativeEngine(model, options).ValueOrDie(), {good});
    EXPECT_EQ(alone.at(0).reason, FinishReason::kLength);
    for (const std::int64_t length : {41, 44, 47}) {
      bad.prompt_tokens.resize(static_cast<std::size_t>(length), 50);
      const auto engine = MakeNativeEngine(model, options).ValueOrDie();
      EXPECT_EQ(Answer(*engine, {bad}).at(1).error_code, "bad_logits");
      ExpectEqual(Answer(*engine, {good}), alone);
    }
  }
}

TEST_F(NativeEngineTest, AResumedAnswerGoesOnAsIfUninterrupted) {
  const std::vector<Request> requests = Mixed(12);
  const auto engine = Make(Options());
  const Answers expected = Answer(*engine, requests);
  std::vector<Request> resumed = requests;
  for (Request& request : resumed) {
    const Tokens& tokens = expected.at(request.id).tokens;
    request.generated_tokens.assign(tokens.begin(), tokens.begin() + std::ssize(tokens) / 2);
  }
  ExpectEqual(Answer(*engine, resumed), expected);
}

TEST_F(NativeEngineTest, ARunawayEndsTheSameForAnyBatchAndIfItIsResumed) {
  const auto model = OpenTinyLanguageModel({.context = 1024});
  NativeEngineOptions options = Options();
  options.memory_bytes = 0;
  std::vector<Request> requests = Mixed(24);
  std::erase_if(requests, [](const Request& request) { return request.sampling.temperature > 0; });
  for (Request& request : requests) {
    request.score = false;
    request.sampling.frequency_penalty = -2;  // what it has said it says again
    request.sampling.min_tokens = 20;
    request.sampling.max_tokens = 800;
  }
  Answers expected;
  const auto alone = MakeNativeEngine(model, options).ValueOrDie();
  for (const Request& request : requests) expected.merge(Answer(*alone, {request}));
  const auto runaways = std::count_if(expected.begin(), expected.end(), [](const auto& answer) {
    return answer.second.reason == FinishReason::kRunaway;
  });
  EXPECT_EQ(runaways, std::ssize(requests));
  EXPECT_EQ(alone->stats().runaways, runaways);
  options.memory_bytes = 90 * TinyPageBytes(*model);
  options.step_tokens = 16;
  const auto engine = MakeNativeEngine(model, options).ValueOrDie();
  ExpectEqual(Answer(*engine, requests), expected);
  EXPECT_GT(engine->stats().preemptions, 0);
  for (Request& request : requests) {
    const Tokens& tokens = expected.at(request.id).tokens;
    request.generated_tokens.assign(tokens.begin(), tokens.begin() + std::ssize(tokens) / 2);
  }
  ExpectEqual(Answer(*engine, requests), expected);
}

TEST_F(NativeEngineTest, BadRequestsFailAloneWithTheirCodes) {
  NativeEngineOptions options = Options();
  options.memory_bytes = 4 * TinyPageBytes(*tiny);
  const auto engine = Make(options);
  std::vector<Request> requests(5);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].id = static_cast<RequestId>(i);
    requests[i].sampling.max_tokens = 4;
  }
  requests[1].prompt_tokens = {5000};
  requests[2].prompt_tokens.assign(256, 50);
  requests[3].prompt_tokens.assign(62, 50);
  requests[4].prompt_tokens.assign(60, 50);
  const Answers answers = Answer(*engine, requests);
  EXPECT_EQ(answers.at(0).error_code, "invalid_request");
  EXPECT_EQ(answers.at(1).error_code, "invalid_request");
  EXPECT_EQ(answers.at(2).error_code, "context_overflow");
  EXPECT_EQ(answers.at(3).error_code, "out_of_kv_memory");
  EXPECT_NE(answers.at(4).reason, FinishReason::kError);
  EXPECT_EQ(
      answers.at(3).error_message, "prompt and answer may take 66 tokens, and the KV cache holds 64"
  );
}

Request Endless(RequestId id) {
  Request request;
  request.id = id;
  request.prompt_tokens = {60, 61};
  request.sampling.max_tokens = 100;
  request.sampling.ignore_eos = true;
  request.sampling.min_tokens = 100;
  return request;
}

TEST_F(NativeEngineTest, CancelEndsARequestWithTheTokensItHas) {
  NativeEngineOptions options = Options();
  options.max_sequences = 1;
  const auto engine = Make(options);
  engine->Submit(Endless(1));
  engine->Submit(Endless(2));
  engine->Cancel(2);
  engine->Cancel(77);  // unknown
  const Answers answers = Collect(*engine, 2);
  EXPECT_TRUE(
      answers.at(2).reason == FinishReason::kCancelled ||
      answers.at(2).reason == FinishReason::kLength
  );
  EXPECT_EQ(answers.at(1).completion_tokens, 100);
  EXPECT_EQ(engine->room().requests, 2);
}

/// Each request `times` times, in one random order. Request i's copies are i, i + 1000, ...
std::vector<Request> Repeated(const std::vector<Request>& requests, RequestId times) {
  std::vector<Request> repeated;
  for (RequestId copy = 0; copy < times; ++copy) {
    for (const Request& request : requests) {
      repeated.push_back(request);
      repeated.back().id = request.id + 1000 * copy;
      if (request.sampling.temperature == 0) repeated.back().random.low += 1000;  // draws nothing
    }
  }
  std::shuffle(repeated.begin(), repeated.end(), std::mt19937(3));
  return repeated;
}

TEST_F(NativeEngineTest, IdenticalGreedyRequestsAreComputedOnceAndEachAnswered) {
  Request request = Mixed(1).front();
  request.sampling.max_tokens = 50;
  request.sampling.ignore_eos = true;
  const std::int64_t prompt = std::ssize(request.prompt_tokens);
  const Answers expected = Answer(*Make(Options()), {request});
  const auto engine = Make(Options());
  std::int64_t submitted = 0;
  // They meet unless one is answered before the next is there, which is not for the test to say.
  while (engine->stats().shared_requests == 0 && submitted < 10'000) {
    for (const auto& [id, answer] : Answer(*engine, Repeated({request}, 10))) {
      EXPECT_EQ(answer.tokens, expected.at(request.id).tokens);
      EXPECT_EQ(answer.text, expected.at(request.id).text);
      EXPECT_EQ(answer.prompt_tokens, prompt);
      EXPECT_EQ(answer.completion_tokens, 50);
    }
    submitted += 10;
  }
  const EngineStats stats = engine->stats();
  EXPECT_GT(stats.shared_requests, 0);
  EXPECT_EQ(stats.requests_finished, submitted);
  EXPECT_EQ(stats.prompt_tokens, (submitted - stats.shared_requests) * prompt);
  EXPECT_EQ(stats.completion_tokens, (submitted - stats.shared_requests) * 50);
}

TEST_F(NativeEngineTest, AnswersDependNotOnIdenticalRequestsNorOnWhichOfThemAreCancelled) {
  const std::vector<Request> requests = Mixed(30);
  const Answers expected = Answer(*Make(Options()), requests);
  std::mt19937 random(5);
  std::int64_t shared = 0, cut = 0, whole = 0;
  for (int round = 0; round < 20; ++round) {
    NativeEngineOptions options = Options();
    options.max_sequences = 1 + random() % 8;
    options.memory_bytes = (9 + random() % 30) * TinyPageBytes(*tiny);
    const auto engine = Make(options);
    const std::vector<Request> repeated = Repeated(requests, 4);
    std::set<RequestId> cancelled;
    for (const Request& request : repeated) {
      engine->Submit(request);
      if (random() % 4 > 0) continue;
      const RequestId id = repeated[random() % repeated.size()].id;
      engine->Cancel(id);
      cancelled.insert(id);
    }
    for (const auto& [id, answer] : Collect(*engine, repeated.size())) {
      const Completion& alone = expected.at(id % 1000);
      ASSERT_LE(answer.tokens.size(), alone.tokens.size());
      if (answer.reason == FinishReason::kCancelled) {
        EXPECT_TRUE(cancelled.contains(id)) << "request " << id;
        EXPECT_TRUE(std::equal(answer.tokens.begin(), answer.tokens.end(), alone.tokens.begin()));
        ++cut;
      } else {
        EXPECT_EQ(answer.reason, alone.reason) << "request " << id;
        EXPECT_EQ(answer.tokens, alone.tokens) << "request " << id;
        EXPECT_EQ(answer.text, alone.text) << "request " << id;
        ++whole;
      }
      EXPECT_EQ(answer.prompt_tokens, alone.prompt_tokens);
    }
    EXPECT_EQ(engine->room().requests, Make(options)->room().requests);
    EXPECT_EQ(engine->stats().requests_finished, std::ssize(repeated));
    shared += engine->stats().shared_requests;
  }
  EXPECT_GT(shared, 0);
  EXPECT_GT(cut, 0);
  EXPECT_GT(whole, 0);
}

/// Cancels one of two identical requests and returns both answers: of the one that was cancelled
/// first.
std::pair<Completion, Completion> CancelOne(Engine& engine, RequestId cancelled) {
  for (RequestId first = 0;; first += 2) {
    const std::int64_t shared_before = engine.stats().shared_requests;
    for (const RequestId id : {first, first + 1}) {
      Request request = Endless(id);
      request.sampling.temperature = 0;
      engine.Submit(request);
    }
    engine.Cancel(first + cancelled);
    const Answers answers = Collect(engine, 2);
    const Completion& cut = answers.at(first + cancelled);
    const bool met =
        engine.stats().shared_requests > shared_before && cut.reason == FinishReason::kCancelled;
    // Unless one was answered before the other was there, which is not for the test to say.
    if (met || first > 2000) return {cut, answers.at(first + 1 - cancelled)};
  }
}

TEST_F(NativeEngineTest, CancellingOneOfIdenticalRequestsLeavesTheOther) {
  const auto engine = Make(Options());
  for (const RequestId cancelled : {0, 1}) {
    const auto [cut, whole] = CancelOne(*engine, cancelled);
    EXPECT_EQ(cut.reason, FinishReason::kCancelled);
    EXPECT_LT(cut.completion_tokens, 100);
    EXPECT_EQ(whole.reason, FinishReason::kLength);
    EXPECT_EQ(whole.completion_tokens, 100);
  }
}

TEST_F(NativeEngineTest, RoomShrinksWithWhatIsOpen) {
  NativeEngineOptions options = Options();
  options.max_sequences = 4;
  const auto engine = Make(options);
  const Room room = engine->room();
  EXPECT_EQ(room.requests, 6);
  EXPECT_EQ(room.tokens, 2 * 64 * 16);  // 4 sequences of 256 tokens can use 64 pages
  Answer(*engine, Mixed(3));
  EXPECT_EQ(engine->room().requests, room.requests);
  EXPECT_EQ(engine->room().tokens, room.tokens);
}

TEST_F(NativeEngineTest, StopsPromptlyWithWorkUnderWay) {
  const auto engine = Make(Options());
  for (RequestId id = 0; id < 50; ++id) engine->Submit(Endless(id));
}

TEST_F(NativeEngineTest, PollReturnsOnStopAndDeadline) {
  const auto engine = Make(Options());
  EXPECT_TRUE(engine->Poll(Deadline::min(), {}).ValueOrDie().empty());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(engine->Poll(Deadline::max(), stop.get_token()).ValueOrDie().empty());
}

TEST_F(NativeEngineTest, SaysWhatIsWrongWithItsOptions) {
  NativeEngineOptions options = Options();
  options.context = 4096;
  EXPECT_EQ(
      MakeNativeEngine(tiny, options).status().message(), "context is 4096, and the model's is 256"
  );
  options = Options();
  options.memory_bytes = 10;
  EXPECT_FALSE(MakeNativeEngine(tiny, options).ok());
  setenv("MILLSTREAM_ISA", "mmx", 1);
  EXPECT_EQ(
      MakeNativeEngine(tiny, Options()).status().message(),
      "MILLSTREAM_ISA is \"mmx\", which is none of reference, avx2, avx512, avx512_bf16"
  );
  setenv("MILLSTREAM_ISA", "reference", 1);
  EXPECT_EQ(InstructionSet("avx2"), "reference");
  EXPECT_TRUE(MakeNativeEngine(tiny, Options()).ok());
  unsetenv("MILLSTREAM_ISA");
  EXPECT_NE(ResolveCompute(Compute::kAuto, "auto", *tiny->checkpoint), Compute::kAuto);
}

TEST_F(NativeEngineTest, ComputesWithTheInstructionSetThatItIsTold) {
  NativeEngineOptions options = Options();
  options.isa = "reference";
  EXPECT_TRUE(MakeNativeEngine(tiny, options).ok());
  EXPECT_EQ(InstructionSet("reference"), "reference");
  EXPECT_EQ(InstructionSet("auto"), kernels::IsaName(kernels::FastestIsa()));
  EXPECT_EQ(ResolveCompute(Compute::kAuto, "avx512", *tiny->checkpoint), Compute::kF32);
  EXPECT_EQ(ResolveCompute(Compute::kAuto, "avx512_bf16", *tiny->checkpoint), Compute::kBF16);
  EXPECT_EQ(ResolveCompute(Compute::kBF16, "avx2", *tiny->checkpoint), Compute::kBF16);
  options.isa = "mmx";
  EXPECT_EQ(
      MakeNativeEngine(tiny, options).status().message(),
      "isa is \"mmx\", which is none of reference, avx2, avx512, avx512_bf16"
  );
  EXPECT_EQ(CommonInstructionSet("avx512_bf16", "avx2"), "avx2");
  EXPECT_EQ(CommonInstructionSet("avx512", "avx512_bf16"), "avx512");
  EXPECT_EQ(CommonInstructionSet("avx512", "reference"), "reference");
}

TEST(ResolveComputeTest, IsInt8ForQuantizedWeights) {
  const auto path = LocateModel("smollm2-135m-instruct", DefaultModelSearch("/")).ValueOrDie();
  const auto model = OpenLanguageModel(path, "").ValueOrDie();
  for (const char* isa : {"reference", "avx2", "avx512_bf16"}) {
    EXPECT_EQ(ResolveCompute(Compute::kAuto, isa, *model->checkpoint), Compute::kInt8);
    EXPECT_EQ(ResolveCompute(Compute::kF32, isa, *model->checkpoint), Compute::kF32);
  }
}

TEST_F(NativeEngineTest, ScoresAreTheModelsOwn) {
  Request request;
  request.score = true;
  for (std::int32_t t = 0; t < 40; ++t) request.prompt_tokens.push_back(3 + 7 * t % 250);
  const auto engine = Make(Options());
  const Completion completion = Answer(*engine, {request}).at(0);
  EXPECT_EQ(completion.reason, FinishReason::kStop);
  EXPECT_EQ(completion.completion_tokens, 0);
  EXPECT_EQ(engine->stats().completion_tokens, 0);

  // By a forward pass of the prompt alone and logarithms in double precision.
  kernels::Team team(1);
  const auto& table = kernels::GetKernels(kernels::FastestIsa(), kernels::Precision::kF32);
  const auto model = LlamaModel::Load(tiny->checkpoint, table, 128, team).ValueOrDie();
  KvCache cache = KvCache::Make(model->config(), table, 8).ValueOrDie();
  Workspace workspace = Workspace::Make(*model, 128).ValueOrDie();
  const std::vector<std::int32_t> pages = {0, 1, 2};
  const Chunk chunk{request.prompt_tokens, 0, pages, 40};
  model->Forward({&chunk, 1}, cache, workspace, team);
  std::vector<float> logits(static_cast<std::size_t>(40 * model->logit_stride()));
  model->Logits(workspace, 0, 40, logits.data(), team);
  ASSERT_EQ(completion.scores.size(), 39U);
  for (std::int64_t i = 0; i < 39; ++i) {
    const float* row = logits.data() + i * model->logit_stride();
    double total = 0;
    for (std::int64_t t = 0; t < model->config().vocabulary; ++t) {
      total += std::exp(static_cast<double>(row[t]));
    }
    const auto at = static_cast<std::size_t>(i);
    EXPECT_NEAR(completion.scores[at], row[request.prompt_tokens[at + 1]] - std::log(total), 1e-5);
  }
}

/// Scores of smollm2-nll.jsonl's texts against the mean negative log-likelihoods of transformers.
class SmolLm2NllTest : public testing::TestWithParam<std::pair<Compute, double>> {
 protected:
  void SetUp() override {
    if (kIsSlow) GTEST_SKIP() << "too slow with sanitizers";
    const auto path = LocateModel("smollm2-135m-instruct", DefaultModelSearch("/")).ValueOrDie();
    language_ = OpenLanguageModel(path, "").ValueOrDie();
  }

  std::shared_ptr<const LanguageModel> language_;
};

TEST_P(SmolLm2NllTest, IsTransformers) {
  std::ifstream file(MS_TEST_DATA "/smollm2-nll.jsonl");
  std::vector<Request> requests;
  double expected = 0, tokens = 0;
  for (std::string line; std::getline(file, line);) {
    const auto one = nlohmann::json::parse(line);
    if (one["id"].get<int>() % 4 != 0) continue;  // enough to tell, and four times as quick
    Request request;
    request.id = one["id"].get<RequestId>();
    request.score = true;
    request.prompt_tokens =
        language_->tokenizer->Encode(one["text"].get<std::string>(), false).ValueOrDie();
    ASSERT_EQ(std::ssize(request.prompt_tokens), one["tokens"].get<std::int64_t>());
    const auto predicted = static_cast<double>(request.prompt_tokens.size() - 1);
    expected += one["mean_nll"].get<double>() * predicted;
    tokens += predicted;
    requests.push_back(std::move(request));
  }
  ASSERT_GT(tokens, 1000);
  const auto engine =
      MakeNativeEngine(language_, {.context = 1024, .threads = 2, .compute = GetParam().first})
          .ValueOrDie();
  double sum = 0;
  for (const auto& [id, completion] : Answer(*engine, requests)) {
    for (const float score : completion.scores) sum -= score;
  }
  EXPECT_NEAR(sum / expected, 1, GetParam().second);
  RecordProperty("mean_nll", std::to_string(sum / tokens));
}

INSTANTIATE_TEST_SUITE_P(
    Precisions,
    SmolLm2NllTest,
    testing::Values(
        std::pair(Compute::kF32, 1e-3),
        std::pair(Compute::kBF16, 5e-3),
        std::pair(Compute::kInt8, 1.5e-2)
    )
);

}  // namespace
}  // namespace millstream
