// SPDX-License-Identifier: Apache-2.0
#include "text/answer_check.h"

#include "text/interop.h"

namespace millstream {

Result<std::shared_ptr<const AnswerCheck>> AnswerCheck::Make(
    Grammar::Kind kind, std::string_view source
) {
  MsBytes error{};
  void* const handle = ms_check_new(static_cast<std::uint8_t>(kind), ViewOf(source), &error);
  if (handle == nullptr) return Failure(error);
  return std::shared_ptr<const AnswerCheck>(new AnswerCheck(handle));
}

AnswerCheck::~AnswerCheck() {
  ms_check_free(handle_);
}

Status AnswerCheck::Check(std::string_view answer) const {
  MsBytes error{};
  if (!ms_check_answer(handle_, ViewOf(answer), &error)) return Failure(error);
  return Status::OK();
}

}  // namespace millstream
