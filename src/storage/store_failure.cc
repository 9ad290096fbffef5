// SPDX-License-Identifier: Apache-2.0
#include "storage/store_failure.h"

#include <fmt/format.h>

#include <cerrno>

#include "arrow/util/io_util.h"
#include "base/check.h"

namespace millstream {

Status StoreFailure(const StoreReply& reply, std::string_view operation, std::string_view path) {
  MS_CHECK(!reply.ok());
  const auto failed = [&](int error, std::string_view why) {
    const std::string message = fmt::format("cannot {} {}: {}", operation, path, why);
    if (error == 0) return Status::IOError(message);
    return Status::FromDetailAndArgs(
        arrow::StatusCode::IOError, arrow::internal::StatusDetailFromErrno(error), message
    );
  };
  switch (reply.outcome) {
    case StoreOutcome::kNotFound:
      return failed(ENOENT, "there is no such object");
    case StoreOutcome::kUnavailable:
    case StoreOutcome::kUnknown:
    case StoreOutcome::kConflict:
      return failed(
          EAGAIN,
          "the object store does not answer as it should (" + reply.reason +
              "): run the same command again, it goes on where it stopped"
      );
    case StoreOutcome::kConditionFailed:
      return Conflict(fmt::format("cannot {} {}: another has changed it", operation, path));
    default:
      return failed(0, reply.reason);
  }
}

}  // namespace millstream
