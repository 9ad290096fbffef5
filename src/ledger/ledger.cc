// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "base/parse_json.h"
#include "fmt/format.h"
#include "ledger/published.h"
#include "storage/path.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::uint64_t kMaxStateBytes = 1ULL << 30;
constexpr int kFormat = 1;  // of the state folder
constexpr std::string_view kPartPrefix = "part-";
constexpr std::string_view kIntentSuffix = ".json";

Result<Json> ReadJson(Storage& storage, const std::string& path) {
  MS_ASSIGN_OR_RETURN(const std::string text, storage.Read(path, kMaxStateBytes));
  Json json = ParseJson<Json>(text);
  if (json.is_discarded()) return Conflict(path + " is damaged: it is no JSON");
  return json;
}

Result<bool> Exists(Storage& storage, const std::string& folder, const std::string& name) {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(folder));
  for (const StoredFile& file : files) {
    if (file.name == name) return true;
  }
  return false;
}

// Whether anything stands where the output is to stand.
Result<bool> HasOutput(Storage& storage, const OutputLayout& layout) {
  if (layout.is_single_file) return FileExists(storage, layout.output);
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(layout.output));
  return !files.empty();
}

// The number in "part-000123", whatever follows, which goes to `rest`; or nothing.
std::optional<std::int64_t> SplitOf(std::string_view name, std::string_view* rest) {
  if (!name.starts_with(kPartPrefix)) return std::nullopt;
  name.remove_prefix(kPartPrefix.size());
  std::int64_t split = 0;
  const char* const last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data(), last, split);
  if (error != std::errc()) return std::nullopt;
  *rest = std::string_view(end, last);
  return split;
}

// The number in "part-000123.parquet", or nothing.
std::optional<std::int64_t> SplitOfPart(std::string_view name, std::string_view suffix) {
  std::string_view rest;
  const auto split = SplitOf(name, &rest);
  return rest == suffix ? split : std::nullopt;
}

// The number in "part-000123-89abcdef01234567.parquet", or nothing.
std::optional<std::int64_t> SplitOfErrors(std::string_view name) {
  std::string_view rest;
  const auto split = SplitOf(name, &rest);
  return rest.starts_with('-') ? split : std::nullopt;
}

Json ToJson(std::int64_t split, const CommittedPart& part) {
  Json json = {
      {"split", split},
      {"hash", part.file.hash},
      {"bytes", part.file.bytes},
      {"ok", part.counts.ok},
      {"error", part.counts.error},
      {"skipped", part.counts.skipped}
  };
  if (part.errors) json["errors"] = ToJson(*part.errors);
  if (!part.skipped_rows.empty()) {
    std::string hex;
    for (const char byte : part.skipped_rows) {
      hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    json["skipped_rows"] = std::move(hex);
  }
  return json;
}

std::optional<std::string> BytesOfHex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    unsigned char byte = 0;
    const char* begin = hex.data() + i;
    if (std::from_chars(begin, begin + 2, byte, 16).ptr != begin + 2) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
  }
  return hex.size() % 2 == 0 ? std::optional(bytes) : std::nullopt;
}

bool ReadCount(const Json& json, const char* key, std::int64_t* value) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_integer()) return false;
  *value = *found;
  return *value >= 0;
}

// Adds the parts of an intent or a journal entry to `add`; false if it is damaged.
template <typename Add>
bool ReadParts(const Json& body, Add add) {
  const auto parts = body.find("parts");
  if (parts == body.end() || !parts->is_array()) return false;
  for (const Json& json : *parts) {
    CommittedPart part;
    std::int64_t split = 0;
    if (!ReadMark(json, &part.file) || !ReadCount(json, "split", &split) ||
        !ReadCount(json, "ok", &part.counts.ok) || !ReadCount(json, "error", &part.counts.error) ||
        !ReadCount(json, "skipped", &part.counts.skipped)) {
      return false;
    }
    if (const auto errors = json.find("errors"); errors != json.end()) {
      if (!ReadMark(*errors, &part.errors.emplace())) return false;
    }
    if (const auto skipped = json.find("skipped_rows"); skipped != json.end()) {
      if (!skipped->is_string()) return false;
      const std::optional<std::string> rows = BytesOfHex(*skipped);
      if (!rows) return false;
      part.skipped_rows = *rows;
    }
    add(split, std::move(part));
  }
  return true;
}

}  // namespace

