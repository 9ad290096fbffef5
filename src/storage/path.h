// SPDX-License-Identifier: Apache-2.0
// Paths of files, of the local disk and of S3 ("s3://bucket/key"). '/' separates their parts.

#pragma once

#include <string>
#include <string_view>

namespace millstream {

/// Whether a path names an object of S3.
bool IsObjectPath(std::string_view path);
/// A path without dot parts, empty parts and slashes at its end; a relative one is below `folder`.
/// Of an object only the slashes at its end go: all else is its name.
std::string CleanPath(const std::string& folder, const std::string& path);
/// A clean path with its links resolved, as far as it exists; of an object the path as it is.
std::string ResolvedPath(const std::string& path);
/// Whether a clean path lies below another, or is the same.
bool IsWithin(std::string_view path, std::string_view folder);
/// The folder that a clean path lies in: "." for a name alone, "s3://bucket" at the top of a
/// bucket.
std::string ParentOf(const std::string& path);
/// The last part of a clean path.
std::string LeafOf(const std::string& path);

}  // namespace millstream
