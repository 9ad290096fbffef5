// SPDX-License-Identifier: Apache-2.0
#include "storage/storage.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <system_error>

#include "arrow/util/io_util.h"

namespace millstream {

Status Storage::Publish(const std::string& from, const std::string& to) {
  const Publication file{from, to};
  MS_ASSIGN_OR_RETURN(const std::vector<bool> moved, PublishAll({&file, 1}));
  return moved.front() ? Status::OK() : Status::AlreadyExists(to, " exists already");
}

Status PublishBytes(Storage& storage, const std::string& path, std::string_view bytes) {
  static const std::uint64_t process = std::uint64_t{std::random_device()()} << 32;
  static std::atomic<std::uint32_t> count = 0;
  const std::string unpublished = fmt::format("{}.{:016x}.tmp", path, process | ++count);
  const auto write = [&]() -> Status {
    MS_ASSIGN_OR_RETURN(const auto stream, storage.Create(unpublished));
    MS_RETURN_NOT_OK(stream->Write(bytes));
    MS_RETURN_NOT_OK(stream->Close());
    return storage.Publish(unpublished, path);
  };
  Status status = write();
  // The first failure is the one to report, and a file that stays behind harms nobody.
  if (!status.ok()) (void)storage.Remove(unpublished);
  return status;
}

bool IsNotFound(const Status& status) {
  return arrow::internal::ErrnoFromStatus(status) == ENOENT;
}

bool IsDiskFull(const Status& status) {
  const int error = arrow::internal::ErrnoFromStatus(status);
  return error == ENOSPC || error == EDQUOT;
}

bool IsDiskTrouble(const Status& status) {
  switch (arrow::internal::ErrnoFromStatus(status)) {
    case EIO:
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return true;
    default:
      return IsDiskFull(status);
  }
}

Status FileError(int error, std::string_view operation, std::string_view path) {
  std::string_view advice;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      advice = ": make room and run the same command again, it goes on where it stopped";
      break;
    case EACCES:
    case EPERM:
      advice = ": check the permissions of the folder";
      break;
    case EROFS:
      advice = ": choose an output folder that can be written";
      break;
    case EXDEV:
      advice = ": the output and its state folder must be on one file system";
      break;
    default:
      break;
  }
  const std::string message = fmt::format(
      "cannot {} {}: {}{}", operation, path, std::generic_category().message(error), advice
  );
  return Status::FromDetailAndArgs(
      arrow::StatusCode::IOError, arrow::internal::StatusDetailFromErrno(error), message
  );
}

}  // namespace millstream
