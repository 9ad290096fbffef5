// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "model/testing.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::uint32_t Crc32(const std::byte* data, std::size_t size) {
  std::uint32_t crc = ~0U;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= std::to_integer<std::uint32_t>(data[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320U & (~(crc & 1) + 1));
  }
  return ~crc;
}

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    fs::remove_all(folder_);
    EXPECT_TRUE(WriteTinyFolder(model_, folder_.string()).ok());
  }
  ~FolderTest() override { fs::remove_all(folder_); }

  std::string Message() const {
    const auto opened = Checkpoint::Open(folder_.string());
    return opened.ok() ? "" : opened.status().message();
  }

  void Change(const std::string& file, const json& patch) const {
    json value = json::parse(std::ifstream(folder_ / file));
    value.merge_patch(patch);
    EXPECT_TRUE(WriteFile((folder_ / file).string(), value.dump()).ok());
  }

  void Write(const std::string& file, const std::string& text) const {
    EXPECT_TRUE(WriteFile((folder_ / file).string(), text).ok());
  }

  const TinyModel model_ = {
      .layers = 1,
      .hidden = 8,
      .feed_forward = 8,
      .heads = 2,
      .kv_heads = 1,
      .tied_embeddings = false
  };
  /// Puts a model of gemma3 in the folder.
  void WriteGemma() {
    fs::remove_all(folder_);
    TinyModel gemma;
    gemma.architecture = "gemma3";
    ASSERT_TRUE(WriteTinyFolder(gemma, folder_.string()).ok());
  }

  struct Refusal {
    json patch;
    std::string message;
  };
  /// That config.json, changed so, is refused with that message.
  void ExpectRefusals(const std::vector<Refusal>& refusals) const {
    const std::string original = json::parse(std::ifstream(folder_ / "config.json")).dump();
    for (const auto& [patch, message] : refusals) {
      Write("config.json", original);
      Change("config.json", patch);
      EXPECT_NE(Message().find(message), std::string::npos)
          << Message() << "\nexpected: " << message;
    }
  }

  const fs::path folder_ =
      fs::path(testing::TempDir()) /
      (std::string("folder_test_") + testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST(FolderOracleTest, ReadsWhatTheSafetensorsPackageWrote) {
  const auto opened = Checkpoint::Open(MS_TEST_DATA "/model/tiny-llama");
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint& model = **opened;
  const std::map<std::string, std::string> names = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
      {"model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"},
      {"model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias"},
      {"model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"},
      {"model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"},
      {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"},
      {"model.layers.0.self_attn.v_proj.bias", "blk.0.attn_v.bias"},
      {"model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"},
      {"model.layers.0.self_attn.o_proj.bias", "blk.0.attn_output.bias"},
      {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
      {"model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"},
      {"model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"},
      {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"},
  };
  std::ifstream expected(MS_TEST_DATA "/model/tiny-llama.tsv");
  std::string name, type, shape;
  std::uint32_t crc = 0;
  std::size_t seen = 0;
  while (expected >> name >> type >> shape >> crc) {
    const auto ours = names.find(name);
    if (ours == names.end()) continue;  // inv_freq
    ++seen;
    const TensorView* tensor = model.Find(ours->second);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(TensorTypeName(tensor->type), type) << name;
    std::ostringstream dimensions;
    for (const auto n : tensor->shape) dimensions << (dimensions.tellp() > 0 ? "," : "") << n;
    EXPECT_EQ(dimensions.str(), shape) << name;
    EXPECT_EQ(Crc32(tensor->data, tensor->size_bytes), crc) << name;
  }
  EXPECT_EQ(seen, names.size());
}

TEST(FolderOracleTest, ReadsTheConfiguration) {
  const auto opened = Checkpoint::Open(MS_TEST_DATA "/model/tiny-llama");
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint& model = **opened;
  EXPECT_EQ(model.config().architecture, "llama");
  EXPECT_FALSE(model.config().rope_interleaved);
  EXPECT_EQ(model.config().head_dim, 4);
  EXPECT_EQ(model.config().kv_heads, 1);
  EXPECT_FLOAT_EQ(model.config().rope_theta, 500000);
  EXPECT_EQ(model.config().rope_scaling.kind, RopeScaling::Kind::kLlama3);
  EXPECT_FLOAT_EQ(model.config().rope_scaling.factor, 8);
  EXPECT_EQ(model.config().rope_scaling.original_context, 32);
  EXPECT_FALSE(model.config().tied_embeddings);
  EXPECT_EQ(model.stop_tokens, (std::vector<std::int32_t>{4, 3}));
  EXPECT_EQ(model.bos_token, "<|begin|>");
  EXPECT_EQ(model.eos_token, "<|stop|>");
  EXPECT_EQ(model.chat_template, "D");
  EXPECT_EQ(model.defaults.source, "generation_config.json");
  EXPECT_EQ(model.defaults.temperature, 0.6);
  EXPECT_EQ(model.defaults.top_p, 0.9);
  EXPECT_EQ(model.defaults.top_k, 40);
  EXPECT_EQ(model.defaults.max_tokens, 7);
  EXPECT_FALSE(model.defaults.min_p.has_value());
}

TEST_F(FolderTest, ShardsAndOneFileAreTheSameModel) {
  const fs::path sharded = folder_ / "sharded";
  ASSERT_TRUE(WriteTinyFolder(model_, sharded.string(), 3).ok());
  const auto one = Checkpoint::Open(folder_.string());
  const auto three = Checkpoint::Open(sharded.string());
  ASSERT_TRUE(one.ok() && three.ok()) << one.status() << three.status();
  for (const char* name :
       {"token_embd.weight", "output.weight", "blk.0.attn_k.weight", "blk.0.ffn_norm.weight"}) {
    const TensorView* a = (*one)->Find(name);
    const TensorView* b = (*three)->Find(name);
    ASSERT_TRUE(a != nullptr && b != nullptr) << name;
    ASSERT_EQ(a->size_bytes, b->size_bytes);
    EXPECT_EQ(std::memcmp(a->data, b->data, a->size_bytes), 0) << name;
  }
}

TEST_F(FolderTest, HoldsTheSameValuesAsTheGguf) {
  const std::string gguf = (folder_ / "tiny.gguf").string();
  ASSERT_TRUE(WriteFile(gguf, TinyGguf(model_).Build().first).ok());
  const auto a = Checkpoint::Open(gguf);
  const auto b = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  const TensorView* v = (*a)->Find("blk.0.attn_v.weight");
  EXPECT_EQ(std::memcmp(v->data, (*b)->Find("blk.0.attn_v.weight")->data, v->size_bytes), 0);
  // Queries: head 0 has 4 rows; GGUF's row 1 is the first of the second half.
  const std::size_t row_bytes = 8 * sizeof(float);
  const std::byte* interleaved = (*a)->Find("blk.0.attn_q.weight")->data;
  const std::byte* halves = (*b)->Find("blk.0.attn_q.weight")->data;
  EXPECT_EQ(std::memcmp(interleaved + row_bytes, halves + 2 * row_bytes, row_bytes), 0);
  EXPECT_EQ((*a)->stop_tokens, (*b)->stop_tokens);
  EXPECT_EQ((*a)->chat_template, (*b)->chat_template);
  EXPECT_NE((*a)->hash, (*b)->hash);
}

TEST_F(FolderTest, TiedEmbeddingsHideTheHead) {
  Change("config.json", {{"tie_word_embeddings", true}});
  const auto opened = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE((*opened)->config().tied_embeddings);
  EXPECT_EQ((*opened)->Find("output.weight"), nullptr);
}

TEST_F(FolderTest, ChatTemplateFileComesFirst) {
  Write("chat_template.jinja", "{{ own }}");
  const auto opened = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->chat_template, "{{ own }}");
}

TEST_F(FolderTest, ReadsYarnAndNewerRopeParameters) {
  Change(
      "config.json",
      {{"rope_theta", nullptr},
       {"rope_parameters",
        {{"rope_type", "yarn"},
         {"factor", 4.0},
         {"rope_theta", 77.0},
         {"original_max_position_embeddings", 128}}}}
  );
  const auto opened = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelConfig& config = (*opened)->config();
  EXPECT_FLOAT_EQ(config.rope_theta, 77);
  EXPECT_EQ(config.context, 512);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_FLOAT_EQ(config.rope_scaling.attention_factor, 1.1386294F);  // 0.1 ln 4 + 1
}

TEST_F(FolderTest, RefusesConfigurationsByName) {
  ExpectRefusals({
      {{{"architectures", {"GemmaForCausalLM"}}},
       "architecture \"GemmaForCausalLM\" is not supported; supported: llama"},
      {{{"architectures", json::array()}}, "architectures is not a list of names"},
      {{{"quantization_config", {{"quant_method", "gptq"}}}},
       "quantised safetensors are not supported"},
      {{{"hidden_act", "gelu"}}, "hidden_act \"gelu\" is not supported; supported: silu"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is not supported"},
      {{{"hidden_size", nullptr}}, "config.json: hidden_size is missing"},
      {{{"hidden_size", "8"}}, "config.json: hidden_size is not an integer"},
      {{{"num_attention_heads", 0}}, "num_attention_heads is not at least 1"},
      {{{"num_key_value_heads", 3}}, "2 heads cannot share 3 key-value heads evenly"},
      {{{"num_hidden_layers", 2}}, "tensor \"blk.1.attn_norm.weight\" is missing"},
      {{{"intermediate_size", 16}}, "has shape [8, 8], but the configuration asks for [16, 8]"},
      {{{"attention_bias", true}}, "tensor \"blk.0.attn_q.bias\" is missing"},
      {{{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}},
       "\"dynamic\" is not supported; supported: default, linear, llama3, yarn"},
      {{{"rope_scaling", {{"type", "linear"}}}}, "RoPE's factor is not a positive number"},
      {{{"eos_token_id", 5000}}, "eos_token_id 5000 is outside of the vocabulary"},
      {{{"eos_token_id", "</s>"}}, "eos_token_id is not an id or a list of ids"},
      {{{"rms_norm_eps", 0}}, "epsilon is not a positive number"},
      {{{"head_dim", 3}}, "the head size 3 is odd"},
  });
}

TEST_F(FolderTest, ReadsGemma3sOlderConfiguration) {
  WriteGemma();
  const auto opened = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelConfig& config = (*opened)->config();
  EXPECT_EQ(config.window, 24);
  EXPECT_EQ(config.window_pattern, 6);
  EXPECT_FLOAT_EQ(config.window_rope_theta, 100);
  EXPECT_FLOAT_EQ(config.rope_theta, 10000);
  EXPECT_FLOAT_EQ(config.rope_scaling.factor, 8);
  EXPECT_EQ(config.context, 128);
}

TEST_F(FolderTest, ReadsGemma3sNewerConfiguration) {
  WriteGemma();
  Change(
      "config.json",
      {{"rope_theta", nullptr},
       {"rope_local_base_freq", nullptr},
       {"rope_scaling", nullptr},
       {"rope_parameters",
        {{"full_attention", {{"rope_type", "linear"}, {"factor", 4.0}}},
         {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 77.0}}}}},
       {"layer_types", {"sliding_attention", "full_attention"}},
       {"query_pre_attn_scalar", 25}}
  );
  const auto opened = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelConfig& config = (*opened)->config();
  EXPECT_EQ(config.window_pattern, 2);
  EXPECT_FLOAT_EQ(config.window_rope_theta, 77);
  EXPECT_FLOAT_EQ(config.rope_theta, 1000000);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_FLOAT_EQ(config.rope_scaling.factor, 4);
  EXPECT_FLOAT_EQ(config.query_scale.value_or(0), 0.2F);
}

TEST_F(FolderTest, RefusesVariantsOfGemma3ByName) {
  WriteGemma();
  ExpectRefusals({
      {{{"hidden_activation", "gelu"}}, "hidden_activation \"gelu\" is not supported"},
      {{{"final_logit_softcapping", 30.0}}, "final_logit_softcapping is not supported"},
      {{{"attn_logit_softcapping", 50.0}}, "attn_logit_softcapping is not supported"},
      {{{"use_bidirectional_attention", true}}, "use_bidirectional_attention is not supported"},
      {{{"query_pre_attn_scalar", 0}}, "the scale of queries is not a positive number"},
      {{{"query_pre_attn_scalar", -4}}, "the scale of queries is not a positive number"},
      {{{"sliding_window", -1}}, "the window is -1, not within 1 and"},
      {{{"sliding_window_pattern", 0}}, "the windows' pattern is 0, not within 1 and"},
      {{{"layer_types", {"full_attention"}}}, "layer_types is not a list of the layers' types"},
      {{{"layer_types", {"full_attention", "sliding_attention"}}},
       "layer_types that repeat no pattern are not supported"},
      {{{"layer_types", {"sliding_attention", 7}}},
       "layer_types that repeat no pattern are not supported"},
      {{{"rope_local_base_freq", 0.5}}, "the windows' RoPE base is not a number above 1"},
      {{{"rope_parameters", {{"sliding_attention", 3}}}}, "sliding_attention is not an object"},
      {{{"rope_parameters", {{"sliding_attention", {{"rope_type", "linear"}, {"factor", 2}}}}}},
       "sliding_attention that is scaled is not supported"},
  });
}

TEST_F(FolderTest, RefusesWeightsThatCanRunCode) {
  fs::rename(folder_ / "model.safetensors", folder_ / "pytorch_model.bin");
  EXPECT_NE(
      Message().find("pytorch_model.bin can run code when it is loaded and is refused"),
      std::string::npos
  );
  for (const char* name : {"m.bin", "m.pt", "m.pkl", "m.pth"}) {
    Write(name, "x");
    const auto opened = Checkpoint::Open((folder_ / name).string());
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.status().message().find("are refused; supported: GGUF"), std::string::npos);
  }
}