Result<bool> FileExists(Storage& storage, const std::string& path) {
  return Exists(storage, ParentOf(path), LeafOf(path));
}

OutputLayout OutputLayout::Of(const std::string& path, const std::string& suffix) {
  OutputLayout layout;
  const std::string clean = CleanPath("", path);
  layout.output = clean;
  layout.suffix = suffix;
  layout.state = clean + ".millstream";
  layout.is_single_file = clean.ends_with(suffix);
  layout.parts = layout.is_single_file ? layout.state + "/parts" : clean;
  return layout;
}

std::string OutputLayout::PartPath(std::int64_t split) const {
  return fmt::format("{}/part-{:06d}{}", parts, split, suffix);
}

std::string OutputLayout::ErrorsPath(std::int64_t split, const std::string& hash) const {
  // By its hash: one of an attempt that came to nothing may be left.
  return fmt::format("{}/errors/part-{:06d}-{}{}", state, split, hash, suffix);
}

RowCounts& RowCounts::operator+=(const RowCounts& other) {
  ok += other.ok;
  error += other.error;
  skipped += other.skipped;
  return *this;
}

bool IsSame(const CommittedPart& a, const CommittedPart& b) {
  return a.file == b.file && a.counts == b.counts && a.errors == b.errors;
}

const CommittedPart* FindIntent(
    const PartIntents& intents, std::int64_t split, const CommittedPart& part
) {
  const auto of_split = intents.find(split);
  if (of_split == intents.end()) return nullptr;
  const auto found = std::find_if(
      of_split->second.begin(),
      of_split->second.end(),
      [&](const CommittedPart& intent) { return IsSame(intent, part); }
  );
  return found == of_split->second.end() ? nullptr : &*found;
}

Result<std::unique_ptr<Ledger>> Ledger::Create(
    Storage& storage, OutputLayout layout, Json job, const Json& plan
) {
  std::unique_ptr<Ledger> ledger(new Ledger(storage, std::move(layout)));
  job["format"] = kFormat;
  MS_ASSIGN_OR_RETURN(job["plan"], ledger->WritePlan(plan, 0));
  MS_RETURN_NOT_OK(PublishBytes(storage, ledger->layout_.state + "/job.json", job.dump(2) + "\n"));
  ledger->job_ = std::move(job);
  ledger->plan_ = plan;
  return ledger;
}

Result<std::unique_ptr<Ledger>> Ledger::Load(Storage& storage, OutputLayout layout) {
  MS_ASSIGN_OR_RETURN(bool born, Exists(storage, layout.state, "job.json"));
  if (!born) {
    MS_ASSIGN_OR_RETURN(const bool taken, HasOutput(storage, layout));
    MS_ASSIGN_OR_RETURN(
        const bool errors_taken,
        layout.errors.empty() ? Result<bool>(false) : FileExists(storage, layout.errors)
    );
    if (!taken && !errors_taken) return std::unique_ptr<Ledger>();
    // Another driver may have begun it just now.
    MS_ASSIGN_OR_RETURN(born, Exists(storage, layout.state, "job.json"));
  }
  if (!born && layout.is_single_file) {
    MS_ASSIGN_OR_RETURN(const bool taken, FileExists(storage, layout.output));
    return Conflict(
        (taken ? layout.output : layout.errors) +
        " exists and is no output of Millstream: choose another path"
    );
  }
  if (!born) {
    return Conflict(
        layout.output + " is not empty and is no output of Millstream (" + layout.state +
        "/job.json is missing): choose another path"
    );
  }
  std::unique_ptr<Ledger> ledger(new Ledger(storage, std::move(layout)));
  const std::string& state = ledger->layout_.state;
  MS_ASSIGN_OR_RETURN(ledger->job_, ReadJson(storage, state + "/job.json"));
  if (ledger->job_.value("format", 0) != kFormat) {
    return Conflict(fmt::format(
        "{}/job.json is of another version of Millstream (state format {}, this one reads {}): run "
        "it with that version, or add --restart",
        state,
        ledger->job_.value("format", 0),
        kFormat
    ));
  }
  MS_ASSIGN_OR_RETURN(ledger->plan_, ledger->ReadPlan(ledger->job_.value("plan", "")));
  MS_ASSIGN_OR_RETURN(JournalHistory history, ReadJournals(storage, state));
  MS_RETURN_NOT_OK(ledger->Replay(std::move(history)));
  return ledger;
}

