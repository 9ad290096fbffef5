// SPDX-License-Identifier: Apache-2.0
#include "openai/token_counter.h"

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "base/compact_json.h"
#include "base/parse_json.h"
#include "engine/engine.h"
#include "http/http_client.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kReplyBytesMax = 256 << 20;
constexpr long kTimeoutMs = 60'000;
constexpr std::chrono::milliseconds kInterval{1000};
constexpr std::chrono::minutes kPatience{15};

class ServerCounter {
 public:
  ServerCounter(ServerAccess access, Dialect dialect, std::string model, std::stop_token stop)
      : access_(std::move(access)),
        dialect_(dialect),
        model_(std::move(model)),
        stop_(std::move(stop)),
        client_(access_.http_options()) {
    access_.headers.emplace_back("Content-Type: application/json");
    for (const std::string& url : access_.base_urls) roots_.push_back(RootOf(url));
  }

  Result<std::optional<std::int64_t>> Count(const Json& body) {
    Json asked;
    const bool is_chat = body.contains("messages");
    if (dialect_ == Dialect::kLlamaServer) {
      Json text = is_chat ? Json() : body.at("prompt");
      if (is_chat) {
        MS_ASSIGN_OR_RETURN(text, Ask("/apply-template", "prompt", Part(body)));
      }
      if (!text.is_string()) return std::nullopt;
      asked = {{"content", std::move(text)}, {"add_special", true}, {"parse_special", true}};
    } else {
      asked = Part(body);
      asked["model"] = model_;
      if (body.contains("continue_final_message")) asked["add_generation_prompt"] = false;
    }
    MS_ASSIGN_OR_RETURN(const Json tokens, Ask("/tokenize", "tokens", asked));
    if (!tokens.is_array()) return std::nullopt;
    return static_cast<std::int64_t>(tokens.size());
  }

 private:
  // What of a request's body its prompt is made of.
  static Json Part(const Json& body) {
    Json part = Json::object();
    constexpr std::array kKeys{
        "messages", "prompt", "add_special_tokens", "continue_final_message", "chat_template_kwargs"
    };
    for (const char* key : kKeys) {
      if (body.contains(key)) part[key] = body[key];
    }
    return part;
  }

  // What the reply has under `key`; null if it has nothing there, or the request is refused.
  Result<Json> Ask(const std::string& path, const char* key, const Json& asked) {
    const std::string text = CompactJson(asked);
    const Clock::time_point until = Clock::now() + kPatience;
    while (true) {
      std::string why;
      const std::size_t first = answered_last_;
      for (std::size_t i = 0; i < roots_.size(); ++i) {
        const std::size_t server = (first + i) % roots_.size();
        const std::string& root = roots_[server];
        HttpRequest request;
        request.method = "POST";
        request.url = root + path;
        request.headers = access_.headers;
        request.body = text;
        request.body_bytes_max = kReplyBytesMax;
        request.timeout_ms = kTimeoutMs;
        const HttpReply reply = client_.Send(request);
        const bool is_done = reply.end == HttpReply::End::kDone;
        const bool is_answer = is_done && reply.status < 500 && reply.status != 429;
        if (is_answer) answered_last_ = server;
        if (is_done && reply.status == 200) {
          Json json = ParseJson<Json>(reply.body);
          const auto found = json.is_object() ? json.find(key) : json.end();
          return found == json.end() ? Json() : std::move(*found);  // a copy may take gigabytes
        }
        if (is_answer) return Json();
        why = is_done ? root + path + " answers " + std::to_string(reply.status) : reply.error;
      }
      if (Clock::now() + kInterval > until) {
        return EngineBroken("no server has counted a prompt's tokens: " + access_.Redacted(why));
      }
      if (!WaitFor(kInterval, stop_)) return Status::Cancelled("stopped");
    }
  }

  ServerAccess access_;
  const Dialect dialect_;
  const std::string model_;
  const std::stop_token stop_;
  HttpClient client_;
  std::vector<std::string> roots_;
  std::atomic<std::size_t> answered_last_ = 0;  // a host that is gone costs a timeout: not first
};

}  // namespace

TokenCounter CountAtServers(
    ServerAccess access, Dialect dialect, std::string model, std::stop_token stop
) {
  auto counter = std::make_shared<ServerCounter>(
      std::move(access), dialect, std::move(model), std::move(stop)
  );
  return [counter](const Json& body) { return counter->Count(body); };
}

}  // namespace millstream
