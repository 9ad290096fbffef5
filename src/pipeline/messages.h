// SPDX-License-Identifier: Apache-2.0
// Conversations that come from rows, for chat templates.

#pragma once

#include <string>

#include "base/status.h"
#include "nlohmann/json.hpp"

namespace millstream {

/// A role as a template gets it. Templates compare roles with the well-known ones, so those stay
/// plain; any other is row text and stays marked.
std::string RoleText(const std::string& marked);

/// The messages of a row's list of {"role", "content"}, marked as row text throughout, unless
/// `parse_special`. Invalid says what is wrong with it.
Result<nlohmann::ordered_json> MarkedMessages(
    const nlohmann::ordered_json& value, const std::string& special_tokens, bool parse_special
);

}  // namespace millstream
