// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "fmt/format.h"
#include "xxhash.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::uint64_t kMaxStateBytes = 1ULL << 30;
constexpr std::string_view kPartPrefix = "part-";
constexpr std::string_view kIntentSuffix = ".json";

Result<Json> ReadJson(Storage& storage, const std::string& path) {
  MS_ASSIGN_OR_RETURN(const std::string text, storage.Read(path, kMaxStateBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
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

std::string Parent(const std::string& path) {
  return std::filesystem::path(path).parent_path().string();
}
std::string Leaf(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

std::string HashOf(const std::string& bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

// The number in "part-000123.parquet", or nothing.
std::optional<std::int64_t> SplitOfPart(std::string_view name, std::string_view suffix) {
  if (!name.starts_with(kPartPrefix) || !name.ends_with(suffix)) return std::nullopt;
  name.remove_prefix(kPartPrefix.size());
  name.remove_suffix(suffix.size());
  std::int64_t split = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), split);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return split;
}

// Whether this is an entry of an intent, whole.
bool DescribesPart(const Json& json) {
  const auto holds = [&](const char* key, auto type) {
    const auto found = json.find(key);
    return found != json.end() && ((*found).*type)();
  };
  return holds("split", &Json::is_number_integer) && holds("hash", &Json::is_string) &&
         holds("ok", &Json::is_number_integer) && holds("error", &Json::is_number_integer) &&
         holds("skipped", &Json::is_number_integer);
}

}  // namespace

OutputLayout OutputLayout::Of(const std::string& path, const std::string& suffix) {
  OutputLayout layout;
  std::string clean = std::filesystem::path(path).lexically_normal().string();
  while (clean.size() > 1 && clean.ends_with('/')) clean.pop_back();
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

RowCounts& RowCounts::operator+=(const RowCounts& other) {
  ok += other.ok;
  error += other.error;
  skipped += other.skipped;
  return *this;
}

Result<std::unique_ptr<Ledger>> Ledger::Create(
    Storage& storage, OutputLayout layout, Json job, const Json& plan
) {
  std::unique_ptr<Ledger> ledger(new Ledger(storage, std::move(layout)));
  const std::string text = plan.dump(1);
  const std::string name = "plan-0000-" + HashOf(text);
  job["plan"] = name;
  // A plan is written before what names it; one that nothing names is garbage.
  const Status written = PublishBytes(storage, ledger->layout_.state + "/" + name, text);
  if (!written.ok() && !written.IsAlreadyExists()) return written;
  MS_RETURN_NOT_OK(PublishBytes(storage, ledger->layout_.state + "/job.json", job.dump(2) + "\n"));
  ledger->job_ = std::move(job);
  ledger->plan_ = plan;
  return ledger;
}

Result<std::unique_ptr<Ledger>> Ledger::Load(Storage& storage, OutputLayout layout) {
  MS_ASSIGN_OR_RETURN(const bool born, Exists(storage, layout.state, "job.json"));
  if (!born) {
    if (layout.is_single_file) {
      MS_ASSIGN_OR_RETURN(
          const bool taken, Exists(storage, Parent(layout.output), Leaf(layout.output))
      );
      if (taken) {
        return Conflict(
            layout.output + " exists and is no output of Millstream: choose another path"
        );
      }
    } else {
      MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(layout.output));
      if (!files.empty()) {
        return Conflict(
            layout.output + " is not empty and is no output of Millstream (" + layout.state +
            "/job.json is missing): choose another path"
        );
      }
    }
    return std::unique_ptr<Ledger>();
  }
  std::unique_ptr<Ledger> ledger(new Ledger(storage, std::move(layout)));
  const std::string& state = ledger->layout_.state;
  MS_ASSIGN_OR_RETURN(ledger->job_, ReadJson(storage, state + "/job.json"));
  const std::string plan = ledger->job_.value("plan", "");
  if (plan.empty() || plan.find('/') != std::string::npos) {
    return Conflict(state + "/job.json is damaged: it names no plan");
  }
  MS_ASSIGN_OR_RETURN(const std::string text, storage.Read(state + "/" + plan, kMaxStateBytes));
  if (!plan.ends_with(HashOf(text))) {
    return Conflict(state + "/" + plan + " is damaged: its hash is not the one in its name");
  }
  ledger->plan_ = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (ledger->plan_.is_discarded()) {
    return Conflict(state + "/" + plan + " is damaged: it is no JSON");
  }
  return ledger;
}

Result<std::map<std::int64_t, RowCounts>> Ledger::Parts() const {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> parts, storage_.List(layout_.parts));
  MS_ASSIGN_OR_RETURN(const auto intended, Intended());
  std::map<std::int64_t, RowCounts> counts;
  for (const StoredFile& part : parts) {
    const std::optional<std::int64_t> split = SplitOfPart(part.name, layout_.suffix);
    if (!split) continue;
    const std::string path = layout_.PartPath(*split);
    const auto found = intended.find(*split);
    if (found == intended.end()) {
      return Conflict(
          path + " has no intent in " + layout_.state + "/intents: it was not written by this job"
      );
    }
    const std::map<std::string, RowCounts>& by_hash = found->second;
    auto chosen = by_hash.begin();
    if (by_hash.size() > 1) {  // a crash before a part was published: its bytes tell which it is
      MS_ASSIGN_OR_RETURN(const std::string bytes, storage_.Read(path, kMaxStateBytes));
      chosen = by_hash.find(HashOf(bytes));
      if (chosen == by_hash.end()) {
        return Conflict(
            path + " was changed: no intent in " + layout_.state + "/intents has its hash"
        );
      }
    }
    counts[*split] = chosen->second;
  }
  return counts;
}

Result<std::map<std::int64_t, std::map<std::string, RowCounts>>> Ledger::Intended() const {
  const std::string folder = layout_.state + "/intents";
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> intents, storage_.List(folder));
  std::map<std::int64_t, std::map<std::string, RowCounts>> intended;
  for (const StoredFile& file : intents) {
    if (!file.name.ends_with(kIntentSuffix)) continue;  // one that was not published
    const std::string path = folder + "/" + file.name;
    MS_ASSIGN_OR_RETURN(const Json intent, ReadJson(storage_, path));
    const auto parts = intent.find("parts");
    if (parts == intent.end() || !std::all_of(parts->begin(), parts->end(), DescribesPart)) {
      return Conflict(path + " is damaged");
    }
    for (const Json& part : *parts) {
      intended[part["split"]][part["hash"]] = {part["ok"], part["error"], part["skipped"]};
    }
  }
  return intended;
}

