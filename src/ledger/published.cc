// SPDX-License-Identifier: Apache-2.0
#include "ledger/published.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "xxhash.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kOutput = "output";
constexpr const char* kErrors = "errors";

}  // namespace

bool PublishedFiles::MayHave(const FileMark& mark) const {
  return !are_all || std::find(marks.begin(), marks.end(), mark) != marks.end();
}

bool PublishedFiles::MayHaveSize(std::uint64_t bytes) const {
  return !are_all || std::any_of(marks.begin(), marks.end(), [&](const FileMark& mark) {
    return mark.bytes == bytes;
  });
}

PublishedFiles PublishedAs(const JournalHistory& history, const std::string& which) {
  PublishedFiles published;
  bool has_any = false;
  for (const JournalEntry& entry : history.entries) {
    if (entry.type == EntryType::kDone && !has_any) published.are_all = false;
    if (entry.type != EntryType::kOutput) continue;
    has_any = true;
    const auto found = entry.body.find(which);
    FileMark mark;
    if (found != entry.body.end() && ReadMark(*found, &mark)) published.marks.push_back(mark);
  }
  return published;
}

Result<FileMark> MarkOf(Storage& storage, const std::string& path) {
  MS_ASSIGN_OR_RETURN(const auto file, storage.Open(path));
  MS_ASSIGN_OR_RETURN(const std::int64_t size, file->GetSize());
  alignas(64) XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  std::vector<char> buffer(std::size_t{1} << 20);
  for (std::int64_t at = 0; at < size;) {
    MS_ASSIGN_OR_RETURN(
        const std::int64_t got,
        file->ReadAt(
            at, std::min(size - at, static_cast<std::int64_t>(buffer.size())), buffer.data()
        )
    );
    if (got <= 0) return Status::IOError("cannot read ", path, ": it became shorter");
    XXH3_64bits_update(&hash, buffer.data(), static_cast<std::size_t>(got));
    at += got;
  }
  return FileMark{
      fmt::format("{:016x}", XXH3_64bits_digest(&hash)), static_cast<std::uint64_t>(size)
  };
}

Status NotPublished(const std::string& path) {
  return Conflict(
      path +
      " is not what this job wrote there, so it is left as it is: move it away and run the job "
      "again, which then writes its own from what is done, or choose another path"
  );
}

Json ToJson(const FileMark& mark) {
  return {{"hash", mark.hash}, {"bytes", mark.bytes}};
}

bool ReadMark(const Json& json, FileMark* mark) {
  if (!json.is_object() || !json.contains("hash") || !json["hash"].is_string() ||
      !json.contains("bytes") || !json["bytes"].is_number_unsigned()) {
    return false;
  }
  *mark = {json["hash"], json["bytes"]};
  return mark->hash.find('/') == std::string::npos;
}

Result<bool> Ledger::OutputStands() const {
  if (!layout_.is_single_file) return true;
  if (!layout_.errors.empty()) {
    MS_ASSIGN_OR_RETURN(const bool stands, FileExists(storage_, layout_.errors));
    if (!stands) return false;
  }
  return FileExists(storage_, layout_.output);
}

Status Ledger::CheckOutput() const {
  if (!layout_.is_single_file) return Status::OK();
  for (const auto& [which, path] :
       {std::pair(kErrors, &layout_.errors), std::pair(kOutput, &layout_.output)}) {
    if (path->empty()) continue;
    const auto file = storage_.Open(*path);
    if (IsNotFound(file.status())) continue;
    MS_RETURN_NOT_OK(file.status());
    MS_ASSIGN_OR_RETURN(const std::int64_t size, (*file)->GetSize());
    const bool may_be_ours =
        PublishedAs(history_, which).MayHaveSize(static_cast<std::uint64_t>(size));
    if (!may_be_ours) return NotPublished(*path);
  }
  return Status::OK();
}

Status Ledger::CheckOutputBytes() const {
  for (const auto& [which, path] :
       {std::pair(kErrors, &layout_.errors), std::pair(kOutput, &layout_.output)}) {
    const PublishedFiles published = PublishedAs(history_, which);
    if (path->empty() || published.marks.empty()) continue;
    MS_ASSIGN_OR_RETURN(const FileMark mark, MarkOf(storage_, *path));
    if (mark == published.marks.back()) continue;
    return Conflict(*path + " was changed: its bytes are not those that were published");
  }
  return Status::OK();
}

Status Ledger::PublishOutput(
    const FinishedFile& output, const std::optional<FinishedFile>& errors
) {
  MS_RETURN_NOT_OK(CheckOutput());  // of both, before either is published
  Json body = {{kOutput, ToJson(output.mark)}};
  if (errors) body[kErrors] = ToJson(errors->mark);
  MS_RETURN_NOT_OK(journal_->Add(EntryType::kOutput, body));
  // Before the output: where that stands, its failed rows do.
  if (errors) MS_RETURN_NOT_OK(PublishFile(*errors, kErrors, layout_.errors));
  return PublishFile(output, kOutput, layout_.output);
}

// After the entry, as an exchange is: a driver that begins has read what it finds there. (See
// ExchangeAsLatest().)
Status Ledger::PublishFile(
    const FinishedFile& file, const std::string& which, const std::string& path
) {
  MS_RETURN_NOT_OK(CheckLatest());
  const Status published = storage_.Publish(file.path, path);
  if (!published.IsAlreadyExists()) return published;
  PublishedFiles known = PublishedAs(history_, which);
  known.marks.push_back(file.mark);
  return ExchangeAsLatest(file.path, path, &known);
}

}  // namespace millstream
