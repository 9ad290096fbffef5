// SPDX-License-Identifier: Apache-2.0
#include "openai/servers.h"

#include <strings.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <optional>
#include <string_view>
#include <utility>

#include "base/mutex.h"
#include "base/parse_json.h"
#include "engine/engine.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "http/http_client.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kListBytesMax = 16 << 20;
constexpr long kTimeoutMs = 30'000;
constexpr std::chrono::milliseconds kInterval{1000};  // between two tries
constexpr std::int64_t kContextMax = std::int64_t{1} << 31;

// As far as it is base64.
std::string FromBase64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t pending = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == kDigits.npos) break;
    pending = pending << 6U | static_cast<std::uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(pending >> static_cast<unsigned>(bits) & 0xFFU);
  }
  return bytes;
}

HttpReply Get(HttpClient& client, const ServerAccess& access, const std::string& url) {
  HttpRequest request;
  request.url = url;
  request.headers = access.headers;
  request.body_bytes_max = kListBytesMax;
  request.timeout_ms = kTimeoutMs;
  return client.Send(request);
}

Json Parsed(const HttpReply& reply) {
  const bool is_good = reply.end == HttpReply::End::kDone && reply.status == 200;
  return is_good ? ParseJson<Json>(reply.body) : Json();
}

std::int64_t Context(const Json& json, const char* key) {
  const Json& context = Member(json, key);
  if (!context.is_number_integer()) return 0;
  return std::clamp<std::int64_t>(context.get<std::int64_t>(), 0, kContextMax);
}

// The entry of a list of models that is `model`'s, or its first.
const Json& EntryOf(const Json& list, const std::string& model) {
  static const Json kNone;
  const Json& data = Member(list, "data");
  if (!data.is_array() || data.empty()) return kNone;
  const auto entry = std::find_if(data.begin(), data.end(), [&](const Json& one) {
    return Member(one, "id") == model;
  });
  return entry == data.end() ? data.front() : *entry;
}

Dialect DialectOf(const Json& entry) {
  const Json& owner = Member(entry, "owned_by");
  if (owner == "vllm") return Dialect::kVllm;
  if (owner == "sglang") return Dialect::kSglang;
  if (owner == "llamacpp") return Dialect::kLlamaServer;
  return Dialect::kOpenAi;
}

// llama-server tells its context elsewhere: what one of its slots holds.
std::int64_t ContextOfSlots(
    HttpClient& client, const ServerAccess& access, const std::string& url
) {
  const Json props = Parsed(Get(client, access, RootOf(url) + "/props"));
  return Context(Member(props, "default_generation_settings"), "n_ctx");
}

// Nothing if the server is not there, or not ready: `why` says so.
std::optional<Result<ServerFacts>> AskOne(
    HttpClient& client,
    const ServerAccess& access,
    const std::string& url,
    const std::string& model,
    std::string& why
) {
  const HttpReply reply = Get(client, access, url + "/models");
  if (reply.end == HttpReply::End::kWrong) {
    return Status::Invalid("cannot ask ", url, ": ", reply.error);
  }
  if (reply.end != HttpReply::End::kDone) {
    why = fmt::format("{}: {}", url, reply.error);
    return std::nullopt;
  }
  if (reply.status == 401 || reply.status == 403) {
    return EngineBroken(
        fmt::format("{} answers {}: check the key that `api_key` names", url, reply.status)
    );
  }
  if (reply.status == 429 || reply.status >= 500) {
    why = fmt::format("{} answers {}", url, reply.status);
    return std::nullopt;
  }
  const Json list = Parsed(reply);
  const Json& entry = EntryOf(list, model);
  ServerFacts facts;
  facts.dialect = DialectOf(entry);
  facts.context = facts.dialect == Dialect::kLlamaServer ? ContextOfSlots(client, access, url)
                                                         : Context(entry, "max_model_len");
  return facts;
}

// What a text begins with, as it is or as JSON escapes it, and in how many bytes.
std::pair<char, std::size_t> FirstCharacter(std::string_view text) {
  constexpr std::string_view kHex = "\\u00", kEscaped = "\"\\/";
  if (text.empty()) return {};
  if (text.starts_with(kHex) && text.size() >= 6) {
    unsigned char code = 0;
    const auto [end, error] = std::from_chars(text.data() + 4, text.data() + 6, code, 16);
    if (error == std::errc() && end == text.data() + 6) return {static_cast<char>(code), 6};
  }
  const bool is_escaped =
      text[0] == '\\' && text.size() >= 2 && kEscaped.find(text[1]) != kEscaped.npos;
  return is_escaped ? std::pair(text[1], 2) : std::pair(text[0], 1);
}

