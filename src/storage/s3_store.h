// SPDX-License-Identifier: Apache-2.0
// S3, or another store that speaks its protocol, over HTTP.

#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "http/http_client.h"
#include "storage/aws_settings.h"
#include "storage/object_store.h"

namespace millstream {

struct S3Options {
  std::string bucket;
  AwsSettings aws;
  Environment environment = FromProcessEnvironment;  // for credentials
  long stall_timeout_s = 30;
};

/// One bucket. Fails if its name cannot be one or there are no credentials.
Result<std::unique_ptr<ObjectStore>> OpenS3(S3Options options);

/// "s3://bucket/some/key", taken apart.
struct S3Path {
  std::string bucket, key;
};
Result<S3Path> ParseS3Path(const std::string& path);

}  // namespace millstream
