// SPDX-License-Identifier: Apache-2.0
#include "storage/simulated_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace millstream {
namespace {

StoreReply Ended(StoreOutcome outcome, std::string reason) {
  StoreReply reply;
  reply.outcome = outcome;
  reply.reason = std::move(reason);
  return reply;
}

// As on S3, the same bytes have the same tag.
std::string TagOf(const std::string& bytes) {
  return fmt::format("\"{:016x}\"", std::hash<std::string>()(bytes));
}

}  // namespace

std::chrono::milliseconds SimulatedClock::Now() {
  MutexLock lock(mutex_);
  return now_;
}

bool SimulatedClock::Wait(std::chrono::milliseconds duration, std::stop_token stop) {
  if (stop.stop_requested()) return false;
  Advance(duration);
  if (on_wait_) on_wait_();
  return !stop.stop_requested();
}

std::uint64_t SimulatedClock::Random() {
  MutexLock lock(mutex_);
  return random_();
}

void SimulatedClock::Advance(std::chrono::milliseconds duration) {
  MutexLock lock(mutex_);
  now_ += duration;
}

void SimulatedStore::Settle() {
  MutexLock lock(mutex_);
  for (DelayedPut& put : std::exchange(delayed_, {})) {
    put.request.bytes = put.bytes;
    (void)Apply(put.request);
  }
}

std::map<std::string, std::string> SimulatedStore::Objects() const {
  MutexLock lock(mutex_);
  std::map<std::string, std::string> objects;
  for (const auto& [key, object] : objects_) objects[key] = object.bytes;
  return objects;
}

bool SimulatedStore::Chance(double probability) {
  return static_cast<double>(random_() >> 11) * 0x1.0p-53 < probability;
}

void SimulatedStore::Begin(StoreReply& reply, bool& is_done) {
  ++num_requests_;
  for (std::size_t i = 0; i < delayed_.size();) {
    if (delayed_[i].at > num_requests_) {
      ++i;
      continue;
    }
    DelayedPut due = std::move(delayed_[i]);
    delayed_.erase(delayed_.begin() + static_cast<std::ptrdiff_t>(i));
    due.request.bytes = due.bytes;
    (void)Apply(due.request);
  }
  is_done = false;
  if (Chance(faults_.unavailable)) {
    reply = Ended(StoreOutcome::kUnavailable, "HTTP 503");
  } else if (Chance(faults_.lost)) {
    reply = Ended(StoreOutcome::kUnknown, "timed out");
  } else {
    is_done = true;
    if (Chance(faults_.ambiguous)) reply = Ended(StoreOutcome::kUnknown, "timed out");
  }
}

StoredObject SimulatedStore::Describe(const std::string& key, const Object& object) const {
  const auto now_s = std::chrono::duration_cast<std::chrono::seconds>(clock_->Now()).count();
  return {
      key,
      object.bytes.size(),
      TagOf(object.bytes),
      object.write_id,
      object.modified_s,
      static_cast<std::int64_t>(now_s)
  };
}

StoreReply SimulatedStore::Apply(const PutRequest& request) {
  const auto found = objects_.find(request.key);
  const bool stands = found != objects_.end();
  if (!faults_.ignores_conditions) {
    if (request.condition.kind == PutCondition::Kind::kIfAbsent && stands) {
      return Ended(StoreOutcome::kConditionFailed, "HTTP 412");
    }
    if (request.condition.kind == PutCondition::Kind::kIfMatch) {
      if (!stands) return Ended(StoreOutcome::kNotFound, "HTTP 404");
      if (TagOf(found->second.bytes) != request.condition.etag) {
        return Ended(StoreOutcome::kConditionFailed, "HTTP 412");
      }
    }
  }
  if (stands && found->second.bytes != request.bytes) changed_.insert(request.key);
  Object& object = objects_[request.key];
  object.bytes = std::string(request.bytes);
  object.write_id = request.write_id;
  object.modified_s = std::chrono::duration_cast<std::chrono::seconds>(clock_->Now()).count();
  StoreReply reply;
  reply.object = Describe(request.key, object);
  return reply;
}

