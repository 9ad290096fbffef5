// SPDX-License-Identifier: Apache-2.0
// What S3 says in XML: pages of a listing, and errors.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "storage/object_store.h"

namespace millstream {

struct S3Error {
  std::string code, message, region;
};

/// Reads a ListBucketResult into a reply's objects, folders and next_page. Fails on anything that
/// is not one: other XML, a document type, too many or too long entries.
Status ParseS3Listing(std::string_view xml, StoreReply& reply);

/// Empty where the text is no Error of S3's.
S3Error ParseS3Error(std::string_view xml);

}  // namespace millstream
