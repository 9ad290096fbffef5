// SPDX-License-Identifier: Apache-2.0
#include "storage/aws_settings.h"

#include <cstdlib>
#include <fstream>
#include <utility>

#include "base/parse_json.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

constexpr std::uint64_t kReplyBytesMax = 64 << 10;
constexpr std::size_t kFileBytesMax = 1 << 20;
constexpr char kHowTo[] =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of "
    "~/.aws/credentials";

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string Or(const std::string& first, const std::function<std::string()>& otherwise) {
  return first.empty() ? otherwise() : first;
}

std::string ProfileName(const Environment& environment) {
  return Or(environment("AWS_PROFILE"), [] { return std::string("default"); });
}

std::string FileNamed(
    const Environment& environment, const std::string& variable, const std::string& name
) {
  return Or(environment(variable), [&] {
    const std::string home = environment("HOME");
    return home.empty() ? std::string() : home + "/.aws/" + name;
  });
}

std::map<std::string, std::string> ConfigProfile(const Environment& environment) {
  const std::string path = FileNamed(environment, "AWS_CONFIG_FILE", "config");
  const std::string profile = ProfileName(environment);
  return ReadAwsSection(path, profile == "default" ? profile : "profile " + profile);
}

std::optional<AwsCredentials> StaticKeys(std::map<std::string, std::string> section) {
  AwsCredentials found{
      section["aws_access_key_id"], section["aws_secret_access_key"], section["aws_session_token"]
  };
  if (found.key_id.empty() || found.secret.empty()) return std::nullopt;
  return found;
}

HttpOptions NearbyOptions() {
  HttpOptions options;
  options.connect_timeout_ms = 1000;
  options.stall_timeout_s = 5;
  options.use_proxy = false;
  return options;
}

}  // namespace

std::string FromProcessEnvironment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

std::map<std::string, std::string> ReadAwsSection(
    const std::string& path, std::string_view section
) {
  std::map<std::string, std::string> keys;
  std::ifstream file(path);
  std::string text;
  bool is_ours = false;
  for (std::size_t bytes = 0; std::getline(file, text) && bytes < kFileBytesMax;) {
    bytes += text.size();
    const bool is_nested = !text.empty() && (text[0] == ' ' || text[0] == '\t');
    const std::string_view line = Trim(text);
    if (line.empty() || line[0] == '#' || line[0] == ';' || is_nested) continue;
    if (line.front() == '[') {
      is_ours = line.back() == ']' && Trim(line.substr(1, line.size() - 2)) == section;
      continue;
    }
    const std::size_t equals = line.find('=');
    if (!is_ours || equals == line.npos) continue;
    keys[std::string(Trim(line.substr(0, equals)))] = std::string(Trim(line.substr(equals + 1)));
  }
  return keys;
}

Result<AwsSettings> LoadAwsSettings(const Environment& environment) {
  AwsSettings settings;
  std::map<std::string, std::string> profile = ConfigProfile(environment);
  settings.endpoint = Or(environment("AWS_ENDPOINT_URL_S3"), [&] {
    return Or(environment("AWS_ENDPOINT_URL"), [&] { return profile["endpoint_url"]; });
  });
  settings.region = Or(environment("AWS_REGION"), [&] {
    return Or(environment("AWS_DEFAULT_REGION"), [&] { return profile["region"]; });
  });
  settings.ca_bundle = Or(environment("AWS_CA_BUNDLE"), [&] { return profile["ca_bundle"]; });
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  if (!settings.endpoint.empty() && !settings.endpoint.starts_with("https://") &&
      !settings.endpoint.starts_with("http://")) {
    return Status::Invalid(
        "AWS_ENDPOINT_URL must begin with https:// or http://, it is ", settings.endpoint
    );
  }
  if (settings.endpoint.find('@') != settings.endpoint.npos) {
    return Status::Invalid("AWS_ENDPOINT_URL must hold no user or password: ", kHowTo);
  }
  if (settings.region.empty()) {
    if (settings.endpoint.empty()) {
      return Status::Invalid(
          "no region for S3: set AWS_REGION to the one that the bucket lies in, such as us-east-1"
      );
    }
    settings.region = "us-east-1";  // what stores other than Amazon's take
  }
  return settings;
}

AwsCredentialChain::AwsCredentialChain(Environment environment)
    : environment_(std::move(environment)), http_(NearbyOptions()) {}

Result<AwsCredentials> AwsCredentialChain::Get() {
  MutexLock lock(mutex_);
  const auto now = std::chrono::system_clock::now();
  if (known_ && (!ask_again_ || now < *ask_again_)) return *known_;
  ask_again_.reset();
  auto found = Find();
  if (found.ok()) {
    known_ = *std::move(found);
  } else if (known_) {
    // They are good for some minutes yet; once they are not, the store says so.
    ask_again_ = now + std::chrono::seconds(30);
  } else {
    return found.status();
  }
  return *known_;
}