TEST_F(FolderTest, NamesFilesThatAreMissing) {
  EXPECT_NE(
      Checkpoint::Open((folder_ / "model.safetensors").string())
          .status()
          .message()
          .find("name the folder"),
      std::string::npos
  );
  fs::remove(folder_ / "tokenizer.json");
  EXPECT_NE(Message().find("no tokenizer.json"), std::string::npos);
  fs::remove(folder_ / "config.json");
  EXPECT_NE(Message().find("no config.json"), std::string::npos);
  fs::remove(folder_ / "model.safetensors");
  EXPECT_NE(Message().find("neither model.safetensors nor"), std::string::npos);
  EXPECT_NE(
      Checkpoint::Open((folder_ / "none").string()).status().message().find("no such file"),
      std::string::npos
  );
}

TEST_F(FolderTest, ShardsStayInTheFolder) {
  fs::remove_all(folder_);
  ASSERT_TRUE(WriteTinyFolder(model_, folder_.string(), 2).ok());
  const std::string index = "model.safetensors.index.json";
  for (const char* name :
       {"../model.safetensors", "/etc/passwd", "a\\b.safetensors", "weights.bin"}) {
    Change(index, {{"weight_map", {{"model.norm.weight", name}}}});
    EXPECT_NE(
        Message().find("is not the name of a safetensors file in the folder"), std::string::npos
    ) << Message();
  }
  Change(index, {{"weight_map", {{"model.norm.weight", "model-9-of-9.safetensors"}}}});
  EXPECT_NE(Message().find("model-9-of-9.safetensors: cannot open"), std::string::npos)
      << Message();
  Change(index, {{"weight_map", {{"model.norm.weight", "model-2-of-2.safetensors"}}}});
  EXPECT_NE(Message().find("model-2-of-2.safetensors: tensor"), std::string::npos) << Message();
}

