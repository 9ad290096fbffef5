// SPDX-License-Identifier: Apache-2.0
#include "engine/language_model.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "model/locate.h"
#include "model/testing.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMessages = R"([{"role": "user", "content": "the thin man 42"}])";

/// A tiny model as a GGUF file and as a folder.
class LanguageModelTest : public testing::Test {
 protected:
  LanguageModelTest() {
    fs::create_directories(root_);
    EXPECT_TRUE(WriteFile(gguf(), TinyGguf({}).Build().first).ok());
    EXPECT_TRUE(WriteTinyFolder({}, folder()).ok());
  }
  ~LanguageModelTest() override { fs::remove_all(root_); }

  std::string gguf() const { return (root_ / "tiny.gguf").string(); }
  std::string folder() const { return (root_ / "tiny").string(); }

  const fs::path root_ = fs::path(testing::TempDir()) /
                         (std::string("language_model_test_") +
                          testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(LanguageModelTest, AGgufAndItsFolderSpeakAlike) {
  const auto a = OpenLanguageModel(gguf(), "");
  const auto b = OpenLanguageModel(folder(), "");
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ((*a)->context, 128);
  EXPECT_EQ((*a)->context, (*b)->context);
  EXPECT_EQ((*a)->stop_tokens, (std::vector<std::int32_t>{2, 0}));
  EXPECT_EQ((*a)->stop_tokens, (*b)->stop_tokens);
  const auto prompt = (*a)->chat_template->Render(kMessages, {});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(*prompt, "<|im_start|>user\nthe thin man 42<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(*prompt, (*b)->chat_template->Render(kMessages, {}).ValueOr(""));
  const auto tokens = (*a)->tokenizer->Encode(*prompt, false);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(*tokens, (*b)->tokenizer->Encode(*prompt, false).ValueOr({}));
  EXPECT_EQ(tokens->front(), 1);
  EXPECT_EQ((*a)->tokenizer->Decode(*tokens, false).ValueOr(""), *prompt);
  EXPECT_NE((*a)->special_tokens.find("<|im_end|>"), std::string::npos);
}

TEST_F(LanguageModelTest, TakesAnotherChatTemplate) {
  const auto model = OpenLanguageModel(gguf(), "[{{ messages[0].content }}]{{ eos_token }}");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(
      (*model)->chat_template->Render(kMessages, {}).ValueOr(""), "[the thin man 42]<|im_end|>"
  );
}

TEST_F(LanguageModelTest, NamesWhatIsWrong) {
  const auto bad = OpenLanguageModel(gguf(), "{% if %}");
  ASSERT_FALSE(bad.ok());
  EXPECT_TRUE(bad.status().message().starts_with("chat_template: ")) << bad.status();

  ASSERT_TRUE(WriteFile(folder() + "/tokenizer.json", R"({"model": {"type": "Odd"}})").ok());
  const auto odd = OpenLanguageModel(folder(), "");
  ASSERT_FALSE(odd.ok());
  EXPECT_TRUE(odd.status().message().starts_with(folder() + ": tokenizer: ")) << odd.status();
}

TEST_F(LanguageModelTest, AModelMayHaveNoChatTemplate) {
  ASSERT_TRUE(WriteFile(folder() + "/tokenizer_config.json", "{}").ok());
  const auto model = OpenLanguageModel(folder(), "");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->chat_template, nullptr);
}

TEST(InstalledModelTest, OpensByName) {
  const auto path = LocateModel("smollm2-135m-instruct", DefaultModelSearch("/"));
  ASSERT_TRUE(path.ok()) << path.status();
  const auto model = OpenLanguageModel(*path, "");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->context, 8192);
  // Hugging Face's ids of SmolLM2 for this text.
  const auto tokens = (*model)->tokenizer->Encode("<|im_start|>user\nHello", false);
  EXPECT_EQ(tokens.ValueOr({}), (std::vector<std::int32_t>{1, 4093, 198, 19556}));
}

}  // namespace
}  // namespace millstream
