// SPDX-License-Identifier: Apache-2.0
// The one vocabulary of failure: Arrow's Status and Result, and the macros that pass them on.
//
// A failed operation is a Status, a failed row is data (RowError in data/row.h), a bug is a
// MS_CHECK.

#pragma once

#include <string>
#include <utility>

#include "arrow/result.h"
#include "arrow/status.h"

namespace millstream {

using Status = arrow::Status;
template <typename T>
using Result = arrow::Result<T>;

/// A failure that a person must look at: corruption, or an input or output that is not the pinned
/// one. Exit code 4. Keeps its kind through WithMessage.
Status Conflict(std::string message);
bool IsConflict(const Status& status);

}  // namespace millstream

#define MS_CONCAT_(a, b) a##b
#define MS_CONCAT(a, b) MS_CONCAT_(a, b)

/// Returns from the enclosing function if `expression`, a Status, is not OK.
#define MS_RETURN_NOT_OK(expression)                \
  do {                                              \
    ::millstream::Status ms_status_ = (expression); \
    if (!ms_status_.ok()) [[unlikely]]              \
      return ms_status_;                            \
  } while (false)

#define MS_ASSIGN_OR_RETURN_(result, target, expression) \
  auto result = (expression);                            \
  if (!result.ok()) [[unlikely]]                         \
    return result.status();                              \
  target = std::move(result).ValueUnsafe()

/// Evaluates `expression`, a Result, and moves its value into `target`, or returns its Status.
#define MS_ASSIGN_OR_RETURN(target, expression) \
  MS_ASSIGN_OR_RETURN_(MS_CONCAT(ms_result_, __COUNTER__), target, expression)