TEST_F(FolderTest, CopiesTensorsThatLieUnaligned) {
  std::ifstream in(folder_ / "model.safetensors", std::ios::binary);
  std::string file((std::istreambuf_iterator<char>(in)), {});
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  file.insert(8 + header, 1, ' ');
  ++header;
  std::memcpy(file.data(), &header, sizeof header);
  const auto before = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(before.ok());
  const TensorView* tensor = (*before)->Find("blk.0.ffn_up.weight");
  const std::string expected(reinterpret_cast<const char*>(tensor->data), tensor->size_bytes);
  fs::remove(folder_ / "model.safetensors");
  Write("model.safetensors", file);
  const auto after = Checkpoint::Open(folder_.string());
  ASSERT_TRUE(after.ok()) << after.status();
  tensor = (*after)->Find("blk.0.ffn_up.weight");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor->data) % 4, 0U);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor->data), tensor->size_bytes), expected);
}

Status ParseText(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  file += header + std::string(data_bytes, 'x');
  return SafetensorsHeader::Parse(std::as_bytes(std::span(file))).status();
}

TEST(SafetensorsTest, ChecksEveryEntry) {
  EXPECT_TRUE(ParseText(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8).ok());
  EXPECT_TRUE(
      ParseText(
          R"({"__metadata__":{"x":{"y":{"z":"1"}}},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})",
          8
      )
          .ok()
  );
  const char* bad[] = {
      R"()",
      R"([])",
      R"({"a":1})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})",
      R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
      R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[9223372036854775800,9223372036854775807]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
  };
  for (const char* header : bad) EXPECT_FALSE(ParseText(header, 8).ok()) << header;
  EXPECT_FALSE(ParseText(std::string(200'000, '['), 8).ok());
}

TEST(SafetensorsTest, NoChangedByteOfTheHeaderCrashes) {
  const std::string file = SafetensorsFile(
      {{"model.norm.weight", "F32", {4}, std::string(16, 'x')},
       {"lm_head.weight", "F16", {2, 2}, std::string(8, 'x')}}
  );
  for (std::size_t at = 0; at < file.size(); ++at) {
    EXPECT_FALSE(SafetensorsHeader::Parse(std::as_bytes(std::span(file.data(), at))).ok());
    for (const char c : {'\xFF', '\0', '9', '"', '}', '[', '-'}) {
      std::string changed = file;
      changed[at] = c;
      const auto parsed = SafetensorsHeader::Parse(std::as_bytes(std::span(changed)));
      if (!parsed.ok()) continue;
      for (const TensorEntry& entry : parsed->tensors) {
        EXPECT_LE(entry.begin + entry.size, changed.size());
      }
    }
  }
}

}  // namespace
}  // namespace millstream
