// SPDX-License-Identifier: Apache-2.0
#include "storage/s3_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "storage/checksum.h"
#include "storage/s3_xml.h"

namespace millstream {
namespace {

constexpr std::uint64_t kListingBytesMax = 16 << 20;
constexpr std::size_t kKeyBytesMax = 1024;  // S3's own limit
constexpr char kWriteId[] = "x-amz-meta-millstream-write";

// As AWS signatures want it.
std::string Encode(std::string_view text, bool keep_slashes) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~' || (keep_slashes && c == '/');
    if (plain) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

// Whether a bucket may have this name; nothing else may get into a URL or a host name.
bool IsBucketName(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  };
  return name.size() >= 3 && name.size() <= 255 && std::all_of(name.begin(), name.end(), fits) &&
         name.front() != '.' && name.find("..") == name.npos;
}

std::int64_t SecondsOf(const std::string& http_date) {
  return std::max<std::int64_t>(ParseHttpDate(http_date).value_or(0), 0);
}

bool ParseNumber(const std::string& text, std::uint64_t* number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && stop == end && !text.empty();
}

StoreReply Ended(StoreOutcome outcome, std::string reason) {
  StoreReply reply;
  reply.outcome = outcome;
  reply.reason = std::move(reason);
  return reply;
}

StoredObject Describe(const std::string& key, const HttpReply& http) {
  StoredObject object;
  object.key = key;
  object.etag = http.Header("etag");
  object.write_id = http.Header(kWriteId);
  object.modified_s = SecondsOf(http.Header("last-modified"));
  object.store_time_s = SecondsOf(http.Header("date"));
  (void)ParseNumber(http.Header("content-length"), &object.size_bytes);
  return object;
}

// Whether the bytes are those that were stored, by what the store says of them. An etag is the MD5
// of the bytes unless the object was put in pieces or encrypted with a key of its own.
bool HasItsChecksum(const HttpReply& http) {
  if (const std::string& sha256 = http.Header("x-amz-checksum-sha256");
      !sha256.empty() && sha256.find('-') == sha256.npos) {
    return sha256 == ToBase64(Sha256(http.body));
  }
  const std::string& encryption = http.Header("x-amz-server-side-encryption");
  const bool has_own_key = !http.Header("x-amz-server-side-encryption-customer-algorithm").empty();
  const std::string& etag = http.Header("etag");
  constexpr std::size_t kQuotedMd5 = 34;
  if ((!encryption.empty() && encryption != "AES256") || has_own_key || etag.size() != kQuotedMd5 ||
      etag.find_first_not_of("0123456789abcdef\"") != etag.npos) {
    return true;
  }
  const std::string md5 = Md5(http.body);
  return md5.empty() || etag.substr(1, kQuotedMd5 - 2) == ToHex(md5);
}

std::string_view AdviceOn(std::string_view code) {
  if (code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch" || code == "InvalidToken") {
    return ": check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile of AWS_PROFILE";
  }
  if (code == "AccessDenied" || code == "AllAccessDisabled") {
    return ": these credentials may not do this; ask for s3:GetObject, s3:PutObject, "
           "s3:DeleteObject and s3:ListBucket on it";
  }
  if (code == "ExpiredToken") return ": the session has expired, sign on again";
  if (code == "RequestTimeTooSkewed") return ": set this machine's clock";
  return "";
}

class S3Store final : public ObjectStore {
 public:
  explicit S3Store(S3Options options)
      : options_(std::move(options)),
        credentials_(options_.environment),
        http_(
            {.connect_timeout_ms = 10'000,
             .stall_timeout_s = options_.stall_timeout_s,
             .ca_bundle = options_.aws.ca_bundle,
             .use_proxy = true}
        ),
        base_url_(BaseUrl()) {}

  Status CheckCredentials() { return credentials_.Get().status(); }

  StoreReply Put(const PutRequest& request) override {
    HttpRequest http;
    http.method = "PUT";
    http.body = request.bytes;
    const std::string sha256 = Sha256(request.bytes);
    http.headers = {
        "Content-Type: application/octet-stream", "x-amz-checksum-sha256: " + ToBase64(sha256)
    };
    if (!request.write_id.empty()) {
      http.headers.push_back(std::string(kWriteId) + ": " + request.write_id);
    }
    if (request.condition.kind == PutCondition::Kind::kIfAbsent) {
      http.headers.emplace_back("If-None-Match: *");
    } else if (request.condition.kind == PutCondition::Kind::kIfMatch) {
      http.headers.push_back("If-Match: " + request.condition.etag);
    }
    const HttpReply answer = Send(http, request.key, "", ToHex(sha256));
    StoreReply reply = Judge(answer);
    if (!reply.ok()) return reply;
    reply.object = Describe(request.key, answer);
    reply.object.size_bytes = request.bytes.size();
    if (reply.object.etag.empty()) return Ended(StoreOutcome::kUnknown, "no etag in the reply");
    return reply;
  }

