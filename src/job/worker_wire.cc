// SPDX-License-Identifier: Apache-2.0
#include "job/worker_wire.h"

#include <algorithm>
#include <optional>

#include "engine/wire.h"
#include "job/wire_values.h"

namespace millstream {
namespace {

constexpr std::uint8_t kVersion = 1;

void Put(WireWriter& out, const RowRange& range) {
  out.I64(range.split);
  out.I64(range.begin);
  out.I64(range.end);
}

RowRange TakeRange(WireReader& in) {
  RowRange range;
  range.split = in.I64();
  range.begin = in.I64();
  range.end = in.I64();
  return range;
}

void Put(WireWriter& out, const Lease& lease) {
  out.I64(lease.number);
  Put(out, lease.range);
}

Lease TakeLease(WireReader& in) {
  Lease lease;
  lease.number = in.I64();
  lease.range = TakeRange(in);
  return lease;
}

void Put(WireWriter& out, const FileMark& mark) {
  out.Text(mark.hash);
  out.U64(mark.bytes);
}

FileMark TakeMark(WireReader& in) {
  FileMark mark;
  mark.hash = in.Text();
  mark.bytes = in.U64();
  return mark;
}

void Put(WireWriter& out, const CommittedPart& part) {
  Put(out, part.file);
  Put(out, part.counts);
  out.Bool(part.errors.has_value());
  if (part.errors) Put(out, *part.errors);
  out.Text(part.skipped_rows);
}

CommittedPart TakePart(WireReader& in) {
  CommittedPart part;
  part.file = TakeMark(in);
  part.counts = TakeCounts(in);
  if (in.Bool()) part.errors = TakeMark(in);
  part.skipped_rows = in.Text();
  return part;
}

void Put(WireWriter& out, const std::vector<JournalEntry>& entries) {
  out.U64(entries.size());
  for (const JournalEntry& entry : entries) {
    out.U8(static_cast<std::uint8_t>(entry.type));
    out.Text(entry.body.dump());
  }
}

// False if one is no object.
bool TakeEntries(WireReader& in, std::vector<JournalEntry>& entries) {
  bool are_json = true;
  Repeat(in, [&] {
    JournalEntry& entry = entries.emplace_back();
    entry.type = static_cast<EntryType>(in.U8());
    entry.body = nlohmann::ordered_json::parse(in.Text(), nullptr, /*allow_exceptions=*/false);
    are_json = are_json && entry.body.is_object();
  });
  return are_json;
}

void Put(WireWriter& out, const WorkerReport& report) {
  out.I64(report.worker);
  out.I64(report.number);
  out.U64(report.held.size());
  for (const HeldLease& held : report.held) {
    Put(out, held.lease);
    out.I64(held.begun);
    out.I64(held.oldest.count());
  }
  out.U64(report.done.size());
  for (const RowRange& range : report.done) Put(out, range);
  out.U64(report.published.size());
  for (const std::int64_t split : report.published) out.I64(split);
  out.I64(report.wants_rows);
  out.I64(report.rows_finished);
  out.I64(report.row_time.count());
  out.Bool(report.leaves);
}

WorkerReport TakeReport(WireReader& in) {
  WorkerReport report;
  report.worker = in.I64();
  report.number = in.I64();
  Repeat(in, [&] {
    HeldLease& held = report.held.emplace_back();
    held.lease = TakeLease(in);
    held.begun = in.I64();
    held.oldest = std::chrono::milliseconds(in.I64());
  });
  Repeat(in, [&] { report.done.push_back(TakeRange(in)); });
  Repeat(in, [&] { report.published.push_back(in.I64()); });
  report.wants_rows = in.I64();
  report.rows_finished = in.I64();
  report.row_time = std::chrono::milliseconds(in.I64());
  report.leaves = in.Bool();
  return report;
}

Status Foreign(const char* what) {
  return Status::Invalid(
      what, " that is none of this version of Millstream: every machine of a job needs the same"
  );
}

}  // namespace

std::string Encode(const WorkerOptions& options) {
  WireWriter out;
  out.U8(kVersion);
  out.Text(options.job.file);
  out.Text(options.job.text.value_or(""));
  const SpecOverrides& overrides = options.job.overrides;
  out.Text(overrides.output);
  for (const auto* pairs : {&overrides.vars, &overrides.sets}) {
    out.U64(pairs->size());
    for (const auto& [name, value] : *pairs) {
      out.Text(name);
      out.Text(value);
    }
  }
  out.U32(options.epoch);
  out.I64(options.number);
  out.I64(options.threads);
  out.I64(options.interval.count());
  return out.Take();
}

Result<WorkerOptions> DecodeWorkerOptions(std::string_view bytes) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("a job");
  WorkerOptions options;
  options.job.file = in.Text();
  options.job.text = in.Text();
  SpecOverrides& overrides = options.job.overrides;
  overrides.output = in.Text();
  for (auto* pairs : {&overrides.vars, &overrides.sets}) {
    Repeat(in, [&] {
      auto& [name, value] = pairs->emplace_back();
      name = in.Text();
      value = in.Text();
    });
  }
  options.epoch = in.U32();
  options.number = in.I64();
  options.threads = static_cast<int>(in.I64());
  options.interval = std::chrono::milliseconds(in.I64());
  if (!in.Finish().ok()) return Foreign("a job");
  return options;
}