std::string Ledger::TemporaryPath(std::int64_t split) const {
  return fmt::format("{}/tmp/part-{:06d}{}", layout_.state, split, layout_.suffix);
}

Status Ledger::PublishParts(const std::vector<FinishedPart>& parts) {
  if (parts.empty()) return Status::OK();
  Json intent = {{"parts", Json::array()}};
  std::vector<Publication> files;
  for (const FinishedPart& part : parts) {
    intent["parts"].push_back(
        {{"split", part.split},
         {"hash", part.hash},
         {"ok", part.counts.ok},
         {"error", part.counts.error},
         {"skipped", part.counts.skipped}}
    );
    files.push_back({part.path, layout_.PartPath(part.split)});
  }
  const std::string text = intent.dump() + "\n";
  const std::string name = fmt::format(
      "{}/intents/{:06d}-{}{}", layout_.state, parts.front().split, HashOf(text), kIntentSuffix
  );
  if (Status status = PublishBytes(storage_, name, text);
      !status.ok() && !status.IsAlreadyExists()) {
    return status;
  }
  MS_ASSIGN_OR_RETURN(const std::vector<bool> moved, storage_.PublishAll(files));
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!moved[i]) MS_RETURN_NOT_OK(storage_.Remove(files[i].from));
  }
  return Status::OK();
}

Result<bool> Ledger::OutputStands() const {
  if (!layout_.is_single_file) return true;
  return Exists(storage_, Parent(layout_.output), Leaf(layout_.output));
}

Status Ledger::PublishOutput(const std::string& temporary) {
  return storage_.Publish(temporary, layout_.output);
}

Status Ledger::WriteSuccess(const Json& manifest) {
  const Status status =
      PublishBytes(storage_, layout_.state + "/success.json", manifest.dump(2) + "\n");
  return status.IsAlreadyExists() ? Status::OK() : status;
}

Result<std::optional<Json>> Ledger::Success() const {
  MS_ASSIGN_OR_RETURN(const bool stands, Exists(storage_, layout_.state, "success.json"));
  if (!stands) return std::optional<Json>();
  MS_ASSIGN_OR_RETURN(Json manifest, ReadJson(storage_, layout_.state + "/success.json"));
  return std::optional<Json>(std::move(manifest));
}

Result<std::vector<std::string>> MoveAside(Storage& storage, const OutputLayout& layout) {
  std::vector<std::string> moved;
  for (const std::string& path : {layout.output, layout.state}) {
    MS_ASSIGN_OR_RETURN(const bool stands, Exists(storage, Parent(path), Leaf(path)));
    if (!stands) continue;
    for (int number = 1;; ++number) {
      const std::string aside = fmt::format("{}.old-{}", path, number);
      const Status status = storage.Publish(path, aside);
      if (status.IsAlreadyExists()) continue;
      if (!status.ok()) return status;
      moved.push_back(aside);
      break;
    }
  }
  return moved;
}

}  // namespace millstream
