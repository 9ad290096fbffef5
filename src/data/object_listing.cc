// SPDX-License-Identifier: Apache-2.0
#include "data/object_listing.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "data/listing.h"
#include "storage/object_file.h"
#include "storage/storage.h"

namespace millstream {
namespace {

using Components = std::vector<std::string>;

Components ComponentsOf(std::string_view path) {
  Components components;
  for (;;) {
    const std::size_t slash = path.find('/');
    components.emplace_back(path.substr(0, slash));
    if (slash == path.npos) return components;
    path.remove_prefix(slash + 1);
  }
}

bool IsAnyHidden(const Components& path, std::size_t from) {
  return std::any_of(path.begin() + static_cast<std::ptrdiff_t>(from), path.end(), IsHidden);
}

// Matches components [p, end) of the pattern with components [n, end) of the path.
bool Matches(const Components& pattern, std::size_t p, const Components& path, std::size_t n) {
  for (; p < pattern.size(); ++p, ++n) {
    if (pattern[p] == "**") {
      if (p + 1 == pattern.size()) return n < path.size() && !IsAnyHidden(path, n);
      for (; n < path.size(); ++n) {
        if (Matches(pattern, p + 1, path, n)) return true;
        if (IsHidden(path[n])) return false;
      }
      return false;
    }
    if (n == path.size() || ::fnmatch(pattern[p].c_str(), path[n].c_str(), FNM_PERIOD) != 0) {
      return false;
    }
  }
  return n == path.size();
}

}  // namespace

bool MatchesPattern(std::string_view pattern, std::string_view path) {
  return Matches(ComponentsOf(pattern), 0, ComponentsOf(path), 0);
}

Result<std::vector<StoredObject>> FindObjects(const std::string& given) {
  std::vector<StoredObject> found;
  const bool is_file_name =
      !given.ends_with('/') && ComponentsOf(given).size() > 3;  // s3: "" bucket key
  if (is_file_name) {
    auto object = StatObject(given);
    if (object.ok()) {
      object->key = given;
      found.push_back(*std::move(object));
      return found;
    }
    if (!IsNotFound(object.status())) return object.status();
  }
  const std::size_t wild = given.find_first_of("*?[");
  if (wild != given.npos) {
    MS_ASSIGN_OR_RETURN(auto objects, ListObjects(given.substr(0, wild)));
    for (StoredObject& object : objects) {
      const bool fits = !object.key.ends_with('/') && MatchesPattern(given, object.key);
      if (fits) found.push_back(std::move(object));
    }
    if (found.empty()) return Status::IOError("input pattern ", given, " matches no object");
    return found;
  }
  const std::string folder = given.ends_with('/') ? given : given + "/";
  MS_ASSIGN_OR_RETURN(auto objects, ListObjects(folder));
  for (StoredObject& object : objects) {
    const Components below = ComponentsOf(std::string_view(object.key).substr(folder.size()));
    if (!IsAnyHidden(below, 0)) found.push_back(std::move(object));
  }
  if (!found.empty()) return found;
  if (objects.empty()) {
    return Status::IOError(
        "input ", given, " does not exist: no object has this name or lies below"
    );
  }
  return Status::IOError(
      "input folder ", given, " holds no files; names that begin with . or _ do not count"
  );
}

}  // namespace millstream