Status Ledger::Replay(JournalHistory history) {
  history_ = std::move(history);
  more_plans_.clear();
  journaled_.clear();
  replacing_.clear();
  for (const JournalEntry& entry : history_.entries) {
    if (entry.type == EntryType::kOpen && entry.body.value("job", "") != id()) {
      return Conflict(fmt::format("{}/journal-{:04d} is of another job", layout_.state, entry.epoch)
      );
    }
    if (entry.type == EntryType::kAppend) {
      MS_ASSIGN_OR_RETURN(more_plans_.emplace_back(), ReadPlan(entry.body.value("plan", "")));
    }
    if (entry.type != EntryType::kPart && entry.type != EntryType::kReplace) continue;
    const bool is_whole = ReadParts(entry.body, [&](std::int64_t split, CommittedPart part) {
      if (entry.type == EntryType::kReplace) {
        replacing_[split] = std::move(part);
      } else {
        Commit(split, std::move(part));
      }
    });
    if (!is_whole) {
      return Conflict(fmt::format("{}/journal-{:04d} is damaged", layout_.state, entry.epoch));
    }
  }
  return Status::OK();
}

void Ledger::Commit(std::int64_t split, CommittedPart part) {
  const auto found = replacing_.find(split);
  if (found != replacing_.end() && IsSame(found->second, part)) replacing_.erase(found);
  journaled_[split] = std::move(part);
}

Result<Json> Ledger::ReadPlan(const std::string& name) const {
  if (name.empty() || name.find('/') != std::string::npos) {
    return Conflict(layout_.state + " is damaged: it names no plan");
  }
  const std::string path = layout_.state + "/" + name;
  const auto read = storage_.Read(path, kMaxStateBytes);
  if (IsNotFound(read.status())) return Conflict(path + " is gone: it is the job's plan");
  MS_ASSIGN_OR_RETURN(const std::string text, read);
  if (!name.ends_with(HashOf(text))) {
    return Conflict(path + " is damaged: its hash is not the one in its name");
  }
  Json plan = ParseJson<Json>(text);
  if (plan.is_discarded()) return Conflict(path + " is damaged: it is no JSON");
  return plan;
}

Result<std::string> Ledger::WritePlan(const Json& plan, std::size_t generation) {
  const std::string text = plan.dump(1);
  std::string name = fmt::format("plan-{:04d}-{}", generation, HashOf(text));
  // A plan is written before what names it; one that nothing names is garbage.
  const Status written = PublishBytes(storage_, layout_.state + "/" + name, text);
  if (!written.ok() && !written.IsAlreadyExists()) return written;
  return name;
}

Status Ledger::KeepOld(std::int64_t split, const CommittedPart& old) {
  MS_ASSIGN_OR_RETURN(
      const std::string bytes, storage_.Read(layout_.PartPath(split), kMaxStateBytes)
  );
  if (HashOf(bytes) != old.file.hash) {
    const std::string what = layout_.PartPath(split) + " was changed";
    return replacing_.contains(split) ? Status::IOError(what, " by another run: run this again")
                                      : Conflict(what);
  }
  const Status kept = PublishBytes(
      storage_,
      fmt::format(
          "{}/superseded/part-{:06d}-{}{}", layout_.state, split, old.file.hash, layout_.suffix
      ),
      bytes
  );
  return kept.IsAlreadyExists() ? Status::OK() : kept;
}

