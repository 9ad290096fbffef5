// SPDX-License-Identifier: Apache-2.0
// From the paths of a job file to the files of its input.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "data/input.h"

namespace millstream {

/// Expands files, globs (`*`, `?`, `[a-z]`, `**` for any folders) and folders (with all in them,
/// but for names that begin with `.` or `_` and the state folders of jobs). The files come sorted
/// by name, each once, with their format, compression, size and time or etag. Fails if something is
/// missing, empty or of another format than it is taken for, or formats are mixed.
Result<std::vector<InputFile>> ListInput(const InputOptions& options);

/// Whether a folder's listing leaves this name out.
bool IsHidden(std::string_view name);

/// The hash that pins a file: of a text file or Arrow stream all bytes, else of its footer.
/// REQUIRES: size_bytes is set.
Result<std::uint64_t> HashFile(const InputFile& file);

/// Whether a line file has more bytes than when it was pinned, begins with what it was, and its
/// last record then was whole: what came since begins with a line of its own.
Result<bool> HasGrown(const InputFile& pinned, const InputFile& now);

/// OK if a file still is what it was when it was pinned: size and time, or size and hash; of an
/// object size and etag.
Status CheckFile(const InputFile& pinned);

/// Size and time, or etag, of a file as it is now.
Status StatFile(InputFile& file);

}  // namespace millstream
