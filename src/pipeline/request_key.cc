// SPDX-License-Identifier: Apache-2.0
#include "pipeline/request_key.h"

#include <cstring>
#include <string>

#include "engine/wire.h"
#include "xxhash.h"

namespace millstream {

RandomKey SampleKey(std::int64_t seed, RowId row, std::string_view step, std::int64_t sample) {
  const std::int64_t numbers[4] = {seed, row.file, row.record, sample};
  std::string bytes(sizeof(numbers), '\0');
  std::memcpy(bytes.data(), numbers, sizeof(numbers));
  bytes += step;
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

Hash128 HashOfRequest(const Request& request, std::string_view model) {
  Request asked = request;
  asked.id = 0;
  asked.name.clear();
  asked.generated_tokens.clear();
  std::string bytes = EncodeRequest(asked).append(model);
  if (!request.http_body.empty()) {
    bytes.append(1, '\0').append(request.http_path).append(1, '\0').append(request.http_body);
    if (request.http_whole) bytes.append(1, '\0');
  }
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

}  // namespace millstream