Status Ledger::WriteIntent(std::int64_t first_split, const Json& intent) {
  const std::string text = intent.dump() + "\n";
  const std::string name = fmt::format(
      "{}/intents/{:06d}-{}{}", layout_.state, first_split, HashOf(text), kIntentSuffix
  );
  const Status written = PublishBytes(storage_, name, text);
  return written.IsAlreadyExists() ? Status::OK() : written;
}

Status Ledger::ReplaceParts(const std::vector<FinishedPart>& parts) {
  if (parts.empty()) return Status::OK();
  Json body = {{"parts", Json::array()}};
  std::map<std::int64_t, CommittedPart> committed;
  std::vector<Publication> errors;
  for (const FinishedPart& part : parts) {
    const CommittedPart& old = journaled_.at(part.split);
    Json entry = ToJson(part.split, part.committed);
    entry["old"] = old.file.hash;
    body["parts"].push_back(std::move(entry));
    committed[part.split] = part.committed;
    if (part.committed.errors) {
      errors.push_back(
          {part.errors_path, layout_.ErrorsPath(part.split, part.committed.errors->hash)}
      );
    }
    MS_RETURN_NOT_OK(rows_->Sync(part.split));
    MS_RETURN_NOT_OK(KeepOld(part.split, old));
  }
  MS_RETURN_NOT_OK(WriteIntent(parts.front().split, body));
  if (!errors.empty()) MS_RETURN_NOT_OK(storage_.PublishAll(errors).status());
  MS_RETURN_NOT_OK(journal_->Add(EntryType::kReplace, body));
  for (const FinishedPart& part : parts) {
    MS_RETURN_NOT_OK(ExchangeAsLatest(part.path, layout_.PartPath(part.split)));
  }
  MS_RETURN_NOT_OK(JournalParts(committed));
  for (const FinishedPart& part : parts) {
    MS_RETURN_NOT_OK(rows_->Drop(part.split));
    MS_RETURN_NOT_OK(storage_.Remove(part.path));  // the old one, of which a copy is kept
  }
  return Status::OK();
}

// A driver that begins takes its journal's name, reads the entries before it, removes unpublished
// files, and looks at the parts, in this order. An exchange is journaled, then comes this look for
// a later name, then the exchange. So either the look finds the name, or the entry is read, and
// what stands of that part is found by its bytes. On an object store, which has nothing to remove,
// the exchange may still come, in the place of what stood before the look alone; so its part is
// found by its bytes until it is replaced.
Status Ledger::ExchangeAsLatest(
    const std::string& from, const std::string& to, const PublishedFiles* known
) {
  MS_ASSIGN_OR_RETURN(const std::string version, storage_.Version(to));
  if (known != nullptr) {
    // Of that version or a later one, which is not exchanged.
    const auto mark = MarkOf(storage_, to);
    if (!IsNotFound(mark.status())) MS_RETURN_NOT_OK(mark.status());
    if (!mark.ok() || !known->MayHave(*mark)) return NotPublished(to);
  }
  MS_RETURN_NOT_OK(CheckLatest());
  return storage_.Exchange(from, to, version);
}

// Two drivers may be at work all the same. What one that comes later writes is not in the list; one
// that came before publishes parts of splits that have none yet, and replaces none any more.
Status Ledger::Prune(const Json& holder) {
  const std::string folder = layout_.state + "/errors";
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage_.List(folder));
  // A retry that died may have replaced a part without saying so: that one names its failed rows.
  MS_RETURN_NOT_OK(Begin(holder, Work::kRetry).status());
  MS_RETURN_NOT_OK(RemoveAsLatest(layout_.state + "/superseded"));
  std::set<std::string> named;
  for (const auto& [split, part] : journaled_) {
    if (part.errors) named.insert(layout_.ErrorsPath(split, part.errors->hash));
  }
  for (const auto& [split, part] : replacing_) {
    if (part.errors) named.insert(layout_.ErrorsPath(split, part.errors->hash));
  }
  for (const StoredFile& file : files) {
    const std::string path = folder + "/" + file.name;
    const std::optional<std::int64_t> split = SplitOfErrors(file.name);
    const bool is_of_part = split && journaled_.contains(*split);
    if (is_of_part && !named.contains(path)) MS_RETURN_NOT_OK(RemoveAsLatest(path));
  }
  return Status::OK();
}

