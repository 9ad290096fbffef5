// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "storage/object_storage.h"
#include "storage/s3_store.h"
#include "storage/storage.h"

namespace millstream {

Result<std::unique_ptr<Storage>> OpenStorage(const std::string& path, std::stop_token stop) {
  if (!IsObjectPath(path)) return MakeLocalStorage();
  MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(path));
  S3Options options;
  options.bucket = s3.bucket;
  MS_ASSIGN_OR_RETURN(options.aws, LoadAwsSettings(options.environment));
  MS_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, OpenS3(std::move(options)));
  ObjectStorageOptions storage;
  storage.root = "s3://" + s3.bucket + "/";
  storage.stop = std::move(stop);
  return MakeObjectStorage(std::move(store), std::move(storage));
}

}  // namespace millstream
