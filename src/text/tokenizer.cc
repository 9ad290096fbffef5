// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include "text/interop.h"

namespace millstream {

namespace {

std::vector<MsView> ViewsOf(std::span<const std::string_view> texts) {
  std::vector<MsView> views;
  views.reserve(texts.size());
  for (const auto text : texts) views.push_back(ViewOf(text));
  return views;
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  MsBytes error{};
  void* const handle = ms_tokenizer_from_json(ViewOf(tokenizer_json), &error);
  if (handle == nullptr) return Failure(error);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(handle));
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(const GgufVocabulary& vocabulary) {
  const auto tokens = ViewsOf(vocabulary.tokens);
  const auto merges = ViewsOf(vocabulary.merges);
  const MsGguf gguf{
      .model = ViewOf(vocabulary.model),
      .pre = ViewOf(vocabulary.pre),
      .tokens = tokens.data(),
      .num_tokens = tokens.size(),
      .token_types = vocabulary.token_types.data(),
      .num_token_types = vocabulary.token_types.size(),
      .scores = vocabulary.scores.data(),
      .num_scores = vocabulary.scores.size(),
      .merges = merges.data(),
      .num_merges = merges.size(),
      .bos_token = vocabulary.bos_token.value_or(-1),
      .eos_token = vocabulary.eos_token.value_or(-1),
      .unknown_token = vocabulary.unknown_token.value_or(-1),
      .add_bos = vocabulary.add_bos,
      .add_eos = vocabulary.add_eos,
      .add_space_prefix = vocabulary.add_space_prefix,
  };
  MsBytes error{};
  void* const handle = ms_tokenizer_from_gguf(&gguf, &error);
  if (handle == nullptr) return Failure(error);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(handle));
}

Tokenizer::~Tokenizer() {
  ms_tokenizer_free(handle_);
}

Result<std::vector<std::int32_t>> Tokenizer::Encode(
    std::string_view marked, bool add_special_tokens
) const {
  MsTokens tokens{};
  MsBytes error{};
  if (!ms_tokenizer_encode(handle_, ViewOf(marked), add_special_tokens, &tokens, &error))
    return Failure(error);
  std::vector<std::int32_t> ids(tokens.data, tokens.data + tokens.size);
  ms_tokens_free(tokens);
  return ids;
}

Result<std::string> Tokenizer::Decode(
    std::span<const std::int32_t> tokens, bool skip_special_tokens
) const {
  MsBytes out{};
  if (!ms_tokenizer_decode(handle_, tokens.data(), tokens.size(), skip_special_tokens, &out))
    return Failure(out);
  return Take(out);
}

std::string_view Tokenizer::TokenBytes(std::int32_t token) const {
  return TextOf(ms_tokenizer_token_bytes(handle_, token));
}

std::int32_t Tokenizer::vocabulary_size() const {
  return ms_tokenizer_vocabulary_size(handle_);
}

std::optional<std::int32_t> Tokenizer::TokenId(std::string_view token) const {
  const std::int32_t id = ms_tokenizer_token_id(handle_, ViewOf(token));
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Tokenizer::IsSpecial(std::int32_t token) const {
  return ms_tokenizer_is_special(handle_, token);
}

std::string Tokenizer::TokenText(std::int32_t token) const {
  return std::string(TextOf(ms_tokenizer_token_text(handle_, token)));
}

std::string_view Tokenizer::special_tokens() const {
  return TextOf(ms_tokenizer_special_tokens(handle_));
}

}  // namespace millstream
