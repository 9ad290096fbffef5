// SPDX-License-Identifier: Apache-2.0
#include "data/text_scanner.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace millstream {
namespace {

constexpr std::size_t kReadAheadBytes = std::size_t{1} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

const char* Find(const char* begin, const char* end, char c) {
  const void* found = std::memchr(begin, c, static_cast<std::size_t>(end - begin));
  return found == nullptr ? end : static_cast<const char*>(found);
}

}  // namespace

TextScanner::TextScanner(
    std::unique_ptr<ByteSource> source, Framing framing, std::uint64_t offset, std::uint64_t line
)
    : source_(std::move(source)), framing_(framing), offset_(offset), line_(line) {}

Status TextScanner::Refill() {
  if (next_ > 0) std::memmove(buffer_.data(), buffer_.data() + next_, filled_ - next_);
  offset_ += next_;
  scanned_ -= next_;
  filled_ -= next_;
  next_ = 0;
  if (buffer_.size() < filled_ + kReadAheadBytes) buffer_.resize(filled_ + kReadAheadBytes);
  MS_ASSIGN_OR_RETURN(
      const std::size_t got, source_->Read(buffer_.data() + filled_, kReadAheadBytes)
  );
  filled_ += got;
  at_end_ = got < kReadAheadBytes;
  return Status::OK();
}

Status TextScanner::Begin() {
  begun_ = true;
  MS_RETURN_NOT_OK(Refill());
  if (offset_ > 0) return Status::OK();
  const std::string_view start(buffer_.data(), filled_);
  if (start.starts_with(kByteOrderMark)) next_ = scanned_ = kByteOrderMark.size();
  if (framing_ != Framing::kJsonArray) return Status::OK();
  MS_ASSIGN_OR_RETURN(const bool more, SkipSpace());
  if (more && buffer_[next_] == '[') PassTo(next_ + 1);
  return Status::OK();
}

void TextScanner::PassTo(std::size_t end) {
  line_ += static_cast<std::uint64_t>(std::count(
      buffer_.begin() + static_cast<std::ptrdiff_t>(next_),
      buffer_.begin() + static_cast<std::ptrdiff_t>(end),
      '\n'
  ));
  next_ = end;
  scanned_ = std::max(scanned_, end);
}

Result<bool> TextScanner::SkipSpace() {
  for (;;) {
    std::size_t i = next_;
    while (i < filled_ && IsSpace(buffer_[i])) ++i;
    PassTo(i);
    if (i < filled_) return true;
    if (at_end_) return false;
    MS_RETURN_NOT_OK(Refill());
  }
}

// Moves to the next item of an array. After its closing bracket only more text makes another
// record.
Result<bool> TextScanner::SkipToItem() {
  for (;;) {
    MS_ASSIGN_OR_RETURN(const bool more, SkipSpace());
    if (!more || array_ended_) return more;
    if (buffer_[next_] == ']') {
      array_ended_ = true;
    } else if (buffer_[next_] != ',') {
      return true;
    }
    PassTo(next_ + 1);
  }
}

bool TextScanner::FindEnd() {
  switch (framing_) {
    case Framing::kLines:
    case Framing::kJsonLines:
      scanned_ = static_cast<std::size_t>(
          Find(buffer_.data() + scanned_, buffer_.data() + filled_, '\n') - buffer_.data()
      );
      return scanned_ < filled_;
    case Framing::kCsv:
    case Framing::kTsv:
      return FindCsvEnd();
    case Framing::kJsonArray:
      return FindItemEnd();
    case Framing::kWhole:
      break;
  }
  scanned_ = filled_;
  return false;
}

bool TextScanner::FindCsvEnd() {
  const char delimiter = framing_ == Framing::kCsv ? ',' : '\t';
  const char* const end = buffer_.data() + filled_;
  const char* p = buffer_.data() + scanned_;
  const auto stop_at = [&](const char* place) {
    scanned_ = static_cast<std::size_t>(place - buffer_.data());
    return place < end;
  };
  if (csv_state_ == CsvState::kCellStart) {  // most records hold no quote
    const char* newline = Find(p, end, '\n');
    if (newline < end && Find(p, newline, '"') == newline) return stop_at(newline);
  }
  for (; p < end; ++p) {
    if (csv_state_ == CsvState::kQuoted) {
      p = Find(p, end, '"');
      if (p == end) break;
      csv_state_ = CsvState::kQuoteInQuoted;
    } else if (*p == '\n') {
      return stop_at(p);
    } else if (*p == delimiter) {
      csv_state_ = CsvState::kCellStart;
    } else if (*p == '"' && csv_state_ != CsvState::kCell) {
      csv_state_ = CsvState::kQuoted;
    } else {
      csv_state_ = CsvState::kCell;
    }
  }
  return stop_at(end);
}

bool TextScanner::FindItemEnd() {
  const char* const begin = buffer_.data();
  const char* const end = begin + filled_;
  const char* p = begin + scanned_;
  int depth = depth_;
  bool found = false;
  while (p < end && !found) {
    if (escaped_) {
      escaped_ = false;
      ++p;
    } else if (in_string_) {
      while (p < end && *p != '"' && *p != '\\') ++p;
      if (p == end) break;
      escaped_ = *p == '\\';
      in_string_ = escaped_;
      ++p;
    } else {
      const char c = *p;
      in_string_ = c == '"';
      if (c == '{' || c == '[') ++depth;
      found = depth == 0 && !array_ended_ && (c == ',' || c == ']');
      if (depth > 0 && (c == '}' || c == ']')) --depth;
      if (!found) ++p;
    }
  }
  depth_ = depth;
  scanned_ = static_cast<std::size_t>(p - begin);
  return found;
}

bool TextScanner::is_blank(std::string_view text) const {
  if (framing_ == Framing::kJsonLines) return std::all_of(text.begin(), text.end(), IsSpace);
  return text.empty() || text == "\r";
}

Result<bool> TextScanner::Next(TextRecord& record) {
  if (!begun_) MS_RETURN_NOT_OK(Begin());
  const bool is_array = framing_ == Framing::kJsonArray;
  for (;;) {
    if (is_array || framing_ == Framing::kWhole) {
      MS_ASSIGN_OR_RETURN(const bool more, is_array ? SkipToItem() : SkipSpace());
      if (!more && (!is_array || array_ended_)) return false;
    }
    record = {{}, offset_ + next_, line_, false, false};
    scanned_ = next_;
    csv_state_ = CsvState::kCellStart;
    depth_ = 0;
    in_string_ = escaped_ = false;
    bool found = false;
    while (!(found = FindEnd()) && !at_end_) {
      if (scanned_ - next_ >
          kRecordBytesMax) {  // goes on looking for its end, and keeps none of it
        record.too_large = true;
        PassTo(scanned_);
      }
      MS_RETURN_NOT_OK(Refill());
    }
    if (!is_array && !found && next_ == filled_ && !record.too_large) return false;
    record.too_large = record.too_large || scanned_ - next_ > kRecordBytesMax;
    record.text = {buffer_.data() + next_, record.too_large ? 0 : scanned_ - next_};
    record.unclosed = !found && ((is_array && !array_ended_) || csv_state_ == CsvState::kQuoted);
    if (is_array && !found) array_ended_ = true;
    PassTo(found && !is_array ? scanned_ + 1 : scanned_);
    if (!record.too_large && !is_array && is_blank(record.text)) continue;
    if (framing_ != Framing::kJsonLines && record.text.ends_with('\r') && !is_array) {
      record.text.remove_suffix(1);
    }
    return true;
  }
}

}  // namespace millstream
