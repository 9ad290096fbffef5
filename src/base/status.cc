// SPDX-License-Identifier: Apache-2.0
#include "base/status.h"

#include <memory>
#include <utility>

namespace millstream {
namespace {

constexpr char kConflict[] = "millstream::Conflict";

class ConflictDetail final : public arrow::StatusDetail {
 public:
  const char* type_id() const override { return kConflict; }
  std::string ToString() const override { return "a person must look"; }
};

}  // namespace

Status Conflict(std::string message) {
  return Status(arrow::StatusCode::IOError, std::move(message), std::make_shared<ConflictDetail>());
}

bool IsConflict(const Status& status) {
  return status.detail() != nullptr && status.detail()->type_id() == std::string_view(kConflict);
}

}  // namespace millstream
