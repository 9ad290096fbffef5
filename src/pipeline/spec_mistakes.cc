// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_mistakes.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace millstream {

void SpecMistakes::Add(const YamlNode& node, std::string path, std::string message) {
  Add(node.option.empty() ? file_ : node.option, {node.line, std::move(path)}, std::move(message));
}

void SpecMistakes::Add(std::string file, SpecPlace place, std::string message) {
  mistakes_.push_back({std::move(file), std::move(place), std::move(message)});
}

std::vector<SpecMistake> SpecMistakes::Sorted() const {
  std::vector<SpecMistake> sorted = mistakes_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const SpecMistake& a, const SpecMistake& b) {
    return a.place.line < b.place.line;
  });
  return sorted;
}

Status SpecMistakes::ToStatus() const {
  std::string text;
  for (const SpecMistake& mistake : Sorted()) {
    if (!text.empty()) text += '\n';
    text += mistake.file;
    if (mistake.place.line > 0) text += fmt::format(":{}", mistake.place.line);
    text += ": ";
    if (!mistake.place.path.empty()) text += mistake.place.path + ": ";
    text += mistake.message;
  }
  return Status::Invalid(text);
}

}  // namespace millstream
