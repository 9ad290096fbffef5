// SPDX-License-Identifier: Apache-2.0
// Requests and completions as bytes: what an engine in another process is told and answers, and
// what the row log keeps. Little-endian. Decoding trusts nothing: any bytes give a value or a
// Status, and no size is allocated before the bytes that it claims are there.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "text/grammar.h"

namespace millstream {

/// Appends values to a string.
class WireWriter {
 public:
  void U8(std::uint8_t value) { Append(value, 1); }
  void U32(std::uint32_t value) { Append(value, 4); }
  void U64(std::uint64_t value) { Append(value, 8); }
  void I64(std::int64_t value) { U64(static_cast<std::uint64_t>(value)); }
  void F32(float value);
  void F64(double value);
  void Bool(bool value) { U8(value ? 1 : 0); }
  void Text(std::string_view text);
  void Tokens(const std::vector<std::int32_t>& tokens);
  void Texts(const std::vector<std::string>& texts);
  void Floats(const std::vector<float>& values);

  std::string Take() { return std::move(bytes_); }

 private:
  void Append(std::uint64_t value, int size);
  std::string bytes_;
};

/// Reads values in the order in which they were written. What cannot be read is 0 or empty, and
/// Finish() tells: it is judged once, at the end. The bytes must outlive the reader.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  std::uint8_t U8() { return static_cast<std::uint8_t>(Number(1)); }
  std::uint32_t U32() { return static_cast<std::uint32_t>(Number(4)); }
  std::uint64_t U64() { return Number(8); }
  std::int64_t I64() { return static_cast<std::int64_t>(U64()); }
  float F32();
  double F64();
  bool Bool() { return Below(2) != 0; }
  /// A byte less than `end`.
  std::uint8_t Below(std::uint8_t end);
  std::string Text();
  std::vector<std::int32_t> Tokens();
  std::vector<std::string> Texts();
  std::vector<float> Floats();

  /// OK if everything could be read and nothing is left.
  Status Finish() const;
  bool failed() const { return failed_; }

 private:
  std::uint64_t Number(std::size_t size);
  // The next `size` bytes, or none of them.
  std::string_view Bytes(std::uint64_t size);
  std::string_view rest_;
  bool failed_ = false;
};

/// A completion, its version first. Its id is the engine's, of no meaning elsewhere.
std::string EncodeCompletion(const Completion& completion);
Result<Completion> DecodeCompletion(std::string_view bytes);

/// Compiles a request's constraint again.
using GrammarMaker = std::function<
    Result<std::shared_ptr<const Grammar>>(Grammar::Kind kind, std::string_view source)>;

std::string EncodeRequest(const Request& request);
/// Without a maker, a request with a constraint is refused.
Result<Request> DecodeRequest(std::string_view bytes, const GrammarMaker& make_grammar);

void WriteRoom(const Room& room, WireWriter& out);
Room ReadRoom(WireReader& in);
void WriteStats(const EngineStats& stats, WireWriter& out);
EngineStats ReadStats(WireReader& in);

}  // namespace millstream
