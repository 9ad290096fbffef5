// SPDX-License-Identifier: Apache-2.0
// Moving an output aside, with all that belongs to it.
#include <utility>

#include "fmt/format.h"
#include "ledger/ledger.h"
#include "storage/path.h"

namespace millstream {
namespace {

constexpr std::string_view kAside = ".old-";

// An output's name aside, under which it is still one.
OutputLayout Aside(const OutputLayout& layout, int number) {
  const std::string suffix = layout.is_single_file ? layout.suffix : "";
  const std::string stem = layout.output.substr(0, layout.output.size() - suffix.size());
  OutputLayout aside =
      OutputLayout::Of(fmt::format("{}{}{}{}", stem, kAside, number, suffix), layout.suffix);
  if (!layout.errors.empty()) aside.errors = OutputLayout::ErrorsAside(layout.errors, aside);
  return aside;
}

}  // namespace

std::string OutputLayout::ErrorsAside(const std::string& errors, const OutputLayout& aside) {
  // "out.old-1.jsonl": the errors get the same number.
  const std::string stem = aside.output.substr(0, aside.output.size() - aside.suffix.size());
  const std::size_t number = stem.rfind(kAside);
  const bool is_aside = number != stem.npos &&
                        stem.find_first_not_of("0123456789", number + kAside.size()) == stem.npos;
  if (!is_aside || !errors.ends_with(aside.suffix)) return errors;
  return errors.substr(0, errors.size() - aside.suffix.size()) + stem.substr(number) + aside.suffix;
}

Result<std::vector<std::string>> MoveAside(Storage& storage, const OutputLayout& layout) {
  if (IsObjectPath(layout.output)) {
    return Status::Invalid(fmt::format(
        "{} cannot be moved aside, as an object store has no renames: write elsewhere with "
        "--output, or remove {} and {} yourself",
        layout.output,
        layout.output,
        layout.state
    ));
  }
  // The state first: what is left of a move that stopped here is known by it.
  std::vector<std::string> moved;
  bool has_any = false;
  for (const std::string& path : {layout.state, layout.output, layout.errors}) {
    if (path.empty()) continue;
    MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, path));
    has_any = has_any || exists;
  }
  if (!has_any) return moved;
  for (int number = 1;; ++number) {
    const OutputLayout aside = Aside(layout, number);
    bool is_taken = false;
    for (const std::string& path : {aside.state, aside.output, aside.errors}) {
      if (path.empty()) continue;
      MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, path));
      is_taken = is_taken || exists;
    }
    if (is_taken) continue;
    for (const auto& [from, to] :
         {std::pair(layout.state, aside.state),
          {layout.output, aside.output},
          {layout.errors, aside.errors}}) {
      if (from.empty()) continue;
      MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, from));
      if (!exists) continue;
      MS_RETURN_NOT_OK(storage.Publish(from, to));
      moved.push_back(to);
    }
    return moved;
  }
}

Status FinishMoveAside(Storage& storage, const OutputLayout& layout) {
  if (IsObjectPath(layout.output)) return Status::OK();
  MS_ASSIGN_OR_RETURN(const bool has_state, FileExists(storage, layout.state));
  if (has_state) return Status::OK();
  for (const auto& [path, aside_path] :
       {std::pair(layout.output, &OutputLayout::output), {layout.errors, &OutputLayout::errors}}) {
    if (path.empty()) continue;
    MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, path));
    for (int number = 1; exists; ++number) {
      const OutputLayout aside = Aside(layout, number);
      MS_ASSIGN_OR_RETURN(const bool state_moved, FileExists(storage, aside.state));
      if (!state_moved) break;
      MS_ASSIGN_OR_RETURN(const bool moved, FileExists(storage, aside.*aside_path));
      if (moved) continue;
      MS_RETURN_NOT_OK(storage.Publish(path, aside.*aside_path));
      break;
    }
  }
  return Status::OK();
}

}  // namespace millstream
