// SPDX-License-Identifier: Apache-2.0
// Moving an output aside, with all that belongs to it.
#include <utility>

#include "fmt/format.h"
#include "ledger/ledger.h"
#include "ledger/published.h"
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

// Whether the job of a state published a file that stands, as far as is known.
Result<bool> WasPublished(
    Storage& storage, const std::string& state, const std::string& which, const std::string& path
) {
  const auto history = ReadJournals(storage, state);
  if (IsConflict(history.status())) return false;  // damaged
  MS_RETURN_NOT_OK(history.status());
  MS_ASSIGN_OR_RETURN(const FileMark mark, MarkOf(storage, path));
  return PublishedAs(*history, which).MayHave(mark);
}

// Whether a job stands there, whose state and output are to be moved, and the file of its failed
// rows. A Conflict, as of a run that is to begin there, if what stands is not the job's.
Result<bool> IsJobs(Storage& storage, const OutputLayout& layout) {
  MS_ASSIGN_OR_RETURN(const bool born, FileExists(storage, layout.state + "/job.json"));
  if (!born) {
    MS_RETURN_NOT_OK(Ledger::Load(storage, layout).status());
    return false;
  }
  if (layout.errors.empty()) return true;
  MS_ASSIGN_OR_RETURN(const bool has_errors, FileExists(storage, layout.errors));
  if (!has_errors) return true;
  // Unlike the output its place says nothing. A damaged state is moved, and names no file.
  MS_ASSIGN_OR_RETURN(
      const bool is_published, WasPublished(storage, layout.state, "errors", layout.errors)
  );
  return is_published ? Result<bool>(true) : NotPublished(layout.errors);
}

// Whether what stands at a path was left there when the state of its job was moved aside. Another's
// may have been put where nothing had stood.
Result<bool> IsLeft(
    Storage& storage, const OutputLayout& aside, bool is_output, const std::string& path
) {
  if (aside.is_single_file) {
    return WasPublished(storage, aside.state, is_output ? "output" : "errors", path);
  }
  // A part stands only after its intent.
  MS_ASSIGN_OR_RETURN(const auto intents, storage.List(aside.state + "/intents"));
  return !intents.empty();
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
  std::vector<std::string> moved;
  MS_ASSIGN_OR_RETURN(const bool is_jobs, IsJobs(storage, layout));
  MS_ASSIGN_OR_RETURN(const bool has_state, FileExists(storage, layout.state));
  if (!has_state) return moved;
  for (int number = 1;; ++number) {
    const OutputLayout aside = Aside(layout, number);
    bool is_taken = false;
    for (const std::string& path : {aside.state, aside.output, aside.errors}) {
      if (path.empty()) continue;
      MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, path));
      is_taken = is_taken || exists;
    }
    if (is_taken) continue;
    // The state first: what is left of a move that stopped here is known by it.
    for (const auto& [from, to] :
         {std::pair(layout.state, aside.state),
          {layout.output, aside.output},
          {layout.errors, aside.errors}}) {
      if (from.empty()) continue;
      MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, from));
      if (!exists) continue;
      MS_RETURN_NOT_OK(storage.Publish(from, to));
      moved.push_back(to);
      if (!is_jobs) break;  // nothing but a state stands there
    }
    return moved;
  }
}

Status FinishMoveAside(Storage& storage, const OutputLayout& layout) {
  if (IsObjectPath(layout.output)) return Status::OK();
  MS_ASSIGN_OR_RETURN(const bool has_state, FileExists(storage, layout.state));
  if (has_state) return Status::OK();
  for (const bool is_output : {true, false}) {
    const std::string& path = is_output ? layout.output : layout.errors;
    if (path.empty()) continue;
    MS_ASSIGN_OR_RETURN(const bool exists, FileExists(storage, path));
    for (int number = 1; exists; ++number) {
      const OutputLayout aside = Aside(layout, number);
      MS_ASSIGN_OR_RETURN(const bool state_moved, FileExists(storage, aside.state));
      if (!state_moved) break;
      const std::string& to = is_output ? aside.output : aside.errors;
      MS_ASSIGN_OR_RETURN(const bool moved, FileExists(storage, to));
      if (moved) continue;
      MS_ASSIGN_OR_RETURN(const bool is_left, IsLeft(storage, aside, is_output, path));
      if (is_left) MS_RETURN_NOT_OK(storage.Publish(path, to));
      break;
    }
  }
  return Status::OK();
}

}  // namespace millstream