StoreReply SimulatedStore::Put(const PutRequest& request) {
  if (on_request_) on_request_();
  MutexLock lock(mutex_);
  if (Chance(faults_.conflict)) return Ended(StoreOutcome::kConflict, "HTTP 409");
  if (Chance(faults_.delayed)) {
    const auto delay = random_() % static_cast<std::uint64_t>(faults_.delay_requests_max) + 1;
    delayed_.push_back(
        {num_requests_ + static_cast<std::int64_t>(delay), request, std::string(request.bytes)}
    );
    return Ended(StoreOutcome::kUnknown, "timed out");
  }
  StoreReply fault;
  bool is_done = false;
  Begin(fault, is_done);
  StoreReply reply = is_done ? Apply(request) : StoreReply();
  return fault.ok() ? reply : fault;
}

StoreReply SimulatedStore::Get(const GetRequest& request) {
  if (on_request_) on_request_();
  MutexLock lock(mutex_);
  StoreReply reply;
  bool is_done = false;
  Begin(reply, is_done);
  if (!reply.ok()) return reply;
  const auto found = objects_.find(request.key);
  if (found == objects_.end()) return Ended(StoreOutcome::kNotFound, "HTTP 404");
  reply.object = Describe(request.key, found->second);
  if (!request.if_match.empty() && request.if_match != reply.object.etag) {
    return Ended(StoreOutcome::kConditionFailed, "HTTP 412");
  }
  std::string_view bytes = found->second.bytes;
  if (request.offset) {
    bytes = bytes.substr(std::min<std::size_t>(bytes.size(), *request.offset), request.max_bytes);
  }
  if (bytes.size() > request.max_bytes) {
    reply.outcome = StoreOutcome::kRefused;
    reply.reason = "larger than expected";
    return reply;
  }
  reply.bytes = std::string(bytes);
  return reply;
}

StoreReply SimulatedStore::Head(const std::string& key) {
  if (on_request_) on_request_();
  MutexLock lock(mutex_);
  StoreReply reply;
  bool is_done = false;
  Begin(reply, is_done);
  if (!reply.ok()) return reply;
  const auto found = objects_.find(key);
  if (found == objects_.end()) return Ended(StoreOutcome::kNotFound, "HTTP 404");
  reply.object = Describe(key, found->second);
  return reply;
}

StoreReply SimulatedStore::List(const ListRequest& request) {
  constexpr int kPage = 7;  // small, so that tests turn pages
  if (on_request_) on_request_();
  MutexLock lock(mutex_);
  StoreReply reply;
  bool is_done = false;
  Begin(reply, is_done);
  if (!reply.ok()) return reply;
  int num_entries = 0;
  std::string after = request.page;  // the last key or folder of the page before
  for (const auto& [key, object] : objects_) {
    if (!key.starts_with(request.prefix) || key <= after) continue;
    if (!after.empty() && after.back() == '/' && key.starts_with(after)) continue;
    const std::size_t slash = key.find('/', request.prefix.size());
    const bool in_folder = request.by_folder && slash != key.npos;
    if (num_entries == kPage) {
      reply.next_page = after;
      break;
    }
    ++num_entries;
    if (in_folder) {
      reply.folders.push_back(key.substr(0, slash + 1));
    } else {
      reply.objects.push_back(Describe(key, object));
    }
    after = in_folder ? key.substr(0, slash + 1) : key;
  }
  return reply;
}

StoreReply SimulatedStore::Delete(const std::string& key) {
  if (on_request_) on_request_();
  MutexLock lock(mutex_);
  StoreReply reply;
  bool is_done = false;
  Begin(reply, is_done);
  if (is_done) objects_.erase(key);
  return reply;
}

}  // namespace millstream