// How many bytes spell `secret`, which the text begins with; 0: it does not.
std::size_t SpelledBytes(std::string_view text, std::string_view secret) {
  if (text.starts_with(secret)) return secret.size();
  std::size_t count = 0;
  for (const char wanted : secret) {
    const auto [c, bytes] = FirstCharacter(text.substr(count));
    if (c != wanted || bytes == 0) return 0;
    count += bytes;
  }
  return count;
}

}  // namespace

std::string RootOf(std::string base_url) {
  constexpr std::string_view kVersion = "/v1";
  if (base_url.ends_with(kVersion)) base_url.resize(base_url.size() - kVersion.size());
  return base_url;
}

bool WaitFor(std::chrono::milliseconds time, const std::stop_token& stop) {
  Mutex mutex;
  std::condition_variable_any never;
  MutexLock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

HttpOptions ServerAccess::http_options() const {
  HttpOptions options;
  options.ca_bundle = ca_file;
  options.is_multiplexed = true;
  options.stall_timeout_s = 0;  // a server says nothing until the whole answer is there
  options.buffer_bytes = 1024;  // thousands are under way
  return options;
}

void ServerAccess::AddSecret(std::string value) {
  constexpr std::size_t kPartBytesMin = 4;  // less would be in many a word
  const auto add = [this](std::string secret) {
    // The longest first: one may be the beginning of another.
    const auto at = std::find_if(secrets.begin(), secrets.end(), [&](const std::string& known) {
      return known.size() < secret.size();
    });
    secrets.insert(at, std::move(secret));
  };
  const std::size_t blank = value.find_last_of(" \t");
  if (blank != value.npos) {
    std::string part = value.substr(blank + 1);
    const std::string decoded =
        strncasecmp(value.c_str(), "basic ", 6) == 0 ? FromBase64(part) : std::string();
    const std::size_t colon = decoded.find(':');
    if (colon != decoded.npos) {
      std::string password = decoded.substr(colon + 1);
      if (password.empty()) password = decoded.substr(0, colon);  // some services' key is the name
      if (password.size() >= kPartBytesMin) add(std::move(password));
    }
    if (part.size() >= kPartBytesMin) add(std::move(part));
  }
  add(std::move(value));
}

std::string ServerAccess::Redacted(std::string message) const {
  constexpr std::string_view kMask = "***";
  for (const std::string& secret : secrets) {
    const std::string begins{secret.front(), '\\'};
    std::string masked;
    std::size_t done = 0;
    for (std::size_t at = 0; (at = message.find_first_of(begins, at)) != message.npos;) {
      const std::size_t count = SpelledBytes(std::string_view(message).substr(at), secret);
      if (count > 0) {
        masked.append(message, done, at - done).append(kMask);
        done = at + count;
      }
      at += std::max<std::size_t>(count, 1);
    }
    if (done > 0) message = masked.append(message, done);
  }
  return message;
}

Result<ServerFacts> AskServers(
    const ServerAccess& access,
    const std::string& model,
    std::chrono::milliseconds patience,
    const std::function<void(const std::string&)>& say,
    std::stop_token stop
) {
  HttpClient client(access.http_options());
  const Clock::time_point until = Clock::now() + patience;
  bool was_said = false;
  while (true) {
    std::vector<std::string> reasons;
    for (const std::string& url : access.base_urls) {
      std::string why;
      if (auto facts = AskOne(client, access, url, model, why)) return *std::move(facts);
      reasons.push_back(access.Redacted(std::move(why)));
    }
    const std::string why = fmt::format("{}", fmt::join(reasons, "; "));
    if (Clock::now() + kInterval > until) {
      return EngineBroken(fmt::format(
          "no server answers that could say what it is ({}): start it, or give its `dialect`", why
      ));
    }
    if (say && !std::exchange(was_said, true)) {
      say(fmt::format("waiting for a server to say what it is ({})", why));
    }
    if (!WaitFor(kInterval, stop)) return Status::Cancelled("stopped while waiting for a server");
  }
}

}  // namespace millstream