Status Ledger::RemoveAsLatest(const std::string& path) {
  MS_RETURN_NOT_OK(CheckLatest());
  return storage_.Remove(path);
}

Status Ledger::CheckLatest() const {
  MS_ASSIGN_OR_RETURN(const bool is_latest, journal_->IsLatest());
  return is_latest ? Status::OK() : Status::IOError("another run has taken over ", layout_.output);
}

Status Ledger::EndRetry() {
  return storage_.Remove(RowsFolder());
}

bool Ledger::success_is_current() const {
  bool current = false;
  for (const JournalEntry& entry : history_.entries) {
    if (entry.type == EntryType::kDone) current = true;
    if (entry.type == EntryType::kPart || entry.type == EntryType::kReplace ||
        entry.type == EntryType::kAppend) {
      current = false;
    }
  }
  return current;
}

Status Ledger::AppendPlan(const Json& plan) {
  MS_ASSIGN_OR_RETURN(const std::string name, WritePlan(plan, more_plans_.size() + 1));
  MS_RETURN_NOT_OK(Record(EntryType::kAppend, {{"plan", name}}));
  more_plans_.push_back(plan);
  return Status::OK();
}

const Json& Ledger::current_spec() const {
  const Json* spec = &job_;
  for (const JournalEntry& entry : history_.entries) {
    if (entry.type == EntryType::kSpecAccept) spec = &entry.body;
  }
  return *spec;
}

int Ledger::spec_version() const {
  return 1 + static_cast<int>(std::count_if(
                 history_.entries.begin(),
                 history_.entries.end(),
                 [](const JournalEntry& entry) { return entry.type == EntryType::kSpecAccept; }
             ));
}

Status Ledger::UnlessOthersWork(const Status& failure) const {
  if (!IsConflict(failure)) return failure;
  const auto now = ReadJournals(storage_, layout_.state);
  if (!now.ok()) return failure;
  const std::uint32_t epoch = journal_ ? journal_->epoch() : history_.last_epoch;
  const bool is_alone =
      now->last_epoch == epoch && (journal_ || now->previous_length == history_.previous_length);
  if (is_alone) return failure;
  return Status::Cancelled(
      "another run is at work on ", layout_.output, ": try again once it has ended"
  );
}

Result<std::map<std::int64_t, CommittedPart>> Ledger::Parts() const {
  auto parts = FindParts();
  if (!parts.ok()) return UnlessOthersWork(parts.status());
  return parts;
}

Result<std::map<std::int64_t, CommittedPart>> Ledger::FindParts() const {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage_.List(layout_.parts));
  std::map<std::int64_t, CommittedPart> parts;
  const auto add = [&](std::int64_t split, std::uint64_t size_bytes) -> Status {
    const auto journaled = journaled_.find(split);
    if (journaled == journaled_.end() || replacing_.contains(split)) {
      MS_ASSIGN_OR_RETURN(parts[split], PartThatStands(split));
      return Status::OK();
    }
    parts[split] = journaled->second;
    if (journaled->second.file.bytes == size_bytes) return Status::OK();
    return Conflict(fmt::format(
        "{} was changed: it has {} bytes, committed were {}",
        layout_.PartPath(split),
        size_bytes,
        journaled->second.file.bytes
    ));
  };
  for (const StoredFile& file : files) {
    const std::optional<std::int64_t> split = SplitOfPart(file.name, layout_.suffix);
    if (split) MS_RETURN_NOT_OK(add(*split, file.size_bytes));
  }
  for (const auto& [split, part] : journaled_) {
    if (parts.contains(split)) continue;
    // A store's listing may be older than its last objects.
    const auto stands = storage_.Open(layout_.PartPath(split));
    if (IsNotFound(stands.status())) {
      return Conflict(
          layout_.PartPath(split) + " is gone, and it was committed: put it back, or " +
          (IsObjectPath(layout_.output) ? "write elsewhere with --output" : "add --restart")
      );
    }
    MS_RETURN_NOT_OK(stands.status());
    MS_ASSIGN_OR_RETURN(const std::int64_t size, (*stands)->GetSize());
    MS_RETURN_NOT_OK(add(split, static_cast<std::uint64_t>(size)));
  }
  return parts;
}

