// SPDX-License-Identifier: Apache-2.0
#include "storage/checksum.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <cstddef>

namespace millstream {
namespace {

std::string Digest(std::string_view bytes, const EVP_MD* algorithm) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, algorithm, nullptr) != 1) {
    return {};
  }
  return {reinterpret_cast<const char*>(digest.data()), size};
}

}  // namespace

std::string Sha256(std::string_view bytes) {
  return Digest(bytes, EVP_sha256());
}

std::string Md5(std::string_view bytes) {
  return Digest(bytes, EVP_md5());
}

std::string ToHex(std::string_view raw) {
  std::string hex;
  for (const char c : raw) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

std::string ToBase64(std::string_view raw) {
  std::string text(4 * ((raw.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(text.data()),
      reinterpret_cast<const unsigned char*>(raw.data()),
      static_cast<int>(raw.size())
  );
  text.resize(static_cast<std::size_t>(size));
  return text;
}

}  // namespace millstream
