// SPDX-License-Identifier: Apache-2.0
#include "model/gguf.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <numeric>
#include <string>

#include "model/checkpoint.h"
#include "model/testing.h"

namespace millstream {
namespace {

/// Opens models from a file in memory: the tests that walk through a header open tens of thousands.
class GgufTest : public testing::Test {
 protected:
  ~GgufTest() override { ::close(file_); }

  std::string Path(const std::string& bytes) const {
    EXPECT_EQ(::ftruncate(file_, 0), 0);
    EXPECT_EQ(::pwrite(file_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return "/proc/self/fd/" + std::to_string(file_);
  }

  /// The message that opening a file of these bytes ends with.
  std::string Open(const std::string& bytes) const {
    const auto opened = Checkpoint::Open(Path(bytes));
    if (!opened.ok()) return opened.status().message();
    Touch(**opened);
    return "";
  }

  std::string Open(const GgufBuilder& gguf) const { return Open(gguf.Build().first); }

  /// Reads every weight, so that a range that leaves the file shows as a crash.
  static void Touch(const Checkpoint& model) {
    for (const char* name :
         {"token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight"
         }) {
      const TensorView* tensor = model.Find(name);
      ASSERT_NE(tensor, nullptr);
      const auto sum = std::accumulate(
          tensor->data,
          tensor->data + tensor->size_bytes,
          0U,
          [](unsigned total, std::byte b) { return total + std::to_integer<unsigned>(b); }
      );
      EXPECT_LT(sum, UINT32_MAX);
    }
  }

  const int file_ = ::memfd_create("model", MFD_CLOEXEC);
};

TinyModel Small() {
  return {
      .layers = 1,
      .hidden = 8,
      .feed_forward = 8,
      .heads = 2,
      .kv_heads = 1,
      .context = 16,
      .byte_tokens = false
  };
}

std::string Overwritten(std::string bytes, std::size_t at, std::uint64_t value) {
  std::memcpy(&bytes[at], &value, sizeof value);
  return bytes;
}

TEST_F(GgufTest, OpensATinyModel) {
  EXPECT_EQ(Open(TinyGguf(Small())), "");
  TinyModel qwen = Small();
  qwen.architecture = "qwen2";
  qwen.tied_embeddings = false;
  EXPECT_EQ(Open(TinyGguf(qwen)), "");
}

TEST_F(GgufTest, EveryTruncationIsAnError) {
  const auto [file, header] = TinyGguf(Small()).Build();
  for (std::size_t size = 0; size < header; ++size) {
    const auto parsed = GgufHeader::Parse(std::as_bytes(std::span(file.data(), size)));
    ASSERT_FALSE(parsed.ok()) << size;
  }
  EXPECT_NE(Open(file.substr(0, file.size() - 1)).find("truncated or damaged"), std::string::npos);
}

TEST_F(GgufTest, NoChangedByteOfTheHeaderCrashes) {
  const auto [file, header] = TinyGguf(Small()).Build();
  int refused = 0;
  for (std::size_t at = 0; at < header; ++at) {
    for (const int change : {0xFF, 0x80, 0x01, 0x00}) {
      std::string changed = file;
      changed[at] = static_cast<char>(change == 0x00 ? 0 : changed[at] ^ change);
      if (change == 0xFF) changed[at] = static_cast<char>(0xFF);
      refused += Open(changed).empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(GgufTest, NoHugeNumberInTheHeaderCrashes) {
  const auto [file, header] = TinyGguf(Small()).Build();
  for (std::size_t at = 0; at + 8 < header; ++at) {
    for (const std::uint64_t value :
         {UINT64_MAX, std::uint64_t{1} << 63, UINT64_MAX / 4 + 1, std::uint64_t{UINT32_MAX}}) {
      Open(Overwritten(file, at, value));
    }
  }
}

TEST_F(GgufTest, HeaderCountsHaveLimits) {
  const std::string file = TinyGguf(Small()).Build().first;
  EXPECT_NE(
      Open(Overwritten(file, 8, 65537)).find("states 65537 tensors; at most 65536"),
      std::string::npos
  );
  EXPECT_NE(
      Open(Overwritten(file, 16, 65537)).find("states 65537 keys; at most 65536"), std::string::npos
  );
}

TEST_F(GgufTest, SaysWhatIsSupported) {
  EXPECT_NE(Open("not a model at all").find("not a GGUF file"), std::string::npos);
  std::string version = TinyGguf(Small()).Build().first;
  version[4] = 1;
  EXPECT_NE(
      Open(version).find("GGUF version 1 is not supported; supported: 2 and 3"), std::string::npos
  );
  TinyModel other = Small();
  other.architecture = "gpt2";
  EXPECT_NE(
      Open(TinyGguf(other)).find("architecture \"gpt2\" is not supported; supported: llama, qwen2"),
      std::string::npos
  );
  std::string type = TinyGguf(Small()).Build().first;
  const std::size_t name = type.find("token_embd.weight");
  type[name + 17 + 4 + 16] = 10;
  EXPECT_NE(
      Open(type).find(
          "type Q2_K, which is not supported; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
          "Q5_1, Q4_K, Q5_K, Q6_K"
      ),
      std::string::npos
  );
}

TEST_F(GgufTest, NamesTheTensorThatIsMissingOrMisshapen) {
  GgufBuilder gguf;
  const std::string file = TinyGguf(Small()).Build().first;
  std::string renamed = file;
  renamed[renamed.find("blk.0.ffn_up.weight")] = 'x';
  EXPECT_NE(Open(renamed).find("tensor \"blk.0.ffn_up.weight\" is missing"), std::string::npos);
  std::string misshapen = file;
  const std::size_t shape = misshapen.find("blk.0.ffn_up.weight") + 19 + 4;
  misshapen = Overwritten(Overwritten(misshapen, shape, 4), shape + 8, 16);
  EXPECT_NE(
      Open(misshapen).find(
          "tensor \"blk.0.ffn_up.weight\" has shape [16, 4], but the configuration asks for [8, 8]"
      ),
      std::string::npos
  );
}

TEST_F(GgufTest, AsksForTheTensorsThatAnArchitectureHas) {
  const std::pair<const char*, const char*> cases[] = {
      {"qwen2", "blk.0.attn_k.bias"},
      {"qwen3", "blk.0.attn_q_norm.weight"},
      {"qwen3", "blk.0.attn_k_norm.weight"},
      {"gemma3", "blk.0.attn_q_norm.weight"},
      {"gemma3", "blk.0.attn_k_norm.weight"},
      {"gemma3", "blk.0.post_attention_norm.weight"},
      {"gemma3", "blk.0.post_ffw_norm.weight"},
  };
  for (const auto& [architecture, tensor] : cases) {
    TinyModel tiny = Small();
    tiny.architecture = architecture;
    std::string file = TinyGguf(tiny).Build().first;
    EXPECT_EQ(Open(file), "");
    file[file.find(tensor)] = 'x';
    EXPECT_EQ(Open(file), Path(file) + ": tensor \"" + tensor + "\" is missing");
  }
}

TEST_F(GgufTest, RefusesRangesThatOverlapOrAreNotAligned) {
  const std::string file = TinyGguf(Small()).Build().first;
  const std::size_t offset = file.find("blk.0.attn_norm.weight") + 22 + 4 + 8 + 4;
  EXPECT_NE(Open(Overwritten(file, offset, 0)).find("overlap"), std::string::npos);
  EXPECT_NE(Open(Overwritten(file, offset, 33)).find("not aligned to 32"), std::string::npos);
  EXPECT_NE(
      Open(Overwritten(file, offset, UINT64_MAX - 31)).find("outside of the file"),
      std::string::npos
  );
}

TEST_F(GgufTest, RefusesOddMetadata) {
  GgufBuilder alignment = TinyGguf(Small());
  alignment.Add("general.alignment", 48U);
  EXPECT_NE(Open(alignment).find("general.alignment is not a power of two"), std::string::npos);
  GgufBuilder twice = TinyGguf(Small());
  twice.Add("general.architecture", "llama");
  EXPECT_NE(Open(twice).find("\"general.architecture\" appears twice"), std::string::npos);
  GgufBuilder split = TinyGguf(Small());
  split.Add("split.count", 3U);
  EXPECT_NE(Open(split).find("one of 3 parts"), std::string::npos);
  GgufBuilder experts = TinyGguf(Small());
  experts.Add("llama.expert_count", 8U);
  EXPECT_NE(Open(experts).find("mixtures of experts"), std::string::npos);
  GgufBuilder eot = TinyGguf(Small());
  eot.Add("tokenizer.ggml.eot_token_id", 600U);
  EXPECT_NE(Open(eot).find("outside of the vocabulary"), std::string::npos);
  GgufBuilder rope = TinyGguf(Small());
  rope.Add("llama.rope.scaling.type", "longrope");
  rope.Add("llama.rope.scaling.factor", 4.F);
  EXPECT_NE(Open(rope).find("supported: none, linear, yarn"), std::string::npos);
}

TEST_F(GgufTest, MessagesAreSafeToPrint) {
  std::string file = TinyGguf(Small()).Build().first;
  std::string evil = file;
  evil.replace(evil.find("blk.0.ffn_up.weight"), 5, "\x1B[2J\n");
  evil[evil.find("token_embd.weight") + 17] = 9;  // its dimensions
  const std::string message = Open(evil);
  EXPECT_NE(message, "");
  for (const char c : message) EXPECT_TRUE(c >= ' ' && c <= '~');
}

TEST_F(GgufTest, ASlidingWindowBoundsTheContext) {
  GgufBuilder gguf = TinyGguf(Small());
  gguf.Add("llama.attention.sliding_window", 10U);
  const auto opened = Checkpoint::Open(Path(gguf.Build().first));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->config().context, 10);
}

TEST_F(GgufTest, ReadsGemma3sWindows) {
  TinyModel gemma = Small();
  gemma.architecture = "gemma3";
  gemma.window = 10;
  GgufBuilder gguf = TinyGguf(gemma);
  gguf.Add("gemma3.attention.sliding_window_pattern", 3U);
  const auto opened = Checkpoint::Open(Path(gguf.Build().first));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelConfig& config = (*opened)->config();
  EXPECT_EQ(config.context, 16);
  EXPECT_EQ(config.window, 10);
  EXPECT_TRUE(config.HasWindow(0) && config.HasWindow(1) && !config.HasWindow(2));
  EXPECT_FLOAT_EQ(config.window_rope_theta, 100);
  EXPECT_EQ(config.query_scale, std::nullopt);
  GgufBuilder capped = TinyGguf(gemma);
  capped.Add("gemma3.final_logit_softcapping", 30.F);
  EXPECT_NE(Open(capped).find("final_logit_softcapping is not supported"), std::string::npos);
}

TEST_F(GgufTest, TellsTheLargestGemma3sScaleByItsLayers) {
  TinyModel gemma = Small();
  gemma.architecture = "gemma3";
  gemma.layers = 62;
  const auto opened = Checkpoint::Open(Path(TinyGguf(gemma).Build().first));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->config().query_scale, 0.5F);  // 8 hidden by 2 heads
}

TEST_F(GgufTest, HandsOutRopeFrequencies) {
  GgufBuilder gguf = TinyGguf(Small());
  gguf.AddTensor("rope_freqs.weight", TensorType::kF32, {2}, std::string(8, '\0'));
  EXPECT_EQ(Open(gguf), "");
  GgufBuilder misshapen = TinyGguf(Small());
  misshapen.AddTensor("rope_freqs.weight", TensorType::kF32, {3}, std::string(12, '\0'));
  EXPECT_NE(Open(misshapen).find("\"rope_freqs.weight\" has shape [3]"), std::string::npos);
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{1}, {1, 4096}}) {
    GgufBuilder bias = TinyGguf(Small());
    const auto bytes = static_cast<std::size_t>(4 * shape.back());
    bias.AddTensor("output.bias", TensorType::kF32, shape, std::string(bytes, '\0'));
    EXPECT_NE(Open(bias).find("\"output.bias\" has shape ["), std::string::npos);
  }
}

}  // namespace
}  // namespace millstream