RowCounts Ledger::counts() const {
  RowCounts counts;
  for (const auto& [split, part] : journaled_) counts += part.counts;
  return counts;
}

Status Ledger::CheckPart(std::int64_t split, const CommittedPart& part) const {
  const auto check = [&](const std::string& path, const FileMark& mark) -> Status {
    MS_ASSIGN_OR_RETURN(const std::string bytes, storage_.Read(path, kMaxStateBytes));
    if (HashOf(bytes) == mark.hash) return Status::OK();
    return Conflict(path + " was changed: its bytes are not those that were committed");
  };
  MS_RETURN_NOT_OK(check(layout_.PartPath(split), part.file));
  return part.errors ? check(layout_.ErrorsPath(split, part.errors->hash), *part.errors)
                     : Status::OK();
}

Result<CommittedPart> Ledger::PartThatStands(std::int64_t split) const {
  const std::string path = layout_.PartPath(split);
  MS_ASSIGN_OR_RETURN(const std::string bytes, storage_.Read(path, kMaxStateBytes));
  MS_ASSIGN_OR_RETURN(const auto intents, Intents());
  const auto of_split = intents.find(split);
  if (of_split == intents.end()) {
    return Conflict(
        path + " has no intent in " + layout_.state + "/intents: it was not written by this job"
    );
  }
  // Of several with the same bytes the last that was journaled, whose errors file stands.
  const std::string hash = HashOf(bytes);
  for (const auto* known : {&replacing_, &journaled_}) {
    const auto part = known->find(split);
    if (part == known->end() || part->second.file.hash != hash) continue;
    const CommittedPart* const intent = FindIntent(intents, split, part->second);
    if (intent != nullptr) return *intent;
  }
  for (const CommittedPart& intent : of_split->second) {
    if (intent.file.hash == hash) return intent;
  }
  return Conflict(path + " was changed: no intent in " + layout_.state + "/intents has its hash");
}

Result<PartIntents> Ledger::Intents() const {
  const std::string folder = layout_.state + "/intents";
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage_.List(folder));
  PartIntents intents;
  for (const StoredFile& file : files) {
    if (!file.name.ends_with(kIntentSuffix)) continue;  // one that was not published
    const std::string path = folder + "/" + file.name;
    MS_ASSIGN_OR_RETURN(const std::string text, storage_.Read(path, kMaxStateBytes));
    if (!file.name.ends_with(HashOf(text) + std::string(kIntentSuffix))) {
      return Conflict(path + " is damaged: its hash is not the one in its name");
    }
    const Json intent = ParseJson<Json>(text);
    const bool is_whole = ReadParts(intent, [&](std::int64_t split, CommittedPart part) {
      intents[split].push_back(std::move(part));
    });
    if (!is_whole) return Conflict(path + " is damaged");
  }
  return intents;
}

