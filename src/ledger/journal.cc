// SPDX-License-Identifier: Apache-2.0
#include "ledger/journal.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <utility>

#include "base/parse_json.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::uint64_t kMaxJournalBytes = 4ULL << 30;
constexpr std::string_view kPrefix = "journal-";

std::string PathOf(const std::string& state, std::uint32_t epoch) {
  return fmt::format("{}/{}{:04d}", state, kPrefix, epoch);
}

std::optional<std::uint32_t> EpochOf(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::uint32_t epoch = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), epoch);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return epoch;
}

Status Damaged(const std::string& path, std::size_t at) {
  return Conflict(fmt::format(
      "{} is damaged at byte {}: what follows was durable and is no longer what was written. The "
      "parts are untouched; to answer every row anew, add --restart",
      path,
      at
  ));
}

// The entries of the first `length` bytes of a journal.
Result<std::vector<JournalEntry>> EntriesOf(
    const std::string& path, std::uint32_t epoch, std::string_view bytes
) {
  const RecordScan scan = ScanRecords(bytes);
  if (!scan.damaged.empty()) return Damaged(path, scan.damaged.front());
  std::vector<JournalEntry> entries;
  for (const Record& record : scan.records) {
    JournalEntry entry;
    entry.type = static_cast<EntryType>(record.type);
    entry.epoch = record.epoch;
    entry.body = ParseJson<Json>(record.payload);
    const bool is_first = entries.empty();
    if (record.epoch != epoch || !entry.body.is_object() ||
        is_first != (entry.type == EntryType::kOpen)) {
      return Damaged(path, record.begin);
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

// What an OPEN entry says of the journal before.
struct Link {
  std::uint32_t epoch = 0;
  std::uint64_t length = 0;
  std::string hash;
};

std::optional<Link> LinkOf(const Json& open) {
  const auto found = open.find("previous");
  if (found == open.end() || !found->is_object()) return std::nullopt;
  const Json& previous = *found;
  if (!previous.contains("epoch") || !previous["epoch"].is_number_unsigned() ||
      !previous.contains("length") || !previous["length"].is_number_unsigned() ||
      !previous.contains("hash") || !previous["hash"].is_string()) {
    return std::nullopt;
  }
  return Link{previous["epoch"], previous["length"], previous["hash"]};
}

}  // namespace

std::string HashOf(std::string_view bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

Result<JournalHistory> ReadJournals(Storage& storage, const std::string& state) {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(state));
  std::vector<std::uint32_t> epochs;
  for (const StoredFile& file : files) {
    if (const auto epoch = EpochOf(file.name)) epochs.push_back(*epoch);
  }
  std::sort(epochs.rbegin(), epochs.rend());
  JournalHistory history;
  if (!epochs.empty()) history.last_epoch = epochs.front();

  // From the newest that was begun, back along the links.
  std::vector<std::vector<JournalEntry>> journals;
  std::optional<Link> link;
  for (const std::uint32_t epoch : epochs) {
    if (link && epoch > link->epoch) continue;  // never begun, or of a driver that was shut out
    const std::string path = PathOf(state, epoch);
    if (link && epoch < link->epoch) break;
    MS_ASSIGN_OR_RETURN(std::string bytes, storage.Read(path, kMaxJournalBytes));
    if (link) {
      if (bytes.size() < link->length || HashOf(bytes.substr(0, link->length)) != link->hash) {
        return Damaged(path, std::min<std::size_t>(bytes.size(), link->length));
      }
      bytes.resize(link->length);
    }
    MS_ASSIGN_OR_RETURN(std::vector<JournalEntry> entries, EntriesOf(path, epoch, bytes));
    if (entries.empty()) {
      if (link) return Damaged(path, 0);
      continue;  // its driver died before it had begun
    }
    if (history.previous_epoch == 0) {
      history.previous_epoch = epoch;
      history.previous_length = ScanRecords(bytes).valid_length;
      history.previous_hash = HashOf(std::string_view(bytes).substr(0, history.previous_length));
    }
    link = LinkOf(entries.front().body);
    if (!link) return Damaged(path, 0);
    journals.push_back(std::move(entries));
    if (link->epoch == 0) break;
  }
  if (link && link->epoch != 0) {
    return Conflict(
        PathOf(state, link->epoch) + " is missing: without it the job's state is not known"
    );
  }
  for (auto journal = journals.rbegin(); journal != journals.rend(); ++journal) {
    std::move(journal->begin(), journal->end(), std::back_inserter(history.entries));
  }
  return history;
}

Result<std::unique_ptr<Journal>> Journal::Begin(
    Storage& storage, const std::string& state, JournalHistory& history, Json open
) {
  std::uint32_t epoch = history.last_epoch;
  std::unique_ptr<RecordWriter> writer;
  while (!writer) {
    ++epoch;
    auto created = RecordWriter::Create(storage, PathOf(state, epoch), epoch);
    if (created.status().IsAlreadyExists()) continue;  // another driver came in between
    MS_ASSIGN_OR_RETURN(writer, std::move(created));
  }
  MS_ASSIGN_OR_RETURN(history, ReadJournals(storage, state));
  if (history.previous_epoch != 0) {
    // Its driver may have been killed before it synced what was read here.
    MS_RETURN_NOT_OK(storage.Sync(PathOf(state, history.previous_epoch)));
  }
  std::unique_ptr<Journal> journal(new Journal(storage, state, std::move(writer), epoch));
  open["epoch"] = epoch;
  open["previous"] = {
      {"epoch", history.previous_epoch},
      {"length", history.previous_length},
      {"hash", history.previous_hash}
  };
  MS_RETURN_NOT_OK(journal->Add(EntryType::kOpen, open));
  MS_ASSIGN_OR_RETURN(const bool is_latest, journal->IsLatest());
  if (!is_latest) return Status::Cancelled("another run has begun at the same moment");
  return journal;
}

Result<bool> Journal::IsLatest() const {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage_.List(state_));
  return std::none_of(files.begin(), files.end(), [this](const StoredFile& file) {
    return EpochOf(file.name).value_or(0) > epoch_;
  });
}

Status Journal::Add(EntryType type, Json body) {
  // For people: nothing depends on the time.
  body["at"] =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  MutexLock lock(mutex_);
  MS_RETURN_NOT_OK(writer_->Write(static_cast<std::uint8_t>(type), body.dump()));
  return writer_->Sync();
}

}  // namespace millstream
