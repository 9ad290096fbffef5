// SPDX-License-Identifier: Apache-2.0
#include "pipeline/command_words.h"

#include <optional>
#include <utility>

namespace millstream {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

Status NeedsShell(char what) {
  return Status::Invalid(
      "has ",
      std::string(1, what),
      ", which no shell is there to understand: write it out, quote it if it is meant as it is, or "
      "begin with `sh -c`"
  );
}

// A variable before the command, FOO=1.
bool IsAssignment(std::string_view word) {
  const std::size_t name =
      word.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
  return name != word.npos && name > 0 && word[name] == '=';
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  Result<std::vector<std::string>> Run() {
    while (at_ < text_.size()) {
      MS_RETURN_NOT_OK(Take(text_[at_++]));
    }
    End();
    return std::move(words_);
  }

 private:
  Status Take(char c) {
    if (kSpace.find(c) != kSpace.npos) {
      End();
      return Status::OK();
    }
    const bool is_first = !word_;
    if (is_first) word_.emplace();
    switch (c) {
      case '\'':
        return TakeSingleQuoted();
      case '"':
        return TakeDoubleQuoted();
      case '\\':
        if (at_ == text_.size()) return Status::Invalid("ends with a backslash");
        word_->push_back(text_[at_++]);
        return Status::OK();
      default:
        break;
    }
    constexpr std::string_view kOfShells = "$`|&;<>()";
    const bool is_of_shells = kOfShells.find(c) != kOfShells.npos;
    if (is_of_shells || (is_first && c == '~')) return NeedsShell(c);
    word_->push_back(c);
    return Status::OK();
  }

  Status TakeSingleQuoted() {
    const std::size_t end = text_.find('\'', at_);
    if (end == text_.npos) return Status::Invalid("has a quote ' that is not closed");
    word_->append(text_.substr(at_, end - at_));
    at_ = end + 1;
    return Status::OK();
  }

  Status TakeDoubleQuoted() {
    while (at_ < text_.size()) {
      char c = text_[at_++];
      if (c == '"') return Status::OK();
      if (c == '$' || c == '`') return NeedsShell(c);
      constexpr std::string_view kEscaped = "$`\"\\";
      if (c == '\\' && at_ < text_.size() && kEscaped.find(text_[at_]) != kEscaped.npos) {
        c = text_[at_++];
      }
      word_->push_back(c);
    }
    return Status::Invalid("has a quote \" that is not closed");
  }

  void End() {
    if (word_) words_.push_back(*std::exchange(word_, std::nullopt));
  }

  const std::string_view text_;
  std::size_t at_ = 0;
  std::optional<std::string> word_;
  std::vector<std::string> words_;
};

}  // namespace

Result<std::vector<std::string>> CommandWords(std::string_view text) {
  MS_ASSIGN_OR_RETURN(std::vector<std::string> words, Scanner(text).Run());
  if (words.empty() || words.front().empty()) return Status::Invalid("names no command");
  if (IsAssignment(words.front())) {
    return Status::Invalid(
        "begins with a variable: begin with `env ", words.front(), "` and then the command"
    );
  }
  return words;
}

}  // namespace millstream