Result<std::map<std::int64_t, CommittedPart>> Ledger::Begin(const Json& holder, Work work) {
  work_ = work;
  open_ = {{"job", id()}};
  open_.update(holder);
  JournalHistory history = history_;
  MS_ASSIGN_OR_RETURN(journal_, Journal::Begin(storage_, layout_.state, history, open_));
  epoch_ = journal_->epoch();
  rows_ = std::make_unique<RowLog>(storage_, RowsFolder(), epoch_, writer_);
  const int spec_before = spec_version();
  const std::size_t plans_before = more_plans_.size();
  MS_RETURN_NOT_OK(Replay(std::move(history)));
  if (spec_version() != spec_before || more_plans_.size() != plans_before) {
    return Status::Cancelled("another run has changed the job just now: run this again");
  }
  // Before the look: nothing comes after.
  MS_RETURN_NOT_OK(storage_.Remove(layout_.state + "/tmp"));
  MS_ASSIGN_OR_RETURN(auto parts, Parts());
  std::map<std::int64_t, CommittedPart> adopted;
  for (const auto& [split, part] : parts) {
    const auto journaled = journaled_.find(split);
    const bool is_known = journaled != journaled_.end() && IsSame(journaled->second, part);
    if (!is_known) adopted[split] = part;
  }
  if (!adopted.empty()) {
    // Their driver may have died between their renaming and the folder's sync.
    MS_RETURN_NOT_OK(storage_.Sync(layout_.parts));
    MS_RETURN_NOT_OK(JournalParts(adopted));
  }
  MS_ASSIGN_OR_RETURN(const auto logged, RowLog::Splits(storage_, RowsFolder()));
  for (const std::int64_t split : logged) {
    if (parts.contains(split) && work_ == Work::kRun) {
      MS_RETURN_NOT_OK(rows_->Drop(split));
    } else {
      MS_RETURN_NOT_OK(RowLog::SyncFound(storage_, RowsFolder(), split));
    }
  }
  return parts;
}

void Ledger::Join(std::uint32_t epoch, std::int64_t worker) {
  epoch_ = epoch;
  writer_ = worker;
  rows_ = std::make_unique<RowLog>(storage_, RowsFolder(), epoch_, writer_);
}

Status Ledger::SyncRows(std::int64_t split) {
  MS_RETURN_NOT_OK(rows_->Sync(split));
  // Those of drivers before were synced as this one began.
  return is_worker() ? RowLog::SyncFound(storage_, RowsFolder(), split) : Status::OK();
}

Result<std::optional<Json>> Ledger::Successor() const {
  if (!journal_) return std::optional<Json>();
  MS_ASSIGN_OR_RETURN(const JournalHistory now, ReadJournals(storage_, layout_.state));
  if (now.last_epoch <= journal_->epoch()) return std::optional<Json>();
  Json open = Json::object();
  for (const JournalEntry& entry : now.entries) {
    const bool is_later = entry.type == EntryType::kOpen && entry.epoch > journal_->epoch();
    if (is_later) open = entry.body;
  }
  return std::optional(std::move(open));
}

std::string Ledger::TemporaryPath(const std::string& name) const {
  // With the epoch: a driver that was taken for dead may still write its own.
  const std::string worker = writer_ == 1 ? "" : fmt::format("{}-", writer_);
  return fmt::format("{}/tmp/{:04d}-{}{}", layout_.state, epoch_, worker, name);
}

Status Ledger::JournalParts(const std::map<std::int64_t, CommittedPart>& parts) {
  Json body = {{"parts", Json::array()}};
  for (const auto& [split, part] : parts) {
    CommittedPart entry = part;
    entry.skipped_rows.clear();  // the intent has them
    body["parts"].push_back(ToJson(split, entry));
  }
  MS_RETURN_NOT_OK(journal_->Add(EntryType::kPart, body));
  for (const auto& [split, part] : parts) Commit(split, part);
  return Status::OK();
}

Result<std::map<std::int64_t, CommittedPart>> Ledger::PublishParts(
    const std::vector<FinishedPart>& parts
) {
  MS_ASSIGN_OR_RETURN(auto committed, Publish(parts));
  MS_RETURN_NOT_OK(NotePublished(committed));
  return committed;
}

Status Ledger::NotePublished(const std::map<std::int64_t, CommittedPart>& parts) {
  if (parts.empty()) return Status::OK();
  MS_RETURN_NOT_OK(JournalParts(parts));
  for (const auto& [split, part] : parts) MS_RETURN_NOT_OK(rows_->Drop(split));
  return Status::OK();
}