void AwsCredentialChain::Forget() {
  MutexLock lock(mutex_);
  known_.reset();
}

Result<AwsCredentials> AwsCredentialChain::Find() {
  AwsCredentials given{
      environment_("AWS_ACCESS_KEY_ID"),
      environment_("AWS_SECRET_ACCESS_KEY"),
      environment_("AWS_SESSION_TOKEN")
  };
  if (!given.key_id.empty() && !given.secret.empty()) return given;
  if (given.key_id.empty() != given.secret.empty()) {
    return Status::Invalid(
        "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set; S3 needs both"
    );
  }
  const std::string path = FileNamed(environment_, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
  if (auto keys = StaticKeys(ReadAwsSection(path, ProfileName(environment_)))) return *keys;
  if (auto keys = StaticKeys(ConfigProfile(environment_))) return *keys;
  if (!environment_("AWS_PROFILE").empty()) {
    return Status::Invalid(
        "the profile that AWS_PROFILE names, ",
        environment_("AWS_PROFILE"),
        ", has no aws_access_key_id and aws_secret_access_key in ",
        path,
        "; profiles that assume roles or sign on are not read: ",
        kHowTo
    );
  }
  MS_ASSIGN_OR_RETURN(std::optional<AwsCredentials> role, FromContainer());
  if (!role) {
    MS_ASSIGN_OR_RETURN(role, FromMachine());
  }
  if (!role) return Status::Invalid("no credentials for S3: ", kHowTo);
  return *std::move(role);
}

Result<std::optional<AwsCredentials>> AwsCredentialChain::FromContainer() {
  HttpRequest request;
  const std::string relative = environment_("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  request.url = relative.empty() ? environment_("AWS_CONTAINER_CREDENTIALS_FULL_URI")
                                 : "http://169.254.170.2" + relative;
  if (request.url.empty()) return std::optional<AwsCredentials>();
  std::string token = environment_("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  if (const std::string path = environment_("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
      !path.empty()) {
    std::ifstream file(path);
    std::getline(file, token);
  }
  if (!token.empty()) request.headers.push_back("Authorization: " + std::string(Trim(token)));
  request.body_bytes_max = kReplyBytesMax;
  const HttpReply reply = http_.Send(request);
  if (reply.end != HttpReply::End::kDone || reply.status != 200) {
    return Status::IOError("cannot get the container's credentials for S3: ", reply.error);
  }
  MS_ASSIGN_OR_RETURN(AwsCredentials role, ParseRole(reply.body));
  return std::optional<AwsCredentials>(std::move(role));
}

// The role of the EC2 machine that this may be.
Result<std::optional<AwsCredentials>> AwsCredentialChain::FromMachine() {
  std::optional<AwsCredentials> none;
  if (environment_("AWS_EC2_METADATA_DISABLED") == "true") return none;
  const std::string service = Or(environment_("AWS_EC2_METADATA_SERVICE_ENDPOINT"), [] {
    return std::string("http://169.254.169.254");
  });
  const auto ask = [&](const char* method, const std::string& path, const std::string& header) {
    HttpRequest request;
    request.method = method;
    request.url = service + path;
    request.headers.push_back(header);
    request.body_bytes_max = kReplyBytesMax;
    const HttpReply reply = http_.Send(request);
    return reply.end == HttpReply::End::kDone && reply.status == 200 ? reply.body : "";
  };
  const std::string token =
      ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600");
  if (token.empty()) return none;
  const std::string with = "X-aws-ec2-metadata-token: " + token;
  const std::string roles = "/latest/meta-data/iam/security-credentials/";
  const std::string role(Trim(ask("GET", roles, with)));
  if (role.empty() || role.find('\n') != role.npos) return none;
  MS_ASSIGN_OR_RETURN(AwsCredentials found, ParseRole(ask("GET", roles + role, with)));
  return std::optional<AwsCredentials>(std::move(found));
}

Result<AwsCredentials> AwsCredentialChain::ParseRole(const std::string& json) {
  const auto parsed = ParseJson<nlohmann::json>(json);
  const auto text = [&](const char* name) {
    const bool is_text = parsed.is_object() && parsed.contains(name) && parsed[name].is_string();
    return is_text ? parsed[name].get<std::string>() : std::string();
  };
  AwsCredentials role{text("AccessKeyId"), text("SecretAccessKey"), text("Token")};
  if (role.key_id.empty() || role.secret.empty()) {
    return Status::IOError("the service that gives this machine's role gave no credentials");
  }
  const std::string expires = text("Expiration");  // 2026-01-31T12:34:56Z
  if (expires.size() >= 19) {
    const std::string day = expires.substr(0, 4) + expires.substr(5, 2) + expires.substr(8, 2);
    const auto at = ParseHttpDate(day + " " + expires.substr(11, 8) + " GMT");
    constexpr std::chrono::minutes kEarlier(5);
    if (at) ask_again_ = std::chrono::system_clock::from_time_t(*at) - kEarlier;
  }
  return role;
}

}  // namespace millstream
