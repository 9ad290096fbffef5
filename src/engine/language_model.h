// SPDX-License-Identifier: Apache-2.0
// What the pipeline must know of a model before and while an engine runs it: tokenizer, chat
// template, context.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "text/template.h"
#include "text/tokenizer.h"

namespace millstream {

/// Immutable; thread-safe. Weights are mapped, not yet rearranged.
struct LanguageModel {
  std::string path;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: none
  std::string
      special_tokens;  // texts of the special tokens, joined by '\n': for Expression::Compile
  std::int64_t context = 0;
  std::vector<std::int32_t> stop_tokens;
};

/// Opens what LocateModel found. A chat template (its text) other than the model's own may be
/// given; empty: the model's.
Result<std::shared_ptr<const LanguageModel>> OpenLanguageModel(
    const std::string& path, const std::string& chat_template_override
);

/// The same of the tokenizer and chat template alone, for a model that runs elsewhere: a folder may
/// lack weights.
Result<std::shared_ptr<const LanguageModel>> OpenTokenizerOf(const std::string& path);

}  // namespace millstream