Result<std::map<std::int64_t, CommittedPart>> Ledger::Publish(const std::vector<FinishedPart>& parts
) {
  std::map<std::int64_t, CommittedPart> committed;
  if (parts.empty()) return committed;
  Json intent = {{"parts", Json::array()}};
  std::vector<Publication> files, errors;
  for (const FinishedPart& part : parts) {
    intent["parts"].push_back(ToJson(part.split, part.committed));
    committed[part.split] = part.committed;
    files.push_back({part.path, layout_.PartPath(part.split)});
    if (!part.committed.errors) continue;
    errors.push_back({part.errors_path, layout_.ErrorsPath(part.split, part.committed.errors->hash)}
    );
  }
  // A reader may see a part before its name is durable; what comes after a power cut then must be
  // the same, from the same answers.
  for (const FinishedPart& part : parts) MS_RETURN_NOT_OK(SyncRows(part.split));
  MS_RETURN_NOT_OK(WriteIntent(parts.front().split, intent));
  // Before the parts: where a part stands, its failed rows do.
  if (!errors.empty()) MS_RETURN_NOT_OK(storage_.PublishAll(errors).status());
  MS_ASSIGN_OR_RETURN(const std::vector<bool> moved, storage_.PublishAll(files));
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (moved[i]) continue;  // else another driver was faster
    const std::int64_t split = parts[i].split;
    MS_ASSIGN_OR_RETURN(committed[split], PartThatStands(split));
    MS_RETURN_NOT_OK(storage_.Remove(files[i].from));
  }
  return committed;
}

Status Ledger::Record(EntryType type, const Json& body) {
  if (journal_) return journal_->Add(type, body);
  MutexLock lock(entries_mutex_);
  entries_.push_back({type, epoch_, body});
  return Status::OK();
}

std::vector<JournalEntry> Ledger::TakeEntries() {
  MutexLock lock(entries_mutex_);
  return std::exchange(entries_, {});
}

Status Ledger::RecordEnd(EntryType type, const Json& body) {
  if (journal_->Add(type, body).ok()) return Status::OK();
  MS_ASSIGN_OR_RETURN(JournalHistory history, ReadJournals(storage_, layout_.state));
  MS_ASSIGN_OR_RETURN(journal_, Journal::Begin(storage_, layout_.state, history, open_));
  return journal_->Add(type, body);
}

Result<LoadedRows> Ledger::LoadRows(std::int64_t split) const {
  return RowLog::Load(storage_, RowsFolder(), split);
}

Result<std::vector<std::int64_t>> Ledger::LoggedSplits() const {
  return RowLog::Splits(storage_, RowsFolder());
}

Status Ledger::WriteSuccess(Json manifest) {
  // A driver that was taken for dead may have published parts since Begin() and not synced them.
  MS_RETURN_NOT_OK(storage_.Sync(layout_.parts));
  const std::string path = layout_.state + "/success.json";
  MS_ASSIGN_OR_RETURN(const auto before, Success());
  const std::int64_t generation = before ? before->value("generation", std::int64_t{0}) + 1 : 1;
  manifest["generation"] = generation;
  const std::string text = manifest.dump(2) + "\n";
  if (before) {
    const std::string next = TemporaryPath("success.json");
    MS_ASSIGN_OR_RETURN(const auto stream, storage_.Create(next));
    MS_RETURN_NOT_OK(stream->Write(text));
    MS_RETURN_NOT_OK(stream->Close());
    MS_RETURN_NOT_OK(ExchangeAsLatest(next, path));
    MS_RETURN_NOT_OK(storage_.Remove(next));  // the one before
  } else {
    const Status written = PublishBytes(storage_, path, text);
    if (!written.ok() && !written.IsAlreadyExists()) return written;
  }
  return Record(EntryType::kDone, {{"generation", generation}});
}

Result<std::optional<Json>> Ledger::Success() const {
  MS_ASSIGN_OR_RETURN(const bool stands, Exists(storage_, layout_.state, "success.json"));
  if (!stands) return std::optional<Json>();
  MS_ASSIGN_OR_RETURN(Json manifest, ReadJson(storage_, layout_.state + "/success.json"));
  return std::optional<Json>(std::move(manifest));
}

}  // namespace millstream
