// SPDX-License-Identifier: Apache-2.0
#include "engine/language_model.h"

#include <utility>

namespace millstream {
namespace {

Result<std::shared_ptr<const Tokenizer>> MakeTokenizer(const Checkpoint& checkpoint) {
  if (!checkpoint.tokenizer_json.empty()) return Tokenizer::FromJson(checkpoint.tokenizer_json);
  const CheckpointVocabulary& own = checkpoint.vocabulary;
  GgufVocabulary vocabulary;
  vocabulary.model = own.model;
  vocabulary.pre = own.pre;
  vocabulary.tokens = own.tokens;
  vocabulary.token_types = own.token_types;
  vocabulary.scores = own.scores;
  vocabulary.merges = own.merges;
  vocabulary.bos_token = own.bos_token;
  vocabulary.eos_token = own.eos_token;
  vocabulary.unknown_token = own.unknown_token;
  vocabulary.add_bos = own.add_bos;
  vocabulary.add_eos = own.add_eos;
  vocabulary.add_space_prefix = own.add_space_prefix;
  return Tokenizer::FromGguf(vocabulary);
}

Status Because(const std::string& what, const Status& status) {
  return status.WithMessage(what, ": ", status.message());
}

// What a checkpoint says of its tokens and chats.
Result<std::shared_ptr<const LanguageModel>> OfCheckpoint(
    std::shared_ptr<const Checkpoint> opened, const std::string& chat_template_override
) {
  auto model = std::make_shared<LanguageModel>();
  model->checkpoint = std::move(opened);
  const Checkpoint& checkpoint = *model->checkpoint;
  model->path = checkpoint.path;
  model->context = checkpoint.config().context;
  model->stop_tokens = checkpoint.stop_tokens;
  auto tokenizer = MakeTokenizer(checkpoint);
  if (!tokenizer.ok()) return Because(model->path + ": tokenizer", tokenizer.status());
  model->tokenizer = tokenizer.MoveValueUnsafe();
  model->special_tokens = model->tokenizer->special_tokens();

  const bool is_own = chat_template_override.empty();
  const std::string& source = is_own ? checkpoint.chat_template : chat_template_override;
  if (!source.empty()) {
    auto compiled = ChatTemplate::Compile(source, checkpoint.bos_token, checkpoint.eos_token);
    if (!compiled.ok()) {
      return Because(is_own ? model->path + ": chat template" : "chat_template", compiled.status());
    }
    model->chat_template = compiled.MoveValueUnsafe();
  }
  return std::shared_ptr<const LanguageModel>(std::move(model));
}

}  // namespace

Result<std::shared_ptr<const LanguageModel>> OpenLanguageModel(
    const std::string& path, const std::string& chat_template_override
) {
  MS_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(path));
  return OfCheckpoint(std::move(checkpoint), chat_template_override);
}

Result<std::shared_ptr<const LanguageModel>> OpenTokenizerOf(const std::string& path) {
  MS_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::OpenTokenizer(path));
  return OfCheckpoint(std::move(checkpoint), "");
}

}  // namespace millstream
