// SPDX-License-Identifier: Apache-2.0
#include "engine/wire.h"

#include <bit>
#include <utility>

namespace millstream {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kVersionWithScores = 2;  // the rest is as in the first
constexpr std::uint8_t kReasons = 5;
constexpr std::uint8_t kGrammarKinds = 4;

Status WrongVersion(std::string_view what, std::uint8_t version) {
  return Status::Invalid(
      what,
      " of version ",
      static_cast<int>(version),
      ", not ",
      static_cast<int>(kVersion),
      " or ",
      static_cast<int>(kVersionWithScores)
  );
}

/// Reads the version, and whether scores follow.
Result<bool> ReadVersion(std::string_view what, WireReader& in) {
  const std::uint8_t version = in.U8();
  if (!in.failed() && version != kVersion && version != kVersionWithScores) {
    return WrongVersion(what, version);
  }
  return version == kVersionWithScores;
}

void WriteSampling(const SamplingParams& sampling, WireWriter& out) {
  out.I64(sampling.max_tokens);
  out.I64(sampling.min_tokens);
  out.F64(sampling.temperature);
  out.I64(sampling.top_k);
  out.F64(sampling.top_p);
  out.F64(sampling.min_p);
  out.F64(sampling.repetition_penalty);
  out.F64(sampling.presence_penalty);
  out.F64(sampling.frequency_penalty);
  out.Texts(sampling.stop);
  out.Tokens(sampling.stop_token_ids);
  out.Bool(sampling.include_stop_str_in_output);
  // Both in the byte that was ignore_eos's alone: row logs keep hashes of these bytes.
  out.U8(
      static_cast<std::uint8_t>((sampling.ignore_eos ? 1 : 0) | (sampling.ignore_runaway ? 2 : 0))
  );
}

SamplingParams ReadSampling(WireReader& in) {
  SamplingParams sampling;
  sampling.max_tokens = in.I64();
  sampling.min_tokens = in.I64();
  sampling.temperature = in.F64();
  sampling.top_k = in.I64();
  sampling.top_p = in.F64();
  sampling.min_p = in.F64();
  sampling.repetition_penalty = in.F64();
  sampling.presence_penalty = in.F64();
  sampling.frequency_penalty = in.F64();
  sampling.stop = in.Texts();
  sampling.stop_token_ids = in.Tokens();
  sampling.include_stop_str_in_output = in.Bool();
  const std::uint8_t ignored = in.Below(4);
  sampling.ignore_eos = (ignored & 1U) != 0;
  sampling.ignore_runaway = (ignored & 2U) != 0;
  return sampling;
}

}  // namespace

void WireWriter::Append(std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i) bytes_ += static_cast<char>(value >> (8 * i));
}

void WireWriter::F32(float value) {
  U32(std::bit_cast<std::uint32_t>(value));
}

void WireWriter::F64(double value) {
  U64(std::bit_cast<std::uint64_t>(value));
}

void WireWriter::Text(std::string_view text) {
  U32(static_cast<std::uint32_t>(text.size()));
  bytes_ += text;
}

void WireWriter::Tokens(const std::vector<std::int32_t>& tokens) {
  U32(static_cast<std::uint32_t>(tokens.size()));
  for (const std::int32_t token : tokens) U32(static_cast<std::uint32_t>(token));
}

void WireWriter::Texts(const std::vector<std::string>& texts) {
  U32(static_cast<std::uint32_t>(texts.size()));
  for (const std::string& text : texts) Text(text);
}

void WireWriter::Floats(const std::vector<float>& values) {
  U32(static_cast<std::uint32_t>(values.size()));
  for (const float value : values) F32(value);
}