  StoreReply Get(const GetRequest& request) override {
    HttpRequest http;
    http.body_bytes_max = request.max_bytes;
    if (!request.if_match.empty()) http.headers.push_back("If-Match: " + request.if_match);
    if (request.offset) {
      if (request.max_bytes == 0) return {};
      http.headers.push_back(fmt::format(
          "Range: bytes={}-{}", *request.offset, *request.offset + request.max_bytes - 1
      ));
    } else {
      http.headers.emplace_back("x-amz-checksum-mode: ENABLED");
    }
    HttpReply answer = Send(http, request.key, "", kEmptySha256);
    StoreReply reply = Judge(answer);
    reply.object = Describe(request.key, answer);
    if (!reply.ok()) return reply;
    const auto damaged = [&](const char* why) { return Ended(StoreOutcome::kUnavailable, why); };
    std::uint64_t length = 0;
    if (!ParseNumber(answer.Header("content-length"), &length) || length != answer.body.size()) {
      return damaged("a reply of another length than it says");
    }
    if (request.offset && answer.status != 206) {
      return Ended(StoreOutcome::kRefused, "the store does not read ranges");
    }
    const std::string from = fmt::format("bytes {}-", request.offset.value_or(0));
    if (request.offset && !answer.Header("content-range").starts_with(from)) {
      return damaged("another range than was asked for");
    }
    if (!request.if_match.empty() && reply.object.etag != request.if_match) {
      return Ended(StoreOutcome::kConditionFailed, "another version than was asked for");
    }
    if (!request.offset && !HasItsChecksum(answer)) {
      return damaged("bytes that do not match their checksum");
    }
    reply.bytes = std::move(answer.body);
    return reply;
  }

  StoreReply Head(const std::string& key) override {
    HttpRequest http;
    http.method = "HEAD";
    const HttpReply answer = Send(http, key, "", kEmptySha256);
    StoreReply reply = Judge(answer);
    if (reply.ok()) reply.object = Describe(key, answer);
    return reply;
  }

  StoreReply List(const ListRequest& request) override {
    std::string query;  // its parts sorted, as the signature wants it
    if (!request.page.empty()) query = "continuation-token=" + Encode(request.page, false) + "&";
    if (request.by_folder) query += "delimiter=%2F&";
    query += "encoding-type=url&list-type=2&prefix=" + Encode(request.prefix, false);
    HttpRequest http;
    http.body_bytes_max = kListingBytesMax;
    const HttpReply answer = Send(http, "", query, kEmptySha256);
    StoreReply reply = Judge(answer);
    if (!reply.ok()) return reply;
    // It came whole, as its length says; what it says may still be damaged on the way.
    const Status parsed = ParseS3Listing(answer.body, reply);
    if (!parsed.ok()) return Ended(StoreOutcome::kUnavailable, parsed.message());
    const auto is_foreign = [&](const StoredObject& object) {
      return !object.key.starts_with(request.prefix);
    };
    if (std::any_of(reply.objects.begin(), reply.objects.end(), is_foreign)) {
      return Ended(StoreOutcome::kRefused, "a listing of other keys than were asked for");
    }
    return reply;
  }

  StoreReply Delete(const std::string& key) override {
    HttpRequest http;
    http.method = "DELETE";
    StoreReply reply = Judge(Send(http, key, "", kEmptySha256));
    if (reply.outcome == StoreOutcome::kNotFound) reply.outcome = StoreOutcome::kDone;
    return reply;
  }

 private:
  static constexpr char kEmptySha256[] =
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

  // A store that AWS_ENDPOINT_URL names is asked by paths, Amazon's by host names, but for buckets
  // with a dot, which its certificate does not cover.
  std::string BaseUrl() const {
    const std::string& bucket = options_.bucket;
    if (!options_.aws.endpoint.empty()) return options_.aws.endpoint + "/" + bucket;
    const std::string& region = options_.aws.region;
    const std::string host =
        "s3." + region + (region.starts_with("cn-") ? ".amazonaws.com.cn" : ".amazonaws.com");
    if (bucket.find('.') != bucket.npos) return "https://" + host + "/" + bucket;
    return "https://" + bucket + "." + host;
  }

