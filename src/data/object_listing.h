// SPDX-License-Identifier: Apache-2.0
// From an S3 path of a job file to the objects it names.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "storage/object_store.h"

namespace millstream {

/// Expands "s3://bucket/key", a folder ("s3://bucket/folder", with or without a '/' at its end) or
/// a pattern, as ListInput does on the disk. Each object's key is its whole path. Fails if there is
/// none.
Result<std::vector<StoredObject>> FindObjects(const std::string& given);

/// Whether a path matches a pattern, component by component; `**` stands for any folders, and at
/// the end for any files in them.
bool MatchesPattern(std::string_view pattern, std::string_view path);

}  // namespace millstream
