// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

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

RowCounts CountsOf(const Json& json) {
  return {
      json.value("ok", std::int64_t{0}),
      json.value("error", std::int64_t{0}),
      json.value("skipped", std::int64_t{0})
  };
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
      if (taken)
        return Conflict(
            layout.output + " exists and is no output of Millstream: give another --output"
        );
    } else {
      MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(layout.output));
      if (!files.empty()) {
        return Conflict(
            layout.output + " is not empty and is no output of Millstream (" + layout.state +
            "/job.json is missing): give another --output"
        );
      }
    }
    return std::unique_ptr<Ledger>();
  }
  std::unique_ptr<Ledger> ledger(new Ledger(storage, std::move(layout)));
  const std::string& state = ledger->layout_.state;
  MS_ASSIGN_OR_RETURN(ledger->job_, ReadJson(storage, state + "/job.json"));
  const std::string plan = ledger->job_.value("plan", "");
  if (plan.empty() || plan.find('/') != std::string::npos)
    return Conflict(state + "/job.json is damaged: it names no plan");
  MS_ASSIGN_OR_RETURN(const std::string text, storage.Read(state + "/" + plan, kMaxStateBytes));
  if (!plan.ends_with(HashOf(text)))
    return Conflict(state + "/" + plan + " is damaged: its hash is not the one in its name");
  ledger->plan_ = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (ledger->plan_.is_discarded())
    return Conflict(state + "/" + plan + " is damaged: it is no JSON");
  return ledger;
}

Result<std::map<std::int64_t, RowCounts>> Ledger::Parts() const {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> parts, storage_.List(layout_.parts));
  MS_ASSIGN_OR_RETURN(
      const std::vector<StoredFile> intents, storage_.List(layout_.state + "/intents")
  );
  std::map<std::int64_t, std::vector<std::string>> by_split;
  for (const StoredFile& intent : intents) {
    std::int64_t split = 0;
    const auto [end, error] =
        std::from_chars(intent.name.data(), intent.name.data() + intent.name.size(), split);
    if (error == std::errc() && *end == '-') by_split[split].push_back(intent.name);
  }
  std::map<std::int64_t, RowCounts> counts;
  for (const StoredFile& part : parts) {
    const std::optional<std::int64_t> split = SplitOfPart(part.name, layout_.suffix);
    if (!split) continue;
    const std::string path = layout_.PartPath(*split);
    const std::vector<std::string>& names = by_split[*split];
    if (names.empty())
      return Conflict(
          path + " has no intent in " + layout_.state + "/intents: it was not written by this job"
      );
    std::string name = names.front();
    if (names.size() >
        1) {  // a crash between an intent and its part: the part's bytes tell which one came true
      MS_ASSIGN_OR_RETURN(const std::string bytes, storage_.Read(path, kMaxStateBytes));
      name = fmt::format("{:06d}-{}.json", *split, HashOf(bytes));
    }
    MS_ASSIGN_OR_RETURN(const Json intent, ReadJson(storage_, layout_.state + "/intents/" + name));
    counts[*split] = CountsOf(intent);
  }
  return counts;
}

std::string Ledger::TemporaryPath(std::int64_t split) const {
  return fmt::format("{}/tmp/part-{:06d}{}", layout_.state, split, layout_.suffix);
}

Status Ledger::PublishPart(
    std::int64_t split,
    const std::string& temporary,
    const std::string& hash,
    const RowCounts& counts
) {
  const Json intent = {
      {"split", split},
      {"hash", hash},
      {"ok", counts.ok},
      {"error", counts.error},
      {"skipped", counts.skipped}
  };
  const std::string name = fmt::format("{}/intents/{:06d}-{}.json", layout_.state, split, hash);
  if (Status status = PublishBytes(storage_, name, intent.dump() + "\n");
      !status.ok() && !status.IsAlreadyExists())
    return status;
  const Status published = storage_.Publish(temporary, layout_.PartPath(split));
  if (!published.IsAlreadyExists()) return published;
  return storage_.Remove(temporary);
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
      MS_RETURN_NOT_OK(status);
      moved.push_back(aside);
      break;
    }
  }
  return moved;
}

}  // namespace millstream
