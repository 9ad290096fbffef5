// SPDX-License-Identifier: Apache-2.0
// For tests: a tiny random model, opened.

#pragma once

#include <memory>

#include "engine/language_model.h"
#include "model/testing.h"

namespace millstream {

/// Writes the model into the test's temporary folder and opens it. Ids: 0 to 2 are special
/// (<|endoftext|>, <|im_start|>, <|im_end|>), of which 0 and 2 stop.
std::shared_ptr<const LanguageModel> OpenTinyLanguageModel(const TinyModel& tiny);

}  // namespace millstream