  HttpReply Send(
      HttpRequest& http, const std::string& key, const std::string& query, const std::string& sha256
  ) {
    HttpReply reply;
    const auto credentials = credentials_.Get();
    if (!credentials.ok() || key.size() > kKeyBytesMax) {
      reply.end = HttpReply::End::kWrong;
      reply.error =
          credentials.ok() ? "its name is longer than 1,024 bytes" : credentials.status().message();
      return reply;
    }
    http.url = base_url_ + "/" + Encode(key, /*keep_slashes=*/true);
    if (!query.empty()) http.url += "?" + query;
    http.headers.push_back("x-amz-content-sha256: " + sha256);
    if (!credentials->token.empty()) {
      http.headers.push_back("x-amz-security-token: " + credentials->token);
    }
    const AwsSigner signer{credentials->key_id, credentials->secret, options_.aws.region};
    http.signer = &signer;
    return http_.Send(http);
  }

  StoreReply Judge(const HttpReply& http) {
    switch (http.end) {
      case HttpReply::End::kNotSent:
        return Ended(StoreOutcome::kUnavailable, http.error);
      case HttpReply::End::kBroken:
      case HttpReply::End::kTimeout:
        return Ended(StoreOutcome::kUnknown, http.error);
      case HttpReply::End::kTooLarge:
        return Ended(StoreOutcome::kRefused, "it is larger than expected");
      case HttpReply::End::kWrong:
        return Ended(StoreOutcome::kRefused, http.error);
      case HttpReply::End::kDone:
        break;
    }
    if (http.status >= 200 && http.status < 300) return {};
    return JudgeFailure(http);
  }

  StoreReply JudgeFailure(const HttpReply& http) {
    const S3Error error = ParseS3Error(http.body);
    std::string reason = fmt::format("HTTP {}", http.status);
    if (!error.code.empty()) reason += fmt::format(" {}: {}", error.code, error.message);
    const std::string region =
        error.region.empty() ? http.Header("x-amz-bucket-region") : error.region;
    if (http.status == 301 || http.status == 307 || http.status == 400) {
      if (!region.empty() && region != options_.aws.region) {
        return Ended(
            StoreOutcome::kRefused,
            fmt::format(
                "bucket {} lies in another region: set AWS_REGION={}", options_.bucket, region
            )
        );
      }
    }
    if (error.code == "ExpiredToken") credentials_.Forget();  // a role's are asked for again
    for (const char* damage :
         {"RequestTimeout",
          "BadDigest",
          "XAmzContentSHA256Mismatch",
          "XAmzContentChecksumMismatch",
          "IncompleteBody",
          "SlowDown"}) {
      if (error.code == damage) return Ended(StoreOutcome::kUnavailable, reason);
    }
    switch (http.status) {
      case 404:
        if (error.code != "NoSuchBucket") return Ended(StoreOutcome::kNotFound, reason);
        return Ended(
            StoreOutcome::kRefused,
            fmt::format("there is no bucket {}: create it, or correct the path", options_.bucket)
        );
      case 408:
      case 429:
      case 500:
      case 502:
      case 503:
      case 504:
        return Ended(StoreOutcome::kUnavailable, reason);
      case 409:
        return Ended(StoreOutcome::kConflict, reason);
      case 412:
        return Ended(StoreOutcome::kConditionFailed, reason);
      case 403:
        if (error.code.empty()) {  // of a HEAD, which says no more
          return Ended(StoreOutcome::kRefused, reason + std::string(AdviceOn("AccessDenied")));
        }
        [[fallthrough]];
      default:
        return Ended(StoreOutcome::kRefused, reason + std::string(AdviceOn(error.code)));
    }
  }

  const S3Options options_;
  AwsCredentialChain credentials_;
  HttpClient http_;
  const std::string base_url_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> OpenS3(S3Options options) {
  auto store = std::make_unique<S3Store>(std::move(options));
  MS_RETURN_NOT_OK(store->CheckCredentials());
  return store;
}

Result<S3Path> ParseS3Path(const std::string& path) {
  constexpr std::string_view kScheme = "s3://";
  std::string_view rest = path;
  if (!rest.starts_with(kScheme)) return Status::Invalid(path, " does not begin with s3://");
  rest.remove_prefix(kScheme.size());
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  S3Path parsed{
      std::string(rest.substr(0, slash)),
      slash == rest.size() ? "" : std::string(rest.substr(slash + 1))
  };
  if (!IsBucketName(parsed.bucket)) {
    return Status::Invalid(
        path,
        " names no bucket: an S3 path is s3://bucket/folder, \"",
        parsed.bucket,
        "\" cannot be a bucket's name"
    );
  }
  return parsed;
}

}  // namespace millstream