std::string_view WireReader::Bytes(std::uint64_t size) {
  if (failed_ || size > rest_.size()) {
    failed_ = true;
    return {};
  }
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::uint64_t WireReader::Number(std::size_t size) {
  std::uint64_t value = 0;
  int shift = 0;
  for (const char byte : Bytes(size)) {
    value |= std::uint64_t{static_cast<unsigned char>(byte)} << shift;
    shift += 8;
  }
  return value;
}

float WireReader::F32() {
  return std::bit_cast<float>(U32());
}

double WireReader::F64() {
  return std::bit_cast<double>(U64());
}

std::uint8_t WireReader::Below(std::uint8_t end) {
  const std::uint8_t value = U8();
  if (value < end) return value;
  failed_ = true;
  return 0;
}

std::string WireReader::Text() {
  return std::string(Bytes(U32()));
}

std::vector<std::int32_t> WireReader::Tokens() {
  WireReader bytes(Bytes(std::uint64_t{4} * U32()));
  std::vector<std::int32_t> tokens(bytes.rest_.size() / 4);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(bytes.U32());
  return tokens;
}

std::vector<std::string> WireReader::Texts() {
  std::vector<std::string> texts;
  for (std::uint32_t left = U32(); left > 0 && !failed_; --left) texts.push_back(Text());
  return texts;
}

std::vector<float> WireReader::Floats() {
  WireReader bytes(Bytes(std::uint64_t{4} * U32()));
  std::vector<float> values(bytes.rest_.size() / 4);
  for (float& value : values) value = bytes.F32();
  return values;
}

Status WireReader::Finish() const {
  if (failed_) return Status::Invalid("the bytes end too soon, or hold a value out of range");
  if (!rest_.empty()) return Status::Invalid(rest_.size(), " bytes too many");
  return Status::OK();
}

std::string EncodeCompletion(const Completion& completion) {
  const bool has_scores = !completion.scores.empty();
  WireWriter out;
  out.U8(has_scores ? kVersionWithScores : kVersion);
  out.I64(completion.id);
  out.U8(static_cast<std::uint8_t>(completion.reason));
  out.Tokens(completion.tokens);
  out.Text(completion.text);
  out.I64(completion.prompt_tokens);
  out.I64(completion.completion_tokens);
  out.Text(completion.error_code);
  out.Text(completion.error_message);
  if (has_scores) out.Floats(completion.scores);
  return out.Take();
}

Result<Completion> DecodeCompletion(std::string_view bytes) {
  WireReader in(bytes);
  MS_ASSIGN_OR_RETURN(const bool has_scores, ReadVersion("a completion", in));
  Completion completion;
  completion.id = in.I64();
  completion.reason = static_cast<FinishReason>(in.Below(kReasons));
  completion.tokens = in.Tokens();
  completion.text = in.Text();
  completion.prompt_tokens = in.I64();
  completion.completion_tokens = in.I64();
  completion.error_code = in.Text();
  completion.error_message = in.Text();
  if (has_scores) completion.scores = in.Floats();
  MS_RETURN_NOT_OK(in.Finish());
  return completion;
}

std::string EncodeRequest(const Request& request) {
  const bool has_scores = request.score;
  WireWriter out;
  out.U8(has_scores ? kVersionWithScores : kVersion);
  out.I64(request.id);
  out.Text(request.name);
  out.Tokens(request.prompt_tokens);
  out.Tokens(request.generated_tokens);
  WriteSampling(request.sampling, out);
  out.U64(request.random.high);
  out.U64(request.random.low);
  out.Text(request.grammar_after);
  if (has_scores) out.Bool(request.score);
  out.Bool(request.grammar != nullptr);
  if (request.grammar) {
    out.U8(static_cast<std::uint8_t>(request.grammar->kind()));
    out.Text(request.grammar->source());
  }
  return out.Take();
}

Result<Request> DecodeRequest(std::string_view bytes, const GrammarMaker& make_grammar) {
  WireReader in(bytes);
  MS_ASSIGN_OR_RETURN(const bool has_scores, ReadVersion("a request", in));
  Request request;
  request.id = in.I64();
  request.name = in.Text();
  request.prompt_tokens = in.Tokens();
  request.generated_tokens = in.Tokens();
  request.sampling = ReadSampling(in);
  request.random.high = in.U64();
  request.random.low = in.U64();
  request.grammar_after = in.Text();
  if (has_scores) request.score = in.Bool();
  if (!in.Bool()) {
    MS_RETURN_NOT_OK(in.Finish());
    return request;
  }
  const auto kind = static_cast<Grammar::Kind>(in.Below(kGrammarKinds));
  const std::string source = in.Text();
  MS_RETURN_NOT_OK(in.Finish());
  if (!make_grammar) return Status::Invalid("a request with a grammar, and nothing to compile it");
  MS_ASSIGN_OR_RETURN(request.grammar, make_grammar(kind, source));
  return request;
}

void WriteRoom(const Room& room, WireWriter& out) {
  out.I64(room.requests);
  out.I64(room.tokens);
}

Room ReadRoom(WireReader& in) {
  Room room;
  room.requests = in.I64();
  room.tokens = in.I64();
  return room;
}

void WriteStats(const EngineStats& stats, WireWriter& out) {
  for (const auto count : kEngineCounts) out.I64(stats.*count);
  out.F64(stats.cost);
}

EngineStats ReadStats(WireReader& in) {
  EngineStats stats;
  for (const auto count : kEngineCounts) stats.*count = in.I64();
  stats.cost = in.F64();
  return stats;
}

}  // namespace millstream
