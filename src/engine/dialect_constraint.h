// SPDX-License-Identifier: Apache-2.0
// How each kind of OpenAI-compatible server is asked for a constrained answer.

#pragma once

#include "base/status.h"
#include "engine/dialect.h"
#include "nlohmann/json.hpp"

namespace millstream {

/// Adds to a request's body what asks a server of this dialect for `constraint`: an object of one
/// key, `json` (a schema), `choice` (a list of texts), `regex` or `grammar` (Lark), as
/// `structured_outputs` of the job file. Invalid, with what can be done, if the dialect lacks it.
Status AddConstraint(
    Dialect dialect,
    Endpoint endpoint,
    const nlohmann::ordered_json& constraint,
    nlohmann::ordered_json& body
);

}  // namespace millstream
