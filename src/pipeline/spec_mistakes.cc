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
  const auto after = std::upper_bound(
      mistakes_.begin(),
      mistakes_.end(),
      place.line,
      [](int line, const SpecMistake& mistake) { return line < mistake.place.line; }
  );
  mistakes_.insert(after, {std::move(file), std::move(place), std::move(message)});
}

Status SpecMistakes::ToStatus() const {
  constexpr std::size_t kMaxShown = 1000;
  std::string text;
  for (std::size_t i = 0; i < std::min(mistakes_.size(), kMaxShown); ++i) {
    const SpecMistake& mistake = mistakes_[i];
    if (!text.empty()) text += '\n';
    text += mistake.file;
    if (mistake.place.line > 0) text += fmt::format(":{}", mistake.place.line);
    text += ": ";
    if (!mistake.place.path.empty()) text += mistake.place.path + ": ";
    text += mistake.message;
  }
  if (mistakes_.size() > kMaxShown) {
    text += fmt::format("\n{}: {} more mistakes", file_, mistakes_.size() - kMaxShown);
  }
  return Status::Invalid(text);
}

}  // namespace millstream
