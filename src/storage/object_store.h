// SPDX-License-Identifier: Apache-2.0
// The requests that an object store answers. Storage on stores is written over them, so that the
// same code runs on S3 and on a simulated store that delays, doubts and fails.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace millstream {

/// How a request ended.
enum class StoreOutcome {
  kDone,
  kNotFound,
  kConditionFailed,  // 412: nothing was changed, by this request
  kConflict,         // 409: another request was at work on the object; nothing was changed
  kUnavailable,      // 408, 429, 5xx, no connection: asking again may help
  kUnknown,          // time-out or reset after it was sent: a change may come about, even later
  kRefused,          // asking again will not help
};

/// When a Put is to be done.
struct PutCondition {
  enum class Kind { kNone, kIfAbsent, kIfMatch };
  Kind kind = Kind::kNone;
  std::string etag;  // of kIfMatch

  static PutCondition None() { return {Kind::kNone, {}}; }
  static PutCondition IfAbsent() { return {Kind::kIfAbsent, {}}; }
  static PutCondition IfMatch(std::string etag) { return {Kind::kIfMatch, std::move(etag)}; }
};

struct PutRequest {
  std::string key;
  std::string_view bytes;
  PutCondition condition;
  std::string write_id;  // kept with the object, to tell whose it is; printable ASCII
};

struct GetRequest {
  std::string key;
  /// More is refused before it is allocated. Of a range: its length.
  std::uint64_t max_bytes = 0;
  std::optional<std::uint64_t> offset;  // of a range; else the whole object
  std::string if_match;                 // an etag, or empty
};

struct ListRequest {
  std::string prefix;
  bool by_folder = false;  // keys with a '/' after the prefix are summed up as folders
  std::string page;        // where the page before said to go on
};

struct StoredObject {
  std::string key;
  std::uint64_t size_bytes = 0;
  std::string etag;
  std::string write_id;           // not of a listing; empty if it is not ours
  std::int64_t modified_s = 0;    // when, in seconds of the store's clock; not of a listing
  std::int64_t store_time_s = 0;  // what that clock showed as it answered; not of a listing
};

struct StoreReply {
  StoreOutcome outcome = StoreOutcome::kDone;
  /// What the store or the connection said, for people, if the outcome is not kDone. No secrets.
  std::string reason;
  StoredObject object;  // of Put (its etag), Get and Head
  std::string bytes;    // of Get; verified wherever the store gives a checksum

  std::vector<StoredObject> objects;  // of List, sorted by key
  std::vector<std::string> folders;   // of List by_folder: prefixes that end in '/', sorted
  std::string next_page;              // empty: that was all

  bool ok() const { return outcome == StoreOutcome::kDone; }
};

/// One request each, sent once. Thread-safe. Keys are '/'-separated and do not begin with '/'.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  virtual StoreReply Put(const PutRequest& request) = 0;
  virtual StoreReply Get(const GetRequest& request) = 0;
  virtual StoreReply Head(const std::string& key) = 0;
  virtual StoreReply List(const ListRequest& request) = 0;
  /// kDone if there was none.
  virtual StoreReply Delete(const std::string& key) = 0;
};

}  // namespace millstream
