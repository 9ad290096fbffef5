// SPDX-License-Identifier: Apache-2.0
#include "storage/path.h"

#include <filesystem>

namespace millstream {

bool IsObjectPath(std::string_view path) {
  return path.starts_with("s3://");
}

std::string CleanPath(const std::string& folder, const std::string& path) {
  std::string clean = IsObjectPath(path)
                          ? path
                          : (std::filesystem::path(folder) / path).lexically_normal().string();
  const std::size_t kept = IsObjectPath(path) ? std::string_view("s3://").size() : 1;
  while (clean.size() > kept && clean.ends_with('/')) clean.pop_back();
  return clean;
}

std::string ResolvedPath(const std::string& path) {
  if (IsObjectPath(path)) return path;
  std::error_code error;
  std::filesystem::path resolved = std::filesystem::absolute(path, error);
  if (!error) resolved = std::filesystem::weakly_canonical(resolved, error);
  return error ? path : resolved.string();
}

bool IsWithin(std::string_view path, std::string_view folder) {
  if (!path.starts_with(folder)) return false;
  return path.size() == folder.size() || folder.ends_with('/') || path[folder.size()] == '/';
}

std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string LeafOf(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);
}

}  // namespace millstream