std::string Encode(const WorkerMessage& message) {
  WireWriter out;
  out.U8(kVersion);
  out.U32(message.epoch);
  Put(out, message.report);
  out.U64(message.parts.size());
  for (const auto& [split, part] : message.parts) {
    out.I64(split);
    Put(out, part);
  }
  Put(out, message.entries);
  out.I64(message.num_poison);
  Put(out, message.rows);
  Put(out, message.errors);
  WriteStats(message.stats, out);
  out.I64(message.cut_answers);
  out.Text(message.failure);
  out.U8(static_cast<std::uint8_t>(message.exit));
  return out.Take();
}

Result<WorkerMessage> DecodeWorkerMessage(std::string_view bytes) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("a worker's report");
  WorkerMessage message;
  message.epoch = in.U32();
  message.report = TakeReport(in);
  Repeat(in, [&] {
    const std::int64_t split = in.I64();
    message.parts[split] = TakePart(in);
  });
  const bool are_json = TakeEntries(in, message.entries);
  message.num_poison = in.I64();
  message.rows = TakeCounts(in);
  message.errors = TakeErrors(in);
  message.stats = ReadStats(in);
  message.cut_answers = in.I64();
  message.failure = in.Text();
  message.exit = static_cast<ExitCode>(in.U8());
  if (!in.Finish().ok() || !are_json) return Foreign("a worker's report");
  return message;
}

std::string Encode(const WorkerAnswer& answer) {
  WireWriter out;
  out.U8(kVersion);
  const WorkerOrders& orders = answer.orders;
  for (const auto* leases : {&orders.take, &orders.shorten}) {
    out.U64(leases->size());
    for (const Lease& lease : *leases) Put(out, lease);
  }
  out.U64(orders.end.size());
  for (const std::int64_t lease : orders.end) out.I64(lease);
  out.Bool(orders.is_over);
  Put(out, answer.poison);
  out.Bool(answer.drains);
  out.Bool(answer.stops);
  return out.Take();
}

Result<WorkerAnswer> DecodeWorkerAnswer(std::string_view bytes) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("orders");
  WorkerAnswer answer;
  for (auto* leases : {&answer.orders.take, &answer.orders.shorten}) {
    Repeat(in, [&] { leases->push_back(TakeLease(in)); });
  }
  Repeat(in, [&] { answer.orders.end.push_back(in.I64()); });
  answer.orders.is_over = in.Bool();
  const bool are_json = TakeEntries(in, answer.poison);
  answer.drains = in.Bool();
  answer.stops = in.Bool();
  if (!in.Finish().ok() || !are_json) return Foreign("orders");
  return answer;
}

}  // namespace millstream
