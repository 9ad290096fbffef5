// SPDX-License-Identifier: Apache-2.0
// Where S3 is and who asks, from the places where every AWS tool looks.

#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "base/status.h"
#include "http/http_client.h"

namespace millstream {

/// Looks a variable up; a test gives its own. Empty counts as not set.
using Environment = std::function<std::string(const std::string&)>;
std::string FromProcessEnvironment(const std::string& name);

struct AwsSettings {
  std::string region;
  std::string endpoint;   // "http://localhost:9000"; empty: Amazon's own
  std::string ca_bundle;  // a file; empty: the system's
};

/// From AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_CA_BUNDLE,
/// else from the profile (AWS_PROFILE) in AWS_CONFIG_FILE (~/.aws/config). The error says what to
/// set.
Result<AwsSettings> LoadAwsSettings(const Environment& environment);

/// Never logged, never in a message.
struct AwsCredentials {
  std::string key_id, secret, token;
};

/// The usual chain: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; the profile in
/// AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials) or the config file; the role of the container
/// (AWS_CONTAINER_CREDENTIALS_*) or of the machine (IMDSv2), which are asked again before they
/// expire. Thread-safe.
class AwsCredentialChain {
 public:
  explicit AwsCredentialChain(Environment environment);

  /// The error says what to set.
  Result<AwsCredentials> Get();
  /// The store does not take them any more: looks them up again at the next Get().
  void Forget();

 private:
  using WallTime = std::chrono::system_clock::time_point;

  Result<AwsCredentials> Find() MS_REQUIRES(mutex_);
  Result<std::optional<AwsCredentials>> FromContainer() MS_REQUIRES(mutex_);
  Result<std::optional<AwsCredentials>> FromMachine() MS_REQUIRES(mutex_);
  Result<AwsCredentials> ParseRole(const std::string& json) MS_REQUIRES(mutex_);

  const Environment environment_;
  HttpClient http_;
  Mutex mutex_;
  std::optional<AwsCredentials> known_ MS_GUARDED_BY(mutex_);
  std::optional<WallTime> ask_again_ MS_GUARDED_BY(mutex_);
};

/// The keys of one section of a file as AWS tools write them, which need not be there.
std::map<std::string, std::string> ReadAwsSection(
    const std::string& path, std::string_view section
);

}  // namespace millstream
