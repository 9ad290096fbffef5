// SPDX-License-Identifier: Apache-2.0
#include "job/blamed_rows.h"

#include "fmt/format.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

std::string Hex(const Hash128& hash) {
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

}  // namespace

Json PoisonOf(const ResultKey& key, const Completion& verdict) {
  return {
      {"file", key.row.file},
      {"record", key.row.record},
      {"step", key.step},
      {"sample", key.sample},
      {"request", Hex(key.request)},
      {"code", verdict.error_code},
      {"why", verdict.error_message}
  };
}

Json PoisonOf(const RowId& row, std::string_view how) {
  return {
      {"file", row.file},
      {"record", row.record},
      {"code", kCrash},
      {"why", fmt::format("workers die of this row alone: {}", how)}
  };
}

BlamedRows::BlamedRows(const std::vector<JournalEntry>& entries) {
  for (const JournalEntry& entry : entries) Note(entry);
}

void BlamedRows::Note(const JournalEntry& entry) {
  if (entry.type != EntryType::kPoison) return;
  const auto number = [&](const char* name) { return entry.body.value(name, std::int64_t{-1}); };
  const auto text = [&](const char* name) { return entry.body.value(name, std::string()); };
  const RowId row{static_cast<std::int32_t>(number("file")), number("record")};
  MutexLock lock(mutex_);
  if (!entry.body.contains("step")) {
    unread_[row] = {"read", text("code"), text("why")};
    return;
  }
  Completion verdict;
  verdict.reason = FinishReason::kError;
  verdict.error_code = text("code");
  verdict.error_message = text("why");
  verdicts_[{row, text("step"), number("sample")}] = {text("request"), std::move(verdict)};
}

std::optional<Completion> BlamedRows::VerdictOn(const ResultKey& key) const {
  MutexLock lock(mutex_);
  const auto found = verdicts_.find({key.row, std::string(key.step), key.sample});
  if (found == verdicts_.end() || found->second.first != Hex(key.request)) return std::nullopt;
  return found->second.second;
}

std::optional<std::pair<RowId, RowError>> BlamedRows::NextUnread(const RowId& from) const {
  MutexLock lock(mutex_);
  const auto next = unread_.lower_bound(from);
  if (next == unread_.end() || next->first.file != from.file) return std::nullopt;
  return *next;
}

bool BlamedRows::HasVerdict(const RowId& row) const {
  MutexLock lock(mutex_);
  const auto next = verdicts_.lower_bound({row, "", 0});
  return next != verdicts_.end() && std::get<RowId>(next->first) == row;
}

}  // namespace millstream
