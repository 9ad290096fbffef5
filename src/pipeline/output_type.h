// SPDX-License-Identifier: Apache-2.0
// From a JSON Schema to the Arrow type of the answers that it constrains.

#pragma once

#include <memory>
#include <string>

#include "arrow/type_fwd.h"
#include "nlohmann/json.hpp"

namespace millstream {

struct OutputType {
  std::shared_ptr<arrow::DataType> type;
  bool is_json_text = false;  // the column keeps the answer as JSON text
  std::string why_text;  // which part of the schema has no Arrow type: "anyOf at #/properties/x"
};

/// Strings, integers, numbers, booleans, enums of one of these, arrays and closed objects have a
/// type; `anyOf`, maps and recursion make that part JSON text.
OutputType TypeOfSchema(const nlohmann::ordered_json& schema);

/// The schema with every object that names its properties closed, unless it says otherwise: an
/// answer then has no key that its column has no place for.
nlohmann::ordered_json CloseObjects(const nlohmann::ordered_json& schema);

}  // namespace millstream
