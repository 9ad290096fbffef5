// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "data/file_reader.h"

namespace millstream {
namespace {

constexpr std::int64_t kIndexedEvery = 4096;
constexpr std::size_t kSniffBytes = 4096;

class TextFileReader final : public FileReader {
 public:
  TextFileReader(const InputFile& file, Framing framing, std::unique_ptr<TextRows> rows)
      : file_(file), framing_(framing), rows_(std::move(rows)) {}

  Status Seek(std::int64_t record) override {
    const std::int64_t indexed = (record - 1) / kIndexedEvery;
    const bool can_jump = file_.compression == Compression::kNone;
    const bool behind = scanner_ == nullptr || record < next_record_;
    if (behind || (can_jump && indexed * kIndexedEvery + 1 > next_record_)) {
      MS_RETURN_NOT_OK(Reopen(can_jump ? static_cast<std::size_t>(indexed) : 0, can_jump));
    }
    while (next_record_ < record) MS_RETURN_NOT_OK(NextRecord());
    return Status::OK();
  }

  Result<RowBatch> Read(std::int64_t max_rows) override {
    std::size_t num_bytes = 0;
    while (rows_->num_rows() < max_rows && num_bytes < static_cast<std::size_t>(kBatchBytesMax)) {
      MS_RETURN_NOT_OK(NextRecord());
      MS_RETURN_NOT_OK(rows_->Append(record_));
      num_bytes += record_.text.size();
    }
    return rows_->Finish();
  }

 private:
  Status Reopen(std::size_t indexed, bool can_jump) {
    const bool jump = can_jump && indexed < file_.positions.size() && indexed < file_.lines.size();
    const std::uint64_t offset = jump ? file_.positions[indexed] : 0;
    MS_ASSIGN_OR_RETURN(auto source, OpenBytes(file_, file_.compression, offset, false));
    scanner_ = std::make_unique<TextScanner>(
        std::move(source), framing_, offset, jump ? file_.lines[indexed] : 1
    );
    next_record_ = jump ? static_cast<std::int64_t>(indexed) * kIndexedEvery + 1 : 1;
    if (!jump && (framing_ == Framing::kCsv || framing_ == Framing::kTsv)) {
      --next_record_;  // the header
      return NextRecord();
    }
    return Status::OK();
  }

  Status NextRecord() {
    MS_ASSIGN_OR_RETURN(const bool more, scanner_->Next(record_));
    if (!more) {
      return Status::Invalid(
          file_.name, " has fewer records than when the job was made: it was changed"
      );
    }
    ++next_record_;
    return Status::OK();
  }

  const InputFile& file_;
  const Framing framing_;
  const std::unique_ptr<TextRows> rows_;
  std::unique_ptr<TextScanner> scanner_;
  TextRecord record_;
  std::int64_t next_record_ = 1;
};

}  // namespace

Result<Framing> FindFraming(const InputFile& file) {
  switch (file.format) {
    case FileFormat::kJsonl:
      return Framing::kJsonLines;
    case FileFormat::kCsv:
      return Framing::kCsv;
    case FileFormat::kTsv:
      return Framing::kTsv;
    case FileFormat::kText:
      return Framing::kLines;
    default:
      break;
  }
  MS_ASSIGN_OR_RETURN(auto source, OpenBytes(file, file.compression, 0, false));
  std::string start(kSniffBytes, '\0');
  MS_ASSIGN_OR_RETURN(const std::size_t got, source->Read(start.data(), start.size()));
  start.resize(got);
  const std::size_t first = start.find_first_not_of("\xEF\xBB\xBF \t\r\n");
  if (first != start.npos && start[first] == '[') return Framing::kJsonArray;
  MS_ASSIGN_OR_RETURN(source, OpenBytes(file, file.compression, 0, false));
  TextScanner scanner(std::move(source), Framing::kJsonLines, 0, 1);
  TextRecord line;
  MS_ASSIGN_OR_RETURN(const bool more, scanner.Next(line));
  if (!more) return Framing::kJsonLines;
  const std::size_t begin = line.text.find_first_not_of(" \t\r");
  if (line.too_large || (begin != line.text.npos && line.text[begin] == '[')) {
    return Framing::kJsonArray;
  }
  return JsonDocument().Parse(line.text).ok() ? Framing::kJsonLines : Framing::kWhole;
}

Result<std::unique_ptr<FileReader>> OpenTextFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
) {
  MS_ASSIGN_OR_RETURN(auto rows, MakeTextRows(file, std::move(schema)));
  MS_ASSIGN_OR_RETURN(const Framing framing, FindFraming(file));
  return std::make_unique<TextFileReader>(file, framing, std::move(rows));
}

}  // namespace millstream
