// SPDX-License-Identifier: Apache-2.0
#include "text/grammar.h"

#include "text/interop.h"

namespace millstream {

Grammar::~Grammar() {
  ms_grammar_free(handle_);
}

struct GrammarCompiler::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  void* handle = nullptr;
};

GrammarCompiler::GrammarCompiler() : state_(std::make_unique<State>()) {}

GrammarCompiler::~GrammarCompiler() {
  ms_grammar_compiler_free(state_->handle);
}

Result<std::unique_ptr<GrammarCompiler>> GrammarCompiler::Make(
    std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> stop_tokens
) {
  MsBytes error{};
  void* const handle =
      ms_grammar_compiler_new(tokenizer->handle(), stop_tokens.data(), stop_tokens.size(), &error);
  if (handle == nullptr) return Failure(error);
  std::unique_ptr<GrammarCompiler> compiler(new GrammarCompiler());
  compiler->state_->handle = handle;
  compiler->state_->tokenizer = std::move(tokenizer);
  return compiler;
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::Compile(
    Grammar::Kind kind, std::string_view source
) const {
  MsBytes error{};
  void* const handle =
      ms_grammar_compile(state_->handle, static_cast<std::uint8_t>(kind), ViewOf(source), &error);
  if (handle == nullptr) return Failure(error);
  return std::shared_ptr<const Grammar>(new Grammar(handle, kind, source));
}

Result<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Make(const Grammar& grammar) {
  MsBytes error{};
  void* const handle = ms_matcher_new(grammar.handle(), &error);
  if (handle == nullptr) return Failure(error);
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(handle));
}

GrammarMatcher::~GrammarMatcher() {
  ms_matcher_free(handle_);
}

Status GrammarMatcher::Mask(std::span<std::uint32_t> mask) {
  MsBytes error{};
  if (!ms_matcher_mask(handle_, mask.data(), mask.size(), &error)) return Failure(error);
  return Status::OK();
}

Status GrammarMatcher::Accept(std::int32_t token) {
  MsBytes error{};
  if (!ms_matcher_accept(handle_, token, &error)) return Failure(error);
  return Status::OK();
}

bool GrammarMatcher::IsComplete() const {
  return ms_matcher_is_complete(handle_);
}
bool GrammarMatcher::IsStopped() const {
  return ms_matcher_is_stopped(handle_);
}

}  // namespace millstream
