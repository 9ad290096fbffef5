// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <utility>

namespace millstream {
namespace {

constexpr char kEngineBroken[] = "millstream::EngineBroken";

class EngineBrokenDetail final : public arrow::StatusDetail {
 public:
  const char* type_id() const override { return kEngineBroken; }
  std::string ToString() const override { return "the engine fails whatever the row"; }
};

}  // namespace

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kRunaway:
      return "runaway";
  }
  return "error";
}

EngineStats& EngineStats::operator+=(const EngineStats& other) {
  for (const auto count : kEngineCounts) this->*count += other.*count;
  cost += other.cost;
  return *this;
}

Status EngineBroken(std::string message) {
  return Status(
      arrow::StatusCode::IOError, std::move(message), std::make_shared<EngineBrokenDetail>()
  );
}

bool IsEngineBroken(const Status& status) {
  return status.detail() != nullptr &&
         status.detail()->type_id() == std::string_view(kEngineBroken);
}

}  // namespace millstream
