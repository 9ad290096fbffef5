// SPDX-License-Identifier: Apache-2.0
// The checksums that S3 speaks of, and how it writes them.

#pragma once

#include <string>
#include <string_view>

namespace millstream {

/// Raw bytes; empty if OpenSSL does not offer the algorithm (as MD5 on some machines).
std::string Sha256(std::string_view bytes);
std::string Md5(std::string_view bytes);

std::string ToHex(std::string_view raw);
std::string ToBase64(std::string_view raw);

}  // namespace millstream
