// SPDX-License-Identifier: Apache-2.0
#include "job/hashing_stream.h"

#include <utility>

#include "fmt/format.h"
#include "xxhash.h"

namespace millstream {

struct HashingStream::State {
  alignas(64) XXH3_state_t hash;
};

HashingStream::HashingStream(std::shared_ptr<arrow::io::OutputStream> sink)
    : sink_(std::move(sink)), state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->hash);
}

HashingStream::~HashingStream() = default;

Status HashingStream::Write(const void* data, std::int64_t size) {
  XXH3_64bits_update(&state_->hash, data, static_cast<std::size_t>(size));
  return sink_->Write(data, size);
}

Status HashingStream::Close() {
  return sink_->Close();
}

std::string HashingStream::Hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(&state_->hash));
}

}  // namespace millstream
