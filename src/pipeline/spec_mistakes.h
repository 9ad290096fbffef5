// SPDX-License-Identifier: Apache-2.0
// Collects the mistakes of one job file while reading goes on.

#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "pipeline/parse_spec.h"
#include "pipeline/yaml_tree.h"

namespace millstream {

class SpecMistakes {
 public:
  explicit SpecMistakes(std::string file) : file_(std::move(file)) {}

  /// About `node`, whose key's path is `path`.
  void Add(const YamlNode& node, std::string path, std::string message);
  void Add(std::string file, SpecPlace place, std::string message);

  const std::string& file() const { return file_; }
  bool empty() const { return mistakes_.empty(); }
  /// In the order of the file, the command line's first.
  const std::vector<SpecMistake>& mistakes() const { return mistakes_; }
  /// Invalid, one line a mistake.
  Status ToStatus() const;

 private:
  const std::string file_;
  std::vector<SpecMistake> mistakes_;
};

}  // namespace millstream
